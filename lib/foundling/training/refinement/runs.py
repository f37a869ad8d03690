"""Refinements of several seeds, and of the states of one: trained, found again, measured, and chosen among."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from foundling.backbones import load_backbone
from foundling.discovery.stream import Found, discover_images
from foundling.training.checkpoints import beside
from foundling.training.loop import Outcome
from foundling.training.reading import open_images
from foundling.training.refinement.images import PlainImages
from foundling.training.refinement.saved import h_boxes, load_refined
from foundling.training.refinement.settings import Refinement, RefinementOnDataset
from foundling.training.refinement.task import refine
from foundling.training.settings import MAY_CHANGE
from foundling.types import Failure, Sample

Boxes = Float[np.ndarray, "image 4"]


@dataclass(frozen=True)
class RefinedRun:
    """A run of one seed; ``outcome`` says how far it is, and names its file."""

    seed: int
    settings: Refinement
    outcome: Outcome

    @property
    def file(self) -> Path:
        return self.outcome.file


@dataclass(frozen=True)
class State:
    """f and h after ``step`` steps of a run, and what was seen of the images held out: None where nothing was."""

    step: int
    file: Path
    agreement: float | None
    drift: float | None


def refine_on_dataset(
    settings: RefinementOnDataset, out: Path, minutes: float = math.inf, progress: bool = True, cpu: bool = False
) -> Outcome:
    """:func:`foundling.training.refinement.task.refine` of the images that ``settings`` name."""
    samples = open_images(settings)
    told = Refinement(**settings.model_dump(include=set(Refinement.model_fields)))  # wherever the images lie
    return refine(samples, told, out, minutes=minutes, progress=progress, cpu=cpu)


def refine_seeds(
    samples: Sequence[Sample],
    settings: Refinement,
    seeds: Sequence[int],
    folder: Path,
    name: str = "refined",
    *,
    minutes: float = 0.0,
    cpu: bool = False,
) -> list[RefinedRun]:
    """A refinement of each seed in ``folder``: trained, gone on with, or found there if it has ended.

    Other settings, or other images, begin new runs beside the old ones. ``minutes`` (0: no limit) stop each, and that
    is told. Raises as :func:`foundling.training.refinement.task.refine`.
    """
    runs = []
    for seed in seeds:
        own = settings.model_copy(update={"seed": seed})
        out = run_path(folder, f"{name}_seed{seed}", own, samples)
        outcome = refine(samples, own, out, minutes=minutes or math.inf, cpu=cpu)
        if not outcome.finished:
            print(f"{out.name}: stopped after {outcome.steps} of {own.steps} steps; run again to go on")
        runs.append(RefinedRun(seed, own, outcome))
    return runs


def run_path(folder: Path, name: str, settings: Refinement, samples: Sequence[Sample]) -> Path:
    """Where a notebook keeps a run: a path that other settings, or other images, do not share."""
    told = [settings.model_dump(mode="json", exclude=set(MAY_CHANGE)), PlainImages(samples).identity]
    return folder / f"{name}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]}"


def states(run: RefinedRun) -> list[State]:
    """The states of a run that there are files of, in their order: those of ``export_at`` and the last."""
    last = run.outcome.steps
    out = run.file.with_suffix("")
    files = {step: beside(out, f"_{step}.safetensors") for step in sorted(run.settings.export_at) if step < last}
    seen = {row["step"]: row for row in run.outcome.history}
    return [
        State(step, file, seen.get(step, {}).get("agreement"), seen.get(step, {}).get("drift"))
        for step, file in {**files, last: run.file}.items()
        if file.is_file()
    ]


def chosen(those: Sequence[State]) -> State:
    """The state whose h agrees most with the boxes found in the images held out, the later of equals: no labels.

    The last one where nothing was held out.
    """
    known = [state for state in those if state.agreement is not None]
    return max(known, key=lambda state: (state.agreement, state.step)) if known else those[-1]


def found_by(
    settings: Refinement,
    weights: str | Path,
    samples: Sequence[Sample],
    folder: Path | None = None,
    *,
    device: Any = None,
    **options: Any,
) -> Found:
    """All that is discovered in images, at their own size, through f with ``weights``, under the label of the method.

    ``weights`` are the file of a run or a state, or ``settings.weights`` for f as it was. Results are kept in
    ``folder``, if given, and used again; ``options`` are those of :func:`foundling.discovery.discover_images`, of which
    a segmenter takes none.
    """
    if settings.method == "segmenter":
        from foundling.training.refinement.segmenter import found_by_segmenter

        return found_by_segmenter(settings, weights, samples, device=device, out=folder)
    network = load_backbone(settings.backbone, weights, device, seed=settings.seed)
    return discover_images(network, samples, {settings.method: settings.discovery}, out=folder, **options)


def boxes_of(
    settings: Refinement,
    weights: str | Path,
    samples: Sequence[Sample],
    folder: Path | None = None,
    *,
    device: Any = None,
    failures: list[Failure] | None = None,
    **options: Any,
) -> Boxes:
    """The box that is discovered in each image, in pixels, nan where it failed; as :func:`found_by`."""
    found = found_by(settings, weights, samples, folder, device=device, **options)
    if failures is not None:
        failures += found.failures
    return found.boxes[settings.method]


def boxes_of_h(
    file: Path, samples: Sequence[Sample], *, device: Any = None, failures: list[Failure] | None = None
) -> Boxes:
    """h's surest box in each image, of the run or state in ``file``; pixels, nan where failed."""
    return h_boxes(load_refined(file, device), samples, failures=failures).surest
