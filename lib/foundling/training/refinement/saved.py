"""What a refinement leaves: f, which is read as any backbone, and h; and h's own boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ValidationError

from foundling import provenance
from foundling.backbones.apply import normalise
from foundling.backbones.load import choose_device
from foundling.errors import ParameterError, WeightsError
from foundling.files import checksum
from foundling.training import checkpoints
from foundling.training.refinement.boxes import object_scores, to_corners
from foundling.training.refinement.images import squeezed
from foundling.training.refinement.networks import BoxNetwork, make_box_network
from foundling.training.refinement.settings import Refinement
from foundling.training.refinement.sources import Source, make_source
from foundling.training.running import Run
from foundling.training.trained import in_batches, read_network
from foundling.types import Failure, Sample

METHOD, METHOD_H = "refinement", "refinement_h"  # what the files say they are
NEEDED = ("settings", "channels")


@dataclass(frozen=True)
class Refined:
    """A refined f and its h, in evaluation mode on a device; ``checksum`` is that of f's file."""

    source: Source
    head: BoxNetwork
    settings: Refinement
    file: Path
    checksum: str
    device: torch.device


@dataclass(frozen=True)
class HBoxes:
    """What h says of each image: its k boxes in pixels of the original image, and how likely each holds an object.

    Rows of images that could not be used are nan.
    """

    boxes: Float[np.ndarray, "image slot 4"]
    scores: Float[np.ndarray, "image slot"]

    @property
    def surest(self) -> Float[np.ndarray, "image 4"]:
        """The box of each image that most likely holds an object."""
        best = np.nan_to_num(self.scores, nan=-1.0).argmax(axis=1)
        return self.boxes[np.arange(len(self.boxes)), best]


def h_file(file: Path) -> Path:
    """Where the h of an exported f lies: ``run_h.safetensors`` beside ``run.safetensors``."""
    return file.with_name(f"{file.stem}_h{file.suffix}")


def write(file: Path, source: Source, head: BoxNetwork, run: Run) -> None:
    """Write f to ``file`` and h beside it, both as they are: a step of refinement may be less than half precision."""
    versions = provenance.versions()
    told = {
        **source.about(),
        "data": run.images.identity,
        "precision": "full",
        "settings": run.settings.model_dump(),
        "steps": run.done,
        "versions": {name: versions[name] for name in ("foundling", "torch", "timm", "numpy")},
    }
    checkpoints.export(file, source.tensors(), {**told, "method": METHOD}, half=False)
    own = {**told, "method": METHOD_H, "channels": head.channels}
    checkpoints.export(h_file(file), head.state_dict(), own, half=False)


def load_refined(file: str | Path, device: str | torch.device | None = None) -> Refined:
    """The networks that :func:`foundling.training.refinement.task.refine` left at ``file``, RUN.safetensors.

    Raises WeightsError if there is no such file or none of its h beside it, one of them is damaged, or they are of
    something else.
    """
    file = Path(file).expanduser()
    tensors, told = read_network(h_file(file), METHOD_H, "h of a refinement", "refine()", NEEDED)
    try:
        settings = Refinement.model_validate(
            {key: value for key, value in told["settings"].items() if key in Refinement.model_fields}
        )
        head = make_box_network(settings.network, settings.network_options, settings.boxes, told["channels"])
        head.load_state_dict(tensors)
    except (ValidationError, RuntimeError, TypeError, ParameterError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{h_file(file)} does not hold what its header says ({reason}): use the version of foundling that wrote "
            "it, or train it again"
        ) from error
    source = make_source(settings.model_copy(update={"weights": str(file)}))
    where = choose_device(device)
    for network in (source, head):
        network.eval().requires_grad_(False).to(where)
    return Refined(source, head, settings, file, checksum(file)[:12], where)


@torch.inference_mode()
def h_boxes(
    refined: Refined,
    samples: Sequence[Sample],
    *,
    batch_size: int = 16,
    workers: int = 2,
    failures: list[Failure] | None = None,
) -> HBoxes:
    """What h says of each of ``samples``: images are resized to the square of training, boxes back.

    As images are in training: bicubic and smoothed. The authors' code resizes bilinearly here, and cuts coordinates to
    whole numbers.
    An image that cannot be used raises ImageError, or with ``failures`` is appended to it, and its row is nan.
    """
    slots, side, source = refined.settings.boxes, refined.settings.side, refined.source
    boxes, scores = np.full((len(samples), slots, 4), np.nan), np.full((len(samples), slots), np.nan)
    for batch in in_batches(samples, batch_size, workers, failures):
        squares = [squeezed(item.pixels.permute(2, 0, 1).to(refined.device), side) for item in batch]
        views = normalise(torch.stack(squares), source.mean, source.std)
        found, logits = refined.head(source.look(views, False).map)
        for item, own, said in zip(batch, found, logits, strict=True):
            boxes[item.index] = to_corners(own, *map(float, item.original)).cpu().numpy()
            scores[item.index] = object_scores(said).cpu().numpy()
    return HBoxes(boxes, scores)
