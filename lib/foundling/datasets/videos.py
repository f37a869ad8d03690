"""Videos with index masks: ``open_videos("davis", split="val")``, the sibling of ``open_dataset``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundling.datasets.base import VideoSet, open_entry
from foundling.datasets.davis import SPLITS, open_davis
from foundling.errors import ParameterError


@dataclass(frozen=True)
class VideoEntry:
    """One line of the registry: what a dataset is, its splits (the first is the default), and what opens it."""

    description: str
    splits: tuple[str, ...]
    open: Callable[..., VideoSet]


def open_videos(name: str, split: str | None = None, root: Path | str | None = None, **options: Any) -> VideoSet:
    """Open the video dataset ``name`` (a key of ``VIDEOS``): list its frames and masks.

    ``split`` defaults to the dataset's first. ``root`` is where it lies, by default below the data folder (``foundling
    data`` prints where). Options, only for ``scenes_video``: ``size`` (pixels) and ``count`` (videos).

    Raises :class:`ParameterError` for an unknown name, split or option, :class:`foundling.errors.DataMissing` if the
    files are not there.
    """
    if name not in VIDEOS:
        raise ParameterError(f"unknown video dataset {name!r}: choose one of {', '.join(VIDEOS)}")
    return open_entry(VIDEOS, name, split, root, options)


def _davis(split: str, root: Path | str | None) -> VideoSet:
    return open_davis(split, root)


def _scenes_video(split: str, root: Path | str | None, size: int = 224, count: int | None = None) -> VideoSet:
    from foundling.datasets.scenes_video import make_scenes_video

    return open_davis(split, make_scenes_video(split, size=size, count=count, root=root), name="scenes_video")


VIDEOS: dict[str, VideoEntry] = {
    "scenes_video": VideoEntry("procedural scenes in motion, made on first use", ("val", "train"), _scenes_video),
    "davis": VideoEntry("DAVIS 2017 at 480p, several objects a video", SPLITS, _davis),
}
