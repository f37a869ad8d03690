"""An instance segmenter trained from the command line: on a file of masks, or on what `foundling propose` wrote."""

import math
import sys
from pathlib import Path
from typing import Any

from foundling.training.instance.labels import without_small
from foundling.training.instance.settings import SEGMENTERS, MaskRcnn, MaskRcnnOnMasks, OnMasks, SoloOnMasks
from foundling.training.instance.train import train_instances
from foundling.training.label_files import labels_of_coco, open_labels, read_results
from foundling.training.loop import Outcome
from foundling.training.pseudo_labels import PseudoLabels

PROPOSALS = "proposals.json"  # of `foundling propose`


def train_on_masks(
    settings: SoloOnMasks | MaskRcnnOnMasks,
    out: Path,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """Train a segmenter on the masks that ``settings`` name, as :func:`train_instances` does.

    Raises :class:`ParameterError` where ``labels`` or ``root`` are not given or hold something else,
    :class:`DataMissing` where files are not there, and what training raises.
    """
    samples, labels = open_labels(settings, labels_of_proposal_folder)
    labels = without_small(labels, settings.least)
    if progress:
        print(labels.summary(), file=sys.stderr)
    told = settings.model_dump(exclude=set(OnMasks.model_fields))  # wherever images and masks lie
    if isinstance(settings, MaskRcnn):
        told["classes"] = len(labels.classes)
    plain: Any = SEGMENTERS[settings.objective](**told)
    return train_instances(samples, labels, plain, out, minutes=minutes, progress=progress, cpu=cpu)


def labels_of_proposal_folder(folder: Path) -> PseudoLabels:
    """All masks that `foundling propose` wrote in ``folder``, as labels of one class.

    Raises :class:`DataMissing` unless ``proposals.json`` and ``images.json`` are there, :class:`ParameterError` where
    they hold something else.
    """
    results, images = read_results(folder, PROPOSALS, "propose")
    return labels_of_coco({**images, "annotations": results}, folder / PROPOSALS)
