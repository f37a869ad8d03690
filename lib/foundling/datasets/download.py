"""Bringing the datasets of ``foundling.datasets.sources`` to their place, and listing what is there.

A download can be interrupted at any point and started again: archives resume where they stopped, are checked against
their MD5, unpacked beside their place, and moved into it in one step.
"""

import contextlib
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from foundling import paths
from foundling.datasets.images import AnyPath
from foundling.datasets.sources import SOURCES, Archive, Part, Source
from foundling.errors import DataMissing, ParameterError

GB = 1e9
MADE = {"scenes": "*/instances.json", "scenes_video": "*/ImageSets/2017/*.txt"}
CHUNK = 1 << 20  # bytes; what an interruption may lose


@dataclass(frozen=True)
class Expected:
    """One row of what ``foundling data`` lists."""

    name: str
    where: Path
    present: bool
    size: str
    command: str
    licence: str
    page: str
    note: str


def expected(root: AnyPath | None = None) -> list[Expected]:
    """What is expected where below ``root`` (default: the data folder) and whether it is there, one row a dataset."""
    root = paths.data_dir() if root is None else Path(root)
    rows = [_row(name, source, root) for name, source in SOURCES.items()]
    return [*rows, *(_made_row(name, pattern, root) for name, pattern in MADE.items())]


def _made_row(name: str, pattern: str, root: Path) -> Expected:
    """The row of a dataset that is made here; every part of it that exists has a file of the ``pattern``."""
    made = sorted({path.relative_to(root / name).parts[0] for path in (root / name).glob(pattern)})
    note = f"made: {', '.join(made)}" if made else "made on first use, no download"
    return Expected(name, root / name, bool(made), "–", f"foundling data {name}", "MIT", "", note)


def _row(name: str, source: Source, root: Path) -> Expected:
    lacks = [lack for part in source.parts if (lack := _lack(part, root))]
    size = sum(archive.size for part in source.parts for archive in part.archives)
    note = "; ".join(([source.note] if source.note else []) + lacks)
    where = _place(source.parts[0], root)
    told = "by hand" if source.by_hand else f"{size / GB:.1f} GB"
    return Expected(name, where, not lacks, told, f"foundling data {name}", source.licence, source.page, note)


def _place(part: Part, root: Path) -> Path:
    """Where the part is, or where it would be put."""
    return next((root / place for place in part.places if (root / place).exists()), root / part.places[0])


def _lack(part: Part, root: Path) -> str:
    """What keeps the part from being whole, in words; empty if nothing does."""
    place = _place(part, root)
    if not place.exists():
        return f"missing: {place}"
    found = [(folder, _count(place / folder), count) for folder, count in part.counts]
    return "; ".join(f"{place / folder} holds {n:,} of {count:,} files" for folder, n, count in found if n < count)


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def download(name: str, root: AnyPath | None = None) -> list[Path]:
    """Bring the dataset ``name`` to its place below ``root`` (default: the data folder), with progress on stderr.

    What is whole already is left alone. Archives go to ``root/archives``, where one put by hand is used instead of
    the network; those downloaded here are removed once unpacked. ``scenes`` and ``scenes_video`` are rendered instead.

    Returns the places. Raises :class:`ParameterError` for an unknown name; :class:`DataMissing` if a file cannot be
    had (it says from where, to where, and what to do by hand), is damaged, or does not fit on the disk, or if
    something incomplete lies in its place.
    """
    root = paths.data_dir() if root is None else Path(root)
    if name == "scenes":
        from foundling.datasets.scenes import SPLITS, make_scenes

        return [make_scenes(split, root=root / "scenes") for split in SPLITS]
    if name == "scenes_video":
        from foundling.datasets.scenes_video import SPLITS as VIDEO_SPLITS
        from foundling.datasets.scenes_video import make_scenes_video

        return [make_scenes_video(split, root=root / name) for split in VIDEO_SPLITS]
    if name not in SOURCES:
        raise ParameterError(f"unknown dataset {name!r}: choose one of {', '.join([*SOURCES, *MADE])}")
    parts = SOURCES[name].parts
    todo = [part for part in parts if _lack(part, root)]
    if todo and (how := SOURCES[name].by_hand):
        lacks = "; ".join(_lack(part, root) for part in todo)
        raise DataMissing(f"{name} has no archive to fetch ({lacks}): {how}; page: {SOURCES[name].page}")
    for part in todo:
        if _place(part, root).exists():
            raise DataMissing(f"{_lack(part, root)}: move it away, then run again: foundling data {name}")
    _check_space(todo, root)
    for part in todo:
        _install(name, part, root)
    return [_place(part, root) for part in parts]


