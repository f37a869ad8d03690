"""The parameters of 10_ablations: how the network is read, and grids of settings that share one pass of it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundling.combinations import variants
from foundling.errors import ParameterError
from foundling.parameters_base import BackboneName, Parameters, check_label, split_backbone

PartCount = Annotated[int, Field(ge=2, le=64)]

# The first value of every list is that of METHODS in foundling.parameters, chosen on training scenes.
GRIDS: dict[str, dict[str, Any]] = {
    "lost": {
        "method": "lost",
        "k": [1, 10, 100],
        "facet": ["keys", "queries", "values", "tokens"],
        "centre": [True, False],
    },
    "tokencut": {"method": "tokencut", "tau": [0.4, 0.2, 0.0], "facet": ["keys", "tokens"], "centre": [False, True]},
    "dino_seg": {"method": "dino_seg", "head": [2, 0, 1, "bcc", "haiou"], "rule": "largest"},
}


class Ablations(Parameters):
    """10_ablations: what the numbers of single-object discovery depend on."""

    size: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    compare_backbones: list[BackboneName] = Field(
        [], max_length=0, description="none here: a sweep over backbone compares networks"
    )
    block: int = Field(-1, description="block that is read, from 0, -1 is the last")
    bias: bool = Field(True, description="keys, queries and values with the bias that the network adds: true or false")
    norm: Literal["last", "all", "none"] = Field(
        "last", description="whose tokens pass the final norm: last (the last block's), all, none"
    )
    grids: dict[str, dict[str, Any]] = Field(
        GRIDS,
        min_length=1,
        description="label -> {'method': …, settings: a value, or a list whose first is the default}",
    )

    proposal_ks: list[Annotated[list[PartCount], Field(min_length=1)]] = Field(
        [[2], [3], [4], [5], [2, 3, 4, 5]],
        description="sets of k whose parts become mask proposals, the last is the default; empty: no proposals",
    )
    saliency_backbones: list[BackboneName] = Field(
        ["none", "scenes_mae", "scenes_odin"],
        min_length=1,
        description="networks whose cut in two filters the proposals, the last is the default; none: no filter",
    )
    proposal_split: str = Field("", description="part of the dataset for the proposals; empty: for scenes multi_val")
    proposal_limit: int = Field(40, ge=0, description="number of images for the proposals, from the first; 0: all")

    @model_validator(mode="after")
    def _grids(self) -> "Ablations":
        for label, settings in self.grids.items():
            check_label("grids", label, settings)
        try:
            self.variants()
        except ParameterError as error:
            raise ValueError(str(error)) from None
        for name, values in (("proposal_ks", self.proposal_ks), ("saliency_backbones", self.saliency_backbones)):
            if twice := [value for i, value in enumerate(values) if value in values[:i]]:
                raise ValueError(f"{name} has {twice[0]!r} twice: keep one")
        return self

    def networks(self) -> list[tuple[str, str]]:
        """Those of every notebook, and the ones that tell what is salient."""
        filters = [split_backbone(name) for name in self.saliency_backbones if name != "none"]
        return [*super().networks(), *(filters if self.proposal_ks else [])]

    def proposal_variants(self) -> dict[str, dict[str, Any]]:
        """Label -> ks, saliency, split: the default, and what differs from it in one of them (Tables 4 to 6)."""
        ks, saliency = self.proposal_ks[-1], self.saliency_backbones[-1]
        made = {"default": {"ks": ks, "saliency": saliency, "split": True}}
        for other in self.proposal_ks[:-1]:
            made["k" + "_".join(map(str, other))] = {**made["default"], "ks": other}
        for name in self.saliency_backbones[:-1]:
            made[f"saliency_{name.replace(':', '_')}"] = {**made["default"], "saliency": name}
        return made | {"not_split": {**made["default"], "split": False}}

    def by_grid(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For each grid the variants that this backbone serves, the default (if served) first; see :meth:`served`."""
        kept = self.served()[0]
        return {
            grid: {label: chosen for label, chosen in kept.items() if label.partition(".")[0] == grid}
            for grid in self.grids
        }

    def variants(self) -> dict[str, dict[str, Any]]:
        """Label -> settings of every combination in every grid; a grid's default has the grid's label."""
        return {
            label: chosen
            for grid, settings in self.grids.items()
            for label, chosen in variants(grid, settings, f"grids.{grid}").items()
        }

    def served(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """The variants that read what the backbone has, and for each other why it cannot be run.

        For parameters whose names have been checked; imports the registries, and so torch.
        """
        from foundling.backbones import BACKBONES
        from foundling.discovery import resolve_method

        present: Mapping[str, Any] = dict.fromkeys((*BACKBONES[self.backbone].facets, "images"))
        kept, lacking = {}, {}
        for label, settings in self.variants().items():
            method, complete = resolve_method(label, settings)
            if absent := [facet for facet in method.facets(**complete) if facet not in present]:
                lacking[label] = f"{self.backbone} has no {' and no '.join(absent)}"
            else:
                kept[label] = settings
        return kept, lacking
