"""The smallest objective that uses all that the loop offers, its settings, and files to train on."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor, nn

from foundling.training.batches import Batch
from foundling.training.networks import follow, make_network, slow_copy
from foundling.training.objective import Objective
from foundling.training.settings import Common, settings_from

VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 3}
TINY: dict[str, Any] = {
    "objective": "mae", "architecture": "vit_tiny_patch16_224", "options": VIT, "dataset": "folder", "images": 0,
    "image_side": 16, "workers": 0, "steps": 7, "warmup": 2, "batch": 4, "log_every": 2, "monitor_every": 3,
    "save_every": 2, "probes": 3, "precision": "fp32",
}  # fmt: skip


def tiny(root: Path, **changes: Any) -> Common:
    """The settings of a run over the images of ``root``."""
    return settings_from({**TINY, "root": str(root), **changes}, "tiny.yaml")


def write_images(folder: Path, count: int = 10, side: int = 24) -> Path:
    """Noise, as PNG files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side + i, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


class TinyObjective(Objective):
    """Features are to match those of a slow copy under noise.

    ``seen`` lists what the loop has shown it, ``precisions`` the kinds of numbers that its layers gave. At step
    ``nan_at`` the loss is no number, at ``bad_at`` only the gradient, which is then ``bad``.
    """

    def __init__(self, settings: Common, images_count: int) -> None:
        super().__init__()
        self.network = make_network(settings.architecture, settings.options, settings.seed)
        self.projector = torch.nn.Linear(self.network.channels, 4)
        torch.nn.init.constant_(self.projector.weight, 0.1)
        torch.nn.init.zeros_(self.projector.bias)
        self.slow = slow_copy(self.network)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.seen: list[list[int]] = []
        self.epochs: list[int] = []
        self.precisions: list[torch.dtype] = []
        self.nan_at = self.skip_at = self.bad_at = -1
        self.bad = torch.inf

    def make_views(self, batch: Batch, generator: Generator) -> Tensor:
        self.seen.append(batch.indices.tolist())
        noise = torch.rand(batch.images.shape, generator=generator).to(batch.images.device)
        return batch.images.float() / 255 + noise

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        inside = torch.rand(len(views))[:, None, None, None].to(views.device)  # as dropout would draw it
        with torch.no_grad():
            target = self.projector(self.slow(views).movedim(1, -1))
        projected = self.projector(self.network(views + inside).movedim(1, -1))
        self.precisions.append(projected.dtype)
        loss = (projected - target - 1).square().mean()
        step = int(self.steps_done)
        if step == self.bad_at:
            loss = loss + steep(self.projector.weight.sum(), self.bad)
        skipped = torch.tensor(float(step == self.skip_at), device=views.device)
        loss = loss * (torch.nan if step == self.nan_at else 1) * (1 - skipped)
        return {"loss": loss, "twice": 2 * loss, "skipped": skipped}

    def after_step(self, step: int) -> None:
        follow(self.slow, self.network, 0.1)
        self.steps_done.fill_(step + 1)

    def trained_parts(self) -> dict[str, nn.Module]:
        return {"": self.network, "projector.": self.projector}

    def begin_epoch(self, epoch: int, images: Any) -> None:
        self.epochs.append(epoch)
        assert len(images.batch([0]).images) == 1


def steep(x: Tensor, gradient: float) -> Tensor:
    """0, with an infinite gradient, or one that is no number."""
    return ((x - x.detach()) if gradient == torch.inf else 0 * x).sqrt()


def train_in_a_group(rank: int, processes: int, port: int, photos: Path, folder: Path) -> None:
    """Process ``rank`` of a run in two parts, then of some that must stop; writes what it saw."""
    from foundling.errors import FoundlingError
    from foundling.training import representation

    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in group.items()})
    torch.set_num_threads(1)
    made: list[TinyObjective] = []
    bad_at = -1

    def make(settings: Common, count: int) -> TinyObjective:
        made.append(TinyObjective(settings, count))
        made[-1].bad_at = bad_at
        return made[-1]

    def refused(out: Path, **changes: Any) -> str:
        try:
            return str(representation.train(tiny(photos, **changes), out, progress=False, cpu=True))
        except FoundlingError as error:
            return str(error)

    representation.make_objective = make
    parts = [
        representation.train(tiny(photos), folder / "a", minutes, progress=False, cpu=True) for minutes in (1e-9, 9e9)
    ]
    record = {
        "state": made[1].state_dict(),
        "seen": [objective.seen for objective in made],
        "steps": [outcome.steps for outcome in parts],
        "losses": [row["loss"] for row in parts[1].history],
        "uneven": refused(folder / "b", batch=5),
        "elsewhere": refused(folder / "a" if rank == 0 else folder / "elsewhere" / "a"),
    }
    bad_at = 3 if rank == 1 else -1
    record |= {"bad": refused(folder / "c"), "stopped": made[-1].state_dict()}
    torch.save(record, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
