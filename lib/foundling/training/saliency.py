"""Networks trained on masks that others found: a saliency network, as in COMUS' step from DeepUSPS to BASNet, or the
head of a segmenter."""

import hashlib
import math
import sys
from collections.abc import Generator as Going
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Generator, Tensor, nn
from torch.utils import data

from foundling import provenance
from foundling.backbones import load_backbone
from foundling.backbones.apply import normalise
from foundling.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from foundling.datasets.images import read_image
from foundling.errors import ParameterError
from foundling.saliency import Basnet, SaliencyMasks, agreement, saliency_masks
from foundling.saliency.predict import squeeze
from foundling.saliency.segmenter import Segmenter, make_segmenter, segmenter_arguments, segmenter_tensors
from foundling.saliency.unet import Unet
from foundling.training import checkpoints
from foundling.training.checkpoints import beside
from foundling.training.data import batch_loader
from foundling.training.loop import Outcome, carry_out
from foundling.training.reading import open_images
from foundling.training.running import Run
from foundling.training.saliency_loss import saliency_loss
from foundling.training.saliency_settings import (
    OnMasks,
    OnSources,
    Saliency,
    SaliencyOnSources,
    Segmentation,
    SegmentationOnSources,
)
from foundling.training.task import Task
from foundling.training.views import augment
from foundling.types import Sample

Masked = tuple[Tensor, Tensor]  # images and their masks


class MaskedImages(data.Dataset[Masked]):
    """The images that have a mask, as squares of ``side`` pixels with their masks, decoded when they are asked for.

    Batches of them lie on ``device``, read ahead by ``workers`` processes.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        found: SaliencyMasks,
        side: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        """Raises ParameterError if ``found`` is of other images than ``samples``, or has no mask."""
        if found.names != tuple(sample.name for sample in samples):
            raise ParameterError(
                f"the masks are of {len(found)} other images than the {len(samples)} samples: pass the samples that "
                "they were made of"
            )
        self.side, self.found, self.samples = side, found, samples
        self.device, self.workers = torch.device(device), workers
        self.kept = [i for i, mask in enumerate(found.masks) if mask is not None]
        if not self.kept:
            raise ParameterError(
                f"{found.source} found nothing in {len(samples)} images: there is no mask to learn from"
            )

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Masked:
        sample, mask = self.samples[self.kept[index]], self.found.mask(self.kept[index])
        pixels = squeeze(np.array(read_image(sample.path, orient=sample.orient)), self.side)
        small = cv2.resize(mask.astype(np.uint8), (self.side, self.side), interpolation=cv2.INTER_NEAREST)
        return torch.from_numpy(pixels), torch.from_numpy(small)

    def batches(self, plan: Iterable[Sequence[int]]) -> Going[Masked, None, None]:
        """Squares [image, side, side, 3] and their masks for every list of positions in ``plan``."""
        for pixels, masks in batch_loader(self, plan, self.workers, self.device):
            yield pixels.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)

    @property
    def identity(self) -> str:
        """Which images and masks these are."""
        told = hashlib.sha256()
        for i in self.kept:
            told.update(f"{self.found.names[i]}\0{self.found.masks[i]}\0".encode())
        return f"{len(self)} images with masks of {self.found.source} ({told.hexdigest()[:12]})"


class SaliencyTask(Task):
    """A saliency network, which is to find the masks in random crops of squares."""

    network: nn.Module
    colour, alone = 0.0, False  # strength of changes of colour; whether cross-entropy is all of the loss
    mean, std = IMAGENET_MEAN, IMAGENET_STD  # of its images

    def __init__(self, settings: Saliency) -> None:
        super().__init__()
        self.network = (Unet if settings.network == "unet" else Basnet)(settings.width)
        self.crop, self.colour, self.alone = settings.crop, settings.colour, settings.loss == "bce"

    def make_views(self, batch: Masked, generator: Generator) -> Masked:
        images, masks = views(*batch, self.crop, generator)
        return augment(images, generator, 0.0, 0.0, self.colour) if self.colour else images, masks

    def forward(self, views: Masked) -> dict[str, Tensor]:
        """The loss over all maps, and the parts of the refined one's."""
        images, targets = views
        logits = self.network(normalise(images, self.mean, self.std))
        with torch.autocast(logits.device.type, enabled=False):
            if self.alone:
                return {"loss": F.binary_cross_entropy_with_logits(logits.float(), targets.expand_as(logits))}
            parts = saliency_loss(logits.float(), targets)
        return {"loss": torch.stack(parts).sum(), **{name: part[0] for name, part in parts._asdict().items()}}

    def to_compile(self) -> list[torch.nn.Module]:
        return [self.network]

    def export(self, run: Run, file: Path) -> None:
        """The network alone, as :func:`foundling.saliency.load_saliency_network` reads it."""
        arguments = {"width": run.settings.width, "side": run.settings.side}
        name = "U-Net" if isinstance(self.network, Unet) else "BASNet"
        checkpoints.export(file, self.network.state_dict(), _about(run, name, arguments, self.mean, self.std))


