"""f, what is refined: a network, the boxes that are discovered through it, and the map of it that h sees."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foundling.backbones import BACKBONES, load_backbone
from foundling.backbones.registry import Entry
from foundling.backbones.vit import PRODUCTS, transformer_facets
from foundling.discovery.methods import resolve_method
from foundling.errors import ParameterError
from foundling.parameters import suggest
from foundling.training.refinement.settings import Refinement
from foundling.types import Discovery, PatchFeatures

FAILED = ("not_finite",)  # flags of a discovery that found nothing, and says the whole image


@dataclass(frozen=True)
class Look:
    """What f makes of a batch of views.

    ``map`` is what h sees; ``output`` what L_f compares, if it was asked for; ``inner`` what discovery reads.
    """

    map: Float[Tensor, "image channel rows columns"]
    output: Float[Tensor, "image ..."] | None
    inner: Any


class Source(nn.Module):
    """f. Nothing but :meth:`trained` may need a gradient."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple: int
    """The sides of its images must be multiples of this."""

    def look(self, views: Float[Tensor, "image 3 height width"], output: bool = True) -> Look:
        """What f makes of normalised images, with gradients where they are enabled."""
        raise NotImplementedError

    def discover(self, look: Look) -> list[Float[Tensor, "_ 4"]]:
        """The boxes of each image in pixels (x0, y0, x1, y1), on the CPU, the surest first; none where that failed."""
        raise NotImplementedError

    def trained(self) -> nn.Module:
        """What phase f moves."""
        raise NotImplementedError

    def begin(self) -> None:
        """Called once, before training, when the frozen copy has been made."""

    def tensors(self) -> dict[str, Tensor]:
        """What the exported file holds."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """What it says of itself: architecture, arguments, mean, std."""
        raise NotImplementedError


class PatchSource(Source):
    """A ViT whose patches LOST or TokenCut look at; its output is the CLS token after the last norm.

    h sees queries, keys and values of the last block, as they are: with ``grid`` as 3·channels maps on the patch grid,
    else as an image of three channels, a row a patch and a column a number. The authors' code has the CLS token as
    another row where TokenCut is used, and not where LOST is; here h sees patches only.
    """

    def __init__(self, network: nn.Module, entry: Entry, method: str, discovery: dict[str, Any], grid: bool) -> None:
        super().__init__()
        self.network, self.entry, self.grid = network, entry, grid
        self.mean, self.std, self.multiple = entry.mean, entry.std, entry.patch_size
        self.method, self.options = resolve_method(method, discovery)
        if unknown := [facet for facet in self.method.facets(**self.options) if facet not in PRODUCTS]:
            raise ParameterError(
                f"discovery = {discovery}: h is shown queries, keys and values, and boxes are to be found in these: "
                f"choose a facet among {', '.join(PRODUCTS)}, not {unknown[0]}"
            )

    def look(self, views: Float[Tensor, "image 3 height width"], output: bool = True) -> Look:
        network: Any = self.network
        facets = (*PRODUCTS, *(["cls"] if output else []))
        found = transformer_facets(network, views, facets, block=len(network.blocks) - 1)
        products = torch.stack([found[name] for name in PRODUCTS], 1)  # [image, 3, patch, channel]
        if self.grid:
            rows = views.shape[-2] // self.multiple
            products = (
                products.transpose(2, 3).flatten(1, 2).unflatten(2, (rows, -1))
            )  # [image, channel, rows, columns]
        inner = {name: found[name].detach().float() for name in PRODUCTS}, (views.shape[-2], views.shape[-1])
        return Look(products, found.get("cls"), inner)

    @torch.no_grad()
    def discover(self, look: Look) -> list[Float[Tensor, "_ 4"]]:
        facets, size = look.inner
        with torch.autocast(look.map.device.type, enabled=False):
            found = self.method.run(patch_features(facets, size, self.multiple), **self.options)
        return [usable_boxes(one) for one in found]

    def trained(self) -> nn.Module:
        return self.network

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def about(self) -> dict[str, Any]:
        return {
            "architecture": self.entry.architecture,
            "arguments": dict(self.entry.options),
            "backbone": self.entry.name,
            "mean": self.mean,
            "std": self.std,
        }


def patch_features(facets: dict[str, Tensor], size: tuple[int, int], patch_size: int) -> PatchFeatures:
    """Facets [image, patch, channel] of images of one ``size`` (height, width) as discovery takes them."""
    images = len(next(iter(facets.values())))
    sizes = torch.tensor(size).expand(images, 2)
    grid = (size[0] // patch_size, size[1] // patch_size)
    given: dict[str, Any] = {"names": tuple(map(str, range(images))), "indices": tuple(range(images)), **facets}
    return PatchFeatures(grid, patch_size, sizes, sizes, **given)


def usable_boxes(found: Discovery) -> Float[Tensor, "_ 4"]:
    """The boxes of one image; none where discovery failed."""
    boxes = torch.from_numpy(found.boxes).float()
    failed = any(flag in FAILED for flag in found.flags)
    return boxes[:0] if failed else boxes


def make_source(settings: Refinement) -> Source:
    """f as ``settings`` describe it, its parameters free to move, on the CPU.

    Raises ParameterError for a backbone without what refinement needs, a side that patches do not fill, and settings of
    discovery that are not legal; WeightsError for weights that are missing or of another network.
    """
    if settings.method == "segmenter":
        from foundling.training.refinement.segmenter import SegmenterSource

        source: Source = SegmenterSource(settings)
    else:
        entry = checked_entry(settings)
        network = load_backbone(entry.name, settings.weights, device="cpu", seed=settings.seed).network
        network.requires_grad_(True)
        source = PatchSource(network, entry, settings.method, settings.discovery, settings.layout == "grid")
    if settings.side % source.multiple:
        raise ParameterError(
            f"side = {settings.side} must be a multiple of {source.multiple}, the patch size of {settings.backbone}"
        )
    return source


def checked_entry(settings: Refinement) -> Entry:
    """The registry's entry of the backbone; raises ParameterError unless it is a ViT with a CLS token."""
    name = settings.backbone
    if name not in BACKBONES:
        raise ParameterError(f"unknown backbone {name!r}{suggest(name, BACKBONES)}")
    entry = BACKBONES[name]
    if entry.family != "vit" or "cls" not in entry.facets:
        why = "is a CNN: it has no queries, keys and values" if entry.family != "vit" else "has no CLS token"
        legal = [e.name for e in BACKBONES.values() if e.family == "vit" and "cls" in e.facets]
        raise ParameterError(
            f"backbone = {name} cannot be refined: it {why}, which h sees or L_f compares; choose one of "
            f"{', '.join(legal)}"
        )
    return entry
