"""Training runs by name: the files ``studies/training/<name>.yaml``, and what a notebook changes in them."""

from collections.abc import Mapping
from typing import Any

from foundling import paths
from foundling.errors import ParameterError
from foundling.parameters import suggest
from foundling.studies import read_mapping
from foundling.training.settings import OBJECTIVES, Common, Steps, checked

RECIPES = paths.STUDIES / "training"


def recipe_names() -> list[str]:
    """The recipes that there are files for, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe(given: Mapping[str, Any], where: str, models: Mapping[str, type[Steps]] = OBJECTIVES) -> Any:
    """The settings of a run: those of the file that ``given["settings"]`` names, if it does, and the others in place.

    ``models`` are the objectives that are legal, by default those that train a backbone; where none is given it is the
    first. ``where`` names the source of ``given`` for messages. Raises :class:`ParameterError` for a name without a
    file, a file that cannot be read, and every setting that is unknown or not legal.
    """
    usual = {"objective": next(iter(models))}
    own = {key: value for key, value in given.items() if key != "settings"}
    if (name := given.get("settings")) is None:
        return checked(models, {**usual, **own}, where)
    if name not in recipe_names():
        raise ParameterError(
            f"{where}: no training settings {name!r} in studies/training{suggest(str(name), recipe_names())}"
        )
    file = RECIPES / f"{name}.yaml"
    there = read_mapping(file, file.name, "training", Common)
    return checked(models, {**usual, **there, **own}, f"{where}, on {file.name}")
