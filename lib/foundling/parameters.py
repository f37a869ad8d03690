"""The parameters of every notebook: names, types, legal values and defaults, checked before anything runs.

One model a notebook; its defaults are those of the notebook's ``parameters`` cell (a test keeps the two equal).
Values are checked strictly: ``"8"`` is not a number and ``true`` is not 1. Importing this module imports no torch.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from foundling.checking import check_model as check_model
from foundling.checking import explain
from foundling.checking import suggest as suggest
from foundling.errors import ParameterError
from foundling.parameters_ablations import Ablations
from foundling.parameters_base import LABEL as LABEL
from foundling.parameters_base import BackboneName as BackboneName
from foundling.parameters_base import Parameters as Parameters
from foundling.parameters_base import check_label
from foundling.parameters_base import split_backbone as split_backbone
from foundling.parameters_clustering import Clustering
from foundling.parameters_detection import DetectorTraining
from foundling.parameters_instances import Instanceness
from foundling.parameters_refinement import BoxRefinement
from foundling.parameters_segmentation import NO_SALIENCY, SegmenterTraining
from foundling.paths import ROOT

# Label -> method and its settings, chosen on the first 150 scenes of single_train: those of LOST, TokenCut and DINO-seg
# for the embedded network, those of the colours for themselves.
METHODS: dict[str, dict[str, Any]] = {
    "lost": {"method": "lost", "k": 1, "facet": "keys", "centre": True},
    "tokencut": {"method": "tokencut", "tau": 0.4, "facet": "keys"},
    "dino_seg": {"method": "dino_seg", "head": 2, "rule": "largest"},
    "colour_lost": {"method": "colour_lost", "k": 1, "deviation": False},
    "centre_box": {"method": "centre_box"},
    "whole_image": {"method": "whole_image"},
    "selective_search": {"method": "selective_search"},
}
DRAWN = ("lost", "tokencut", "dino_seg")  # labels that the notebook needs, dino_seg if the backbone has attention

TRAINING: dict[str, dict[str, Any]] = {"odin_short": {"settings": "odin_short"}}  # label -> file, and what differs
# Names of metrics in notebook 08 that no training run may have: boxes, overlap, videos
CONTROLS = (
    "random", "random_centred", "centre_box", "colour_mean", "colour_mean_centred", "colour_deviation",
    "colour_deviation_centred", "colour_scaled",
    "network", "grid", "colour", "colour_centred", "colour_position",
    "still",
)  # fmt: skip


class Features(Parameters):
    """01_features: what a patch feature is."""

    blocks: list[int] = Field([], description="blocks to compare, from 0, -1 is the last; empty: four over the depth")
    patch_row: int = Field(-1, ge=-1, description="row of the patch whose similarities are drawn; -1: chosen for you")
    patch_column: int = Field(-1, ge=-1, description="its column; -1: chosen for you")


class SingleObjectDiscovery(Parameters):
    """02_single_object_discovery: one box an image, without labels."""

    methods: dict[str, dict[str, Any]] = Field(METHODS, description="label -> {'method': …, its settings}")
    lost_ks: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 5, 10, 20, 40, 100], description="values of k at which LOST is run again, 1 or more each; empty: none"
    )
    gallery: int = Field(12, ge=1, le=24, description="pictures in each gallery, 1 to 24")

    @model_validator(mode="after")
    def _methods(self) -> "SingleObjectDiscovery":
        for label, settings in self.methods.items():
            check_label("methods", label, settings)
        served = {"dino_seg": {"method": "dino_seg"}, **self.methods}  # without attention it may be absent: check_names
        for label in DRAWN:
            if served.get(label, {}).get("method") != label:
                raise ValueError(_needed(label))
        return self

    def sweep(self) -> dict[str, dict[str, Any]]:
        """The method ``lost`` at every k of ``lost_ks``: label ``lost_k<k>`` -> settings."""
        return {f"lost_k{k}": {**self.methods["lost"], "k": k} for k in self.lost_ks}


class RepresentationLearning(Parameters):
    """08_representation_learning: networks trained without labels, watched and compared."""

    size: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    compare_backbones: list[BackboneName] = Field(
        ["scenes_mae"], description="further networks to set beside it; its own untrained weights are always a control"
    )
    training: dict[str, dict[str, Any]] = Field(
        TRAINING,
        description="label -> {'settings': file in studies/training, what differs from it}; empty: nothing is trained",
    )
    train_minutes: float = Field(0.0, ge=0, allow_inf_nan=False, description="minutes after which a run stops; 0: none")
    lost_ks: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 2, 5, 10, 20], description="LOST's k, chosen on training images (without them the first); empty: no LOST"
    )
    lost_facets: list[Literal["keys", "queries", "values", "tokens"]] = Field(
        ["keys", "tokens"], min_length=1, description="LOST's features, chosen likewise; TokenCut has the first"
    )
    taus: list[Annotated[float, Field(ge=-1, le=1)]] = Field(
        [0.0, 0.2, 0.4], description="TokenCut's tau, chosen likewise, -1 to 1; empty: no TokenCut"
    )
    choose_limit: int = Field(150, ge=1, le=2000, description="training images on which settings are chosen, 1 to 2000")
    overlap_ks: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 2, 4, 8, 16, 32, 64, 128], description="k of every k-means whose clusters are proposals; empty: no overlap"
    )
    overlap_side: int = Field(
        0, ge=0, le=4096, description="pixels of the square; 0: as published, for scenes their size"
    )
    overlap_limit: int = Field(60, ge=0, description="images for the overlap, from the first; 0: all")
    videos: str = Field("scenes_video", description="videos to follow objects in: scenes_video, davis, or empty: none")
    video_root: str = Field("", description="folder of the videos; empty: where `foundling data` puts them")
    video_limit: int = Field(4, ge=0, description="number of videos, from the first; 0: all")

    @model_validator(mode="after")
    def _training(self) -> "RepresentationLearning":
        for label in self.training:
            if not re.match(LABEL, label) or label in (self.backbone, *self.compare_backbones, *CONTROLS):
                raise ValueError(
                    f"training: label {label!r} names metrics: use lower-case letters, digits and _, and no name of a "
                    "backbone or control of this notebook"
                )
        self.runs()
        return self

    def runs(self) -> dict[str, Any]:
        """Label -> settings (a model of :mod:`foundling.training.settings`) of each training run."""
        from foundling.training.recipes import recipe

        try:
            return {label: recipe(given, f"training.{label}") for label, given in self.training.items()}
        except ParameterError as error:
            raise ValueError(str(error)) from None

    def compared(self) -> list[str]:
        """``compare_backbones`` without the untrained weights of the backbone, which are a control anyhow."""
        return [name for name in self.compare_backbones if name != f"{self.backbone}:random"]


NOTEBOOKS: dict[str, type[Parameters]] = {
    "01_features": Features,
    "02_single_object_discovery": SingleObjectDiscovery,
    "03_instanceness": Instanceness,
    "04_clustering": Clustering,
    "05_detector_training": DetectorTraining,
    "06_segmenter_training": SegmenterTraining,
    "07_box_refinement": BoxRefinement,
    "08_representation_learning": RepresentationLearning,
    "10_ablations": Ablations,
}


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


def check_names(parameters: Parameters, where: str) -> None:
    """Check the names that registries hold: dataset and split, backbones, methods and the settings of each.

    Settings are held against the signature of the method they go to, and what methods read against what the backbones
    have. Raises :class:`ParameterError` that lists every problem. Imports the registries, and so torch.
    """
    from foundling.backbones import BACKBONES
    from foundling.datasets import DATASETS

    wrong = []
    if parameters.dataset not in DATASETS:
        wrong.append(f"unknown dataset {parameters.dataset!r}{suggest(parameters.dataset, DATASETS)}")
    elif parameters.split and parameters.split not in (splits := DATASETS[parameters.dataset].splits):
        wrong.append(
            f"dataset {parameters.dataset!r} has no split {parameters.split!r}{suggest(parameters.split, splits)}"
        )
    for name in (parameters.backbone, *(split_backbone(entry)[0] for entry in parameters.compare_backbones)):
        if name not in BACKBONES:
            wrong.append(f"unknown backbone {name!r}{suggest(name, BACKBONES)}")
    if isinstance(parameters, SingleObjectDiscovery):
        wrong += [line for label in parameters.methods for line in _wrong_settings(label, parameters.methods[label])]
        wrong += [] if wrong else _unserved(parameters)
    if isinstance(parameters, RepresentationLearning):
        wrong += _wrong_learning(parameters)
    if isinstance(parameters, Ablations):
        wrong += _wrong_ablations(parameters)
    if isinstance(parameters, Instanceness):
        wrong += _wrong_instances(parameters)
    if isinstance(parameters, Clustering):
        wrong += _wrong_clustering(parameters)
    if isinstance(parameters, DetectorTraining):
        wrong += _wrong_detection(parameters)
    if isinstance(parameters, SegmenterTraining):
        wrong += _wrong_segmentation(parameters)
    if isinstance(parameters, BoxRefinement):
        wrong += _wrong_refinement(parameters)
    if wrong:
        raise ParameterError("\n".join(f"{where}: {line}" for line in wrong))


def check_methods(methods: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Check label -> {"method": name, settings} against the registry and the signature of each method.

    Raises :class:`ParameterError` that lists every problem. Imports the discovery methods, and so torch.
    """
    wrong = [line for label, settings in methods.items() for line in _wrong_settings(label, settings)]
    if wrong:
        raise ParameterError("\n".join(f"{where}: {line}" for line in wrong))


