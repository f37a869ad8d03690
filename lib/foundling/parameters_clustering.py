"""The parameters of 04_clustering: what counts as salient, how objects are described, how they are grouped."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundling.parameters_base import LABEL, Parameters, split_backbone
from foundling.paths import ROOT

# Label -> source and its settings; those of LOST, TokenCut and DINO-seg are notebook 02's. Of these, LOST's masks
# covered most of the objects of 240 scenes of single_train (IoU 45 %; TokenCut 31, the cut in two 28, DINO-seg 13): the
# embedded network was trained on them.
SALIENCY: dict[str, dict[str, Any]] = {
    "spectral": {"source": "spectral", "facet": "keys"},
    "dino_seg": {"source": "dino_seg", "head": 2, "rule": "largest"},
    "lost": {"source": "lost", "k": 1, "facet": "keys", "centre": True},
    "tokencut": {"source": "tokencut", "tau": 0.4, "facet": "keys"},
    "centre_box": {"source": "centre_box"},
    "network": {"source": "network", "weights": "scenes_saliency"},
}
NETWORK = "network"
Number = Annotated[int, Field(ge=1, le=254)]  # of clusters: what a label map of 8 bits holds beside 0 and 255


class Clustering(Parameters):
    """04_clustering: objects grouped into categories that have no names."""

    size: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    limit: int = Field(240, ge=0, description="number of images, from the first; 0: all of them")
    classes: int = Field(0, ge=0, description="of imagenet, so many, drawn with seed (COMUS: 50, 100, 200); 0: all")
    compare_backbones: list[str] = Field([], max_length=0, description="none: the control is the network untrained")
    saliency: dict[str, dict[str, Any]] = Field(
        SALIENCY, min_length=1, description="label -> {'source': …, its settings}; see foundling.saliency.SALIENCY"
    )
    saliency_network: str = Field(
        "", description="checkpoint of sources 'network' without weights of their own, or its name"
    )
    source: str = Field("network", description="label, among saliency, whose masks become objects")
    region: Literal["mask", "box"] = Field("mask", description="an object is the salient mask, or the box around it")
    least_labelled: int = Field(
        0, ge=0, description="pixels annotated in an image from which it takes part; COMUS on COCO: 1000"
    )
    min_area: int = Field(400, ge=0, description="pixels above which a mask is an object")
    describer: str = Field(
        "scenes_objects", description="network that describes objects, as in compare_backbones; empty: backbone"
    )
    recipe: Literal["comus", "lost"] = Field("comus", description="how an object is cut out: comus or lost")
    descriptor: Literal["cls", "mean", "texture"] = Field(
        "mean", description="of a crop: cls (the papers), mean or texture of its patches"
    )
    side: int = Field(64, ge=16, le=1024, description="pixels of a crop's side, 16 to 1024")
    facet: Literal["keys", "queries", "values", "tokens"] = Field("tokens", description="of patches: mean and texture")
    block: int = Field(-1, description="block whose features are read, -1 is the last")
    colour: bool = Field(True, description="crops in colour; false: in grey")
    background: Literal["keep", "mean"] = Field("mean", description="around the mask: keep it, or paint it over")
    clusters: int = Field(0, ge=0, le=254, description="number of clusters; 0: of categories, or as suggested")
    over_clusters: list[Number] = Field([24], description="further numbers of clusters, for majority voting")
    neighbours: int = Field(30, ge=2, description="of each object in the graph of spectral clustering")
    share: float = Field(0.8, gt=0, le=1, description="of a cluster that is its core; above 0, 1 keeps all")
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        [0, 1, 2, 3, 4],
        min_length=2,
        description="of clusterings, two or more; the untrained network is drawn with each",
    )
    retrieved: int = Field(10, ge=1, le=100, description="neighbours of an image in retrieval, 1 to 100")

    @model_validator(mode="after")
    def _named(self) -> "Clustering":
        for label, settings in self.saliency.items():
            if not re.match(LABEL, label):
                raise ValueError(f"saliency: label {label!r} names metrics: use lower-case letters, digits and _")
            if not isinstance(settings.get("source", label), str):
                raise ValueError(f"saliency.{label} needs 'source': the name of a source, such as 'tokencut'")
        if self.source not in self.saliency:
            raise ValueError(f"source is {self.source!r}: choose a label of saliency ({', '.join(self.saliency)})")
        for label in self.saliency_networks():
            if not isinstance(self.saliency[label].get("weights", ""), str):
                raise ValueError(f"saliency.{label}.weights is no text: give the path of a checkpoint, or its name")
            if not self.saliency_weights(label):
                raise ValueError(
                    f"saliency.{label} is a network: give its 'weights', or saliency_network, its checkpoint"
                )
        if self.classes and self.dataset != "imagenet":
            raise ValueError(f"classes goes with the dataset 'imagenet', not with {self.dataset!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give each once")
        if self.background == "mean" and self.region == "box":
            raise ValueError("background is 'mean' with region 'box': without a mask there is nothing to paint over")
        return self

    def networks(self) -> list[tuple[str, str]]:
        """Those of the run, and the network that describes objects."""
        own = [split_backbone(self.describer)] if self.describer else []
        return [*super().networks(), *own]

    def saliency_networks(self) -> list[str]:
        """The labels of the sources that are saliency networks."""
        return [label for label, settings in self.saliency.items() if settings.get("source", label) == NETWORK]

    def saliency_weights(self, label: str) -> str:
        """The weights of a source that is a network, a name or a path; a relative one is taken from the checkout."""
        given: str = self.saliency[label].get("weights") or self.saliency_network
        path = ROOT / Path(given).expanduser()
        return str(path) if given and path.is_file() else given

    def saliency_settings(self) -> dict[str, dict[str, Any]]:
        """``saliency`` as :func:`foundling.saliency.saliency_masks` takes it, every network with its weights."""
        own = {label: {"weights": self.saliency_weights(label)} for label in self.saliency_networks()}
        return {label: {**settings, **own.get(label, {})} for label, settings in self.saliency.items()}

    def sources(self) -> dict[str, dict[str, Any]]:
        """The sources of saliency that are methods of discovery: label -> {'method': …, its settings}."""
        from foundling.saliency import SALIENCY as NAMES

        found = {}
        for label, settings in self.saliency.items():
            rest = dict(settings)
            name = rest.pop("source", label)
            if name != NETWORK:
                found[label] = {"method": NAMES.get(name, name), **rest}
        return found
