"""Training of a detector of either engine, on the loop that trains everything here."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn

from foundling.errors import ParameterError
from foundling.training import checkpoints, tuning
from foundling.training.data import order
from foundling.training.detection.bodies import Body, load_body
from foundling.training.detection.engines import make_engine
from foundling.training.detection.images import BoxedBatch, BoxedImages, BoxedSet
from foundling.training.detection.norms import BATCH_NORM, with_precise_norms
from foundling.training.detection.settings import Detector
from foundling.training.loop import Outcome, carry_out
from foundling.training.pseudo_labels import PseudoLabels
from foundling.training.running import Run
from foundling.training.task import Task
from foundling.types import Sample

METHOD = "detector"  # what an exported file says it is


def train_detector(
    samples: Sequence[Sample],
    labels: PseudoLabels,
    settings: Detector,
    out: Path,
    *,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """Train a detector on the boxes in ``labels``, or go on training; images without a box are left out.

    ``out`` names the run, as in :func:`foundling.training.loop.carry_out`: ``out.safetensors`` is the detector, which
    :func:`foundling.training.detection.predict.load_detector` reads, ``out.state`` what a later call goes on from,
    ``out.history.csv`` the losses. ``samples`` are those that the labels were made of, or more.

    Raises ParameterError if there is no box at all or one is not inside its image, the classes are not as many as the
    settings say, there are fewer images than a batch, or ``out.state`` is of another run; WeightsError if that or the
    backbone's weights are damaged or missing; and what the loop raises. With engine detectron2, also where that cannot
    be imported.
    """
    if len(labels.classes) != settings.classes:
        raise ParameterError(
            f"classes = {settings.classes}, but the labels have {len(labels.classes)}: set classes to that number, or "
            "make class-agnostic labels"
        )
    source = BoxedImages(samples, labels)
    if len(source) < settings.batch:
        raise ParameterError(f"batch = {settings.batch} is more than there are images with a box ({len(source)})")

    def prepare(accelerator: Accelerator) -> tuple[DetectorTask, BoxedSet]:
        task = DetectorTask(settings, load_body(settings), labels.classes)
        return task, BoxedSet(source, accelerator.device, settings.workers)

    return carry_out(settings, out, prepare, minutes, progress, cpu)


class DetectorTask(Task):
    """Faster R-CNN and its four losses."""

    def __init__(self, settings: Detector, body: Body, classes: Sequence[str]) -> None:
        super().__init__()
        self.settings, self.body, self.classes = settings, body, tuple(classes)
        self.detector: Any = self.make_detector()

    def make_detector(self) -> nn.Module:
        """The network, its heads drawn by PyTorch's generator."""
        return make_engine(self.settings, self.body)

    def make_views(self, batch: BoxedBatch, generator: Generator) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Images in 0..1, every second one mirrored, with their boxes and labels (from 1) as torchvision has them."""
        flips = (torch.rand(len(batch.images), generator=generator) < 0.5).tolist()
        views = []
        for pixels, boxes, labels, flip in zip(*batch, flips, strict=True):
            image = pixels.float() / 255
            if flip:
                image, boxes = image.flip(-1), mirrored(boxes, image.shape[-1])
            views.append((image, {"boxes": boxes, "labels": labels + 1}))
        return views

    def forward(self, views: list[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.detector(*map(list, zip(*views, strict=True)))
        return {"loss": torch.stack([loss.float() for loss in losses.values()]).sum(), **losses}

    def to_compile(self) -> list[nn.Module]:
        return [self.detector.backbone] if self.settings.engine == "torchvision" else []

    def make_optimiser(self, settings: Detector) -> torch.optim.Optimizer:
        return tuning.make_optimiser(self.detector, self.body.network, settings)

    def learning_rate(self, step: int, settings: Any) -> float:
        return learning_rate(step, settings)

    def export(self, run: Run, file: Path) -> None:
        detector = self.detector
        if run.settings.precise_bn and any(isinstance(part, BATCH_NORM) for part in detector.modules()):
            with torch.random.fork_rng(devices=[]), run.accelerator.autocast():
                torch.manual_seed(run.settings.seed)
                detector = with_precise_norms(detector, self._norm_views(run), lambda copy, views: copy(*views))
        checkpoints.export(file, detector.state_dict(), self.about(run))

    def about(self, run: Run) -> dict[str, Any]:
        """What the exported file says of itself."""
        return {**tuning.about(self.body, self.classes, run, METHOD), "engine": run.settings.engine}

    def _norm_views(self, run: Run) -> Iterator[tuple[list[Any], ...]]:
        """What the first batches of the run are to the detector, as many as its norms' statistics are taken over."""
        settings, generator = run.settings, Generator().manual_seed(run.settings.seed)
        size = settings.batch // run.accelerator.num_processes // settings.accumulate
        plan = order(len(run.images), size, settings.seed, 0, settings.precise_bn)
        with closing(run.images.batches(plan)) as batches:
            for batch in batches:
                yield tuple(map(list, zip(*self.make_views(batch, generator), strict=True)))


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes of an image of ``width`` pixels in its mirror image."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], 1)


def learning_rate(step: int, settings: Detector) -> float:
    """The learning rate of step number ``step``, from 0: a linear warm-up, then steps down, or a cosine to zero."""
    return tuning.learning_rate(step, settings, settings.decay_at, settings.gamma)