def dataset_options(parameters: Parameters) -> dict[str, Any]:
    """The arguments of ``open_dataset`` after the name."""
    options: dict[str, Any] = {"split": parameters.split or None, "root": from_root(parameters.root)}
    if parameters.dataset == "scenes":
        options["size"] = parameters.size
    if parameters.dataset == "imagenet" and isinstance(parameters, Clustering):
        options |= {"classes": parameters.classes, "seed": parameters.seed}
    if parameters.annotations:
        options["annotations"] = from_root(parameters.annotations)
    return options


def from_root(path: str) -> Path | None:
    """A path as parameters give it: a relative one is taken from the checkout's folder; None for an empty one."""
    return ROOT / Path(path).expanduser() if path else None


def _needed(label: str) -> str:
    return f"methods needs the label {label!r} with 'method': {label!r}: the notebook draws it"


def _unserved(parameters: SingleObjectDiscovery) -> list[str]:
    """What the methods read and a backbone lacks, and the label ``dino_seg`` where it is missing."""
    from foundling.backbones import BACKBONES
    from foundling.discovery import resolve_method

    attention = "attention" in BACKBONES[parameters.backbone].facets
    wrong = [_needed("dino_seg")] if attention and "dino_seg" not in parameters.methods else []
    runs = [(parameters.backbone, label) for label in parameters.methods]
    runs += [(split_backbone(entry)[0], "lost") for entry in parameters.compare_backbones]
    for backbone, label in runs:
        method, settings = resolve_method(label, parameters.methods[label])
        needed = label in DRAWN and label != "dino_seg"
        remedy = "give it other settings" if needed else f"remove the label {label!r} from methods"
        remedy += ", or choose another backbone"
        wrong += _lacking(f"methods.{label}", backbone, method.facets(**settings), remedy)
    return wrong


