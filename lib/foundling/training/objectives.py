"""The objectives by name."""

from importlib import import_module
from typing import Any

from foundling.training.objective import Objective

OBJECTIVES = {"odin": "odin.Odin", "dino": "dino.Dino", "mae": "mae.Mae"}


def make_objective(settings: Any, images_count: int) -> Objective:
    """The objective that ``settings`` (a model of :mod:`foundling.training.settings`) describe, freshly initialised.

    ``images_count`` is the number of images of the training set.
    """
    module, name = OBJECTIVES[settings.objective].split(".")
    objective: Objective = getattr(import_module(f"foundling.training.{module}"), name)(settings, images_count)
    return objective
