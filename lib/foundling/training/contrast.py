"""A network that tells found objects from each other, whatever their colour, turn and place in the crop.

Contrastive learning (SimCLR: Chen et al., ICML 2020) on crops whose background is painted over: two views of an object
are to be more alike than views of two objects. What then lies close together is what looks alike: descriptors for
:mod:`foundling.categories`. A change of hue is part of every view, so that objects are not sorted by their colours.
"""

import hashlib
import math
import sys
from collections.abc import Generator as Going
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn

from foundling.categories.crops import Objects, comus_crop, objects_of_masks
from foundling.datasets.images import read_image
from foundling.discovery.export import decode_mask
from foundling.errors import ParameterError
from foundling.training import checkpoints
from foundling.training.checkpoints import beside
from foundling.training.contrast_settings import Contrast, ContrastOnSources
from foundling.training.loop import Outcome, carry_out
from foundling.training.reading import open_images
from foundling.training.running import Run
from foundling.training.saliency import find_masks
from foundling.training.task import Task
from foundling.training.views import augment, normalise, turn_hue, uniform
from foundling.types import Sample

ZOOM = 0.6  # between the closest view and the widest, in sides of the crop
ASPECT = 0.25  # largest change of its logarithm
BLUR = 0.3  # probability

Crops = UInt8[Tensor, "object 4 side side"]  # RGB, and how much of each pixel belongs to the object


class CropSet:
    """The crops of objects, cut out once and kept in memory."""

    def __init__(self, samples: Sequence[Sample], objects: Objects, side: int, device: torch.device | str) -> None:
        self.crops, self.device = cut(samples, objects, side), torch.device(device)
        told = hashlib.sha256()
        for name, mask in zip(objects.names, objects.masks, strict=True):
            told.update(f"{name}\0{mask}\0".encode())
        self.identity = f"{len(self)} crops of {side} px ({told.hexdigest()[:12]})"

    def __len__(self) -> int:
        return len(self.crops)

    def batches(self, plan: Iterable[Sequence[int]]) -> Going[Crops, None, None]:
        """The crops at every list of positions in ``plan``."""
        for positions in plan:
            yield self.crops[list(positions)].to(self.device, non_blocking=True)


