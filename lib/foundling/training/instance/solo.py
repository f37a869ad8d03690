"""SOLOv2 as a task of the training loop."""

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from foundling.training import checkpoints
from foundling.training.detection.bodies import Body
from foundling.training.instance.images import MaskedBatch
from foundling.training.instance.losses import category_loss, mask_losses
from foundling.training.instance.networks import SoloNetwork
from foundling.training.instance.settings import METHOD, Solo
from foundling.training.instance.targets import cell_maps
from foundling.training.instance.views import SoloViews, make_views
from foundling.training.pseudo_labels import OBJECT
from foundling.training.running import Run
from foundling.training.task import Task
from foundling.training.tuning import about, learning_rate, make_optimiser


class SoloTask(Task):
    """SOLOv2 and its losses on the masks of one class."""

    steps_done: Tensor

    def __init__(self, settings: Solo, body: Body) -> None:
        super().__init__()
        self.settings, self.body = settings, body
        self.network = SoloNetwork(settings, body)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def make_views(self, batch: MaskedBatch, generator: Generator) -> SoloViews:
        return make_views(batch, self.settings, self.network.cell, generator)

    def forward(self, views: SoloViews) -> dict[str, Tensor]:
        """The sum of the losses, each with its weight, and the losses themselves."""
        categories, kernels, features = self.network(views.images, views.inside)
        with torch.autocast(features.device.type, enabled=False):
            return self.losses(views, categories, kernels, features)

    def losses(
        self, views: SoloViews, categories: list[Tensor], kernels: list[Tensor], features: Tensor
    ) -> dict[str, Tensor]:
        """The losses of what the network said of ``views``."""
        settings = self.settings
        category = category_loss(categories, cell_maps(views.positives, settings.grids))
        drawn = draw(kernels, features, views)
        parts = mask_losses(*drawn)
        pairwise = settings.pairwise_weight * self.warmth()
        total = settings.category_weight * category + pairwise * parts.pairwise
        total = total + settings.dice_weight * parts.dice + settings.projection_weight * parts.projection
        total = total + settings.average_weight * parts.average
        if not sum(map(len, drawn[0])):  # every parameter has a gradient, in all processes
            total = total + 0 * (features.sum() + torch.stack([k.sum() for k in kernels]).sum())
        return {"loss": total, "category": category, **parts._asdict()}

    def warmth(self) -> Tensor:
        """The share of its weight that the pairwise loss has in this step."""
        return ((self.steps_done + 1) / max(self.settings.pairwise_warmup, 1)).clamp(max=1)

    def after_step(self, step: int) -> None:
        self.steps_done.fill_(step + 1)

    def to_compile(self) -> list[nn.Module]:
        return [self.network.backbone]

    def make_optimiser(self, settings: Any) -> torch.optim.Optimizer:
        return make_optimiser(self.network, self.body.network, settings)

    def learning_rate(self, step: int, settings: Any) -> float:
        return learning_rate(step, settings)

    def export(self, run: Run, file: Path) -> None:
        checkpoints.export(file, self.network.state_dict(), about(self.body, OBJECT, run, METHOD))


def draw(
    kernels: list[Tensor], features: Tensor, views: SoloViews
) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """What :func:`mask_losses` takes: for each grid, over all images, the masks that the filters of the positive cells
    draw, as logits; the masks that they stand for; and the neighbours that are alike where they are."""
    logits, targets, near, levels = [], [], [], []
    for image, positives in enumerate(views.positives):
        filters = torch.cat(
            [
                k[image, :, positives.row[here], positives.column[here]].T
                for level, k in enumerate(kernels)
                for here in [positives.level == level]
            ]
        )  # positives are in the order of their levels
        logits.append(torch.einsum("pc,chw->phw", filters, features[image]))
        targets.append(views.masks[image][positives.object])
        levels.append(positives.level)
        if views.alike is not None:
            near.append(views.alike[image].expand(len(positives.level), -1, -1, -1))
    grid = torch.cat(levels)

    def by_grid(parts: list[Tensor]) -> list[Tensor]:
        whole = torch.cat(parts)
        return [whole[grid == level] for level in range(len(kernels))]

    return by_grid(logits), by_grid(targets), by_grid(near) if near else None
