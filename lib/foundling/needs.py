"""What keeps a study from starting: names that no registry holds, absent data, weights and packages."""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundling import paths
from foundling.errors import FoundlingError, ParameterError
from foundling.parameters import (
    Parameters,
    RepresentationLearning,
    check_names,
    dataset_options,
    from_root,
)
from foundling.parameters_clustering import Clustering
from foundling.parameters_detection import DetectorTraining
from foundling.parameters_refinement import SEGMENTER, BoxRefinement
from foundling.parameters_segmentation import SegmenterTraining
from foundling.studies import Study


@dataclass(frozen=True)
class Need:
    """Something a study needs that is not there, and the command or step that brings it."""

    what: str
    remedy: str


def missing(study: Study) -> list[Need]:
    """Everything that keeps the study from starting: names that no registry holds, absent data, weights and packages.

    Opens the datasets (their images are not read) and imports torch.
    """
    needs: list[Need] = []
    opened: dict[str, list[Need]] = {}  # the runs of a sweep mostly share a dataset
    for run in study.runs:
        parameters = run.parameters
        try:
            check_names(parameters, run.name)
        except ParameterError as error:
            needs += [
                Need(line, f"correct {study.path.name}, or do what the line says") for line in str(error).splitlines()
            ]
        if not (paths.NOTEBOOKS / f"{run.notebook}.ipynb").is_file():
            needs.append(Need(f"the notebook {run.notebook}.ipynb", f"restore it in {paths.NOTEBOOKS}"))
        dataset = repr((parameters.dataset, dataset_options(parameters)))
        if dataset not in opened:
            opened[dataset] = _missing_data(parameters)
        needs += [*opened[dataset], *_missing_weights(parameters)]
        if isinstance(parameters, Clustering):
            needs += _missing_saliency(parameters)
        if isinstance(parameters, DetectorTraining):
            needs += _missing_for_detectors(parameters)
        if isinstance(parameters, SegmenterTraining):
            needs += _missing_for_segmenters(parameters)
        if isinstance(parameters, BoxRefinement):
            needs += _missing_for_refinement(parameters)
        if isinstance(parameters, RepresentationLearning):
            needs += [*_missing_videos(parameters), *_missing_training_images(parameters)]
    return list(dict.fromkeys(needs))


def describe_missing(studies: Mapping[str, list[Need]]) -> str:
    """The message about everything that is missing, by study; empty if nothing is."""
    lines = []
    for name, needs in studies.items():
        if needs:
            lines += [f"The study {name!r} cannot start yet; it needs:"]
            lines += [f"  - {need.what}\n      {need.remedy}" for need in needs]
    return "\n".join(lines)


def embedded_weights(parameters: Parameters) -> dict[str, str]:
    """The SHA-256 of all weights in the package that a run uses, by name: with other weights it has to run again."""
    from foundling.backbones import BACKBONES

    used = {name for name, weights in parameters.networks() if weights == "pretrained"}
    known = dict(BACKBONES)
    if isinstance(parameters, Clustering | SegmenterTraining):
        from foundling.saliency import NETWORKS

        known |= NETWORKS
    if isinstance(parameters, Clustering):
        used |= {parameters.saliency_weights(label) for label in parameters.saliency_networks()}
    if isinstance(parameters, SegmenterTraining) and parameters.semantic:
        used.add(str(parameters.saliency.get("weights", "")))
    return {name: str(known[name].sha256) for name in sorted(used) if name in known and known[name].embedded}


def _missing_data(parameters: Parameters) -> list[Need]:
    from foundling.datasets import DATASETS, open_dataset

    if parameters.dataset not in DATASETS:  # told by check_names
        return []
    try:
        dataset = open_dataset(parameters.dataset, **dataset_options(parameters))
    except FoundlingError as error:
        remedy = "put the images there" if parameters.root else f"foundling data {parameters.dataset}"
        return [Need(f"the dataset {parameters.dataset!r}: {' '.join(str(error).split())}", remedy)]
    if not len(dataset):
        return [Need(f"images: the dataset {parameters.dataset!r} is empty", "check root and split")]
    return []


def _missing_saliency(parameters: Clustering) -> list[Need]:
    """The checkpoints of saliency networks."""
    from foundling.backbones.weights import find_weights, how_to_get
    from foundling.saliency import NETWORKS

    needs = []
    for label in parameters.saliency_networks():
        name = parameters.saliency_weights(label)
        if name in NETWORKS and find_weights(NETWORKS[name]) is None:
            needs.append(Need(f"the weights of the saliency network {name}", how_to_get(NETWORKS[name])))
        if name not in NETWORKS and not Path(name).is_file():
            needs.append(Need(f"the checkpoint {name} of saliency.{label}", "put it there, or name another one"))
    return needs


def _missing_parts(
    parameters: Parameters, parts: Sequence[tuple[str, str]], what: str = "the training images"
) -> list[Need]:
    """The parts of datasets (name, split) that are not there."""
    from foundling.datasets import DATASETS, open_dataset

    needs = []
    for name, split in dict.fromkeys(parts):
        if name == "scenes" or name not in DATASETS or split not in DATASETS[name].splits:  # drawn; told before
            continue
        root = from_root(parameters.root) if name == parameters.dataset else None
        try:
            open_dataset(name, split=split, root=root)
        except FoundlingError as error:
            remedy = "put the images there" if root else f"foundling data {name}"
            needs.append(Need(f"{what}: {' '.join(str(error).split())}", remedy))
    return needs


