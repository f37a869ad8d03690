"""Lists of values combined: the points of a sweep over parameters, and the variants of a method's settings.

Every combination has a name made of its own values alone, so that it stays the same when a list grows; it holds only
letters, digits and ``_ . -``, and so is a folder, a link and a part of a metric's name as it stands.
"""

import itertools
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from foundling.errors import ParameterError

LONGEST_VALUE, LONGEST_NAME = 40, 160  # characters; file systems allow 255


def combinations(axes: Mapping[str, Sequence[Any]], where: str) -> list[dict[str, Any]]:
    """Every combination of one value from each of ``axes``, the last axis changing fastest.

    Raises :class:`ParameterError`, beginning with ``where``, for an axis without values, or with the same one twice.
    """
    for axis, values in axes.items():
        if not values:
            raise ParameterError(f"{where}: {axis} has no values: give it a list of one or more")
        names = [value_name(value) for value in values]
        if twice := [value for value, name in zip(values, names, strict=True) if names.count(name) > 1]:
            raise ParameterError(f"{where}: {axis} has {twice[0]!r} twice (or another value of that name): keep one")
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]


def point_name(values: Mapping[str, Any]) -> str:
    """The name of one combination, such as ``backbone-scenes_odin__block--1__bias-true``."""
    return _shortened("__".join(f"{axis}-{value_name(value)}" for axis, value in values.items()), LONGEST_NAME)


def value_name(value: Any) -> str:
    """A value as part of a name: itself where that is safe and short, else what is safe of it and a checksum."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    safe = re.sub(r"[^A-Za-z0-9_.-]+|\.{2,}|^\.|\.$", "-", text) or "empty"
    return _shortened(safe, LONGEST_VALUE) if safe == text else _shortened(safe, LONGEST_VALUE, text)


def _shortened(name: str, longest: int, text: str | None = None) -> str:
    if text is None and len(name) <= longest:
        return name
    return f"{name[: longest - 9]}-{zlib.crc32((text or name).encode()):08x}"


def variants(grid: str, settings: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The variants of a method: label -> settings, for ``settings`` of which some are lists of values.

    The first combination, which takes the first value of every list, is the default: its label is ``grid`` itself. The
    others are named by what differs from it, such as ``lost.k-50.facet-queries``.
    """
    lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    first, *rest = combinations(lists, where)
    made = {grid: first}
    for chosen in rest:
        changed = [f"{name}-{value_name(value)}" for name, value in chosen.items() if value != first[name]]
        made[".".join((grid, *changed))] = chosen
    return made


def one_changed(made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of the variants of one grid, those that differ from the first in one setting at most; the first is among them."""
    first = next(iter(made.values()))
    return [label for label, chosen in made.items() if sum(chosen[name] != first[name] for name in first) <= 1]
