"""Masks of all images, in a file: their order, how many are asked for at once, what is left, a full disk."""

import resource
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foundling.errors import FoundlingError
from foundling.training.batches import Batch
from foundling.training.masks import label_all


class Numbered:
    """Images that hold their own position in every pixel."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batches(self, plan: Iterable[Sequence[int]]) -> Iterator[Batch]:
        for indices in plan:
            numbers = torch.tensor(list(indices))
            yield Batch(numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4), numbers)


def label(batch: Batch, first: int) -> Tensor:
    """At every place its own number, counted on from the image's position."""
    assert int(batch.indices[0]) == first
    return batch.indices[:, None, None] + torch.arange(6).view(1, 2, 3)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("masks", "kind"), [(256, torch.uint8), (257, torch.int32)])
@pytest.mark.parametrize("at_once", [3, 5, 100])
def test_every_image_has_its_own_labels(folder: Path, masks: int, kind: torch.dtype, at_once: int) -> None:
    labels = label_all(label, Numbered(10), (10, 2, 3), masks, at_once, torch.device("cpu"))
    assert labels.dtype == kind and labels.shape == (10, 2, 3)
    for image in range(10):
        assert labels[image].tolist() == [[image + c for c in range(3)], [image + 3 + c for c in range(3)]]
    assert not list(folder.iterdir())  # the file has no name any more


def test_labels_above_a_byte_stay_what_they_are() -> None:
    labels = label_all(lambda b, _: label(b, _) + 250, Numbered(4), (4, 2, 3), 300, 2, torch.device("cpu"))
    assert labels[3].tolist() == [[253, 254, 255], [256, 257, 258]]


def test_few_images_are_asked_for_at_once() -> None:
    asked: list[tuple[int, int]] = []

    def counted(batch: Batch, first: int) -> Tensor:
        asked.append((first, len(batch.images)))
        return label(batch, first)

    label_all(counted, Numbered(8), (8, 2, 3), 5, 3, torch.device("cpu"))
    assert asked == [(0, 3), (3, 3), (6, 2)]


def test_a_full_disk_is_named_and_nothing_is_left(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(
            FoundlingError,
            match=r"the masks of all images \(1\.2e-05 GB\) cannot be kept in .* \(File too large\): make",
        ):
            label_all(label, Numbered(2000), (2000, 2, 3), 5, 100, torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(folder.iterdir())
