"""The objectives by name."""

from typing import Any

from foundling.training.dino import Dino
from foundling.training.mae import Mae
from foundling.training.objective import Objective
from foundling.training.odin import Odin

OBJECTIVES: dict[str, Any] = {"odin": Odin, "dino": Dino, "mae": Mae}


def make_objective(settings: Any, images_count: int) -> Objective:
    """The objective that ``settings`` (a model of :mod:`foundling.training.settings`) describe, freshly initialised.

    ``images_count`` is the number of images of the training set.
    """
    objective: Objective = OBJECTIVES[settings.objective](settings, images_count)
    return objective
