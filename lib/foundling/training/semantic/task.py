"""Training of a semantic segmenter on label maps (COMUS, Sec. 3.2), on the loop that trains everything here."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from foundling.backbones.apply import normalise
from foundling.categories.pseudo_masks import PseudoMasks
from foundling.errors import ParameterError
from foundling.training import checkpoints, tuning
from foundling.training import optimiser as optimisers
from foundling.training.detection.bodies import Body
from foundling.training.loop import Outcome, carry_out
from foundling.training.running import Run
from foundling.training.semantic.images import MappedBatch, MappedImages, MappedSet
from foundling.training.semantic.networks import load_encoder, make_segmenter
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.views import Crops, make_crops
from foundling.training.task import Task
from foundling.training.trained import read_network
from foundling.types import VOID, Sample

METHOD = "semantic"  # what an exported file says it is


def train_semantic(
    samples: Sequence[Sample],
    masks: PseudoMasks,
    settings: Semantic,
    out: Path,
    *,
    teacher: Path | None = None,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """Train a segmenter on the label maps of ``samples``, or go on training.

    Images without a map, or with nothing on it, are left out; which and why is said on stderr where ``progress`` is
    shown. ``out`` names the run, as in :func:`foundling.training.loop.carry_out`: ``out.safetensors`` is the segmenter,
    which :func:`foundling.training.semantic.predict.load_segmenter` reads, ``out.state`` what a later call goes on
    from, ``out.history.csv`` the loss, and the share of pixels that get the label of their map. ``teacher`` is the file
    of the segmenter that the label maps are of, where the settings say to begin with what it has learned.

    Raises as :class:`foundling.training.semantic.images.MappedImages`; ParameterError if there are fewer images than a
    batch, epochs give no step, ``out.state`` is of another run, or a ``teacher`` to begin with is missing or another
    network; WeightsError if one of these files or the encoder's weights are damaged or missing; and what the loop
    raises.
    """
    if settings.begin == "teacher" and teacher is None:
        raise ParameterError("begin is teacher, but there is none: the first round begins with the encoder")
    source = MappedImages(samples, masks, settings.keep_empty)
    settings = with_steps(settings, len(source))

    def prepare(accelerator: Accelerator) -> tuple[SemanticTask, Any]:
        if progress and accelerator.is_main_process:
            print(source.summary(), file=sys.stderr)
        task = SemanticTask(settings, load_encoder(settings), source.classes)
        if settings.begin == "teacher" and teacher is not None:
            begin_with(teacher, task.segmenter)
        return task, MappedSet(source, accelerator.device, settings.workers)

    return carry_out(settings, out, prepare, minutes, progress, cpu)


def begin_with(teacher: Path, segmenter: nn.Module) -> None:
    """Put the parameters in a segmenter's file into ``segmenter``.

    Raises WeightsError for a file that is missing, damaged or of something else; ParameterError if it is of another
    network.
    """
    tensors, _ = read_network(teacher, METHOD, "semantic segmenter", "train_semantic", ())
    try:
        segmenter.load_state_dict(tensors)
    except RuntimeError:
        raise ParameterError(
            f"{teacher} is another network than this round trains: give both rounds the same network, weights, "
            "channels and clusters, or begin with the encoder"
        ) from None


def with_steps(settings: Semantic, images: int) -> Semantic:
    """The same with the number of steps that its epochs over so many images take.

    Raises ParameterError if a batch is more than there are images, or a warm-up does not end.
    """
    if images < settings.batch:
        raise ParameterError(f"batch = {settings.batch} is more than there are images to learn from ({images})")
    if not settings.epochs:
        return settings
    steps = settings.epochs * (images // settings.batch)
    if settings.warmup >= steps:
        raise ParameterError(
            f"warmup = {settings.warmup} must be less than the {steps} steps that epochs = {settings.epochs} over "
            f"{images} images take"
        )
    return settings.model_copy(update={"steps": steps})


class SemanticTask(Task):
    """A segmenter, and the cross-entropy of what it says of every pixel that is not void."""

    def __init__(self, settings: Semantic, body: Body, classes: int) -> None:
        super().__init__()
        self.settings, self.body, self.classes = settings, body, classes
        self.segmenter = make_segmenter(settings, body, classes)

    def make_views(self, batch: MappedBatch, generator: Generator) -> Crops:
        areas = (self.settings.min_area, self.settings.max_area)
        return make_crops(batch.images, batch.labels, self.settings.side, areas, generator)

    def forward(self, views: Crops) -> dict[str, Tensor]:
        logits = self.segmenter(normalise(views.images, self.body.mean, self.body.std))
        with torch.autocast(logits.device.type, enabled=False):
            return pixel_losses(logits.float(), views.labels)

    def to_compile(self) -> list[nn.Module]:
        return [self.segmenter]

    def make_optimiser(self, settings: Semantic) -> torch.optim.Optimizer:
        return tuning.make_optimiser(self.segmenter, self.segmenter.encoder, settings)

    def learning_rate(self, step: int, settings: Any) -> float:
        if settings.schedule == "constant" and step >= settings.warmup:
            return float(settings.learning_rate)
        return optimisers.learning_rate(step, settings)

    def export(self, run: Run, file: Path) -> None:
        names = [f"cluster {i}" for i in range(1, self.classes)]
        told = tuning.about(self.body, names, run, METHOD)
        checkpoints.export(file, self.segmenter.state_dict(), told)


def pixel_losses(
    logits: Float[Tensor, "image class h w"], labels: Int[Tensor, "image h w"]
) -> dict[str, Float[Tensor, ""]]:
    """The mean cross-entropy over all pixels of a batch that are not void (0 where all are), and the share of these
    whose label has the largest logit."""
    counted = labels != VOID
    total = counted.sum().clamp(min=1)
    loss = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum") / total
    agreement = ((logits.argmax(1) == labels) & counted).sum() / total
    return {"loss": loss, "agreement": agreement}
