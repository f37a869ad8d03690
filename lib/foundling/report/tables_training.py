"""Rows of the tables of notebook 08: what networks and controls reach, with intervals, beside what papers print."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundling.evaluation.bootstrap import Interval
from foundling.evaluation.corloc import CorLoc
from foundling.evaluation.overlap import Overlap, overlap_difference
from foundling.evaluation.video import VideoScores

Printed = Mapping[str, Mapping[str, float]]  # row -> metric -> the number that a paper prints
METHODS = {"corloc": "LOST", "tokencut": "TokenCut"}  # first word of a metric -> the method's name


def in_short(settings: Mapping[str, Any]) -> str:
    """The settings of a method that were chosen: ``"facet keys, k 5, centred"``."""
    named = [f"{name} {settings[name]}" for name in ("facet", "k", "tau", "side", "space") if name in settings]
    switches = {"centre": "centred", "scale": "scaled"}
    return ", ".join([*named, *(word for name, word in switches.items() if settings.get(name))])


def corloc_rows(
    hits: Mapping[str, CorLoc], settings: Mapping[str, Mapping[str, Any]], gains: Mapping[str, Interval]
) -> list[dict[str, Any]]:
    """A row for every network and control, in order of first appearance: CorLoc of each method, and its settings.

    All arguments have the names of metrics as keys: ``corloc.<row>`` (LOST) and ``tokencut.<row>``; ``gains`` are the
    paired differences from the best control, of what was learned.
    """
    rows = []
    for name in dict.fromkeys(label.partition(".")[2] for label in hits):
        row: dict[str, Any] = {"features": name}
        for word, method in METHODS.items():
            if (score := hits.get(f"{word}.{name}")) is not None:
                row[method] = (score.value, score.low, score.high)
                if gains:
                    row[f"{method}: less the best control"] = gains.get(f"{word}.{name}", "")
                row[f"{method}: settings"] = in_short(settings[f"{word}.{name}"])
        rows.append(row)
    return rows


def step_rows(steps: Mapping[int, Overlap], controls: Mapping[str, Overlap], seed: int = 0) -> list[dict[str, Any]]:
    """A row for every step at which a run was measured, with the paired difference from its first; then controls."""
    first = steps[min(steps)]
    rows = [
        {
            "step": str(step),
            "ABO_i": tuple(ours.abo_i),
            "ABO_i: less untrained": "" if ours is first else overlap_difference(ours, first, seed=seed)["abo_i"],
            "OR": tuple(ours.recovery),
        }
        for step, ours in steps.items()
    ]
    rest = [
        {"step": name, "ABO_i": tuple(o.abo_i), "ABO_i: less untrained": "", "OR": tuple(o.recovery)}
        for name, o in controls.items()
    ]
    return rows + rest


def overlap_rows(overlaps: Mapping[str, Overlap], printed: Printed) -> list[dict[str, Any]]:
    """A row for every network and control: ABO of instances and classes, OR, and what is printed for the same."""
    return [
        {
            "features": name,
            "ABO_i": tuple(ours.abo_i),
            "ABO_c": tuple(ours.abo_c),
            "OR": tuple(ours.recovery),
            **_beside(name, printed),
        }
        for name, ours in overlaps.items()
    ]


def video_rows(scores: Mapping[str, VideoScores], printed: Printed) -> list[dict[str, Any]]:
    """A row for every tracker: J&F, J and F, recall and decay of J, and what is printed for the same."""
    return [
        {
            "features": name,
            "J&F": tuple(score.jf),
            "J": score.j.mean,
            "F": score.f.mean,
            "J recall": score.j.recall,
            "J decay": score.j.decay,
            **_beside(name, printed),
        }
        for name, score in scores.items()
    ]


def run_rows(
    differing: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    overlaps: Mapping[str, Overlap],
    printed: Printed,
) -> list[dict[str, Any]]:
    """A row for every training run: what differs in its settings, ``facts`` of it, its overlap, what is printed."""
    rows = []
    for name, values in differing.items():
        row: dict[str, Any] = {"run": name, **values, **facts[name]}
        if name in overlaps:
            row |= {"ABO_i": tuple(overlaps[name].abo_i), "OR": tuple(overlaps[name].recovery)}
        rows.append({**row, **_beside(name, printed)})
    return rows


def _beside(name: str, printed: Printed) -> dict[str, float]:
    return {f"{metric}, published": value for metric, value in printed.get(name, {}).items()}


def ordered(names: Sequence[str], first: Sequence[str]) -> list[str]:
    """``names`` with those that are among ``first`` in front, in its order."""
    return [*(name for name in first if name in names), *(name for name in names if name not in first)]
