"""Images of any size, and what is known of them, on their way from their files to the device of a run."""

import warnings
from collections.abc import Generator, Iterable, Sequence
from typing import Any, ClassVar

import torch

from foundling.datasets import open_dataset, scenes
from foundling.parameters import from_root
from foundling.training.data import batch_loader
from foundling.training.settings import OnDataset
from foundling.types import Sample


def open_images(settings: OnDataset) -> tuple[Sample, ...]:
    """The images that the settings of a run name."""
    options: dict[str, Any] = {}
    if settings.dataset == "scenes":
        options = {"size": settings.scene_side}
        if settings.images > scenes.SPLITS.get(settings.split or "single_train", settings.images):
            options["count"] = settings.images  # scenes have no end
    if settings.annotations:
        options["annotations"] = from_root(settings.annotations)
    split = settings.split or ("single_train" if settings.dataset == "scenes" else None)
    dataset = open_dataset(settings.dataset, split=split, root=from_root(settings.root), **options)
    return tuple(dataset.subset(limit=settings.images or None).samples)


class ReadSet:
    """The images of a run; one that cannot be read is reported once, as a warning.

    Items of ``source`` are tuples: what :attr:`batch` has fields for, tensors of any size, and then what was wrong with
    the images that this one stands in for.
    """

    batch: ClassVar[Any]
    """The batch that is made of items: a named tuple of lists."""

    def __init__(self, source: Any, device: torch.device | str = "cpu", workers: int = 0) -> None:
        self.source, self.identity = source, source.identity
        self.device, self.workers = torch.device(device), workers
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, plan: Iterable[Sequence[int]]) -> Generator[Any, None, None]:
        """A batch for every list of positions in ``plan``, read ahead by the worker processes."""
        for items in batch_loader(self.source, plan, self.workers, self.device, tuple):
            yield self._receive(items)

    def _receive(self, items: Sequence[Any]) -> Any:
        for problem in (problem for item in items for problem in item.problems):
            if problem not in self._reported:
                self._reported.add(problem)
                warnings.warn(f"{problem}; the next image that can be read stands in for it", stacklevel=3)
        count = len(self.batch._fields)
        moved = ([tensor.to(self.device, non_blocking=True) for tensor in item[:count]] for item in items)
        return self.batch(*map(list, zip(*moved, strict=True)))
