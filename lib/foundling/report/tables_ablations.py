"""Rows of the tables of notebook 10: variants of a method, and steps of making proposals."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundling.evaluation import ClassAgnostic, CorLoc, Interval, precision_difference
from foundling.report.figures_sweeps import axis_text

MAIN = ("AP", "AP50", "AR100")
FURTHER = ("AP75", "AP_S", "AP_M", "AP_L", "AR1", "AR10", "AR_S", "AR_M", "AR_L")  # with MAIN, what the paper prints


def variant_rows(
    own: Mapping[str, Mapping[str, Any]],
    varied: Sequence[str],
    result: Mapping[str, CorLoc],
    difference: Mapping[str, Interval],
    printed: Mapping[str, float | None],
) -> list[dict[str, Any]]:
    """One row a variant of one grid, in the order of ``own`` (label -> settings).

    It has the settings called ``varied``, CorLoc, the paired difference from the default, and the published number if
    any of them has one.
    """
    some_printed = any(printed[label] is not None for label in own)
    return [
        {
            **{name: axis_text(settings[name]) for name in varied},
            "CorLoc": (result[label].value, result[label].low, result[label].high),
            "difference from the default": tuple(difference[label]) if label in difference else "default",
            **({"published": printed[label]} if some_printed else {}),
        }
        for label, settings in own.items()
    ]


def step_rows(
    steps: Mapping[str, Mapping[str, Any]],
    scored: Mapping[str, ClassAgnostic],
    counts: Mapping[str, float],
    names: Sequence[str] = MAIN,
) -> list[dict[str, Any]]:
    """One row for every way of making proposals: what it does, masks an image, the figures called ``names``.

    ``steps`` (label -> ks, saliency, split) begin with the default; where AP is among the figures, the others have
    their paired difference from it.
    """
    first = next(iter(steps))
    rows = []
    for label, one in steps.items():
        change = precision_difference(scored[label], scored[first])["AP"]
        against = {"AP against the first": "default" if label == first else tuple(change)} if "AP" in names else {}
        rows.append(
            {
                "k": ", ".join(map(str, one["ks"])),
                "saliency": one["saliency"],
                "split": one["split"],
                "masks an image": counts[label],
                **{name: tuple(scored[label].values[name]) for name in names},
                **against,
            }
        )
    return rows
