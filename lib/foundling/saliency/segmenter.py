"""A segmenter on frozen features of a ViT, as MOVE has it (Bielski and Favaro, NeurIPS 2022): an image to a soft mask.

A small convolutional head doubles the grid of patches until it has the pixels of the image. Parameters have the names
of the published code's, so that its checkpoints load, and those of box refinement, which goes on from them; MOVE's own
training (the mask is shifted over an inpainted background, and a discriminator is to be fooled) is not repeated here:
:mod:`foundling.training.saliency` trains a head on masks that other methods discovered.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from foundling.backbones import Backbone, load_backbone
from foundling.backbones.checkpoint import read_checkpoint
from foundling.backbones.registry import Entry
from foundling.backbones.vit import transformer_facets
from foundling.backbones.weights import find_weights, how_to_get
from foundling.errors import ParameterError, WeightsError
from foundling.files import checksum

BACKBONE, BLOCK = "dino_vits8", -2  # of the published segmenter: the last block but one
NORM, HEAD, REFINED = "feature_extractor.norm.", "segmenter_head.", "random_segmenter."  # what names begin with
WIDTHS = (192, 128, 128, 128)  # of the published head
_LAYER = re.compile(r"model\.(\d+)\.(?:(\d+)\.)?weight")

SEGMENTERS: dict[str, Entry] = {
    "move": Entry(
        name="move",
        architecture="convolutional head on dino_vits8",
        file="move_dino_vits8.pth",
        licence="see its page",
        patch_size=8,
        page="https://github.com/adambielski/move-seg (release move_model)",
        family="saliency",
        notes="MOVE's segmenter, trained on DUTS-TR without labels: the source of box refinement's third row.",
    )
}


class SegmenterHead(nn.Module):
    """Features on the grid of patches to one logit a pixel: blocks of 3×3 convolution, batch norm and leaky ReLU.

    ``widths`` has the channels of every block. Each but the last begins by doubling the grid (nearest neighbour), so
    that n + 1 blocks serve patches of 2^n pixels; ``depth`` convolutions make up a block.
    """

    def __init__(self, channels: int, widths: Sequence[int], depth: int = 1) -> None:
        super().__init__()
        if not widths or min(channels, depth, *widths) < 1:
            raise ParameterError(
                f"channels = {channels}, widths = {list(widths)}, depth = {depth}: give a width or more, all 1 or more"
            )
        self.channels, self.widths, self.depth = channels, tuple(widths), depth
        blocks, inputs = list[nn.Module](), channels
        for number, width in enumerate(widths):
            blocks.append(_block(inputs, width, depth, doubled=number < len(widths) - 1))
            inputs = width
        self.model = nn.Sequential(*blocks, nn.Conv2d(inputs, 1, 1))

    @property
    def stride(self) -> int:
        """Pixels of the side of a patch."""
        return int(2 ** (len(self.widths) - 1))

    def forward(self, features: Float[Tensor, "image channel rows columns"]) -> Float[Tensor, "image 1 h w"]:
        logits: Tensor = self.model(features)
        return logits


def _block(inputs: int, width: int, depth: int, doubled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest")] if doubled else []
    for _ in range(depth):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU()]
        inputs = width
    return nn.Sequential(*layers)


class Segmenter(nn.Module):
    """A frozen ViT up to block ``block``, a layer norm of the segmenter's own, and a head.

    ``weights`` says where norm and head came from, ``checksum`` which they are.
    """

    def __init__(self, backbone: Backbone, widths: Sequence[int], block: int = BLOCK, depth: int = 1) -> None:
        """Random norm and head. Raises ParameterError for a network, a block or widths that do not go together."""
        super().__init__()
        if backbone.family != "vit":
            raise ParameterError(f"{backbone.name} is a CNN: a segmenter stands on a transformer, such as {BACKBONE}")
        if not -backbone.blocks <= block < backbone.blocks:
            raise ParameterError(f"block = {block}: {backbone.name} has blocks 0 to {backbone.blocks - 1}, -1 the last")
        self.block, self.stride = block, backbone.patch_size
        self.backbone, self.backbone_checksum, self.mean, self.std = (
            backbone.name, backbone.checksum, backbone.mean, backbone.std
        )  # fmt: skip
        self.vit: Any = backbone.network
        self.norm = nn.LayerNorm(backbone.channels, eps=1e-6)
        self.head = SegmenterHead(backbone.channels, widths, depth)
        self.weights, self.checksum = "random", "random"
        if self.head.stride != self.stride:
            raise ParameterError(
                f"a head of {len(self.head.widths)} blocks serves patches of {self.head.stride} pixels, but those of "
                f"{backbone.name} have {self.stride}: give {int(math.log2(self.stride)) + 1} widths"
            )

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    def train(self, mode: bool = True) -> "Segmenter":
        """Norm and head; the network below is never trained."""
        super().train(mode)
        self.vit.eval()
        return self

    def features(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image channel rows columns"]:
        """What the head sees of normalised images; raises ParameterError unless sides are multiples of the patch's."""
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride or not images[0, 0].numel():
            raise ParameterError(
                f"{width}×{height} pixels: this segmenter takes sides that are multiples of {self.stride}"
            )
        with torch.no_grad():
            block = self.block % len(self.vit.blocks)
            tokens = transformer_facets(self.vit, images, ("tokens",), block, norm="none")["tokens"]
        normed: Tensor = self.norm(tokens)
        return normed.transpose(1, 2).unflatten(2, (height // self.stride, width // self.stride))

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "map image h w"]:
        """The logits of one map, in the shape in which :class:`~foundling.saliency.Basnet` gives its eight."""
        logits: Tensor = self.head(self.features(images))
        return logits.transpose(0, 1)

    def fresh_head(self, seed: int) -> SegmenterHead:
        """Another head of the same shape with parameters drawn from ``seed``, on the same device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SegmenterHead(self.head.channels, self.head.widths, self.head.depth).to(self.device)


def make_segmenter(
    backbone: Backbone, widths: Sequence[int] = WIDTHS, block: int = BLOCK, depth: int = 1, seed: int = 0
) -> Segmenter:
    """An untrained segmenter on ``backbone``'s device, drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = Segmenter(backbone, widths, block, depth).to(backbone.device)
    segmenter.weights, segmenter.checksum = "random", f"random({seed})"
    return segmenter


def load_segmenter(
    weights: str | Path, device: str | torch.device = "cpu", backbone: Backbone | None = None
) -> Segmenter:
    """A segmenter with its weights, frozen and in evaluation mode, on ``device``.

    ``weights`` is a name of :data:`SEGMENTERS` (whose file is then expected in the weights folder), or a path: of a
    checkpoint of MOVE, of box refinement (of its two heads the refined one is taken), or of one that was trained here.
    ``backbone`` is the network below, by default the one that the file names, or DINO's ViT-S/8 of MOVE; whatever
    else the file holds, such as the inpainting network, is left.

    Raises WeightsError for a file that is missing, damaged, of another kind, or trained on another network.
    """
    path = _file(weights)
    content = read_checkpoint(path)
    state, told = _parameters(content, path), _told(path)
    if backbone is None:
        backbone = load_backbone(told.get("backbone", BACKBONE), device=device)
    if (expected := told.get("backbone_checksum")) not in (None, backbone.checksum):
        raise WeightsError(
            f"{path} was trained on {told['backbone']} with weights {expected}, and this network has "
            f"{backbone.name} with {backbone.checksum}: pass the one that it was trained on as backbone="
        )
    widths, depth = _structure(state, path)
    args = content.get("args") if isinstance(content, Mapping) else None
    block = told.get("block", getattr(args, "extractor_block_layer", BLOCK))
    try:
        segmenter = Segmenter(backbone, widths, block, depth)
        for part in ("norm", "head"):
            own = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
            segmenter.get_submodule(part).load_state_dict(own)
    except (ParameterError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path} does not fit a segmenter on {backbone.name}: {reason}") from error
    segmenter.weights, segmenter.checksum = str(path), checksum(path)[:12]
    return segmenter.eval().requires_grad_(False).to(device)


def segmenter_tensors(segmenter: Segmenter) -> dict[str, Tensor]:
    """The parameters of norm and head under the published names."""
    named = {f"{NORM}{name}": value for name, value in segmenter.norm.state_dict().items()}
    return named | {f"{HEAD}{name}": value for name, value in segmenter.head.state_dict().items()}


def segmenter_arguments(segmenter: Segmenter) -> dict[str, Any]:
    """What a file has to say under ``arguments`` so that :func:`load_segmenter` can make the segmenter again."""
    return {name: getattr(segmenter, name) for name in ("backbone", "backbone_checksum", "block")}


def _file(weights: str | Path) -> Path:
    if str(weights) in SEGMENTERS:
        entry = SEGMENTERS[str(weights)]
        if (found := find_weights(entry)) is None:
            raise WeightsError(f"{entry.name}: the weights are not on this machine; {how_to_get(entry)}")
        return found
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"weights={str(weights)!r}: there is no such file; give the path of a segmenter, "
            f"or one of {', '.join(map(repr, SEGMENTERS))}"
        )
    return path


