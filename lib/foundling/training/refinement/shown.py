"""What notebook 07 shows of refinements: hours of each phase, how far f has moved, h's input and its answers."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from foundling.backbones.apply import normalise
from foundling.datasets.images import read_image
from foundling.training.refinement.images import squeezed
from foundling.training.refinement.runs import RefinedRun
from foundling.training.refinement.saved import HBoxes
from foundling.training.refinement.settings import Refinement
from foundling.training.refinement.sources import make_source
from foundling.training.running import Row
from foundling.types import Detections, Sample

MOVED = {0: "h", 1: "refined"}  # what a phase of a history trains


def phase_hours(history: Sequence[Row]) -> dict[str, float]:
    """Hours that a run spent on ``h`` and on f (``refined``), as far as each was trained."""
    hours: dict[str, float] = {}
    before = 0.0
    for row in history:
        name = MOVED[round(row["phase"])]
        hours[name] = hours.get(name, 0.0) + (row["seconds"] - before) / 3600
        before = row["seconds"]
    return hours


def last_drift(runs: Sequence[RefinedRun]) -> float | None:
    """How far f has moved at the last look of each run, on average; ``None`` where nothing was held out."""
    looks = [[row["drift"] for row in run.outcome.history if isinstance(row.get("drift"), float)] for run in runs]
    return float(np.mean([drifts[-1] for drifts in looks])) if all(looks) else None


@torch.inference_mode()
def seen_by_h(
    settings: Refinement, sample: Sample, device: str | torch.device = "cpu"
) -> Float[np.ndarray, "channel rows columns"]:
    """The map that h is shown of an image by f as it was."""
    source = make_source(settings).eval().to(device)
    image = torch.from_numpy(np.array(read_image(sample.path, orient=sample.orient))).permute(2, 0, 1).to(device)
    view = normalise(squeezed(image, settings.side)[None], source.mean, source.std)
    return source.look(view, False).map[0].float().cpu().numpy()


def detections(said: HBoxes, i: int) -> Detections | None:
    """What h says of image ``i``, all of its boxes with their scores; ``None`` where the image failed."""
    if not np.isfinite(said.scores[i]).all():
        return None
    order = np.argsort(-said.scores[i], kind="stable")
    return Detections(said.boxes[i][order], said.scores[i][order], np.zeros(len(order), dtype=np.int64))