def _check_space(todo: list[Part], root: Path) -> None:
    needed = 2.1 * sum(archive.size for part in todo for archive in part.archives)
    root.mkdir(parents=True, exist_ok=True)
    have = shutil.disk_usage(root).free + sum(file.stat().st_size for file in root.glob("archives/*"))
    if have < needed:
        raise DataMissing(
            f"{root}: {have / GB:.1f} GB free, but {needed / GB:.1f} GB are needed for the archives and their content; "
            "set FOUNDLING_DATA to a folder on a larger disk"
        )


def _install(name: str, part: Part, root: Path) -> None:
    given = {archive.file for archive in part.archives if (root / "archives" / archive.file).exists()}
    files = [_retrieve(name, archive, root / "archives") for archive in part.archives]
    unpacked = root / f".unpacking-{name}"  # a fixed name: what a killed run left is cleared by the next
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        for file in files:
            _unpack(file, unpacked)
        _check_content(part, unpacked / part.inside, files)
        place = root / part.places[0]
        place.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / part.inside).replace(place)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    for file in files:
        if file.name not in given:
            file.unlink()


def _check_content(part: Part, content: Path, files: list[Path]) -> None:
    names = " and ".join(file.name for file in files)
    if not content.exists():
        raise DataMissing(f"{names}: no {part.inside} in there; delete what is in {files[0].parent} and start again")
    for folder, count in part.counts:
        if (found := _count(content / folder)) < count:
            raise DataMissing(f"{names}: {found:,} files in {part.inside}/{folder}, where {count:,} should be")


def _retrieve(name: str, archive: Archive, folder: Path) -> Path:
    """The archive in ``folder``, downloaded unless it is there, its checksum verified."""
    import pooch
    import requests

    file = folder / archive.file
    by_hand = f"fetch it in another way, put it at {file}, and run again: foundling data {name}"
    fetch = partial(_fetch, file.with_name(f"{file.name}.part"))
    try:
        pooch.retrieve(
            archive.url, f"{archive.algorithm}:{archive.checksum}", fname=file.name, path=folder, downloader=fetch
        )
    except requests.RequestException as error:
        raise DataMissing(f"{archive.url}: not downloaded ({_reason(error)}); {by_hand}") from error
    except ValueError as error:
        wrong = f"its {archive.algorithm.upper()} is not {archive.checksum}, so it is damaged"
        raise DataMissing(f"{archive.url}: {wrong}; {by_hand}") from error
    return file


def _reason(error: Exception) -> str:
    text = str(error)
    return text if len(text) < 200 else f"{type(error).__name__}: {text[:200]}…"


def _fetch(part: Path, url: str, output_file: str, _pooch: Any) -> None:
    """A downloader for pooch that keeps what it has in ``part`` and asks the server for the rest."""
    from pooch import HTTPDownloader

    have = part.stat().st_size if part.exists() else 0
    total = _resumable_size(url) if have else 0
    if not have or have != total:
        start = have if have < total else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        text = f"{part.stem} from {start / GB:.2f} GB on" if start else part.stem
        with (
            part.open("r+b" if start else "wb") as file,
            tqdm(desc=text, total=1, unit="B", unit_scale=True, file=sys.stderr, disable=None) as bar,
        ):
            file.seek(start)
            HTTPDownloader(progressbar=bar, chunk_size=CHUNK, headers=headers)(url, file, None)
    part.replace(output_file)


def _resumable_size(url: str) -> int:
    """The size of the file at ``url`` if the server can send a part of it, else 0."""
    import requests

    head = requests.head(url, allow_redirects=True, timeout=30, headers={"Accept-Encoding": "identity"})
    ranges = head.headers.get("Accept-Ranges") == "bytes"
    return int(head.headers.get("Content-Length", 0)) if head.ok and ranges else 0


def _unpack(file: Path, folder: Path) -> None:
    """Unpack a tar or zip archive of plain files and folders; a member that leads elsewhere is refused."""
    try:
        with _opened(file) as (members, extract):
            for member in tqdm(members, f"unpacking {file.name}", unit=" files", file=sys.stderr, disable=None):
                extract(member, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataMissing(f"{file}: not a readable archive ({error}); delete it and download it again") from error


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    if tarfile.is_tarfile(file):
        with tarfile.open(file) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            yield (_safe(file, m.name, m.isfile() or m.isdir()) and m for m in tar), tar.extract
    else:
        with zipfile.ZipFile(file) as archive:
            yield (_safe(file, m.filename, True) and m for m in archive.infolist()), archive.extract


def _safe(file: Path, name: str, plain: bool) -> bool:
    path = PurePosixPath(name)
    if not plain or path.is_absolute() or ".." in path.parts or "\\" in name or os.path.splitdrive(name)[0]:
        raise DataMissing(f"{file}: member {name!r} leads outside the archive or is a link; do not use this file")
    return True
