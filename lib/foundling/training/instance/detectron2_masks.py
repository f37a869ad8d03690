"""Detectron2's own Mask R-CNN in place of torchvision's, on the same labels and the same loop (instanceness, Table 7).

Nothing here imports Detectron2 before a network is made. What its losses compare a mask with is that mask cut to the
box and sampled at the mask head's cells, inside or not; torchvision's keep the shares in between.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from foundling.errors import ParameterError
from foundling.training.detection.bodies import load_body
from foundling.training.detection.detectron2_engine import LOSSES, Detectron2Network, Target
from foundling.training.detection.detectron2_files import check_classes, colours, write_backbone
from foundling.training.instance.detectron2_config import mask_config, write_mask_config
from foundling.training.instance.mask_rcnn import ResizingMasks
from foundling.training.instance.settings import MaskRcnn
from foundling.training.label_files import write_lost_dataset
from foundling.training.pseudo_labels import PseudoLabels
from foundling.types import Sample


class Detectron2Masks(Detectron2Network):
    """Detectron2's Mask R-CNN, R50-FPN, taking and giving what torchvision's does.

    Targets have ``masks`` as well, of their image's size; what it finds has ``masks`` [object, 1, height, width] of the
    size that the image came in, 1 inside and 0 outside.
    """

    describe: Any = staticmethod(mask_config)
    losses = LOSSES | {"loss_mask": "loss_mask"}
    resizing = ResizingMasks
    stages = ("backbone.bottom_up.", "backbone.bottom_up.")

    def input_of(self, image: Tensor, target: Target | None, original: Tensor) -> dict[str, Any]:
        from detectron2.structures import BitMasks

        entry = super().input_of(image, target, original)
        if "instances" in entry and target is not None:
            entry["instances"].gt_masks = BitMasks(target["masks"])
        return entry

    def found(self, instances: Any) -> dict[str, Tensor]:
        order = instances.scores.argsort(descending=True, stable=True)
        return {**super().found(instances), "masks": instances.pred_masks[order, None].float()}


def write_masks_for_detectron2(
    folder: Path, samples: Sequence[Sample], labels: PseudoLabels, settings: MaskRcnn, name: str
) -> dict[str, Path]:
    """Write what Detectron2's own trainer needs to train on the masks in ``labels`` as ``settings`` say.

    As :func:`~foundling.training.detection.detectron2_files.write_for_detectron2` does for boxes, masks as run lengths.

    Raises what that does, and ParameterError for labels without masks.
    """
    config: dict[str, Any] = {"train": [name], "weights": str(folder / "weights.pkl")}
    mask_config(settings, **config)  # refused before anything is written
    check_classes(labels.classes, settings)
    if lacking := [image.name for _, image in labels.usable(samples) if image.masks is None]:
        raise ParameterError(f"{lacking[0]} and {len(lacking) - 1} more images have boxes but no masks: {MASKED}")
    body = load_body(settings)
    weights = write_backbone(folder / "weights.pkl", body)
    dataset = write_lost_dataset(folder / f"{name}.json", labels, samples, name)
    file = write_mask_config(folder / "config.yaml", settings, **config, **colours(body.mean, body.std))
    return {"weights": weights, "dataset": dataset, "config": file}


MASKED = "make labels of a method that finds masks, with masks=True"
