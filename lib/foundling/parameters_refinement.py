"""The parameters of 07_box_refinement: what is refined, on which images, and what is left out or changed beside it."""

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from foundling.errors import ParameterError
from foundling.parameters_base import LABEL, Parameters
from foundling.parameters_detection import FILES, named_parts

PART = r"^([A-Za-z0-9_]+:)?[A-Za-z0-9_]+$"
SET_HERE = ("seed", "backbone", "weights")  # of the settings of a refinement, by parameters of the notebook
TAKEN = ("f", "h", "refined", "f_cad", "refined_cad", "chosen", "best")  # names of metrics that no variant may have
SEGMENTER = "segmenter"
MAPS: dict[str, dict[str, Any]] = {  # settings of notebook 02
    "lost": {"k": 1, "facet": "keys", "centre": True},
    "tokencut": {"tau": 0.4, "facet": "keys"},
}


class BoxRefinement(Parameters):
    """07_box_refinement: a detector on the features of a network, and the network refined through it."""

    size: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    limit: int = Field(0, ge=0, description="number of images that are measured, from the first; 0: all of them")
    compare_backbones: list[str] = Field([], max_length=0, description="none: f is compared with itself, refined")
    train_on: list[Annotated[str, Field(pattern=PART)]] = Field(
        ["single_train"],
        description="parts that are trained on, each a split or dataset:split; empty: the images that are measured",
    )
    train_limit: int = Field(800, ge=0, description="images of each of these parts, from the first; 0: all of them")
    recipe: str = Field(
        "scenes_refine",
        pattern=r"^[A-Za-z0-9_]+$",
        description="file of settings in studies/training; f is the parameter backbone, or their segmenter",
    )
    refinement: dict[str, Any] = Field({}, description="what differs from these settings, such as phases")
    ablation: dict[str, dict[str, Any]] = Field(
        {}, description="label -> what differs from refinement, one more run each (Table 6); empty: none"
    )
    maps: dict[str, dict[str, Any]] = Field(
        MAPS, description="methods whose maps are drawn, with their settings: lost, tokencut"
    )
    cad: dict[str, Any] = Field(
        {"settings": "scenes_cad", "test_size": 128},
        description="class-agnostic detectors on the boxes of f, and of f refined, likewise; empty: none",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0], min_length=1, description="of training, one run for each"
    )
    train_minutes: float = Field(0.0, ge=0, allow_inf_nan=False, description="minutes after which a run stops; 0: none")
    gallery: int = Field(6, ge=1, le=12, description="pictures in each gallery, 1 to 12")

    @model_validator(mode="after")
    def _trained(self) -> "BoxRefinement":
        for name in ("seeds", "train_on"):
            if len(set(values := getattr(self, name))) < len(values):
                raise ValueError(f"{name} is {values}: give each once")
        for label in self.ablation:
            if not re.match(LABEL, label) or label in TAKEN:
                raise ValueError(
                    f"ablation: label {label!r} names metrics: use lower-case letters, digits and _, and none of "
                    f"{', '.join(TAKEN)}"
                )
        if unknown := [name for name in self.maps if name not in MAPS]:
            raise ValueError(f"maps: {unknown[0]!r} is no method whose maps are drawn: choose among {', '.join(MAPS)}")
        self.runs()
        self.detector()
        return self

    def networks(self) -> list[tuple[str, str]]:
        """f, and what h and the detectors start from."""
        settings = self.runs()
        named = [run.network_weights for run in settings.values()]
        named += [self.detector().weights] if self.cad else []
        own = super().networks()
        if settings["refined"].method == SEGMENTER:
            own = [(settings["refined"].backbone, "pretrained")]
        return [*own, *((name, "pretrained") for name in dict.fromkeys(named) if not _no_name(name))]

    def files(self) -> list[str]:
        """The checkpoints, given as paths, that h, the detectors and a segmenter start from."""
        settings = self.runs()
        named = [run.network_weights for run in settings.values()]
        named += [self.detector().weights] if self.cad else []
        named += [run.weights for run in settings.values() if run.method == SEGMENTER]
        return [name for name in dict.fromkeys(named) if name.endswith(FILES)]

    def parts(self) -> list[tuple[str, str]]:
        """``train_on`` as (dataset, split); none where the images that are measured are trained on."""
        return named_parts(self.train_on, self.dataset)

    def runs(self) -> dict[str, Any]:
        """The settings (``Refinement``) of the refinement, called ``refined``, and of each variant of ``ablation``.

        The seeds are the notebook's to set. f is its ``backbone`` with its ``weights``; of a segmenter, both are those
        of the settings.
        """
        given = {"settings": self.recipe, **self.refinement}
        plain = self._settings("refinement", given)
        variants = {
            label: self._settings(f"ablation.{label}", {**given, **changed}) for label, changed in self.ablation.items()
        }
        return {"refined": plain, **variants}

    def detector(self) -> Any:
        """The settings (``Detector``) of the class-agnostic detectors, or ``None``."""
        from foundling.training.detection.settings import Detector
        from foundling.training.recipes import recipe

        if not self.cad:
            return None
        if theirs := [key for key in ("seed", "classes") if key in self.cad]:
            raise ValueError(f"cad.{theirs[0]} is set by the notebook (see seeds): remove it")
        try:
            return recipe(self.cad, "cad", {"detector": Detector})
        except ParameterError as error:
            raise ValueError(str(error)) from None

    def _settings(self, where: str, given: dict[str, Any]) -> Any:
        from foundling.training.recipes import recipe
        from foundling.training.refinement.settings import Refinement

        try:
            found = recipe(given, where, {"refinement": Refinement})
        except ParameterError as error:
            raise ValueError(str(error)) from None
        own = SET_HERE if found.method != SEGMENTER else SET_HERE[:1]
        if theirs := [key for key in own if key in given]:
            raise ValueError(f"{where}.{theirs[0]} is set by the notebook (see seeds, backbone, weights): remove it")
        if found.method == SEGMENTER:
            return found
        return found.model_copy(update={"backbone": self.backbone, "weights": self.weights})


def _no_name(weights: str) -> bool:
    return weights == "random" or weights.endswith(FILES)
