"""A look at training runs: their networks at several steps, as backbones, and what Odin's loss compares."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from foundling.backbones import Backbone, Entry
from foundling.backbones.checkpoint import fit_state
from foundling.backbones.load import describe
from foundling.backbones.networks import build_network
from foundling.datasets.scenes import VERSION
from foundling.discovery.overlap_sources import Describe, at_stride_32, dense_network
from foundling.errors import ParameterError, WeightsError
from foundling.files import checksum
from foundling.training.checkpoints import beside, load_state
from foundling.training.data import TrainingSet
from foundling.training.networks import make_network, mlp
from foundling.training.objectives import make_objective
from foundling.training.odin import Inputs, Odin
from foundling.training.settings import MAY_CHANGE, Common
from foundling.training.settings import Odin as OdinSettings
from foundling.training.views import MEAN, STD

CNN_STRIDE = 16
RESNETS = ("resnet50", "resnet101", "resnet152")  # whose parameters torchvision names as timm does


def run_path(folder: Path, label: str, settings: Common) -> Path:
    """Where a notebook keeps the run ``label``: a name that other settings, or other scenes, do not share.

    So a run with changed settings begins anew beside the old one, and with the old settings goes on where that was.
    """
    told = settings.model_dump(mode="json", exclude=set(MAY_CHANGE))
    text = json.dumps([told, VERSION if settings.dataset == "scenes" else None], sort_keys=True)
    return folder / f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def stages(settings: Common, out: Path, done: int) -> dict[int, Path | None]:
    """The exports of the run ``out``, which has done ``done`` steps: step -> file; step 0, untrained, has none."""
    kept = {step: beside(out, f"_{step}.safetensors") for step in sorted(settings.export_at) if step < done}
    last = {done: beside(out, ".safetensors")} if done else {}
    return {0: None, **{step: file for step, file in kept.items() if file.is_file()}, **last}


def run_backbone(name: str, settings: Common, file: Path | None, device: torch.device | str = "cpu") -> Backbone:
    """A network of a training run as a backbone called ``name``: of the export ``file``, or untrained for ``None``.

    Raises :class:`ParameterError` for an architecture that is neither a ViT nor one of :data:`RESNETS`, and
    :class:`WeightsError` for a file that does not fit it.
    """
    vit = is_vit(settings.architecture)
    if not vit and settings.architecture not in RESNETS:
        raise ParameterError(
            f"{name}: features cannot be taken from {settings.architecture!r}: use a ViT or one of {', '.join(RESNETS)}"
        )
    family, shown = "vit" if vit else "cnn", "random" if file is None else str(file)
    entry = Entry(name, settings.architecture, shown, "mit", CNN_STRIDE, family=family, options=settings.options)
    network: Any = build_network(entry)
    if file is None:
        untrained = make_network(settings.architecture, settings.options, settings.seed).backbone
        network.load_state_dict(untrained.state_dict())
        identity = f"random({settings.seed})"
    else:
        network.load_state_dict(fit_state(entry, network, file))
        identity = checksum(file)[:12]
    if vit:
        entry = replace(entry, patch_size=int(network.patch_embed.patch_size[0]))
    network = network.to(device)
    return describe(replace(entry, mean=MEAN, std=STD), network, shown, identity, next(network.parameters()).device)


def as_published(backbone: Backbone) -> Backbone:
    """A ResNet at the stride of Odin's Tables 4 and 5, 32 pixels; another network as it is."""
    return at_stride_32(backbone) if backbone.family == "cnn" and hasattr(backbone.network, "layer4") else backbone


def pictures(images: Float[Tensor, "image 3 h w"]) -> list[Image.Image]:
    """Normalised images, as views are, as pictures."""
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    pixels = ((images * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in pixels]


def is_vit(architecture: str) -> bool:
    """Whether timm's network of this name is a ViT."""
    return timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__.endswith("vision_transformer")


class Projected(nn.Module):
    """A dense network and a projector that is applied at every place of its map: z of Odin's ResNets (A.4)."""

    def __init__(self, network: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.network, self.projector = network, projector

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image channel rows columns"]:
        maps: Tensor = self.network(images)
        rows = [self.projector(one.flatten(1).T) for one in maps]
        return torch.stack([z.T.unflatten(1, maps.shape[-2:]) for z in rows])


def run_projections(settings: OdinSettings, out: Path, device: torch.device | str = "cpu") -> Describe:
    """The projections of an Odin run with a feature pyramid (Odin† of Table 4), as a source for the overlap.

    Raises :class:`WeightsError` if ``<out>_dense.safetensors`` is not there or does not fit.
    """
    file = beside(out, "_dense.safetensors")
    if not file.is_file():
        raise WeightsError(f"{file} is not there: runs with a feature pyramid write it, or those with export_dense")
    network = make_network(settings.architecture, settings.options, settings.seed)
    model = Projected(network, mlp(network.channels, settings.hidden, settings.projection))
    ours = {k if k.startswith("projector.") else f"network.{k}": v for k, v in load_file(file).items()}
    try:
        model.load_state_dict(ours)
    except RuntimeError as error:
        raise WeightsError(f"{file} does not fit its settings ({' '.join(str(error).split())[:200]})") from error
    return dense_network(model.float().to(device), MEAN, STD, batch_size=2)


def odin_objective(settings: OdinSettings, images: TrainingSet, out: Path | None = None) -> Odin:
    """Odin's networks and heads: untrained, or as the run ``out`` left them; in training mode, on the CPU.

    Raises :class:`WeightsError` if there is no state of that run, and what :func:`load_state` raises.
    """
    objective = make_objective(settings, len(images))
    assert isinstance(objective, Odin)
    if out is not None:
        state = load_state(beside(out, ".state"), settings, images.identity)
        if state is None:
            raise WeightsError(f"{beside(out, '.state')} is not there: train first")
        objective.load_state_dict(state["task"])
    return objective


class Contrast(NamedTuple):
    """The cosines that Eq. 2 divides by alpha: of the masks of view 1 that have a vector in both views.

    ``similarity`` compares the predictions q(z_theta) of view 1 (rows) with the targets z_xi of view 2 (first half of
    the columns) and with those of view 1 (second half), of the same masks in the same order. ``image`` and ``mask``
    say which they are.
    """

    similarity: Float[Tensor, "anchor target"]
    image: Int[Tensor, " anchor"]
    mask: Int[Tensor, " anchor"]


@torch.no_grad()
def contrast(objective: Odin, inputs: Inputs) -> Contrast:
    """What Odin's loss compares on a small batch; ``inputs`` come from the objective's ``make_views``."""
    online, targets, presents = objective.vectors(inputs)
    where = (presents[0] & presents[1]).nonzero()
    q, other, same = (F.normalize(v[tuple(where.T)], dim=-1) for v in (online[0], targets[1], targets[0]))
    return Contrast(torch.cat([q @ other.T, q @ same.T], 1), where[:, 0], where[:, 1])
