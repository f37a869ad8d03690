"""Training of instance segmenters on masks that were found, in one round or several, on the loop that trains all."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from foundling.errors import ParameterError
from foundling.files import checksum
from foundling.training.checkpoints import beside
from foundling.training.detection.bodies import Body, load_body, named_body
from foundling.training.instance.images import MaskedImages, MaskedSet
from foundling.training.instance.labels import labels_of_segmenter
from foundling.training.instance.mask_rcnn import MaskRcnnTask
from foundling.training.instance.predict import load_instances
from foundling.training.instance.settings import Instances, MaskRcnn, Solo
from foundling.training.instance.solo import SoloTask
from foundling.training.label_files import read_pseudo_labels, write_pseudo_labels
from foundling.training.loop import Outcome, carry_out
from foundling.training.pseudo_labels import PseudoLabels
from foundling.training.running import Prepare
from foundling.training.task import Task
from foundling.types import Sample


def train_instances(
    samples: Sequence[Sample],
    labels: PseudoLabels,
    settings: Instances,
    out: Path,
    *,
    minutes: float = math.inf,
    progress: bool = True,
    cpu: bool = False,
) -> Outcome:
    """Train SOLOv2 or Mask R-CNN on the masks in ``labels``, or go on training; images without a mask are left out.

    ``out`` names the run, as in :func:`foundling.training.loop.carry_out`: ``out.safetensors`` is the segmenter, which
    :func:`foundling.training.instance.predict.load_instances` reads. ``samples`` are those that the labels were made
    of; with ``settings.rounds`` above 1 they may be more: each further round starts from the same weights as the
    first, on what the segmenter of the round before finds in all of ``samples``. What belongs to round number i but the
    last is beside, as ``out_round<i>.…``, and the labels made with it are ``out_round<i>_labels_<checksum>.json``.
    ``minutes`` bounds this call over all rounds, and the next call goes on; the outcome is that of the round reached.

    Raises ParameterError if there is no mask at all, one does not have the size of its image, the classes are not those
    of the settings (SOLOv2 here knows one), there are fewer images than a batch, a round finds nothing for the next, or
    ``out.state`` is of another run; WeightsError if that or the backbone's weights are damaged or missing; and what the
    loop raises.
    """
    classes = settings.classes if isinstance(settings, MaskRcnn) else 1
    if len(labels.classes) != classes:
        raise ParameterError(
            f"the labels have {len(labels.classes)} classes, the network {classes}: make class-agnostic labels, or use "
            "mask_rcnn with classes set to that number"
        )
    deadline = time.monotonic() + 60 * minutes
    source = _images(samples, labels, settings)
    outcome = None
    for number in range(1, settings.rounds + 1):
        here = out if number == settings.rounds else _round(out, number)
        prepare = _prepare(samples, labels, settings, source, _round(out, number - 1) if number > 1 else None)
        left = (deadline - time.monotonic()) / 60
        outcome = carry_out(settings, here, prepare, max(left, 0.0), progress, cpu)
        if not outcome.finished:
            break
    assert outcome is not None
    return outcome


def _round(out: Path, number: int) -> Path:
    return beside(out, f"_round{number}")


def _prepare(
    samples: Sequence[Sample], labels: PseudoLabels, settings: Instances, source: MaskedImages, before: Path | None
) -> Prepare:
    """What makes the task and the images of a round: those of ``source``, or what the round ``before`` finds."""

    def prepare(accelerator: Accelerator) -> tuple[Task, MaskedSet]:
        images = source
        if before is not None:
            found = found_by(samples, before, settings, labels.classes, str(accelerator.device))
            images = _images(samples, found, settings)
        task: Task
        if isinstance(settings, MaskRcnn):
            task = MaskRcnnTask(settings, load_body(settings), labels.classes)
        else:
            task = SoloTask(settings, solo_body(settings))
        return task, MaskedSet(images, accelerator.device, settings.workers)

    return prepare


def solo_body(settings: Solo) -> Body:
    """The backbone that ``settings`` name, with its weights; raises as :func:`named_body`."""
    return named_body(settings.network, settings.weights)


def found_by(
    samples: Sequence[Sample], run: Path, settings: Instances, classes: Sequence[str], device: str
) -> PseudoLabels:
    """The labels that the segmenter of ``run`` makes for the next round; found once, and read afterwards."""
    segmenter = beside(run, ".safetensors")
    file = beside(run, f"_labels_{checksum(segmenter)[:12]}.json")
    if not file.is_file():
        found = labels_of_segmenter(
            load_instances(segmenter, device),
            samples,
            score=settings.round_score,
            most=settings.round_most,
            workers=settings.workers,
        )
        if not found.counts.sum():
            raise ParameterError(
                f"{segmenter} finds nothing with a score of {settings.round_score} or more in {len(samples)} images: "
                "there is nothing for another round; train longer, or lower round_score"
            )
        write_pseudo_labels(file, found)
    return read_pseudo_labels(file)


def _images(samples: Sequence[Sample], labels: PseudoLabels, settings: Instances) -> MaskedImages:
    source = MaskedImages(samples, labels)
    if len(source) < settings.batch:
        raise ParameterError(f"batch = {settings.batch} is more than there are images with a mask ({len(source)})")
    return source