def _lacking(where: str, backbone: str, read: Iterable[str], remedy: str = "give other settings") -> list[str]:
    """The line about facets that are read and that the backbone does not have, if there are any."""
    from foundling.backbones import BACKBONES

    facets = BACKBONES[backbone].facets
    lacking = [facet for facet in read if facet not in (*facets, "images")]
    line = f"{where} reads {', '.join(lacking)}, which the backbone {backbone!r} does not have (it has "
    return [f"{line}{', '.join(facets)}): {remedy}"] if lacking else []


def _described(description: Mapping[str, Any]) -> str:
    """The facet that the description of an object reads."""
    about = {"descriptor": "cls", "facet": "tokens"} | dict(description)
    return "cls" if about["descriptor"] == "cls" else str(about["facet"])


def _wrong_instances(parameters: Instanceness) -> list[str]:
    """Networks that do not have the facet."""
    from foundling.backbones import BACKBONES

    names = dict.fromkeys(name for name, _ in parameters.networks() if name in BACKBONES)
    return [
        f"facet is {parameters.facet!r}, which {name} does not have: choose one of {', '.join(BACKBONES[name].facets)}"
        for name in names
        if parameters.facet not in BACKBONES[name].facets
    ]


def _wrong_clustering(parameters: Clustering) -> list[str]:
    """Settings of sources that are wrong, and what is read that the backbone does not have."""
    from foundling.backbones import BACKBONES
    from foundling.discovery import resolve_method

    sources = parameters.sources()
    wrong = [line for label in sources for line in _wrong_settings(label, sources[label], "saliency")]
    if wrong or parameters.backbone not in BACKBONES:
        return wrong
    if unknown := _unknown_describer(parameters):
        return unknown
    wanted = "cls" if parameters.descriptor == "cls" else parameters.facet
    wrong = _lacking("descriptor", _describer(parameters), [wanted])
    for label in sources:
        method, settings = resolve_method(label, sources[label])
        wrong += _lacking(f"saliency.{label}", parameters.backbone, method.facets(**settings))
    return wrong