def _missing_files(files: Sequence[str], what: str) -> list[Need]:
    """Checkpoints given as paths, of ``what``."""
    return [
        Need(f"the checkpoint {file}", f"put it there, or change {what}")
        for file in files
        if not (paths.ROOT / Path(file).expanduser()).is_file()
    ]


def _missing_for_segmenters(parameters: SegmenterTraining) -> list[Need]:
    """The parts that are trained and measured on, the saliency network, and checkpoints."""
    from foundling.backbones.weights import find_weights, how_to_get
    from foundling.saliency import NETWORKS

    needs = _missing_files(parameters.files(), "the segmenter's weights")
    trained = [*parameters.parts(), *parameters.later_parts()] if parameters.semantic else []
    measured = [(dataset, split) for dataset, split, _ in parameters.further_parts()]
    if parameters.instances:
        trained += parameters.instance_parts()
        measured += [part] if (part := parameters.measured_instances()) else []
    needs += _missing_parts(parameters, trained)
    needs += _missing_parts(parameters, measured, "the images that are measured as well")
    name = parameters.saliency_settings().get("weights")
    if parameters.semantic and name in NETWORKS and find_weights(NETWORKS[name]) is None:
        needs.append(Need(f"the weights of the saliency network {name}", how_to_get(NETWORKS[name])))
    elif parameters.semantic and name is not None and name not in NETWORKS:
        needs += _missing_files([name], "saliency")
    return needs + _missing_engine([run for run in parameters.runs() if hasattr(run, "engine")])


def _missing_for_refinement(parameters: BoxRefinement) -> list[Need]:
    """The parts that are trained on, checkpoints, the published segmenter, and Detectron2."""
    from foundling.backbones.weights import find_weights, how_to_get
    from foundling.saliency import SEGMENTERS

    needs = _missing_parts(parameters, parameters.parts())
    needs += _missing_files(parameters.files(), "the weights of refinement or cad")
    begins = {run.weights for run in parameters.runs().values() if run.method == SEGMENTER}
    if "pretrained" in begins and find_weights(SEGMENTERS["move"]) is None:
        needs.append(Need("the weights of the segmenter move", how_to_get(SEGMENTERS["move"])))
    return needs + _missing_engine([parameters.detector()] if parameters.cad else [])


def _missing_for_detectors(parameters: DetectorTraining) -> list[Need]:
    """The parts that are trained on, checkpoints, and Detectron2."""
    needs = _missing_parts(parameters, parameters.parts()) + _missing_files(
        parameters.files(), "the detector's weights"
    )
    return needs + _missing_engine(parameters.runs().values())


def _missing_engine(runs: Iterable[Any]) -> list[Need]:
    """Detectron2, where detectors are trained with it."""
    if all(run.engine != "detectron2" for run in runs) or importlib.util.find_spec("detectron2") is not None:
        return []
    return [Need("Detectron2, the engine of this study", "conda env create -f environment.yml, or the engine "
                 "torchvision")]  # fmt: skip


def _missing_videos(parameters: RepresentationLearning) -> list[Need]:
    from foundling.datasets import VIDEOS, open_videos

    if parameters.videos in ("", "scenes_video") or parameters.videos not in VIDEOS:  # made on first use; told before
        return []
    try:
        open_videos(parameters.videos, root=from_root(parameters.video_root))
    except FoundlingError as error:
        remedy = "put the videos there" if parameters.video_root else f"foundling data {parameters.videos}"
        return [Need(f"the videos {parameters.videos!r}: {' '.join(str(error).split())}", remedy)]
    return []


def _missing_training_images(parameters: RepresentationLearning) -> list[Need]:
    from foundling.datasets import DATASETS, open_dataset

    needs = []
    for label, settings in parameters.runs().items():
        if settings.dataset == "scenes" or settings.dataset not in DATASETS:  # drawn on first use; told by check_names
            continue
        try:
            open_dataset(settings.dataset, split=settings.split or None, root=from_root(settings.root))
        except FoundlingError as error:
            remedy = "put the images there" if settings.root else f"foundling data {settings.dataset}"
            needs.append(Need(f"the training images of {label}: {' '.join(str(error).split())}", remedy))
    return needs


def _missing_weights(parameters: Parameters) -> list[Need]:
    from foundling.backbones.weights import expected_weights

    rows = {row["name"]: row for row in expected_weights()}
    needs = []
    for name, weights in parameters.networks():
        if (row := rows.get(name)) is None:  # told by check_names
            continue
        if weights == "pretrained" and not row["present"]:
            gated = "; the repository is gated" if row["gated"] else ""
            needs.append(Need(f"the weights of {name} at {row['where']}{gated}", str(row["command"])))
        elif weights not in ("pretrained", "random") and not (paths.ROOT / Path(weights).expanduser()).is_file():
            needs.append(Need(f"the checkpoint {weights}", "put it there, or change the parameter weights"))
    return needs