def _parameters(content: Any, path: Path) -> dict[str, Tensor]:
    """Those of norm and head under our names."""
    inner = content.get("model", content) if isinstance(content, Mapping) else {}
    named = {str(key).removeprefix("module.").removeprefix("segmenter."): value for key, value in inner.items()}
    head = REFINED if any(key.startswith(REFINED) for key in named) else HEAD
    renamed = {NORM: "norm.", head: "head."}
    state = {
        ours + key.removeprefix(theirs): value.float() if value.is_floating_point() else value
        for theirs, ours in renamed.items()
        for key, value in named.items()
        if key.startswith(theirs) and isinstance(value, Tensor)
    }
    if not any(key.startswith("head.") for key in state):
        raise WeightsError(
            f"{path}: no segmenter, for it has nothing under {HEAD}… (it has {', '.join(sorted(named)[:3])}, …): give "
            f"a checkpoint of MOVE, of box refinement on MOVE, or one that was trained here"
        )
    return state


def _structure(state: Mapping[str, Tensor], path: Path) -> tuple[list[int], int]:
    """The widths of a head and the depth of its blocks, as its convolutions tell them."""
    blocks: dict[int, list[int]] = {}
    for key, value in state.items():
        found = _LAYER.fullmatch(key.removeprefix("head."))
        if found and found[2] is not None and value.ndim == 4:
            blocks.setdefault(int(found[1]), []).append(len(value))
    if not blocks or len({len(widths) for widths in blocks.values()}) > 1:
        raise WeightsError(f"{path}: its {HEAD}… is no chain of convolutional blocks as MOVE's head is")
    return [blocks[number][-1] for number in sorted(blocks)], len(next(iter(blocks.values())))


def _told(path: Path) -> dict[str, Any]:
    """What a file that was trained here says of its network; nothing for others."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get("foundling", "{}"))
    arguments: dict[str, Any] = about.get("arguments", {})
    return arguments
