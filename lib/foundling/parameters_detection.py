"""The parameters of 05_detector_training: whose boxes are labels, what is trained on them, and on which images."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundling.errors import ParameterError
from foundling.parameters_base import Parameters

# The settings of LOST are those of notebook 02, chosen on single scenes; those of descriptions those of notebook 04.
TEACHER: dict[str, Any] = {"method": "lost", "k": 1, "facet": "keys", "centre": True}
DESCRIPTION: dict[str, Any] = {
    "recipe": "comus", "descriptor": "texture", "side": 64, "colour": False, "background": "mean"
}  # fmt: skip
DESCRIBED = {
    "recipe": str, "descriptor": str, "side": int, "facet": str, "block": int, "norm": str, "colour": bool,
    "background": str,
}  # fmt: skip


FILES = (".safetensors", ".pth", ".pt")  # endings of weights that are no names


class DetectorTraining(Parameters):
    """05_detector_training: detectors trained on one found box an image."""

    split: str = Field("multi_val", description="part of the dataset that is measured; empty: its default")
    size: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    limit: int = Field(0, ge=0, description="number of images that are measured, from the first; 0: all of them")
    compare_backbones: list[str] = Field([], max_length=0, description="none: a detector is compared with its teacher")
    train_on: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_]+)?$")]] = Field(
        ["single_train"],
        description="parts that are trained on, each a split or dataset:split; empty: the images that are measured",
    )
    train_limit: int = Field(1000, ge=0, description="images of each of these parts, from the first; 0: all of them")
    teacher: dict[str, Any] = Field(
        TEACHER, description="whose best box of an image is its label: {'method': …, its settings}"
    )
    cad: dict[str, Any] = Field(
        {"settings": "scenes_cad"},
        description="class-agnostic: {'settings': file in studies/training, what differs from it}; empty: none",
    )
    od: dict[str, Any] = Field(
        {"settings": "scenes_od"},
        description="of clusters, which are its classes; likewise; empty: none",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0], min_length=1, description="of training, one detector of each kind for every seed"
    )
    train_minutes: float = Field(0.0, ge=0, allow_inf_nan=False, description="minutes after which a run stops; 0: none")
    true_boxes: bool = Field(False, description="train on the true boxes as well: what a perfect teacher would teach")
    enlarge: bool = Field(
        True, description="a control: the teacher, too, sees measured images as large as the detector sees them"
    )
    clusters: int = Field(0, ge=0, le=1000, description="number of clusters of found objects; 0: of categories")
    clustering: Literal["spectral", "kmeans", "kmeans_lost"] = Field(
        "spectral", description="how they are grouped: spectral, kmeans, or kmeans_lost (the paper)"
    )
    cluster_seed: int = Field(0, ge=0, lt=2**31, description="of the first clustering; LOST's code has 123")
    description: dict[str, Any] = Field(
        DESCRIPTION, description="of objects for clustering: arguments of foundling.categories.describe_objects"
    )
    score: float = Field(0.3, ge=0, le=1, description="of the boxes that are drawn in pictures, at least")
    gallery: int = Field(8, ge=1, le=24, description="pictures in each gallery, 1 to 24")

    @model_validator(mode="after")
    def _trained(self) -> "DetectorTraining":
        if not isinstance(self.teacher.get("method"), str):
            raise ValueError("teacher needs 'method': the name of a discovery method, such as 'lost'")
        if not self.cad and not self.od:
            raise ValueError("cad and od are both empty: give the settings of one, or there is nothing to train")
        for name in ("seeds", "train_on"):
            if len(set(values := getattr(self, name))) < len(values):
                raise ValueError(f"{name} is {values}: give each once")
        check_description(self.description)
        self.runs()
        return self

    def networks(self) -> list[tuple[str, str]]:
        """That of the teacher, and those that the detectors start from."""
        started = [run.weights for run in self.runs().values()]
        named = [name for name in started if name != "random" and not name.endswith(FILES)]
        return [*super().networks(), *((name, "pretrained") for name in dict.fromkeys(named))]

    def files(self) -> list[str]:
        """The checkpoints, given as paths, that the detectors start from."""
        return [run.weights for run in self.runs().values() if run.weights.endswith(FILES)]

    def parts(self) -> list[tuple[str, str]]:
        """``train_on`` as (dataset, split); none where the images that are measured are trained on."""
        return named_parts(self.train_on, self.dataset)

    def runs(self) -> dict[str, Any]:
        """``cad`` and ``od``, as far as they are asked for, with their settings: those of ``Detector``.

        The seed, and the number of classes of ``od``, are the notebook's to set.
        """
        from foundling.training.detection.settings import Detector
        from foundling.training.recipes import recipe

        found = {}
        for name in ("cad", "od"):
            if not (given := getattr(self, name)):
                continue
            if theirs := [key for key in ("seed", "classes") if key in given]:
                raise ValueError(f"{name}.{theirs[0]} is set by the notebook (see seeds and clusters): remove it")
            try:
                found[name] = recipe(given, name, {"detector": Detector})
            except ParameterError as error:
                raise ValueError(str(error)) from None
        return found


def named_parts(entries: Sequence[str], usual: str) -> list[tuple[str, str]]:
    """Parts as parameters name them, a split or dataset:split, as (dataset, split); ``usual`` is the dataset of the
    former."""
    return [(dataset or usual, split) for dataset, _, split in (entry.rpartition(":") for entry in entries)]


def check_description(description: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for what is no argument of :func:`foundling.categories.describe_objects`."""
    for name, value in description.items():
        if name not in DESCRIBED or type(value) is not DESCRIBED[name]:
            legal = ", ".join(f"{key} ({kind.__name__})" for key, kind in DESCRIBED.items())
            raise ValueError(f"description.{name} = {value!r} is not legal: it may have {legal}")
