"""Files that appear whole or not at all, and what tells them apart."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from foundling.errors import FoundlingError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place when the block ends; folders are made as needed.

    What was written is on the disk before it takes the place of the old file, so that neither a killed process nor a
    power cut leaves a half file. If anything is raised in the block, the old file stays and the new one goes.

    Raises FoundlingError if the system refuses to write: the disk is full, the folder is read-only.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        kept = "; the file that was there is unchanged" if path.is_file() else ""
        raise FoundlingError(
            f"{path} cannot be written ({error.strerror or error}): make room, or choose a place that may be "
            f"written to{kept}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # what it says has been said, or the folder is out of reach
            part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> Path:
    """Write a file so that it appears whole or not at all; folders are made as needed."""
    with writing(path) as part:
        part.write_bytes(content)
    return path


def checksum(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
