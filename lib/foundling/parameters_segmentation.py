"""The parameters of 06_segmenter_training: whose masks are labels, what is trained on them, what it is measured on."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundling.errors import ParameterError
from foundling.parameters_base import Parameters, split_backbone
from foundling.parameters_clustering import NETWORK
from foundling.parameters_detection import FILES, check_description, named_parts
from foundling.parameters_instances import PartCount
from foundling.paths import ROOT

# The masks and the names of notebook 04.
SALIENCY: dict[str, Any] = {"source": NETWORK, "weights": "scenes_saliency"}
DESCRIPTION: dict[str, Any] = {
    "recipe": "comus", "descriptor": "mean", "side": 64, "facet": "tokens", "background": "mean",
}  # fmt: skip
PART = r"^([A-Za-z0-9_]+:)?[A-Za-z0-9_]+$"
FURTHER = r"^[A-Za-z0-9_]+:[A-Za-z0-9_]+(:voc)?$"
NO_SALIENCY = "none"

Part = Annotated[str, Field(pattern=PART)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class SegmenterTraining(Parameters):
    """06_segmenter_training: segmenters trained on found masks, semantic and of instances."""

    size: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    limit: int = Field(0, ge=0, description="number of images that are measured, from the first; 0: all of them")
    compare_backbones: list[str] = Field([], max_length=0, description="none: a segmenter is compared with its labels")
    seeds: list[Seed] = Field([0], min_length=1, description="of clusterings and training, one segmenter for each")
    train_minutes: float = Field(0.0, ge=0, allow_inf_nan=False, description="minutes after which a run stops; 0: none")
    further: list[Annotated[str, Field(pattern=FURTHER)]] = Field(
        [],
        description="dataset:split on which the trained segmenters are measured as well; dataset:split:voc: only its "
        "objects of VOC's 20 categories",
    )

    semantic: list[dict[str, Any]] = Field(
        [{"settings": "scenes_semantic"}, {"settings": "scenes_semantic_2"}],
        description="a round of self-training each: {'settings': file in studies/training, what differs from it}; "
        "empty: none",
    )
    train_on: list[Part] = Field(
        ["single_train"],
        description="parts that round 1 is trained on, each a split or dataset:split; empty: the images measured",
    )
    later_on: list[Part] = Field([], description="parts that later rounds are trained on; empty: those of round 1")
    train_limit: int = Field(1000, ge=0, description="images of each part of round 1, from the first; 0: all of them")
    later_limit: int = Field(
        2000, ge=0, description="images of each part of later rounds, from the first; 0: all of them"
    )
    saliency: dict[str, Any] = Field(
        SALIENCY,
        description="whose mask of an image is its object: {'source': …, its settings}; see notebook 04",
    )
    least_labelled: int = Field(
        0, ge=0, description="pixels annotated in an image from which it is measured; COMUS on COCO: 1000"
    )
    min_area: int = Field(400, ge=0, description="pixels above which a mask is an object")
    describer: str = Field(
        "scenes_objects", description="network that describes objects, as in compare_backbones; empty: backbone"
    )
    description: dict[str, Any] = Field(
        DESCRIPTION, description="of objects for clustering: arguments of foundling.categories.describe_objects"
    )
    clusters: int = Field(0, ge=0, le=254, description="number of clusters; 0: of categories")
    neighbours: int = Field(30, ge=2, description="of each object in the graph of spectral clustering")
    share: float = Field(0.8, gt=0, le=1, description="of a cluster that is its core, and taught; above 0, 1 keeps all")
    ablation: bool = Field(True, description="COMUS' Table 5: also k-means, and round 1 without the filter")

    instances: dict[str, Any] = Field(
        {"settings": "scenes_instances"},
        description="of instances: {'settings': file in studies/training, what differs from it}; empty: none",
    )
    instance_part: str = Field(
        "multi_val",
        pattern=rf"{PART}|^$",
        description="part that it is measured on, a split or dataset:split; empty: as above",
    )
    instance_limit: int = Field(0, ge=0, description="number of its images, from the first; 0: all of them")
    instance_train_on: list[Part] = Field(
        ["multi_train"], description="parts that it is trained on; empty: the images that it is measured on"
    )
    instance_train_limit: int = Field(800, ge=0, description="images of each of these parts; 0: all of them")
    proposal_backbone: str = Field("", description="network whose parts become proposals; empty: backbone")
    saliency_backbone: str = Field(
        "scenes_mae", description="network whose cut in two says what is salient; empty: backbone; none: no such filter"
    )
    proposal_ks: list[PartCount] = Field(
        [2, 3, 4, 5], min_length=1, description="numbers of parts that images are cut into, 2 to 64 each"
    )
    facet: Literal["keys", "queries", "values", "tokens"] = Field(
        "keys", description="what describes a patch: keys, queries, values, tokens"
    )
    upsample: Literal["nearest", "bilinear"] = Field(
        "nearest", description="from patches to pixels: nearest (the paper), or bilinear, of soft parts"
    )
    split_parts: bool = Field(True, description="connected components instead of parts in several pieces")
    intersection: float = Field(0.5, ge=0, le=1, description="share of a proposal that is salient, at least; 0 to 1")
    nms: float = Field(0.8, ge=0, le=1, description="IoU above which a proposal is a duplicate, 0 to 1; 1 keeps all")
    most: int = Field(0, ge=0, description="proposals an image that are taught, the best ones; 0: all of them")
    smallest: float = Field(
        0.012,
        ge=0,
        le=1,
        description="share of the image that a proposal covers, at least, to be taught; the paper's: 0",
    )
    score: float = Field(0.3, ge=0, le=1, description="of the masks that are drawn in pictures, at least")
    gallery: int = Field(6, ge=1, le=12, description="pictures in each gallery, 1 to 12")

    @model_validator(mode="after")
    def _trained(self) -> "SegmenterTraining":
        if not self.semantic and not self.instances:
            raise ValueError("semantic and instances are both empty: give the settings of one, or there is no training")
        if not isinstance(self.saliency.get("source"), str):
            raise ValueError("saliency needs 'source': the name of a source, such as 'lost'")
        if self.saliency["source"] == NETWORK and not isinstance(self.saliency.get("weights"), str):
            raise ValueError("saliency is a network: give its 'weights', a checkpoint or its name")
        for name in ("seeds", "train_on", "later_on", "instance_train_on", "further", "proposal_ks"):
            if len(set(values := getattr(self, name))) < len(values):
                raise ValueError(f"{name} is {values}: give each once")
        if self.later_on and len(self.semantic) < 2:
            raise ValueError(f"later_on is {self.later_on}, but there is no later round: give semantic another one")
        check_description(self.description)
        rounds = self.rounds()
        if rounds and rounds[0].begin == "teacher":
            raise ValueError("semantic.1.begin is teacher, but nobody taught before round 1: begin with the encoder")
        self.segmenter()
        return self

    def networks(self) -> list[tuple[str, str]]:
        """That of masks, that of descriptions, those of proposals, and those that segmenters start from."""
        named = [run.weights for run in self.runs() if run.weights != "random" and not run.weights.endswith(FILES)]
        others = [self.describer] if self.semantic else []
        others += [self.proposal_backbone, self.saliency_backbone] if self.instances else []
        used = [split_backbone(name) for name in others if name not in ("", NO_SALIENCY)]
        return [*super().networks(), *dict.fromkeys([*used, *((name, "pretrained") for name in named)])]

    def files(self) -> list[str]:
        """The checkpoints, given as paths, that segmenters start from."""
        return [run.weights for run in self.runs() if run.weights.endswith(FILES)]

    def runs(self) -> list[Any]:
        """The settings of all that is trained."""
        return [*self.rounds(), *([self.segmenter()] if self.instances else [])]

    def rounds(self) -> list[Any]:
        """``semantic`` with the settings of each round: those of ``Semantic``; the seed is the notebook's to set."""
        from foundling.training.semantic.settings import Semantic

        models = {"semantic": Semantic}
        return [_recipe(given, f"semantic.{number}", models) for number, given in enumerate(self.semantic, start=1)]

    def segmenter(self) -> Any:
        """``instances`` with its settings, ``Solo`` or ``MaskRcnn``, or ``None``; the seed is the notebook's to set."""
        from foundling.training.instance.settings import SEGMENTERS

        return _recipe(self.instances, "instances", SEGMENTERS) if self.instances else None

    def parts(self) -> list[tuple[str, str]]:
        """``train_on`` as (dataset, split); none where the images that are measured are trained on."""
        return named_parts(self.train_on, self.dataset)

    def later_parts(self) -> list[tuple[str, str]]:
        """The same of later rounds: ``later_on``, or the parts of round 1."""
        return named_parts(self.later_on or self.train_on, self.dataset)

    def instance_parts(self) -> list[tuple[str, str]]:
        """The same of ``instance_train_on``; none where the images that instances are measured on are trained on."""
        return named_parts(self.instance_train_on, self.dataset)

    def measured_instances(self) -> tuple[str, str] | None:
        """``instance_part`` as (dataset, split), or ``None`` for the images that everything else is measured on."""
        return named_parts([self.instance_part], self.dataset)[0] if self.instance_part else None

    def further_parts(self) -> list[tuple[str, str, bool]]:
        """``further`` as (dataset, split, whether only VOC's categories count)."""
        split = [entry.split(":") for entry in self.further]
        return [(dataset, part, bool(voc)) for dataset, part, *voc in split]

    def saliency_method(self) -> dict[str, Any] | None:
        """``saliency`` as a method of discovery and its settings, or ``None`` for a network."""
        from foundling.saliency import SALIENCY as NAMES

        rest = dict(self.saliency)
        name = rest.pop("source")
        return None if name == NETWORK else {"method": NAMES.get(name, name), **rest}

    def saliency_settings(self) -> dict[str, Any]:
        """``saliency`` as ``saliency_masks`` takes it; a relative path of weights starts at the checkout."""
        path = ROOT / Path(weights).expanduser() if (weights := self.saliency.get("weights")) else None
        return {**self.saliency, **({"weights": str(path)} if path is not None and path.is_file() else {})}


def _recipe(given: dict[str, Any], where: str, models: Any) -> Any:
    """The settings of a run, without those that the notebook sets."""
    from foundling.training.recipes import recipe

    if theirs := [key for key in ("seed", "classes") if key in given]:
        raise ValueError(f"{where}.{theirs[0]} is set by the notebook (see seeds): remove it")
    try:
        return recipe(given, where, models)
    except ParameterError as error:
        raise ValueError(str(error)) from None
