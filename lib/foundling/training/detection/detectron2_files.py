"""Detectors for Detectron2's own programs, and from them: its checkpoints and configs, and files of this project."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from foundling import provenance
from foundling.backbones.checkpoint import read_checkpoint
from foundling.errors import ParameterError, WeightsError
from foundling.files import write_bytes
from foundling.training import checkpoints
from foundling.training.detection.bodies import empty_body
from foundling.training.detection.detectron2_config import MEAN, STD, write_config
from foundling.training.detection.detectron2_engine import Detectron2Network
from foundling.training.detection.settings import Detector


def write_checkpoint(out: Path, network: Detectron2Network, settings: Detector) -> Path:
    """Write a trained detector so that Detectron2's own programs load it: ``out`` (``….pkl``), and beside it ``.yaml``.

    The latter is its config, of which ``MODEL.WEIGHTS`` names the file. Raises :class:`ParameterError` for a name
    without ``.pkl``, FoundlingError if the disk is full.
    """
    if out.suffix != ".pkl":
        raise ParameterError(f"{out}: Detectron2 tells its files by their ending: give a name that ends in .pkl")
    arrays = {name: tensor.float().cpu().numpy() for name, tensor in network.model.state_dict().items()}
    write_bytes(out, pickle.dumps({"model": arrays, "__author__": "foundling"}, protocol=4))
    model: Any = network.model
    colours = {"mean": model.pixel_mean.flatten().tolist(), "std": model.pixel_std.flatten().tolist()}
    write_config(out.with_suffix(".yaml"), settings, weights=str(out), **colours)
    return out


def import_checkpoint(file: Path, settings: Detector, classes: Sequence[str], out: Path) -> Path:
    """What Detectron2 or LOST's scripts trained (``model_final.pth``), as a file that foundling detects with.

    ``settings`` are those that it was trained with (:func:`~foundling.training.detection.detectron2_config.preset` has
    LOST's), ``classes`` the names of its classes; ``out`` is ``RUN.safetensors``.

    Raises :class:`WeightsError` if there is no such file, it is damaged, or its tensors are not those of that detector;
    ParameterError where Detectron2 is not installed or the classes are not as many as in the settings.
    """
    if len(classes) != settings.classes:
        raise ParameterError(f"{len(classes)} names of classes, but classes = {settings.classes} in the settings")
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