class SegmenterTask(SaliencyTask):
    """The head of a segmenter on a network that stays as it is, and the same loss on its one map."""

    def __init__(self, settings: Segmentation) -> None:
        Task.__init__(self)
        backbone = load_backbone(settings.backbone, device="cpu")
        network = make_segmenter(backbone, settings.widths, settings.block, settings.depth, settings.seed)
        if settings.crop % network.stride:
            raise ParameterError(f"crop = {settings.crop} must be a multiple of {network.stride}, the side of a patch")
        self.network, self.crop = network, settings.crop
        self.mean, self.std = network.mean, network.std

    def export(self, run: Run, file: Path) -> None:
        """Norm and head, as :func:`foundling.saliency.segmenter.load_segmenter` reads them."""
        assert isinstance(self.network, Segmenter)
        arguments = {**segmenter_arguments(self.network), "side": run.settings.side}
        about = _about(run, "segmenter", arguments, self.mean, self.std)
        checkpoints.export(file, segmenter_tensors(self.network), about)


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


def train_saliency(
    samples: Sequence[Sample],
    found: SaliencyMasks,
    settings: OnMasks,
    out: Path,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """Train a saliency network, or the head of a segmenter (``settings`` are :class:`Saliency` or
    :class:`Segmentation`), on the masks of ``found``, or go on training; see
    :func:`foundling.training.loop.carry_out`.

    Images without a mask are left out. ``out.safetensors`` is the network in half precision, which
    :func:`foundling.saliency.load_saliency_network` or :func:`foundling.saliency.segmenter.load_segmenter` reads,
    ``out.history.csv`` the losses.

    Raises ParameterError if there are fewer masks than a batch, and ImageError if an image can no longer be read.
    """

    def prepare(accelerator: Accelerator) -> tuple[SaliencyTask, MaskedImages]:
        return _prepared(samples, found, settings, accelerator)

    return carry_out(settings, out, prepare, minutes, progress, cpu)


def train_on_sources(
    settings: SaliencyOnSources | SegmentationOnSources,
    out: Path,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """The same on the masks that the sources of ``settings`` find, or on what several of them agree on (or, with
    ``taken``, on the masks of that one of them where they agree).

    Masks are kept in the folder ``out_masks``, and used again. Raises as :func:`train_saliency` and
    :func:`foundling.saliency.saliency_masks`.
    """

    def prepare(accelerator: Accelerator) -> tuple[SaliencyTask, MaskedImages]:
        samples = open_images(settings)
        shown = progress and accelerator.is_main_process
        found = find_masks(settings, samples, beside(out, "_masks"), accelerator.device, shown)
        task, images = _prepared(samples, found, settings, accelerator)
        if shown:
            print(f"{images.identity}, of {len(samples)} images", file=sys.stderr)
        return task, images

    return carry_out(settings, out, prepare, minutes, progress, cpu)


def find_masks(
    settings: OnSources, samples: Sequence[Sample], folder: Path, device: torch.device, progress: bool
) -> SaliencyMasks:
    """The masks of the only source, or what several agree on, or one of them where they agree."""
    backbone = load_backbone(settings.backbone, device=str(device))
    found = saliency_masks(settings.sources, samples, backbone, out=folder, progress=progress)
    if len(found) == 1:
        return next(iter(found.values()))
    common = agreement(list(found.values()), settings.least)
    if not settings.taken:
        return common
    own = zip(found[settings.taken].masks, common.masks, strict=True)
    masks = tuple(None if agreed is None else mask for mask, agreed in own)
    return replace(common, source=f"{settings.taken}, where {common.source} agree", masks=masks)


def _prepared(
    samples: Sequence[Sample], found: SaliencyMasks, settings: OnMasks, accelerator: Accelerator
) -> tuple[SaliencyTask, MaskedImages]:
    images = MaskedImages(samples, found, settings.side, accelerator.device, settings.workers)
    if len(images) < settings.batch:
        raise ParameterError(f"batch = {settings.batch} is more than there are images with a mask ({len(images)})")
    if isinstance(settings, Segmentation):
        return SegmenterTask(settings), images
    assert isinstance(settings, Saliency)
    return SaliencyTask(settings), images


def _about(
    run: Run, architecture: str, arguments: dict[str, Any], mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """What the exported file says of itself: how to make it again, and how to feed it."""
    versions = provenance.versions()
    return {
        "architecture": architecture,
        "arguments": arguments,
        "data": run.images.identity,
        "mean": mean,
        "method": run.settings.objective,
        "precision": "half",
        "settings": run.settings.model_dump(exclude={"root", "annotations"}),  # paths of this machine
        "std": std,
        "steps": run.done,
        "versions": {name: versions[name] for name in ("foundling", "torch", "numpy")},
    }
