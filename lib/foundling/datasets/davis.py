"""DAVIS 2017, semi-supervised, as its archive unpacks: frames, index masks and the lists of videos."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundling import paths
from foundling.datasets.base import Problems, VideoSet, describe
from foundling.datasets.images import AnyPath
from foundling.datasets.index_masks import read_labels
from foundling.errors import DataMissing, ImageError
from foundling.types import VOID, Video

FRAMES, MASKS, LISTS = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017"
SPLITS = ("val", "train")
FEWEST = 3  # frames: the first is given and the first and last are not scored


def open_davis(split: str = "val", root: AnyPath | None = None, name: str = "davis") -> VideoSet:
    """The videos of a split of DAVIS 2017 at 480p, or of anything in its layout.

    ``root`` is the folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``, or the one above it that holds
    ``DAVIS``; by default ``davis`` in the data folder. Only lists and the first mask of each video are read. A video
    that cannot be used is left out, and ``problems`` says why.

    Raises :class:`DataMissing` if the dataset, the list of the split or every video is missing.
    """
    home = find_davis([paths.data_dir() / "davis", paths.data_dir()] if root is None else [Path(root)])
    problems: Problems = defaultdict(list)
    names = _listed(home, split)
    videos = tuple(video for video in (_video(home, one, problems) for one in names) if video is not None)
    lines = describe(problems)
    if not videos:
        reasons = "".join(f"\n  {line}" for line in lines)
        raise DataMissing(
            f"{home}: none of the {len(names)} videos of split {split!r} can be used:{reasons}\n{_hint()}"
        )
    return VideoSet(name, split, videos, lines)


def find_davis(roots: Sequence[Path]) -> Path:
    """The folder in DAVIS's layout at one of ``roots`` or in a folder ``DAVIS`` there.

    Raises :class:`DataMissing`, saying where it was looked for.
    """
    tried = [folder for root in roots for folder in (root, root / "DAVIS")]
    for folder in tried:
        if all((folder / part).is_dir() for part in (FRAMES, MASKS, LISTS)):
            return folder
    listed = "".join(f"\n  {folder}" for folder in tried)
    raise DataMissing(f"DAVIS 2017 not found; looked for {FRAMES}, {MASKS} and {LISTS} in:{listed}\n{_hint()}")


def _hint() -> str:
    return "get it with: foundling data davis, or give root=, the folder that holds JPEGImages and Annotations"


def _listed(home: Path, split: str) -> list[str]:
    file = home / LISTS / f"{split}.txt"
    if not file.is_file():
        present = ", ".join(sorted(other.stem for other in file.parent.glob("*.txt")))
        raise DataMissing(f"{file}: no such list of videos; present here: {present or 'none'}")
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _video(home: Path, name: str, problems: Problems) -> Video | None:
    frames = tuple(sorted((home / FRAMES / name).glob("*.jpg")))
    masks = tuple(home / MASKS / name / f"{frame.stem}.png" for frame in frames)
    lacking = [mask for mask in masks if not mask.is_file()]
    if len(frames) < FEWEST:
        problems[f"video of fewer than {FEWEST} frames (left out)"].append(f"{home / FRAMES / name} ({len(frames)})")
    elif lacking:
        problems["video with a frame that has no mask (left out)"].append(str(lacking[0]))
    elif objects := _objects(masks[0], problems):
        return Video(name, frames, masks, objects)
    return None


def _objects(mask: Path, problems: Problems) -> int:
    """The highest object number of a video's first mask; 0, and a problem, where there is none to follow."""
    try:
        labels = read_labels(mask)
    except ImageError as error:
        problems["video whose first mask cannot be read (left out)"].append(str(error))
        return 0
    highest = int(np.where(labels == VOID, 0, labels).max())
    if not highest:
        problems["video whose first mask marks no object (left out)"].append(str(mask))
    return highest
