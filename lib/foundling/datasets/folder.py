"""Photos without annotations: any files and folders."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from foundling.datasets.base import Dataset
from foundling.datasets.images import AnyPath, list_images
from foundling.types import Sample


def open_folder(root: AnyPath | Iterable[AnyPath]) -> Dataset:
    """The images of one or more files and folders, in natural order, EXIF orientation to be applied.

    ``root`` is a path or several. Files are listed, not opened: a broken one fails when it is read. Sample names are
    paths relative to the folder given; where two would be equal, all are relative to the folder common to all files.

    Raises :class:`foundling.types.DataMissing` if there is no image.
    """
    roots = [Path(root)] if isinstance(root, str | os.PathLike) else [Path(path) for path in root]
    files, failures = list_images(roots)
    names = sample_names(files, roots)
    samples = tuple(
        Sample(name, path, i, orient=True) for i, (name, path) in enumerate(zip(names, files, strict=True), start=1)
    )
    return Dataset("folder", "all", samples, problems=tuple(failure.error for failure in failures))


def sample_names(files: Sequence[Path], roots: Sequence[Path]) -> list[str]:
    """One distinct, printable name a file: its path below the first of ``roots`` that holds it, or a longer one."""
    names = [_below(file, roots) for file in files]
    if len(set(names)) < len(names):
        absolute = [file.parent.resolve() / file.name for file in files]
        common = Path(os.path.commonpath([file.parent for file in absolute]))
        names = [file.relative_to(common).as_posix() for file in absolute]
    # file names that are no valid UTF-8 hold surrogates, which no JSON or HTML file can carry
    return [name.encode("utf-8", "backslashreplace").decode("utf-8") for name in names]


def _below(file: Path, roots: Sequence[Path]) -> str:
    for root in roots:
        if root != file and file.is_relative_to(root):
            return file.relative_to(root).as_posix()
    return file.name
