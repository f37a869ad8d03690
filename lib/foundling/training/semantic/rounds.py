"""Iterative self-training (COMUS, Alg. 2): a segmenter learns from found label maps, the next one from its predictions.

In the paper every round begins anew from the encoder's own weights; here its settings say so (``begin``). The images of
a later round may be others than those of the first, and more: a network does not know by heart what it has not seen
(Sec. 3.2).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.base import Dataset
from foundling.errors import ParameterError
from foundling.training.checkpoints import beside
from foundling.training.loop import Outcome
from foundling.training.semantic.predict import load_segmenter, segment_to_files
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.task import train_semantic
from foundling.types import Sample


class Round(NamedTuple):
    """One round: the label maps that were trained on, and what training left."""

    masks: PseudoMasks
    outcome: Outcome


def self_train(
    images: Sequence[Sequence[Sample]],
    masks: PseudoMasks,
    settings: Sequence[Semantic],
    out: Path,
    *,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> list[Round]:
    """Train as many segmenters, one after the other, as there are ``settings``, or go on training.

    ``images`` are those of each round; ``masks`` the label maps of the first round's. Round n is the run ``out_n``, as
    in :func:`foundling.training.semantic.task.train_semantic`; the label maps that it learns from, if they are the last
    segmenter's predictions, are in the folder ``out_n_masks``. ``minutes`` bounds this call: the rounds that are done,
    and the one that was stopped, are returned, and another call goes on.

    Raises :class:`ParameterError` where there are not as many sets of images as settings, and as
    :func:`train_semantic` and :func:`foundling.training.semantic.predict.segment_to_files`.
    """
    if not settings or len(images) != len(settings):
        raise ParameterError(
            f"{len(images)} sets of images for {len(settings)} rounds: give each round its images and its settings"
        )
    deadline = time.monotonic() + 60 * minutes
    rounds: list[Round] = []
    for number, (samples, told) in enumerate(zip(images, settings, strict=True), start=1):
        if rounds:
            folder = beside(out, f"_{number}_masks")
            masks = predict_masks(rounds[-1].outcome.file, samples, folder, progress=progress, cpu=cpu)
        left = (deadline - time.monotonic()) / 60
        run = beside(out, f"_{number}")
        teacher = rounds[-1].outcome.file if rounds else None
        outcome = train_semantic(samples, masks, told, run, teacher=teacher, minutes=left, progress=progress, cpu=cpu)
        rounds.append(Round(masks, outcome))
        if not outcome.finished:
            break
    return rounds


def predict_masks(
    file: Path, samples: Sequence[Sample], folder: Path, *, progress: bool = True, cpu: bool = False
) -> PseudoMasks:
    """What the segmenter in ``file`` says of every image, as label maps in ``folder``; used again if they are there."""
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    return segment_to_files(load_segmenter(file, device), samples, folder, progress=progress)


def join(*datasets: Dataset) -> tuple[Sample, ...]:
    """The samples of several datasets, under names and ids that are unique.

    Names get the dataset's and the split's before them, ids are counted from 1. Raises :class:`ParameterError` if a
    dataset and split is given twice.
    """
    names = [f"{dataset.name}_{dataset.split}" for dataset in datasets]
    if len(set(names)) < len(names):
        raise ParameterError(f"{', '.join(names)} are joined: give each dataset and split once")
    found = [
        replace(sample, name=f"{name}/{sample.name}")
        for name, dataset in zip(names, datasets, strict=True)
        for sample in dataset
    ]
    return tuple(replace(sample, image_id=i) for i, sample in enumerate(found, start=1))
