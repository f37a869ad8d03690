"""Detectors for Detectron2's own programs, and from them: its checkpoints and configs, and files of this project."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from foundling import provenance
from foundling.backbones.checkpoint import read_checkpoint
from foundling.backbones.transfer import HEADER, detectron2_names
from foundling.errors import ParameterError, WeightsError
from foundling.files import write_bytes
from foundling.training import checkpoints
from foundling.training.detection.bodies import Body, empty_body, load_body
from foundling.training.detection.detectron2_config import MEAN, STD, check_detectron2, write_config
from foundling.training.detection.detectron2_engine import Detectron2Network
from foundling.training.detection.settings import Detector
from foundling.training.label_files import write_lost_dataset
from foundling.training.pseudo_labels import PseudoLabels
from foundling.types import Sample


def write_for_detectron2(
    folder: Path, samples: Sequence[Sample], labels: PseudoLabels, settings: Detector, name: str
) -> dict[str, Path]:
    """Write what Detectron2's own trainer, or LOST's scripts, need to train on ``labels`` as ``settings`` say.

    ``weights``: ``weights.pkl``, the ResNet-50 that they start from; ``dataset``: ``<name>.json``, the labels as LOST's
    scripts register them, under ``name``; ``config``: ``config.yaml``, which names both. Detectron2 is not needed here.
    :func:`import_checkpoint` reads what the trainer leaves.

    Raises what :func:`~foundling.training.detection.bodies.load_body` and :meth:`PseudoLabels.usable` do, and
    ParameterError for settings that Detectron2's config cannot say, or with another number of classes than the labels.
    """
    check_detectron2(settings)
    check_classes(labels.classes, settings)
    body = load_body(settings)
    weights = write_backbone(folder / "weights.pkl", body)
    dataset = write_lost_dataset(folder / f"{name}.json", labels, samples, name)
    told = {"weights": str(weights), "train": [name], **colours(body.mean, body.std)}
    return {"weights": weights, "dataset": dataset, "config": write_config(folder / "config.yaml", settings, **told)}


def write_backbone(out: Path, body: Body) -> Path:
    """Write a ResNet-50 as ``MODEL.WEIGHTS`` names it for fine-tuning, as LOST's conversion of DINO's weights does."""
    arrays = {name: tensor.numpy() for name, tensor in detectron2_names(body.network.state_dict()).items()}
    # heuristics: stages find their places in backbone and head
    return write_bytes(out, pickle.dumps({"model": arrays, "__author__": HEADER, "matching_heuristics": True}, 4))


def check_classes(classes: Sequence[str], settings: Detector) -> None:
    """Raises ParameterError unless there are as many ``classes`` as the settings say."""
    if len(classes) != settings.classes:
        raise ParameterError(f"{len(classes)} names of classes, but classes = {settings.classes} in the settings")


def colours(mean: Sequence[float], std: Sequence[float]) -> dict[str, list[float]]:
    """Mean and deviation of RGB in 0..1 as the config has them, of 0..255."""
    return {"mean": [round(255 * v, 4) for v in mean], "std": [round(255 * v, 4) for v in std]}


def write_checkpoint(out: Path, network: Detectron2Network, settings: Detector) -> Path:
    """Write a trained detector so that Detectron2's own programs load it: ``out`` (``….pkl``), and beside it ``.yaml``.

    The latter is its config, of which ``MODEL.WEIGHTS`` names the file. Raises :class:`ParameterError` for a name
    without ``.pkl``, FoundlingError if the disk is full.
    """
    if out.suffix != ".pkl":
        raise ParameterError(f"{out}: Detectron2 tells its files by their ending: give a name that ends in .pkl")
    arrays = {name: tensor.float().cpu().numpy() for name, tensor in network.model.state_dict().items()}
    write_bytes(out, pickle.dumps({"model": arrays, "__author__": HEADER}, protocol=4))
    model: Any = network.model
    mean, std = ((part.flatten() / 255).tolist() for part in (model.pixel_mean, model.pixel_std))
    write_config(out.with_suffix(".yaml"), settings, weights=str(out), **colours(mean, std))
    return out


def import_checkpoint(file: Path, settings: Detector, classes: Sequence[str], out: Path) -> Path:
    """What Detectron2 or LOST's scripts trained (``model_final.pth``), as a file that foundling detects with.

    ``settings`` are those that it was trained with (:func:`~foundling.training.detection.detectron2_config.preset` has
    LOST's), ``classes`` the names of its classes; ``out`` is ``RUN.safetensors``.

    Raises :class:`WeightsError` if there is no such file, it is damaged, or its tensors are not those of that detector;
    ParameterError where Detectron2 is not installed or the classes are not as many as in the settings.
    """
    check_classes(classes, settings)
    content = read_checkpoint(file)
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict):
        raise WeightsError(f"{file} is no checkpoint of Detectron2 (it has no 'model'): name its model_final.pth")
    mean, std = ([value / 255 for value in part] for part in (MEAN, STD))
    with torch.random.fork_rng(devices=[]):
        network = Detectron2Network(settings, empty_body("resnet50", {}, mean, std))
    try:
        network.model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{file} does not hold the detector of these settings ({reason}): give its own") from error
    versions = provenance.versions()
    about = {
        "architecture": "resnet50",
        "arguments": {},
        "classes": list(classes),
        "data": f"Detectron2's {file.name}",
        "engine": "detectron2",
        "mean": mean,
        "method": "detector",
        "precision": "half",
        "settings": settings.model_dump(),
        "std": std,
        "steps": int(content.get("iteration", settings.steps - 1)) + 1,
        "versions": {name: versions[name] for name in ("foundling", "torch", "timm", "numpy")},
    }
    checkpoints.export(out, network.state_dict(), about)
    return out
