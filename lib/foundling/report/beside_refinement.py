"""The printed numbers that belong beside a refinement (box refinement, Tables 4, 6 and 7).

They are given where a run meets the conditions under which the paper made them: a whole dataset, trained on and
measured, DINO's ViT-S/16 (a segmenter: MOVE's on ViT-S/8), and the settings of the paper or of its published code, of
which no one knows which made the tables. A run that stopped before its last step has none.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from foundling.report.beside import EVAL_SETS
from foundling.report.beside_detectors import SHORT, is_papers
from foundling.report.published import Row, published
from foundling.training.recipes import RECIPES, recipe
from foundling.training.refinement.settings import Refinement
from foundling.training.settings import MAY_CHANGE

if TYPE_CHECKING:
    from foundling.training.loop import Outcome

PAPER = "box_refinement"
NAMES = {"lost": "LOST", "tokencut": "TokenCut", "segmenter": "MOVE"}  # our method -> the paper's
PRESETS = ("code", "paper")
FREE = {"seed", "weights", "log_every", "look_every", *MAY_CHANGE}  # settings that no result depends on; weights: below
K = 10  # boxes of h, where the paper does not say otherwise
NO_REGULARISER = "w/o reg."
_OURS = "Box refinement (Ours) using "


def preset_of(settings: Any) -> str:
    """Whose settings these are: ``"code"``, ``"paper"``, or nothing if they are neither's."""
    return next((name for name in PRESETS if _told(settings) == _preset(settings.method, name)), "")


def corloc_beside(p: Any, settings: Any, outcomes: "Sequence[Outcome]" = ()) -> dict[str, float]:
    """CorLoc that Table 4 prints for ``f``, ``h`` and ``refined``, as far as conditions are met.

    ``p`` are the parameters of notebook 07, ``settings`` those of its refinement, ``outcomes`` what training left.
    """
    if not _whole(p) or not _found_alike(settings):
        return {}
    where, name = EVAL_SETS[p.dataset, p.split], NAMES[settings.method]
    row = {"f": _table4(name, where)}
    if _is_papers(p, settings, outcomes):
        row |= {
            "h": _table4(f"{_OURS}{name}", where, "network h"),
            "refined": _table4(f"{_OURS}{name}", where, "refined"),
        }
    return {key: value for key, value in row.items() if value is not None}


def cad_beside(
    p: Any, settings: Any, detector: Any, outcomes: "Sequence[Outcome]" = (), cads: "Sequence[Outcome]" = ()
) -> dict[str, float]:
    """CorLoc that Table 4 prints for ``f_cad`` and ``refined_cad``, detectors taught by f and by f refined.

    ``detector`` are the settings of the detectors, ``cads`` what their training left; the rest is as above.
    """
    if not _whole(p) or not _found_alike(settings) or not all(one.finished for one in cads):
        return {}
    where, name = EVAL_SETS[p.dataset, p.split], NAMES[settings.method]
    if not is_papers(detector, "cad", where):
        return {}
    row = {"f_cad": _table4(f"{name} + CAD", where)}
    if _is_papers(p, settings, outcomes):
        row["refined_cad"] = _table4(f"{_OURS}{name} + CAD", where)
    return {key: value for key, value in row.items() if value is not None}


def ablation_beside(p: Any, settings: Any, outcomes: "Sequence[Outcome]" = ()) -> float | None:
    """CorLoc that Table 6 prints for a variant of LOST's refinement, told by its ``settings``; or nothing."""
    if settings.method != "lost" or not _whole(p):
        return None
    regulariser, boxes = settings.regulariser, settings.boxes
    for preset in PRESETS:
        base = Refinement.model_validate(_preset("lost", preset) | {"seed": 0})
        if base.regulariser == regulariser:
            setting = f"k={boxes}"
        elif regulariser == 0 and boxes == K:
            setting = NO_REGULARISER
        else:
            continue
        plain = settings.model_copy(update={"regulariser": base.regulariser, "boxes": K})
        rows = published(paper=PAPER, table="Table 6", eval_set=EVAL_SETS[p.dataset, p.split])
        found = [row["value"] for row in rows if row["setting"].endswith(f"; {setting}")]
        if found and preset_of(plain) == preset and _is_papers(p, plain, outcomes):
            return float(found[0])
    return None


