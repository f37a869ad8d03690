"""Training runs by name: the files ``studies/training/<name>.yaml``, and what a notebook changes in them."""

from collections.abc import Mapping
from typing import Any

from foundling import paths
from foundling.errors import ParameterError
from foundling.parameters import suggest
from foundling.studies import read_mapping
from foundling.training.settings import Common, settings_from

RECIPES = paths.STUDIES / "training"


def recipe_names() -> list[str]:
    """The recipes that there are files for, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe(given: Mapping[str, Any], where: str) -> Common:
    """The settings of a run: those of the file that ``given["settings"]`` names, if it does, and the others in place.

    ``where`` names the source of ``given`` for messages. Raises :class:`ParameterError` for a name without a file, a
    file that cannot be read, and every setting that is unknown or not legal.
    """
    values = dict(given)
    name = values.pop("settings", None)
    if name is None:
        return settings_from(values, where)
    if name not in recipe_names():
        raise ParameterError(
            f"{where}: no training settings {name!r} in studies/training{suggest(str(name), recipe_names())}"
        )
    file = RECIPES / f"{name}.yaml"
    return settings_from({**read_mapping(file, file.name, "training", Common), **values}, f"{where}, on {file.name}")
