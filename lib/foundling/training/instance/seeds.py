"""Instance segmenters of several seeds on the same masks, as notebook 06 trains them."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from foundling.training.instance.settings import Instances, MaskRcnn
from foundling.training.instance.train import train_instances
from foundling.training.loop import Outcome
from foundling.training.pseudo_labels import PseudoLabels
from foundling.training.teaching import run_path
from foundling.types import Sample


def seeded(settings: Instances, seed: int, classes: int = 1) -> Instances:
    """The settings of one run: with its ``seed``, and as many ``classes`` as its labels have, where it can tell any."""
    own = {"classes": classes} if isinstance(settings, MaskRcnn) else {}
    made: Instances = type(settings).model_validate({**settings.model_dump(), "seed": seed, **own})
    return made


def train_seeds(
    samples: Sequence[Sample],
    labels: PseudoLabels,
    settings: Instances,
    folder: Path,
    name: str,
    seeds: Sequence[int],
    *,
    minutes: float = 0.0,
    progress: bool = True,
    cpu: bool = False,
) -> list[Outcome]:
    """A segmenter for each of ``seeds``, trained, or trained on, or found finished, in ``folder``.

    Their files are ``name_<seed>-<digest>…``: other settings and other labels have other files (:func:`run_path`).
    ``minutes`` (0: no limit) bound all of them together; a run that was stopped goes on with the next call, and that is
    told; those behind it have not begun and are not among the outcomes. Raises as :func:`train_instances`.
    """
    deadline = time.monotonic() + 60 * (minutes or math.inf)
    outcomes = []
    for seed in seeds:
        own = seeded(settings, seed, len(labels.classes))
        out, left = run_path(folder, f"{name}_{seed}", own, labels), (deadline - time.monotonic()) / 60
        outcome = train_instances(samples, labels, own, out, minutes=max(left, 0.0), progress=progress, cpu=cpu)
        outcomes.append(outcome)
        if not outcome.finished:
            print(f"{name}_{seed}: stopped after {outcome.steps} of {own.steps} steps; run again to go on")
            break
    return outcomes
