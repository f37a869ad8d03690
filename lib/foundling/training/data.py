"""What is trained on: square RGB images, drawn or decoded once and memory-mapped, or decoded by worker processes."""

import hashlib
import itertools
import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils import data
from tqdm import tqdm

from foundling import paths
from foundling.datasets import DATASETS, open_dataset
from foundling.datasets.images import read_image
from foundling.datasets.scenes import VERSION, render_scene, split_seeds
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.files import writing
from foundling.parameters import from_root, suggest
from foundling.training.batches import Batch
from foundling.training.settings import Common
from foundling.types import Sample

FEW = 512  # images that one process makes sooner than several can start


class Picture(NamedTuple):
    """An image, its position in the training set, and what was wrong with those that it stands in for."""

    pixels: UInt8[np.ndarray, "side side 3"]
    position: int
    problems: tuple[str, ...] = ()


class Scenes(data.Dataset[Picture]):
    """Scenes of the training splits, drawn when they are asked for: the single ones first, then the multi ones."""

    def __init__(self, count: int, side: int, multi_share: float) -> None:
        multi = round(count * multi_share)
        self.side = side
        self.plan = [(seed, "single") for seed in split_seeds("single_train", count - multi)]
        self.plan += [(seed, "multi") for seed in split_seeds("multi_train", multi)]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Picture:
        seed, kind = self.plan[index]
        return Picture(render_scene(seed, self.side, kind)[0], index)


class Photos(data.Dataset[Picture]):
    """The squares in the middle of image files, decoded when they are asked for; the next readable one stands in for
    one that cannot be read."""

    def __init__(self, samples: Sequence[Sample], side: int) -> None:
        self.samples, self.side = samples, side

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Picture:
        problems: list[str] = []
        for i in range(index, index + len(self)):
            sample = self.samples[i % len(self)]
            try:
                return Picture(square(sample, self.side), i % len(self), tuple(problems))
            except ImageError as error:
                problems.append(str(error))
        raise DataMissing(f"none of the {len(self)} training images can be read; the first: {problems[0]}")


