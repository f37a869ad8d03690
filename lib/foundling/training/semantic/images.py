"""What a segmenter is trained on: images of any size and their label maps, looked through once, read when asked for."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils import data

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.base import Problems, describe
from foundling.datasets.images import read_image
from foundling.datasets.semantic import read_semantic, size_of
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.training.data import cores
from foundling.training.reading import ReadSet
from foundling.types import VOID, Sample


class Mapped(NamedTuple):
    """One image with the label of every pixel, and what was wrong with those it stands in for."""

    pixels: UInt8[Tensor, "3 height width"]
    labels: UInt8[Tensor, "height width"]
    problems: tuple[str, ...] = ()


class _Seen(NamedTuple):
    """A label map that was looked through: pixels of each label but void, a digest; or why its image is left out."""

    counts: Int[np.ndarray, " label"]
    digest: bytes
    problem: str = ""


class MappedImages(data.Dataset[Mapped]):
    """The images that have a label map with something in it; the next readable one stands in for one that is damaged.

    ``counts`` says how many pixels have each label, 0 to ``classes`` - 1 (0 is background); ``problems``, one line a
    kind, which images were left out.
    """

    def __init__(self, samples: Sequence[Sample], masks: PseudoMasks, keep_empty: bool = False) -> None:
        """Looks through all label maps. ``keep_empty`` keeps images whose map is all background.

        Raises :class:`ParameterError` if ``masks`` are not of ``samples``, there are no clusters, nothing is left to
        train on, or only one label; :class:`ImageError` if a label map is missing, damaged, of another size than its
        image, or holds a label that there is no cluster for.
        """
        masks.check(samples)
        if masks.clusters < 1:
            raise ParameterError("label maps without a cluster hold background alone: there is nothing to train on")
        self.classes = masks.clusters + 1
        self.samples, self.masks = samples, masks
        with ThreadPoolExecutor(cores()) as pool:
            seen = list(pool.map(self._look, range(len(samples))))
        self.kept = self._choose(seen, keep_empty)
        self.counts: Int[np.ndarray, " label"] = np.stack([seen[i].counts for i in self.kept]).sum(axis=0)
        if np.count_nonzero(self.counts) < 2:
            raise ParameterError(
                f"all pixels of the {len(self)} label maps are of one kind (label {int(self.counts.argmax())}): a "
                "segmenter learns nothing from them; use maps of objects and background"
            )
        told = hashlib.sha256(b"".join(samples[i].name.encode() + b"\0" + seen[i].digest for i in self.kept))
        self.identity = f"{len(self)} images with maps of {masks.clusters} clusters ({told.hexdigest()[:16]})"

    def _look(self, i: int) -> _Seen:
        """Raises ImageError where the map, not the image, is at fault."""
        nothing = np.zeros(self.classes, dtype=np.int64)
        if self.masks.files[i] is None:
            return _Seen(nothing, b"", "image without a label map (left out)")
        try:
            size = size_of(self.samples[i])
        except ImageError:
            return _Seen(nothing, b"", "image that cannot be read (left out)")
        labels = self.masks.read(i, size)
        assert labels is not None
        counts = np.bincount(labels[labels != VOID], minlength=self.classes)
        return _Seen(counts, hashlib.sha256(labels.tobytes()).digest())

    def _choose(self, seen: Sequence[_Seen], keep_empty: bool) -> list[int]:
        kept, kinds = [], Problems(list)
        for i, one in enumerate(seen):
            problem = one.problem
            if not problem and not one.counts.any():
                problem = "image whose label map is all void (left out)"
            elif not problem and not keep_empty and not one.counts[1:].any():
                problem = "image whose label map is all background (left out)"
            if problem:
                kinds[problem].append(self.samples[i].name)
            else:
                kept.append(i)
        self.problems = describe(kinds)
        if not kept:
            reasons = "".join(f"\n  {line}" for line in self.problems)
            raise ParameterError(f"none of the {len(seen)} images has anything to learn from:{reasons}")
        return kept

    def summary(self) -> str:
        """A line on what there is, one on clusters without a pixel, and one for each thing that is left out."""
        missing = np.flatnonzero(self.counts[1:] == 0).tolist()
        lines = [self.identity]
        if missing:
            lines.append(f"{len(missing)} × cluster without a pixel: {', '.join(map(str, missing))}")
        return "\n".join([*lines, *self.problems])

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Mapped:
        problems: list[str] = []
        for place in range(index, index + len(self)):
            i = self.kept[place % len(self)]
            sample, file = self.samples[i], self.masks.files[i]
            assert file is not None
            try:
                pixels = np.array(read_image(sample.path, orient=sample.orient))
            except ImageError as error:
                problems.append(str(error))
                continue
            labels = read_semantic(file, self.classes, pixels.shape[:2])
            image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
            return Mapped(image, torch.from_numpy(labels), tuple(problems))
        raise DataMissing(f"none of the {len(self)} training images can be read; the first: {problems[0]}")


class MappedBatch(NamedTuple):
    """Images of one step on the device, of any size, and their label maps, each in a list."""

    images: list[UInt8[Tensor, "3 _ _"]]
    labels: list[UInt8[Tensor, "_ _"]]


class MappedSet(ReadSet):
    """The images of a run, and their label maps."""

    batch = MappedBatch