def hours_beside(p: Any, settings: Any, outcomes: "Sequence[Outcome]" = ()) -> dict[str, float]:
    """Hours that Table 7 prints for the training of ``h`` and of ``refined``, on one GPU (GeForce RTX 2080 Ti).

    The table does not say on which images ("medium-sized datasets"): given for each.
    """
    if not _whole(p) or not _is_papers(p, settings, outcomes):
        return {}
    setting = f"object discovery with {NAMES[settings.method]}; GPUs=1"
    rows = {"h": "h", "refined": "f^h or g^h (refined network)"}
    return {
        name: found[0]["value"]
        for name, method in rows.items()
        if (found := published(paper=PAPER, table="Table 7", method=method, setting=setting))
    }


def printed_corloc() -> list[dict[str, Any]]:
    """Table 4 as rows to show: a line for each method that is refined, alone, refined (h in brackets) and with CAD."""
    lines = []
    for name in NAMES.values():
        for method in (name, f"{_OURS}{name}", f"{name} + CAD", f"{_OURS}{name} + CAD"):
            found = published(paper=PAPER, table="Table 4", method=method)
            for part in ("refined network", "network h", ""):
                if rows := [row for row in found if _part(row) == part]:
                    words = f"{method} ({part})" if part == "network h" else method
                    lines.append({"method": words} | {_where(row): row["value"] for row in rows})
    return lines


def printed_ablation() -> list[dict[str, Any]]:
    """Table 6 as rows to show, CorLoc of LOST's refinement."""
    lines: dict[str, dict[str, Any]] = {}
    for row in published(paper=PAPER, table="Table 6"):
        variant = row["setting"].rpartition("; ")[2]
        lines.setdefault(variant, {"variant": variant})[_where(row)] = row["value"]
    return list(lines.values())


def _part(row: Row) -> str:
    return next((part for part in ("refined network", "network h") if row["setting"].startswith(part)), "")


def _where(row: Row) -> str:
    return str(SHORT.get(row["eval_set"]) or row["eval_set"])


def _table4(method: str, eval_set: str, setting: str = "") -> float | None:
    rows = published(paper=PAPER, table="Table 4", method=method, eval_set=eval_set)
    return next((row["value"] for row in rows if row["setting"].startswith(setting)), None)


def _whole(p: Any) -> bool:
    """All images of a dataset that the paper measures, as they are, trained on as well."""
    where = (p.dataset, p.split)
    alone = not p.parts() or (p.parts() == [where] and not p.train_limit)
    return where in EVAL_SETS and alone and (p.limit, p.max_side, p.precision) == (0, 0, "fp32")


def _found_alike(settings: Any) -> bool:
    """Whether boxes are found by the paper's method, settings and network."""
    return any(
        (settings.discovery, settings.backbone, settings.weights) == (base["discovery"], base["backbone"], "pretrained")
        for base in (_preset(settings.method, name) for name in PRESETS)
    )


def _is_papers(p: Any, settings: Any, outcomes: "Sequence[Outcome]") -> bool:
    finished = all(outcome.finished for outcome in outcomes)
    return finished and settings.weights == "pretrained" and bool(preset_of(settings))


def _told(settings: Any) -> dict[str, Any]:
    told: dict[str, Any] = settings.model_dump(exclude=FREE)
    return told


@cache
def _preset(method: str, name: str) -> dict[str, Any]:
    """The settings of a preset, as far as results depend on them."""
    file = f"refine_{method}_{name}"
    return _told(recipe({"settings": file}, str(RECIPES / file), {"refinement": Refinement}))
