"""A saliency network trained on masks that other sources found: COMUS' step from DeepUSPS to BASNet, in spirit.

Its data are images with masks, it watches over no features, and what it leaves is no backbone: it has a loop of its
own, which shares the settings, the order of images, the optimiser, and the files with that of the objectives.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils import data
from tqdm import tqdm

from foundling import provenance
from foundling.backbones.apply import normalise
from foundling.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from foundling.datasets.images import read_image
from foundling.errors import ParameterError, TrainingError
from foundling.saliency import Basnet, SaliencyMasks
from foundling.saliency.predict import squeeze
from foundling.training import checkpoints
from foundling.training.checkpoints import PROGRESS, beside
from foundling.training.data import one_thread, order
from foundling.training.loop import Outcome, seed_of
from foundling.training.optimiser import learning_rate, make_optimiser
from foundling.training.saliency_loss import saliency_loss
from foundling.training.settings import Saliency
from foundling.types import Sample


class MaskedImages(data.Dataset[tuple[Tensor, Tensor]]):
    """The images that have a mask, as squares of ``side`` pixels with their masks, decoded when they are asked for."""

    def __init__(self, samples: Sequence[Sample], found: SaliencyMasks, side: int) -> None:
        """Raises ParameterError if ``found`` is of other images than ``samples``, or has no mask."""
        if found.names != tuple(sample.name for sample in samples):
            raise ParameterError(
                f"the masks are of {len(found)} other images than the {len(samples)} samples: pass the samples that "
                "they were made of"
            )
        self.side, self.found, self.samples = side, found, samples
        self.kept = [i for i, mask in enumerate(found.masks) if mask is not None]
        if not self.kept:
            raise ParameterError(
                f"{found.source} found nothing in {len(samples)} images: there is no mask to learn from"
            )

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample, mask = self.samples[self.kept[index]], self.found.mask(self.kept[index])
        pixels = squeeze(np.array(read_image(sample.path, orient=sample.orient)), self.side)
        small = cv2.resize(mask.astype(np.uint8), (self.side, self.side), interpolation=cv2.INTER_NEAREST)
        return torch.from_numpy(pixels), torch.from_numpy(small)

    @property
    def identity(self) -> str:
        """Which images and masks these are."""
        told = hashlib.sha256()
        for i in self.kept:
            told.update(f"{self.found.names[i]}\0{self.found.masks[i]}\0".encode())
        return f"{len(self)} images with masks of {self.found.source} ({told.hexdigest()[:12]})"


@dataclass
class Run:
    """All that moves while a run goes on."""

    settings: Saliency
    out: Path
    images: MaskedImages
    network: Basnet
    optimiser: torch.optim.Optimizer
    device: torch.device
    done: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)


def train_saliency(
    samples: Sequence[Sample],
    found: SaliencyMasks,
    settings: Saliency,
    out: Path,
    *,
    device: str | torch.device = "cpu",
    minutes: float = math.inf,
    progress: bool = True,
) -> Outcome:
    """Train BASNet on the masks of ``found``, or go on training; images without a mask are left out.

    ``out`` names the run, as in :func:`foundling.training.loop.train`: ``out.safetensors`` is the network in half
    precision, which :func:`foundling.saliency.load_saliency_network` reads, ``out.state`` what a later call goes on
    from, ``out.history.csv`` the losses. On a CPU a run that was interrupted ends as an undisturbed one, to the last
    bit.

    Raises ParameterError if there are fewer masks than a batch, or ``out.state`` is of another run; WeightsError if it
    is damaged; TrainingError if the loss is no number; ImageError if an image can no longer be read.
    """
    start = time.monotonic()
    images = MaskedImages(samples, found, settings.side)
    if len(images) < settings.batch:
        raise ParameterError(f"batch = {settings.batch} is more than there are images with a mask ({len(images)})")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        run = open_run(settings, out, images, torch.device(device))
        if run.done < settings.steps:
            _steps(run, start + 60 * minutes, progress)
    _save(run)
    file = beside(out, ".safetensors")
    checkpoints.export(file, run.network.state_dict(), _about(run))
    return Outcome(run.done == settings.steps, run.done, file, run.history)


def open_run(settings: Saliency, out: Path, images: MaskedImages, device: torch.device) -> Run:
    """The network and the optimiser, at the last state if there is one."""
    network = Basnet(settings.width).to(device)
    optimiser = make_optimiser(network.train(), settings)
    file = beside(out, ".state")
    state = checkpoints.load_state(file, settings, images.identity)
    progress = {} if state is None else checkpoints.restore(file, state, network, optimiser)
    return Run(settings, out, images, network, optimiser, device, **progress)


def _steps(run: Run, deadline: float, progress: bool) -> None:
    settings = run.settings
    plan = order(len(run.images), settings.batch, settings.seed, run.done, settings.steps)
    loader = data.DataLoader(
        run.images,
        batch_sampler=plan,  # type: ignore[arg-type]
        num_workers=settings.workers,
        worker_init_fn=one_thread,
    )
    bar = tqdm(total=settings.steps, initial=run.done, desc="saliency", unit="step", disable=None if progress else True)
    with bar:
        clock = time.monotonic()
        for pixels, masks in loader:
            row = step(run, pixels.to(run.device), masks.to(run.device))
            now = time.monotonic()
            run.pending.append({**row, "step_seconds": now - clock})
            run.done, run.seconds, clock = run.done + 1, run.seconds + now - clock, now
            if run.done == settings.steps or run.done % settings.log_every == 0:
                run.history.append(_summary(run))
                run.pending.clear()
                bar.set_postfix_str(f"loss {run.history[-1]['loss']:.3f}", refresh=False)
            if run.done % settings.save_every == 0:
                _save(run)
            bar.update()
            if now > deadline:
                return


def step(run: Run, pixels: Tensor, masks: Tensor) -> dict[str, float]:
    """One step on squares [image, side, side, 3] and their masks: the losses, all maps' sum and the refined one's."""
    settings = run.settings
    generator = Generator().manual_seed(seed_of(settings.seed, run.done))
    images, targets = views(pixels, masks, settings.crop, generator)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        logits = run.network(normalise(images, IMAGENET_MEAN, IMAGENET_STD))
    parts = saliency_loss(logits.float(), targets)
    loss = torch.stack(parts).sum()
    run.optimiser.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip or math.inf)
    row = {"loss": loss.item(), **{name: part[0].item() for name, part in parts._asdict().items()}}
    if not (math.isfinite(row["loss"]) and math.isfinite(float(norm))):
        raise TrainingError(
            f"step {run.done + 1} of {settings.steps}: the loss is {row['loss']} and the norm of its gradient "
            f"{float(norm)}; training has stopped, and the last state on disk is good. A lower learning_rate, a longer "
            "warmup or clip = 1 may help"
        )
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(run.done, settings)
    run.optimiser.step()
    return {**row, "gradient_norm": float(norm)}


def views(pixels: Tensor, masks: Tensor, crop: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A random crop of every square with its mask, mirrored or not: images [image, 3, crop, crop] in 0..1, masks."""
    room = pixels.shape[1] - crop
    places = torch.randint(room + 1, (len(pixels), 2), generator=generator).tolist()
    flips = (torch.rand(len(pixels), generator=generator) < 0.5).tolist()
    images, targets = [], []
    for image, mask, (top, left), flip in zip(pixels, masks, places, flips, strict=True):
        window = slice(top, top + crop), slice(left, left + crop)
        cut, target = image[window].permute(2, 0, 1), mask[window]
        images.append(cut.flip(-1) if flip else cut)
        targets.append(target.flip(-1) if flip else target)
    return torch.stack(images).float() / 255, torch.stack(targets).float()


