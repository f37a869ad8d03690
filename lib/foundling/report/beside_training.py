"""Odin's printed numbers beside a training run's or a video network's: only where the paper's conditions are met."""

from collections.abc import Mapping
from typing import Any

from foundling.parameters import split_backbone
from foundling.report.beside import OVERLAP_NETWORKS, published_overlap
from foundling.report.published import published

KS = [1, 2, 4, 8, 16, 32, 64, 128]
PAPER_RUNS = {  # architecture -> what must be as in the paper, and the registry name of the same network
    "resnet50": ({"batch": 4096, "steps": 312_000, "view_side": 224, "span_side": 448}, "dino_resnet50"),
    "vit_base_patch8_224": ({"batch": 2048, "view_side": 224, "span_side": 224}, "dino_vitb8"),
}
PYRAMID = (256, 256)  # grid of Odin† and of Table 6: 1024 pixels at stride 4


def overlap_beside(
    parameters: Any, name: str, grid: tuple[int, int], filtered: bool = False, run: Any = None
) -> dict[str, float] | None:
    """``abo_i``, ``abo_c``, ``or`` that Table 4 (``filtered``: A.1) prints for a network of notebook 08, or ``None``.

    ``parameters`` are the notebook's, ``name`` is as in ``compare_backbones``, ``grid`` that of the features, ``run``
    the settings of the training run that made the network.
    """
    if not _as_published(parameters):
        return None
    base, weights = split_backbone(name)
    method = {"random": "Random init", "pretrained": None}.get(weights)
    if run is not None:
        if not is_papers(run) or ablation_setting(run) not in (None, "K=16; update every 100 epochs"):
            return None
        base, method = PAPER_RUNS[run.architecture][1], "Odin†" if grid == PYRAMID else "Odin"
    elif base not in OVERLAP_NETWORKS:
        return None
    return published_overlap(parameters.dataset, parameters.split, base, grid, method=method, filtered=filtered)


def _as_published(parameters: Any) -> bool:
    """Whether all images are measured, at the published side, with all k and in full precision."""
    cut = parameters.limit or parameters.overlap_limit or parameters.overlap_side
    return not cut and parameters.overlap_ks == KS and parameters.precision == "fp32"


def is_papers(run: Any) -> bool:
    """Whether the settings of a training run are the paper's where that changes a result, as far as settings say."""
    if run.objective != "odin" or run.architecture not in PAPER_RUNS:
        return False
    wanted = {**PAPER_RUNS[run.architecture][0], "min_area": 0.08, "strength": 1.0, "hidden": 4096, "projection": 256}
    return run.dataset != "scenes" and all(getattr(run, name) == value for name, value in wanted.items())


def ablation_setting(run: Any) -> str | None:
    """How Table 6 names an Odin run on a ResNet-50, such as ``K=16; lambda_tau=1e-3``; ``None`` for another network."""
    if run.objective != "odin" or run.architecture != "resnet50":
        return None
    if run.discovery == "periodic":
        return f"K={run.masks}; update every {run.discovery_every} epochs"
    return f"K={run.masks}; lambda_tau={run.discovery_rate:.0e}".replace("e-0", "e-")


def ablation_beside(parameters: Any, run: Any) -> dict[str, float] | None:
    """``abo_i`` and ``or`` that Table 6 prints for a run under the paper's conditions on COCO, or ``None``."""
    images = (parameters.dataset, parameters.split)
    if not _as_published(parameters) or images != ("coco", "val2017") or not is_papers(run):
        return None
    setting = f"underlying=object-discovery-overlap (with FPN); {ablation_setting(run)}"
    rows = published(paper="odin", table="Table 6", setting=setting)
    return {row["metric"].lower(): row["value"] for row in rows} or None


def video_beside(parameters: Any, name: str, run: Any = None) -> dict[str, float] | None:
    """``j&f``, ``j`` and ``f`` that Table 5 prints for a network at stride 32 on all videos of DAVIS, or ``None``."""
    if parameters.videos != "davis" or parameters.video_limit or parameters.precision != "fp32":
        return None
    base, weights = split_backbone(name)
    method = "Random" if weights == "random" else {"supervised_resnet50": "Supervised"}.get(base)
    if run is not None:
        method = "Odin" if is_papers(run) else None
    elif not base.endswith("resnet50"):
        return None
    rows = published(paper="odin", table="Table 5", method=method or "", backbone="ResNet-50")
    return {row["metric"].lower(): row["value"] for row in rows} or None


def differences(runs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> the settings of each training run that not all have the same, in the order of the settings."""
    told = {label: settings.model_dump(mode="json") for label, settings in runs.items()}
    names = dict.fromkeys(name for values in told.values() for name in values)
    differing = [name for name in names if len({str(values.get(name)) for values in told.values()}) > 1]
    return {label: {name: values[name] for name in differing if name in values} for label, values in told.items()}


def printed(table: str, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """A table of Odin's as rows to show: a line for each method, network and setting, a column for each metric.

    ``columns`` maps metrics of the published results to the columns of the line, such as ``{"ABO_i": "ABO_i"}``.
    """
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in published(paper="odin", table=table):
        if row["metric"] not in columns or "transfer" in row["setting"]:
            continue
        key = tuple(row[part] for part in ("method", "backbone", "setting"))
        line = lines.setdefault(key, {"method": key[0], "network": key[1], "setting": key[2].rpartition("; ")[2]})
        line[columns[row["metric"]]] = row["value"]
    return list(lines.values())
