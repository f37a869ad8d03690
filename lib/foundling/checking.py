"""Values held against a pydantic model: every problem named in a plain line, with what is legal and the nearest name.

Importing this module imports no torch.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from foundling.errors import ParameterError


def check_model(model: type[BaseModel], values: Mapping[str, Any], where: str) -> Any:
    """``values`` as an instance of ``model``; raises :class:`ParameterError` that lists every problem."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ParameterError("\n".join(f"{where}: {line}" for line in explain(error, model))) from None


def suggest(name: str, legal: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest legal one, and all of them."""
    legal = list(legal)
    near = difflib.get_close_matches(str(name), legal, n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}? Legal: {', '.join(legal)}" if near else f". Legal: {', '.join(legal)}"


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong, one line a problem: name, value, type, what is legal."""
    lines: dict[str, str] = {}
    for problem in error.errors():
        loc, value = problem["loc"], problem["input"]
        if len(loc) > 1 and loc[-1] in ("int", "float", "str", "bool"):  # one of the types that are legal there
            loc = loc[:-1]
        name = ".".join(map(str, loc))
        if problem["type"] == "extra_forbidden":
            lines[name] = f"unknown parameter {name!r} (value {value!r}){suggest(name, model.model_fields)}"
        elif problem["type"] == "value_error":
            lines[problem["msg"]] = problem["msg"].removeprefix("Value error, ")
        elif problem["type"] == "missing":
            lines[name] = f"{name} is missing"
        elif name in lines:
            lines[name] += f" or {_legal(problem['msg']).removeprefix('should be ')}"
        else:
            field = model.model_fields.get(str(loc[0]))
            about = f" ({field.description})" if field and field.description else ""
            legal = f"it {_legal(problem['msg'])}{about}"
            lines[name] = f"{name} = {value!r}, of type {type(value).__name__}, is not legal: {legal}"
    return list(lines.values())


def _legal(message: str) -> str:
    """What pydantic says about a value, without its subject: "should be a valid integer"."""
    return re.sub("^(Input|String|Value) ", "", message)