def _describer(parameters: Clustering | SegmenterTraining) -> str:
    """The name of the network that describes objects."""
    return split_backbone(parameters.describer)[0] if parameters.describer else parameters.backbone


def _unknown_describer(parameters: Clustering | SegmenterTraining) -> list[str]:
    from foundling.backbones import BACKBONES

    name = _describer(parameters)
    return (
        []
        if name in BACKBONES or not parameters.describer
        else [f"describer: unknown backbone {name!r}{suggest(name, BACKBONES)}"]
    )


def _wrong_parts(where: str, parts: Sequence[tuple[str, str]], remedy: str = "") -> list[str]:
    """Parts of datasets (name, split) that there are not."""
    from foundling.datasets import DATASETS

    wrong = []
    for dataset, split in parts:
        if dataset not in DATASETS:
            wrong.append(f"{where}: unknown dataset {dataset!r}{suggest(dataset, DATASETS)}")
        elif split not in DATASETS[dataset].splits:
            wrong.append(f"{where}: {dataset} has no split {split!r}{suggest(split, DATASETS[dataset].splits)}{remedy}")
    return wrong


def _wrong_segmentation(parameters: SegmenterTraining) -> list[str]:
    """Parts, settings, networks and weights that do not exist, and what is read that a network does not have."""
    from foundling.backbones import BACKBONES
    from foundling.discovery import resolve_method

    wrong = _wrong_parts("further", [(dataset, split) for dataset, split, _ in parameters.further_parts()])
    if parameters.semantic:
        wrong += _wrong_parts("train_on", parameters.parts(), "; [] trains on what is measured")
        wrong += _wrong_parts("later_on", parameters.later_parts() if parameters.later_on else [])
    if parameters.instances:
        measured = parameters.measured_instances()
        wrong += _wrong_parts("instance_train_on", parameters.instance_parts(), "; [] trains on what is measured")
        wrong += _wrong_parts("instance_part", [measured] if measured else [])
    for settings in parameters.runs():
        if settings.weights not in (*BACKBONES, "random", *parameters.files()):
            wrong.append(
                f"{settings.objective}: unknown weights {settings.weights!r}{suggest(settings.weights, BACKBONES)}"
            )
    read: list[tuple[str, str, Sequence[str]]] = []
    if parameters.semantic and (method := parameters.saliency_method()) is not None:
        if lines := _wrong_settings(method["method"], method, "saliency"):
            return wrong + lines
        own, complete = resolve_method(method["method"], method)
        read.append(("saliency", parameters.backbone, own.facets(**complete)))
    if parameters.semantic:
        wrong += _unknown_describer(parameters)
        read.append(("description", _describer(parameters), (_described(parameters.description),)))
    if parameters.instances:
        for name, entry in (("proposal_backbone", parameters.proposal_backbone),
                            ("saliency_backbone", parameters.saliency_backbone)):  # fmt: skip
            base = split_backbone(entry)[0] or parameters.backbone
            if base not in (*BACKBONES, NO_SALIENCY):
                wrong.append(f"{name}: unknown backbone {base!r}{suggest(base, BACKBONES)}")
            read.append((name, base, (parameters.facet,)))
    return wrong + [line for label, name, wanted in read if name in BACKBONES for line in _lacking(label, name, wanted)]


