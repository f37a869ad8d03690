"""One round of self-training as `foundling train` does it: images and label maps come from where the settings say."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from foundling.categories.pseudo_masks import PseudoMasks, file_names
from foundling.errors import DataMissing
from foundling.parameters import from_root
from foundling.training.checkpoints import beside
from foundling.training.loop import Outcome
from foundling.training.reading import open_images
from foundling.training.running import PATIENCE
from foundling.training.semantic.rounds import predict_masks
from foundling.training.semantic.settings import Semantic, SemanticOnMaps
from foundling.training.semantic.task import train_semantic
from foundling.types import Sample


def train_on_maps(
    settings: SemanticOnMaps, out: Path, minutes: float = math.inf, progress: bool = True, cpu: bool = False
) -> Outcome:
    """Train a segmenter on the label maps in the folder that ``settings`` name, or on what their teacher predicts.

    Predictions are kept in the folder ``out_masks``, and used again; of several processes the first makes them. Raises
    as :func:`foundling.training.semantic.task.train_semantic`, :func:`open_maps`,
    :func:`foundling.training.semantic.predict.load_segmenter` and :func:`foundling.datasets.open_dataset`.
    """
    samples = open_images(settings)
    teacher = _path(settings.teacher) if settings.teacher else None
    if teacher is None:
        masks = open_maps(_path(settings.maps), samples, settings.clusters)
    else:
        processes = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=PATIENCE)
        shown = progress and processes.is_main_process
        with processes.main_process_first():
            masks = predict_masks(teacher, samples, beside(out, "_masks"), progress=shown, cpu=cpu)
    told = Semantic(**settings.model_dump(include=set(Semantic.model_fields)))  # wherever images and maps lie
    return train_semantic(samples, masks, told, out, teacher=teacher, minutes=minutes, progress=progress, cpu=cpu)


def _path(given: str) -> Path:
    found = from_root(given)
    assert found is not None  # the settings have seen to it
    return found


def open_maps(folder: Path, samples: Sequence[Sample], clusters: int) -> PseudoMasks:
    """The label maps of ``samples`` in ``folder``, named as :func:`foundling.categories.write_pseudo_masks` does.

    Images without a file have none. Raises :class:`DataMissing` if there is no such folder, or no image has a file.
    """
    if not folder.is_dir():
        raise DataMissing(f"{folder}: no such folder of label maps; make them with notebook 04, or name another")
    files = [folder / name for name in file_names([sample.name for sample in samples])]
    found = tuple(file if file.is_file() else None for file in files)
    if not any(found):
        raise DataMissing(
            f"{folder}: none of the {len(samples)} images has a label map here; maps are named as images, the first "
            f"would be {files[0].name}"
        )
    return PseudoMasks(found, clusters, (), ())