def square(sample: Sample, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """An image file with its shorter side resized (bicubic; smaller ones are enlarged), the centre cut out of it.

    Raises ImageError if the file cannot be read.
    """
    image = ImageOps.fit(read_image(sample.path, orient=sample.orient), (side, side), Image.Resampling.BICUBIC)
    return np.array(image)


class Stored(data.Dataset[Picture]):
    """Images in one array, memory-mapped."""

    def __init__(self, pixels: UInt8[np.ndarray, "image side side 3"]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Picture:
        return Picture(self.pixels[index], index)


class TrainingSet:
    """The images of a run on their way to the device; an image that cannot be read is reported once, as a warning."""

    def __init__(self, source: Any, identity: str, device: torch.device | str = "cpu", workers: int = 0) -> None:
        """``source`` gives a :class:`Picture` for a position; ``identity`` says which images these are."""
        self.source, self.identity = source, identity
        self.device, self.workers = torch.device(device), workers
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Sequence[int] | Int[Tensor, " image"]) -> Batch:
        """The images at ``indices``, read by this process."""
        return self._receive(collate([self.source[int(i)] for i in indices]))

    def batches(self, plan: Iterable[Sequence[int]]) -> Generator[Batch, None, None]:
        """A batch for every list of positions in ``plan``, read ahead by the worker processes."""
        for parts in batch_loader(self.source, plan, self.workers, self.device, collate):
            yield self._receive(parts)

    def _receive(self, parts: tuple[Tensor, Tensor, tuple[str, ...]]) -> Batch:
        images, indices, problems = parts
        for problem in problems:
            if problem not in self._reported:
                self._reported.add(problem)
                warnings.warn(f"{problem}; the next image that can be read stands in for it", stacklevel=3)
        return Batch(*(t.to(self.device, non_blocking=True) for t in (images.permute(0, 3, 1, 2), indices)))


def batch_loader(
    source: Any, plan: Iterable[Sequence[int]], workers: int, device: torch.device, collate_fn: Any = None
) -> Iterable[Any]:
    """The items of ``source`` at every list of positions in ``plan``, put together by ``collate_fn`` (default:
    PyTorch's), read by ``workers`` processes before they are asked for and made ready for the way to ``device``."""
    return data.DataLoader(
        source,
        batch_sampler=plan,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate_fn,
        pin_memory=device.type == "cuda",
        worker_init_fn=one_thread,
    )


def collate(pictures: Sequence[Picture]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Pixels [image, side, side, 3], positions, problems."""
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    problems = tuple(itertools.chain.from_iterable(picture.problems for picture in pictures))
    return pixels, torch.tensor([picture.position for picture in pictures]), problems


def one_thread(worker: int) -> None:
    """What a process that decodes images does first."""
    cv2.setNumThreads(0)  # a forked process has none of the threads that OpenCV believes it has


def order(count: int, batch: int, seed: int, first: int, last: int) -> Iterator[tuple[int, ...]]:
    """The positions of the images of steps ``first`` to ``last`` - 1.

    Every epoch of ``count // batch`` steps goes through a permutation of its own; the rest of it is left out.
    """
    epoch_steps, permutation = count // batch, np.empty(0, np.int64)
    for step in range(first, last):
        epoch, place = divmod(step, epoch_steps)
        if place == 0 or step == first:
            permutation = np.random.default_rng([seed, epoch]).permutation(count)
        yield tuple(permutation[place * batch : (place + 1) * batch].tolist())


def open_training_set(settings: Common, device: torch.device | str = "cpu", workers: int | None = None) -> TrainingSet:
    """The images that ``settings`` ask for. Scenes, and others where ``store`` is set, are kept in the data folder.

    What is kept of files is read again only for the same files, see :func:`fingerprint`. A run's state knows its images
    by their names alone: its folder may move.

    ``workers`` replaces the number of worker processes in the settings. Raises ParameterError if there is no such
    dataset or it has fewer images than a batch, and what :func:`foundling.datasets.open_dataset` raises.
    """
    workers = settings.workers if workers is None else workers
    side = settings.image_side
    if settings.dataset == "scenes":
        multi = f"{100 * settings.multi_share:.10g}multi"
        name = f"scenes/train_{side}px_{settings.images}_{multi}_v{VERSION}"
        source = _stored(Scenes(settings.images, side, settings.multi_share), name, workers)
        return TrainingSet(source, f"scenes version {VERSION}, {settings.images} of {side} px, {multi}", device)
    samples = _samples(settings)
    names = hashlib.sha256("\0".join(sample.name for sample in samples).encode()).hexdigest()[:12]
    identity = f"{settings.dataset} {settings.split or '(default split)'}, {len(samples)} images ({names}) of {side} px"
    photos = Photos(samples, side)
    photos[0]  # if no file at all can be read, this process says so
    if not settings.store:
        return TrainingSet(photos, identity, device, workers)
    name = f"training/{settings.dataset}_{settings.split or 'default'}_{side}px_{len(samples)}_{fingerprint(samples)}"
    return TrainingSet(_stored(photos, name, workers), identity, device)


def fingerprint(samples: Sequence[Sample]) -> str:
    """Says which files these are, in 12 letters: where they lie, how large they are, when they were written last.

    Files moved, or copied with new dates, have another one, though their images are the same.
    """
    told = hashlib.sha256()
    for sample in samples:
        try:
            found = sample.path.stat()
            told.update(f"{sample.path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        except OSError:  # one that is not there is reported when it is read
            told.update(f"{sample.path}\0none\0".encode())
    return told.hexdigest()[:12]


def _samples(settings: Common) -> tuple[Sample, ...]:
    if settings.dataset not in DATASETS:
        raise ParameterError(f"unknown dataset {settings.dataset!r}{suggest(settings.dataset, DATASETS)}")
    dataset = open_dataset(settings.dataset, split=settings.split or None, root=from_root(settings.root))
    samples = dataset.subset(limit=settings.images or None).samples
    if len(samples) < settings.batch:
        raise ParameterError(
            f"batch = {settings.batch} is more than there are images in {dataset.name} ({len(samples)})"
        )
    return tuple(replace(sample, target=None) for sample in samples)


def _stored(source: Any, name: str, workers: int) -> Stored:
    """All images of ``source`` in the file ``name`` of the data folder, made unless it is there."""
    file = paths.data_dir() / f"{name}.npy"
    if not file.is_file():
        with writing(file) as part:
            _fill(part, source, workers)
    return Stored(np.load(file, mmap_mode="r"))


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fill(part: Path, source: Any, workers: int) -> None:
    """Write all images of ``source`` as a .npy file, one after the other: a full disk is then an error, not a crash."""
    count, side = len(source), source.side
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    plan = [range(start, min(start + 32, count)) for start in range(0, count, 32)]
    everything = TrainingSet(source, "", "cpu", max(workers, cores()) if workers and count >= FEW else 0)
    with part.open("wb") as file, tqdm(total=count, unit=" images", desc=f"images of {side} px", disable=None) as bar:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in everything.batches(plan):
            file.write(batch.images.permute(0, 2, 3, 1).contiguous().numpy().data)
            bar.update(len(batch.indices))
