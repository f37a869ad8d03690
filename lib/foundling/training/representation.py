"""Learning a representation without labels: Odin, DINO or MAE, from images alone."""

import math
from pathlib import Path

from accelerate import Accelerator

from foundling.training.data import TrainingSet, open_training_set
from foundling.training.loop import Outcome, carry_out
from foundling.training.objective import Objective
from foundling.training.objectives import make_objective
from foundling.training.running import Prepare
from foundling.training.settings import Common


def train(settings: Common, out: Path, minutes: float = math.inf, progress: bool = True, cpu: bool = False) -> Outcome:
    """Train, or go on training, and export the network; see :func:`foundling.training.loop.carry_out`.

    ``out.safetensors`` is the backbone in half precision under timm's names, ``out.history.csv`` the losses and the
    look for collapse; where a feature pyramid was trained, or the settings ask for it, ``out_dense.safetensors`` is
    the whole network and its projector.
    """
    return carry_out(settings, out, prepare(settings), minutes, progress, cpu)


def prepare(settings: Common) -> Prepare:
    """What makes the objective of ``settings`` and its images."""

    def make(accelerator: Accelerator) -> tuple[Objective, TrainingSet]:
        images = open_training_set(settings, accelerator.device)
        return make_objective(settings, len(images)), images

    return make