def _summary(run: Run) -> dict[str, Any]:
    """A row of the history: the means over the pending steps, and their speed."""
    names = [name for name in run.pending[0] if name != "step_seconds"]
    row: dict[str, Any] = {"step": run.done}
    row |= {name: float(np.mean([pending[name] for pending in run.pending])) for name in names}
    row["learning_rate"] = learning_rate(run.done - 1, run.settings)
    row["images_per_second"] = run.settings.batch * len(run.pending) / sum(p["step_seconds"] for p in run.pending)
    return {**row, "seconds": run.seconds}


def _save(run: Run) -> None:
    state = {"task": run.network.state_dict(), "optimiser": run.optimiser.state_dict()}
    state |= {name: getattr(run, name) for name in PROGRESS}
    checkpoints.save_state(beside(run.out, ".state"), state, run.settings, run.images.identity)
    checkpoints.write_history(beside(run.out, ".history.csv"), run.history)


def _about(run: Run) -> dict[str, Any]:
    """What the exported file says of itself: how to make it again, and how to feed it."""
    versions = provenance.versions()
    return {
        "architecture": "BASNet",
        "arguments": {"width": run.settings.width, "side": run.settings.side},
        "data": run.images.identity,
        "mean": IMAGENET_MEAN,
        "method": "saliency",
        "precision": "half",
        "settings": run.settings.model_dump(),
        "std": IMAGENET_STD,
        "steps": run.done,
        "versions": {name: versions[name] for name in ("foundling", "torch", "numpy")},
    }