def _wrong_detection(parameters: DetectorTraining) -> list[str]:
    """Parts, settings and weights that do not exist, and what is read that the backbone does not have."""
    from foundling.backbones import BACKBONES
    from foundling.discovery import resolve_method

    wrong = _wrong_parts("train_on", parameters.parts(), "; [] trains on what is measured")
    for label, settings in parameters.runs().items():
        if settings.weights not in (*BACKBONES, "random", *parameters.files()):
            wrong.append(f"{label}: unknown weights {settings.weights!r}{suggest(settings.weights, BACKBONES)}")
    name = parameters.teacher["method"]
    if lines := _wrong_settings(name, parameters.teacher, "teacher"):
        return wrong + lines
    if parameters.backbone not in BACKBONES:
        return wrong
    method, complete = resolve_method(name, parameters.teacher)
    wrong += _lacking("teacher", parameters.backbone, method.facets(**complete))
    if parameters.od:
        wrong += _lacking("description", parameters.backbone, [_described(parameters.description)])
    return wrong


def _wrong_refinement(parameters: BoxRefinement) -> list[str]:
    """Parts, settings, networks and weights that do not exist, and a backbone that cannot be refined."""
    from foundling.backbones import BACKBONES

    wrong = _wrong_parts("train_on", parameters.parts(), "; [] trains on what is measured")
    settings, detector = parameters.runs(), parameters.detector()
    named = {f"{label}: network_weights": run.network_weights for label, run in settings.items()}
    named |= {"cad: weights": detector.weights} if detector is not None else {}
    for where, name in named.items():
        if name not in (*BACKBONES, "random", *parameters.files()):
            wrong.append(f"{where}: unknown weights {name!r}{suggest(name, BACKBONES)}")
    for label, run in settings.items():
        if run.method != "segmenter":
            wrong += _wrong_settings(run.method, {"method": run.method, **run.discovery}, label)
        elif run.weights not in ("pretrained", "random", *parameters.files()):
            wrong.append(f"{label}: weights {run.weights!r} of a segmenter: give pretrained, random or a file")
    wrong += [line for name, given in parameters.maps.items() for line in _wrong_settings(name, given, "maps")]
    if parameters.backbone in BACKBONES and "cls" not in BACKBONES[parameters.backbone].facets:
        legal = [name for name, entry in BACKBONES.items() if "cls" in entry.facets]
        wrong.append(
            f"backbone {parameters.backbone!r} has no CLS token, which refinement keeps near to what it was: choose "
            f"one of {', '.join(legal)}"
        )
    return list(dict.fromkeys(wrong))


