"""Results of a chunk of images on disk: written whole or not at all, used again only under the same settings."""

import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundling import paths
from foundling.files import write_bytes
from foundling.types import Sample

SOURCES = ("datasets/images.py", "backbones/*.py", "discovery/*.py")  # all the code from a file to its boxes
CHUNK_NAME = re.compile(r"boxes_\d{6,}\.json|\.boxes_\d{6,}\.json\.\d+\.part")  # a chunk, or half of one

Record = dict[str, Any]


def chunk_path(folder: Path, start: int) -> Path:
    """The file of the chunk whose first image has position ``start``."""
    return folder / f"boxes_{start:06d}.json"


def files_of(samples: Sequence[Sample]) -> list[list[Any]]:
    """What identifies a chunk's images: name, size and CRC-32 of the file (None if unreadable), orientation or not.

    The content and not the time of change, so that a copy of the images elsewhere gives the same bytes.
    """
    return [[sample.name, _content(sample.path), sample.orient] for sample in samples]


def _content(path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError:  # missing or out of reach: decoding it will say why
        return None
    return f"{len(content)}:{zlib.crc32(content):08x}"


def code_digest(sources: Sequence[str] = SOURCES) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the code that results depend on (patterns in the package)."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in sources for path in paths.PACKAGE.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def read_chunk(path: Path, settings: dict[str, Any]) -> list[Record]:
    """The records of a chunk made under the same ``settings``; none if there is no such file or it says otherwise."""
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not ours, or damaged: it will be written anew
        return []
    if not isinstance(content, dict) or content.get("settings") != settings:
        return []
    return content["records"]


def write_chunk(path: Path, settings: dict[str, Any], records: Sequence[Record]) -> None:
    """Write a chunk beside its place and move it there; equal content gives equal bytes."""
    content = {"settings": settings, "records": list(records)}
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def remove_others(folder: Path, kept: set[Path]) -> None:
    """Remove the chunks of an earlier run over more images, or in other chunks."""
    for path in folder.iterdir():
        if CHUNK_NAME.fullmatch(path.name) and path not in kept:
            path.unlink()