def cut(samples: Sequence[Sample], objects: Objects, side: int) -> Crops:
    """The crop of every object, which has a mask: its tight box as a square, as COMUS cuts it."""
    crops = torch.empty(len(objects), 4, side, side, dtype=torch.uint8)
    for row, image in enumerate(objects.images.tolist()):
        pixels = torch.from_numpy(np.array(read_image(samples[image].path, orient=samples[image].orient)))
        mask = objects.masks[row]
        assert mask is not None
        found = comus_crop(pixels, objects.boxes[row], decode_mask(mask), side, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        assert found.inside is not None
        crops[row] = (torch.cat([found.pixels, found.inside[None]]) * 255).round().byte()
    return crops


class ContrastTask(Task):
    """A network, a projector, and SimCLR's loss on two views of every object."""

    def __init__(self, settings: Contrast) -> None:
        super().__init__()
        self.settings = settings
        network: Any = make_trunk(settings.architecture, settings.options)
        self.network, width = network, int(network.num_features)
        self.projector = nn.Sequential(
            nn.Linear(width, settings.hidden),
            nn.BatchNorm1d(settings.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(settings.hidden, settings.projection, bias=False),
        )

    def make_views(self, batch: Crops, generator: Generator) -> Float[Tensor, "view 3 side side"]:
        return torch.cat([make_view(batch, self.settings, generator) for _ in range(2)])

    def forward(self, views: Float[Tensor, "view 3 side side"]) -> dict[str, Tensor]:
        maps = self.network(views.contiguous(memory_format=torch.channels_last))
        projections = self.projector(maps.mean((2, 3)))
        with torch.autocast(projections.device.type, enabled=False):
            return contrast_loss(projections.float(), self.settings.temperature)

    def to_compile(self) -> list[nn.Module]:
        return [self.network]

    def export(self, run: Run, file: Path) -> None:
        """The network without the projector, as :func:`foundling.backbones.load_backbone` reads it."""
        told = checkpoints.about_run(run.settings, run.done, run.images.identity)
        checkpoints.export(file, self.network.state_dict(), told)


def make_trunk(architecture: str, options: Any) -> nn.Module:
    """timm's network up to its last map. Raises ParameterError if there is no such network, or it is no ResNet."""
    if not timm.is_model(architecture) or "resne" not in architecture:
        raise ParameterError(f"architecture = {architecture!r}: give timm's name of a ResNet, such as resnet10t")
    network: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0, global_pool="", **options)
    return network


def make_view(crops: Crops, settings: Contrast, generator: Generator) -> Float[Tensor, "object 3 side side"]:
    """One view of every crop: turned, zoomed, shifted, mirrored, of another colour, normalised, its background painted
    in the mean colour."""
    grid = F.affine_grid(
        windows(len(crops), settings, generator).to(crops.device),
        [len(crops), 4, settings.view, settings.view],
        align_corners=False,
    )
    cut = F.grid_sample(crops.float() / 255, grid, align_corners=False)
    pixels, inside = cut[:, :3], cut[:, 3:]
    if settings.hue:
        amounts = uniform(generator, (len(crops),), -settings.hue, settings.hue)
        pixels = turn_hue(pixels, amounts[:, None, None, None].to(crops.device)).clamp(0, 1)
    pixels = augment(pixels, generator, BLUR, 0.0, settings.strength)
    return normalise(pixels) * inside


def windows(count: int, settings: Contrast, generator: Generator) -> Float[Tensor, "object 2 3"]:
    """Where views lie in their crops, as :func:`torch.nn.functional.affine_grid` takes it."""
    turn = uniform(generator, (count,), -settings.turn, settings.turn)
    zoom = uniform(generator, (count,), settings.zoom, settings.zoom + ZOOM)
    aspect = torch.exp(uniform(generator, (count,), -ASPECT, ASPECT))
    across = zoom * aspect * torch.where(uniform(generator, (count,)) < 0.5, -1.0, 1.0)  # mirrored or not
    down = zoom / aspect
    rows = torch.stack([turn.cos() * across, -turn.sin() * down, turn.sin() * across, turn.cos() * down], 1)
    room = (1 - zoom).abs() + 0.1
    shift = uniform(generator, (count, 2), -1.0, 1.0) * room[:, None]
    return torch.cat([rows.view(count, 2, 2), shift[:, :, None]], 2)


def contrast_loss(projections: Float[Tensor, "view channel"], temperature: float) -> dict[str, Float[Tensor, ""]]:
    """SimCLR's Eq. 1 over both views of all objects (first views, then second ones, in one order), and the share of
    views whose nearest is the other view of their object. Every process compares its own."""
    own, other = F.normalize(projections, dim=1).chunk(2)
    count, similar = len(own), torch.cat([own, other])
    everyone = similar @ similar.T / temperature
    everyone = everyone.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=everyone.device), -math.inf)
    target = torch.arange(2 * count, device=everyone.device).roll(count)
    found = (everyone.argmax(1) == target).float().mean()
    return {"loss": F.cross_entropy(everyone, target), "found": found}


def train_contrast(
    settings: ContrastOnSources, out: Path, minutes: float = math.inf, progress: bool = True, cpu: bool = False
) -> Outcome:
    """Train on the objects that the sources of ``settings`` find, or go on; see
    :func:`foundling.training.loop.carry_out`.

    ``out.safetensors`` is the network in half precision under timm's names, ``out.history.csv`` the losses; masks are
    kept in the folder ``out_masks``, and used again. Raises ParameterError for fewer objects than a batch, and as
    :func:`foundling.training.saliency.find_masks`.
    """

    def prepare(accelerator: Accelerator) -> tuple[ContrastTask, CropSet]:
        samples = open_images(settings)
        shown = progress and accelerator.is_main_process
        found = find_masks(settings, samples, beside(out, "_masks"), accelerator.device, shown)
        objects = objects_of_masks(samples, found.masks, settings.min_area)
        if len(objects) < settings.batch:
            raise ParameterError(f"batch = {settings.batch} is more than there are objects ({len(objects)})")
        images = CropSet(samples, objects, settings.crop, accelerator.device)
        if shown:
            print(f"{images.identity}, of {len(samples)} images", file=sys.stderr)
        return ContrastTask(settings), images

    return carry_out(settings, out, prepare, minutes, progress, cpu)