def _wrong_ablations(parameters: Ablations) -> list[str]:
    """Settings of the grids that are wrong, what a CNN does not have, and grids that this network serves nothing of."""
    from foundling.backbones import BACKBONES

    wrong = [
        line for label, settings in parameters.variants().items() for line in _wrong_settings(label, settings, "grids")
    ]
    if wrong or parameters.backbone not in BACKBONES:
        return wrong
    if BACKBONES[parameters.backbone].family == "cnn" and (not parameters.bias or parameters.norm != "last"):
        wrong.append(
            f"bias and norm: {parameters.backbone} is a CNN, which has neither: leave bias true and norm 'last'"
        )
    for name in parameters.saliency_backbones if parameters.proposal_ks else ():
        if name != "none" and (base := split_backbone(name)[0]) not in BACKBONES:
            wrong.append(f"saliency_backbones: unknown backbone {base!r}{suggest(base, [*BACKBONES, 'none'])}")
    if not parameters.served()[0]:
        facets = ", ".join(BACKBONES[parameters.backbone].facets)
        wrong.append(f"grids: not one variant reads what {parameters.backbone} has ({facets}): give other settings")
    return wrong


def _wrong_learning(parameters: RepresentationLearning) -> list[str]:
    """Videos, datasets and architectures that do not exist, and facets that a network does not have."""
    from foundling.backbones import BACKBONES
    from foundling.datasets import DATASETS, VIDEOS
    from foundling.training.observe import RESNETS, is_vit

    wrong = []
    for name in (parameters.backbone, *(split_backbone(entry)[0] for entry in parameters.compare_backbones)):
        if name in BACKBONES and (absent := [f for f in parameters.lost_facets if f not in BACKBONES[name].facets]):
            legal = ", ".join(f for f in BACKBONES[name].facets if f in ("keys", "queries", "values", "tokens"))
            wrong.append(f"lost_facets: {name} has no {', '.join(absent)}: choose among {legal}")
    if parameters.videos and parameters.videos not in VIDEOS:
        wrong.append(f"unknown videos {parameters.videos!r}{suggest(parameters.videos, VIDEOS)}")
    for label, settings in parameters.runs().items():
        if settings.dataset not in DATASETS:
            wrong.append(f"training.{label}: unknown dataset {settings.dataset!r}{suggest(settings.dataset, DATASETS)}")
        if settings.architecture not in RESNETS and not is_vit(settings.architecture):
            wrong.append(
                f"training.{label}: architecture {settings.architecture!r} is none that the notebook can look into: "
                f"use a ViT or one of {', '.join(RESNETS)} (foundling train takes others, too)"
            )
    return wrong


def _wrong_settings(label: str, settings: Mapping[str, Any], where: str = "methods") -> list[str]:
    """What is wrong with the settings of one label: types by its method's signature, then values by the method."""
    from foundling.discovery import METHODS as registry
    from foundling.discovery import resolve_method

    given = {"method": label, **settings}
    name = given.pop("method")
    if name not in registry:
        return [f"{where}.{label}: unknown method {name!r}{suggest(name, registry)}"]
    model = _settings_model(name, registry[name].run)
    try:
        checked = model.model_validate(given).model_dump(exclude_unset=True)
        resolve_method(label, {"method": name, **checked})
    except ValidationError as error:
        return [f"{where}.{label}: {line}" for line in explain(error, model)]
    except ParameterError as error:
        return [f"{where}.{label}: {error}"]
    return []


def _settings_model(name: str, run: Any) -> type[BaseModel]:
    """A strict model of the keyword arguments of a discovery method (all but the first, the features)."""
    arguments = list(inspect.signature(run).parameters.values())[1:]
    fields: dict[str, Any] = {
        # A strict float takes whole numbers too, and what is no number then has one message instead of two.
        a.name: (float if a.annotation == float | int else a.annotation, a.default)
        for a in arguments
    }
    return create_model(name, __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False), **fields)
