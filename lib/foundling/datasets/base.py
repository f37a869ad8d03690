"""What every dataset is once it has been opened: a named, ordered set of samples and what was wrong with its files."""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from foundling.errors import FoundlingError, ParameterError
from foundling.types import Sample, Video

NAMES_SHOWN = 3  # how many names a line of Dataset.problems spells out
Problems = defaultdict[str, list[str]]  # kind of problem -> what it happened to


class AnnotationError(FoundlingError):
    """An annotation file cannot be read at all: the message names the file and, where known, the line."""


@dataclass(frozen=True)
class Dataset:
    """An opened dataset: its samples in a fixed order, and nothing that is read lazily except the pixels.

    ``categories`` and ``category_ids`` run in parallel (``Target.labels`` index both); they are empty if the images
    carry no annotations. ``problems`` says, one line a kind, what was dropped or mended on opening.
    """

    name: str
    split: str
    samples: tuple[Sample, ...]
    categories: tuple[str, ...] = ()
    annotated: bool = False
    problems: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return self.samples[i]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def subset(
        self, limit: int | None = None, seed: int | None = None, names: Sequence[str] | None = None
    ) -> "Dataset":
        """A smaller dataset whose samples keep their order.

        Args: ``names`` keeps the samples so named; ``limit`` then keeps at most so many: the first ones, or with a
        ``seed`` a random choice that is part of any larger choice with the same seed.

        Raises :class:`ParameterError` if ``limit`` is below one or a name is unknown.
        """
        kept = list(range(len(self))) if names is None else _positions(self, names)
        if limit is not None:
            if limit < 1:
                raise ParameterError(f"limit={limit} keeps no image: use a whole number above 0, or None for all")
            order = np.arange(len(kept)) if seed is None else np.random.default_rng(seed).permutation(len(kept))
            kept = [kept[i] for i in sorted(order[:limit])]
        return replace(self, samples=tuple(self.samples[i] for i in kept))


@dataclass(frozen=True)
class VideoSet:
    """An opened dataset of videos in a fixed order; ``problems`` says, one line a kind, what was left out."""

    name: str
    split: str
    videos: tuple[Video, ...]
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> Video:
        return self.videos[i]

    def __iter__(self) -> Iterator[Video]:
        return iter(self.videos)


def _positions(dataset: Dataset, names: Sequence[str]) -> list[int]:
    wanted = set(names)
    if unknown := sorted(wanted - {sample.name for sample in dataset.samples}):
        shown = ", ".join(map(repr, unknown[:NAMES_SHOWN]))
        example = f"; names look like {dataset.samples[0].name!r}" if dataset.samples else ""
        raise ParameterError(f"{len(unknown)} unknown image names in dataset {dataset.name!r}: {shown}{example}")
    return [i for i, sample in enumerate(dataset.samples) if sample.name in wanted]


def open_entry(entries: Mapping[str, Any], name: str, split: str | None, root: Any, options: Mapping[str, Any]) -> Any:
    """What the entry ``name`` of a registry opens; entries have ``splits`` (the first is the default) and ``open``.

    Raises :class:`ParameterError` for a split that is not among these, and for an option that ``open`` (which takes the
    split, the root, then its options) does not have.
    """
    entry = entries[name]
    split = entry.splits[0] if split is None else split
    if split not in entry.splits:
        raise ParameterError(f"unknown split {split!r} of dataset {name!r}: choose one of {', '.join(entry.splits)}")
    legal = list(inspect.signature(entry.open).parameters)[2:]
    if unknown := sorted(options.keys() - set(legal)):
        raise ParameterError(
            f"unknown option {unknown[0]!r} of dataset {name!r}: legal are {', '.join(legal) or 'none'}"
        )
    return entry.open(split, root, **options)


def describe(problems: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """One line for each kind of problem: how often, what, and the first few names; kinds without names are left out."""
    return tuple(_line(kind, names) for kind, names in problems.items() if names)


def _line(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} × {kind}: {', '.join(names[:NAMES_SHOWN])}{more}"


def tidy_boxes(
    boxes: Float[np.ndarray, "object 4"], size: tuple[int, int], slack: float = 1.0
) -> tuple[Float[np.ndarray, "object 4"], Bool[np.ndarray, " object"], Bool[np.ndarray, " object"]]:
    """Annotated corners clipped to an image of ``size`` (height, width).

    Returns the clipped boxes, which of them still have an area, and which of these lost more than ``slack`` pixels
    on a side (annotations are rounded, so less is no fault).
    """
    height, width = size
    clipped = np.clip(boxes, 0, [width, height, width, height])
    keep = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return clipped, keep, keep & (np.abs(clipped - boxes) > slack).any(axis=1)


def files_present(root: Path, names: Sequence[str]) -> set[str]:
    """Which of the files ``names`` (relative to ``root``, may lie in subfolders) exist; lists each folder once."""
    listed: dict[Path, set[str]] = {}
    for folder in {(root / name).parent for name in names}:
        listed[folder] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if (root / name).name in listed[(root / name).parent]}
