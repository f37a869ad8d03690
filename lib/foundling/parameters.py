"""The parameters of every notebook: names, types, legal values and defaults, checked before anything runs.

One model a notebook; its defaults are those of the notebook's ``parameters`` cell (a test keeps the two equal).
Values are checked strictly: ``"8"`` is not a number and ``true`` is not 1. Importing this module imports no torch.
"""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from foundling.errors import ParameterError

Dataset = Literal["scenes", "folder", "voc07", "voc12", "coco20k", "coco"]
BackboneName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(:random)?$")]
LABEL = r"^[a-z0-9][a-z0-9_]*$"
METHODS = {  # label -> method and its settings
    "lost": {"method": "lost", "k": 40, "facet": "keys"},
    "tokencut": {"method": "tokencut", "tau": 0.2, "facet": "keys"},
    "dino_seg": {"method": "dino_seg", "head": "haiou", "rule": "largest"},
    "centre_box": {"method": "centre_box"},
    "whole_image": {"method": "whole_image"},
    "selective_search": {"method": "selective_search"},
}


class Parameters(BaseModel):
    """What every notebook takes; the part of a study file called ``shared`` may set only these."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    study: str = Field("lab", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the study")
    out: str = Field("", description="folder for the results; empty: reports/<study>/<notebook>")
    dataset: Dataset = Field("scenes", description="where the images come from")
    split: str = Field("", description="part of the dataset; empty: its default (scenes: single_val)")
    root: str = Field("", description="folder of the images; empty: where `foundling data` puts them")
    annotations: str = Field("", description="COCO instances file; only for the dataset coco")
    size: int = Field(224, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    limit: int = Field(100, ge=0, description="number of images, from the first; 0: all of them")
    image: int = Field(0, ge=0, description="position in the dataset of the image that is looked at closely, from 0")
    backbone: str = Field(
        "scenes_odin", pattern=r"^[A-Za-z0-9_.-]+$", description="name in foundling.backbones.BACKBONES"
    )
    weights: str = Field("pretrained", min_length=1, description="pretrained, random, or the path of a checkpoint")
    compare_backbones: list[BackboneName] = Field(
        ["scenes_odin:random"], description="further backbones to set beside it; name:random means untrained"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="arithmetic of the network")
    max_side: int = Field(0, ge=0, description="longest side in pixels, larger images are shrunk; 0: native size")
    batch_size: int = Field(16, ge=1, le=4096, description="images the network sees at once, 1 to 4096")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of every random choice, 0 to 2**32 - 1")

    @model_validator(mode="after")
    def _complete(self) -> "Parameters":
        if self.dataset in ("folder", "coco") and not self.root:
            raise ValueError(f"dataset {self.dataset!r} needs root: the folder that holds the images")
        if (self.dataset == "coco") != bool(self.annotations):
            raise ValueError("annotations, a COCO instances file, goes with the dataset 'coco' and only with it")
        return self


class Features(Parameters):
    """01_features: what a patch feature is."""

    blocks: list[int] = Field([], description="blocks to compare, from 0, -1 is the last; empty: four over the depth")
    patch_row: int = Field(-1, ge=-1, description="row of the patch whose similarities are drawn; -1: chosen for you")
    patch_column: int = Field(-1, ge=-1, description="its column; -1: chosen for you")


class SingleObjectDiscovery(Parameters):
    """02_single_object_discovery: one box an image, without labels."""

    methods: dict[str, dict[str, Any]] = Field(METHODS, description="label -> {'method': …, its settings}")
    lost_ks: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 10, 40, 100], description="values of k at which LOST is run again, 1 or more each; empty: none"
    )
    gallery: int = Field(12, ge=1, le=24, description="pictures in each gallery, 1 to 24")

    @model_validator(mode="after")
    def _methods(self) -> "SingleObjectDiscovery":
        for label, settings in self.methods.items():
            _check_label(label, settings)
        for label in ("lost", "tokencut", "dino_seg"):
            if self.methods.get(label, {}).get("method") != label:
                raise ValueError(f"methods needs the label {label!r} with 'method': {label!r}: the notebook draws it")
        return self

    def sweep(self) -> dict[str, dict[str, Any]]:
        """The method ``lost`` at every k of ``lost_ks``: label ``lost_k<k>`` -> settings."""
        return {f"lost_k{k}": {**self.methods["lost"], "k": k} for k in self.lost_ks}


NOTEBOOKS: dict[str, type[Parameters]] = {"01_features": Features, "02_single_object_discovery": SingleObjectDiscovery}


def model_of(notebook: str) -> type[Parameters]:
    """The model of the notebook called ``notebook``; raises :class:`ParameterError` if there is none."""
    if notebook not in NOTEBOOKS:
        raise ParameterError(f"unknown notebook {notebook!r}{suggest(notebook, NOTEBOOKS)}")
    return NOTEBOOKS[notebook]


def validate(notebook: str, values: Mapping[str, Any], where: str = "") -> Parameters:
    """``values`` as the parameters of ``notebook``, defaults filled in.

    Raises :class:`ParameterError` that lists every wrong parameter: ``where`` (a file) and the notebook, the name,
    the value and its type, what is legal, and the nearest name for an unknown one.
    """
    return check_model(model_of(notebook), values, ", ".join(filter(None, (where, f"notebook {notebook}"))))


def check_model(model: type[BaseModel], values: Mapping[str, Any], where: str) -> Any:
    """``values`` as an instance of ``model``; raises :class:`ParameterError` that lists every problem."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ParameterError("\n".join(f"{where}: {line}" for line in _explain(error, model))) from None


