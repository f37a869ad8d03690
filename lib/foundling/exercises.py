"""Exercises at the end of a notebook: a reader fills in an answer and a cell says whether it holds."""

from collections.abc import Callable
from typing import Any


def check(exercise: str, answer: Any, holds: Callable[[Any], bool], hint: str) -> bool | None:
    """Say whether ``answer`` solves ``exercise``; ``None`` means that it is still open.

    ``holds`` is the test the answer has to pass, so that several right answers can be accepted. An answer of a kind
    that the test cannot read counts as wrong, with the reason. Returns True, False, or None while open.
    """
    if answer is None:
        print(f"○ {exercise}: open. {hint}")
        return None
    try:
        right = bool(holds(answer))
        why = ""
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
        right, why = False, f" ({type(error).__name__}: {error})"
    print(f"● {exercise}: right." if right else f"● {exercise}: not yet{why}. {hint}")
    return right
