"""Training of h, then of f through h (section 4.1), on the loop that trains everything here."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float
from torch import Generator, Tensor, nn

from foundling.backbones.apply import evaluating, normalise
from foundling.training.loop import Outcome, carry_out
from foundling.training.processes import add_up, world_size
from foundling.training.refinement import saved
from foundling.training.refinement.agreement import covers, look_at, mean, overlaps
from foundling.training.refinement.boxes import from_corners
from foundling.training.refinement.images import PlainBatch, PlainSet, random_squares, split, squeezed
from foundling.training.refinement.losses import BoxLosses, Weights, box_losses, match_boxes
from foundling.training.refinement.networks import BoxNetwork, make_box_network
from foundling.training.refinement.settings import Refinement
from foundling.training.refinement.sources import Look, Source, make_source
from foundling.training.running import Row, Run
from foundling.training.task import Task
from foundling.types import Sample

AT_ONCE = 32  # images of a look
Boxes = list[Tensor]  # of each image, [box, 4]
Views = Float[Tensor, "image 3 side side"]


def refine(
    samples: Sequence[Sample],
    settings: Refinement,
    out: Path,
    *,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """Train h on the boxes that f finds in ``samples``, and f through h; or go on with it.

    ``out`` names the run, as in :func:`foundling.training.loop.carry_out`: ``out.safetensors`` is the refined f, which
    ``load_backbone(name, weights=…)`` reads (a segmenter: what reads segmenters), ``out_h.safetensors`` is h,
    ``out.history.csv`` has the terms of the loss, and what was seen of the images held out. Both networks as
    :func:`foundling.training.refinement.saved.load_refined` reads them.

    An image in which nothing is found teaches nothing; a batch of such is skipped. A box that covers all of its image
    is a box like any other, as in the authors' code; the history has their share (``covering``).

    Raises as :func:`foundling.training.refinement.sources.make_source` and
    :func:`foundling.training.refinement.networks.make_box_network`; ParameterError if there are too few images, or
    ``out.state`` is of another run; WeightsError if that is damaged; and what the loop raises.
    """
    source, held = split(samples, settings.held_out, settings.batch)

    def prepare(accelerator: Accelerator) -> tuple[RefinementTask, PlainSet]:
        if (ddp := accelerator.ddp_handler) is not None:
            ddp.find_unused_parameters = True  # a phase moves one network
        return RefinementTask(settings), PlainSet(source, held, accelerator.device, settings.workers)

    return carry_out(settings, out, prepare, minutes, progress, cpu)


class RefinementTask(Task):
    """f, a frozen copy of it, and h; a step trains one of f and h."""

    def __init__(self, settings: Refinement) -> None:
        super().__init__()
        self.settings = settings
        self.source: Source = make_source(settings)
        self.frozen: Source = copy.deepcopy(self.source).requires_grad_(False)
        self.source.begin()
        with torch.no_grad():
            side = settings.side
            channels = self.frozen.look(torch.zeros(1, 3, side, side), output=False).map.shape[1]
        self.head: BoxNetwork = make_box_network(
            settings.network, settings.network_options, settings.boxes, channels, settings.network_weights
        )
        self.weights = Weights(settings.class_weight, settings.l1_weight, settings.giou_weight, settings.no_object)
        self.moved: str | None = None  # h or f; until the first step it is not known which

    def train(self, mode: bool = True) -> "RefinementTask":
        """h has batch statistics in phase h alone, f (the head of a segmenter; a ViT has none) in phase f."""
        super().train(mode)
        self.source.train(mode and self.moved == "f")
        self.frozen.eval()
        self.head.train(mode and self.moved == "h")
        return self

    def begin_step(self, step: int) -> None:
        """In phase f, h is as it is when it is used, and passes gradients on to what it sees."""
        if (moved := self.settings.moved(step)) != self.moved:
            self.moved = moved
            self.source.trained().requires_grad_(moved == "f")
            self.head.requires_grad_(moved == "h")
            self.train()

    def make_views(self, batch: PlainBatch, generator: Generator) -> Views:
        areas = (self.settings.min_area, self.settings.max_area)
        squares = random_squares(batch.images, self.settings.side, areas, generator)
        return normalise(squares, self.source.mean, self.source.std)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """The terms of the loss, weighted; and shares of the images: with a box, with one that covers all of them."""
        seen, teacher, kept = self._look(views)
        start = _now(views.device)
        found = [boxes.to(views.device) for boxes in self.source.discover(teacher)]
        spent = time.monotonic() - start
        boxes, logits = self.head(seen.map)
        with torch.autocast(views.device.type, enabled=False):
            terms = self._box_terms(boxes, logits, found)
            regulariser = views.new_zeros(()) if kept is None else self._regulariser(seen, kept)
        loss = torch.stack([*terms, regulariser]).sum()
        some = add_up(loss.new_tensor(float(any(map(len, found)))))
        side = self.settings.side
        return {
            "loss": loss if some else 0 * loss,
            "class": terms.classes,
            "l1": terms.l1,
            "giou": terms.giou,
            "regulariser": regulariser,
            "iou": loss.new_tensor(mean(overlaps(boxes.detach(), logits.detach(), found, side))),
            "found": loss.new_tensor([float(len(one) > 0) for one in found]).mean(),
            "covering": loss.new_tensor([covers(one, side) for one in found]).mean(),
            "phase": loss.new_tensor(float(self.moved == "f")),
            "discovery_seconds": loss.new_tensor(spent),
            "skipped": (some == 0).float(),
        }

    def _look(self, views: Views) -> tuple[Look, Look, Look | None]:
        """What h sees; what boxes are found in; and in phase f, if needed, what f was before."""
        if self.moved == "h":
            with torch.no_grad():
                teacher = (self.frozen if self.settings.targets == "frozen" else self.source).look(views, False)
            return teacher, teacher, None
        seen, kept = self.source.look(views, self._is_kept), None
        if self._is_kept or self.settings.targets == "frozen":
            with torch.no_grad():
                kept = self.frozen.look(views, True)
        return seen, seen if self.settings.targets == "refined" or kept is None else kept, kept

    @property
    def _is_kept(self) -> bool:
        """Whether the loss says anything of f's output."""
        return bool(self.settings.regulariser or self.settings.mask_weight)

    def _box_terms(self, boxes: Tensor, logits: Tensor, found: Boxes) -> BoxLosses:
        """Eq. 6, term by term, over the images that something was found in."""
        side = self.settings.side
        kept = [i for i, one in enumerate(found) if len(one)]
        targets = [from_corners(found[i], side, side) for i in kept]
        pairs = match_boxes(boxes[kept], logits[kept], targets, self.weights)
        count = float(add_up(boxes.new_tensor(float(sum(len(slots) for slots, _ in pairs)))) / world_size())
        losses = box_losses(boxes[kept], logits[kept], targets, pairs, self.weights.no_object, max(count, 1.0))
        return losses.weighted(self.weights)

    def _regulariser(self, seen: Look, kept: Look) -> Tensor:
        """L_f (Eq. 17; the authors' code takes the mean over the numbers of the CLS token, not their sum)."""
        if seen.output is None or kept.output is None:
            return seen.map.new_zeros(())
        loss = self.settings.regulariser * F.mse_loss(seen.output.float(), kept.output.float())
        return loss + self.settings.mask_weight * seen.output.float().mean()

    def to_compile(self) -> list[nn.Module]:
        return [self.head]

    def make_optimiser(self, settings: Refinement) -> torch.optim.Optimizer:
        """One over f and h: what has no gradient in a step is left as it is, its moments and its decay too."""
        kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
        f = [p for p in self.source.trained().parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": f, "betas": (settings.beta1, settings.refine_beta2)},
            {"params": list(self.head.parameters()), "betas": (settings.beta1, settings.beta2)},
        ]
        return kind(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def learning_rate(self, step: int, settings: Any) -> float:
        return learning_rate(step, settings)

    def is_look_due(self, run: Run) -> bool:
        due = run.done % self.settings.look_every == 0 or run.done in (*self.settings.export_at, self.settings.steps)
        return bool(due and len(run.images.held))

    def look(self, run: Run) -> Row:
        """Of the images held out, whole: see :func:`foundling.training.refinement.agreement.look_at`."""
        with evaluating(self.head), evaluating(self.source):
            return look_at(self.source, self.frozen, self.head, self._held_views(run))

    def _held_views(self, run: Run) -> Iterator[Views]:
        held, device = run.images.held, run.accelerator.device
        for start in range(0, len(held), AT_ONCE):
            some = [held[i].pixels.to(device) for i in range(start, min(start + AT_ONCE, len(held)))]
            squares = torch.stack([squeezed(image, self.settings.side) for image in some])
            yield normalise(squares, self.source.mean, self.source.std)

    def export(self, run: Run, file: Path) -> None:
        saved.write(file, self.source, self.head, run)

    def is_exported(self, run: Run, file: Path) -> bool:
        return super().is_exported(run, file) and super().is_exported(run, saved.h_file(file))


def learning_rate(step: int, settings: Refinement) -> float:
    """The learning rate of what step number ``step``, from 0, moves."""
    if settings.moved(step) == "h":
        return settings.learning_rate
    left = 1 - settings.refined_steps(step) / settings.refined_steps(settings.steps)
    return float(settings.refine_rate * left**settings.refine_power)


def discovery_share(history: Sequence[Row], settings: Refinement) -> float:
    """The share (0 to 1) of the time of a run's steps in which boxes were found, from its history."""
    seconds = settings.accumulate * sum(row["discovery_seconds"] for row in history)
    total = sum(settings.batch / row["images_per_second"] for row in history)
    return float(seconds / total) if total else 0.0


def _now(device: torch.device) -> float:
    """The time once all that the device was told is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