def check_methods(methods: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Check names and types of the settings of every label against the signature of the method it names.

    Raises :class:`ParameterError`. Imports the discovery methods, and so torch.
    """
    from foundling.discovery import METHODS as registry

    for label, settings in methods.items():
        name = settings.get("method", label)
        if name not in registry:
            raise ParameterError(f"{where}: methods.{label}: unknown method {name!r}{suggest(name, registry)}")
        given = {key: value for key, value in settings.items() if key != "method"}
        check_model(_settings_model(name, registry[name].run), given, f"{where}: methods.{label}")


def split_backbone(name: str) -> tuple[str, str]:
    """An entry of ``compare_backbones`` as (registry name, weights): ``"x:random"`` -> ``("x", "random")``."""
    base, _, weights = name.partition(":")
    return base, weights or "pretrained"


def suggest(name: str, legal: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest legal one, and all of them."""
    legal = list(legal)
    near = difflib.get_close_matches(str(name), legal, n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}? Legal: {', '.join(legal)}" if near else f". Legal: {', '.join(legal)}"


def _check_label(label: str, settings: Mapping[str, Any]) -> None:
    if not re.match(LABEL, label):
        raise ValueError(f"methods: label {label!r} may hold lower-case letters, digits and _ only (it names a metric)")
    if not isinstance(settings.get("method"), str):
        raise ValueError(f"methods.{label} needs 'method': the name of a discovery method, such as 'lost'")


def _settings_model(name: str, run: Any) -> type[BaseModel]:
    """A strict model of the keyword arguments of a discovery method (all but the first, the features)."""
    arguments = list(inspect.signature(run).parameters.values())[1:]
    fields: dict[str, Any] = {a.name: (a.annotation, a.default) for a in arguments}
    return create_model(name, __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False), **fields)


def _explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a problem: name, value, type, what is legal."""
    lines = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        value = problem["input"]
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown parameter {name!r} (value {value!r}){suggest(name, model.model_fields)}")
        elif problem["type"] == "value_error":
            lines.append(problem["msg"].removeprefix("Value error, "))
        elif problem["type"] == "missing":
            lines.append(f"{name} is missing")
        else:
            field = model.model_fields.get(str(problem["loc"][0]))
            about = f" ({field.description})" if field and field.description else ""
            legal = re.sub("^(Input|String|Value) ", "", problem["msg"])
            lines.append(f"{name} = {value!r}, of type {type(value).__name__}, is not legal: it {legal}{about}")
    return list(dict.fromkeys(lines))


DATASETS = get_args(Dataset)
