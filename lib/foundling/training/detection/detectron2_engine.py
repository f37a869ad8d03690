"""Detectron2's own R50-C4 in place of torchvision's: LOST's detector, trained from the same labels by the same loop.

Nothing here imports Detectron2 before a detector is made. What surrounds the network is this project's, whatever the
engine: images, the resizing of :class:`~foundling.training.detection.heads.Resizing`, the optimiser and its
schedule (a test compares them with Detectron2's), states and resuming. Images of one orientation are not grouped into
batches, as Detectron2 does to save padding.
"""

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foundling.backbones.transfer import detectron2_names
from foundling.errors import ParameterError, WeightsError
from foundling.training.detection.bodies import Body
from foundling.training.detection.detectron2_config import HEAD, detectron2_config
from foundling.training.detection.heads import Resizing
from foundling.training.detection.settings import Detector

# Detectron2's names of the losses, and torchvision's, which a history has whatever the engine
LOSSES = {
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}

Target = Mapping[str, Tensor]


def require_detectron2() -> None:
    """Raises :class:`ParameterError`, saying how to get it, unless Detectron2 can be imported."""
    try:
        importlib.import_module("detectron2")
    except ImportError as error:
        raise ParameterError(
            f"engine = 'detectron2' needs Detectron2, which cannot be imported here ({error}): make the environment of "
            "environment.yml, which takes it from conda-forge (conda env create -f environment.yml), or use engine: "
            "torchvision"
        ) from error


@functools.cache
def register() -> None:
    """Give Detectron2's registry the box head that LOST's configs name; once, and not over one of that name.

    MoCo's: stage 5 of a ResNet, and one more normalisation of the kind of the others after it.
    """
    require_detectron2()
    from detectron2.layers import get_norm
    from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads

    class Res5ROIHeadsExtraNorm(Res5ROIHeads):  # type: ignore[misc, valid-type, unused-ignore]
        @classmethod
        def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
            stage, channels = super()._build_res5_block(cfg)
            stage.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
            return stage, channels

    if HEAD not in ROI_HEADS_REGISTRY:
        ROI_HEADS_REGISTRY.register(Res5ROIHeadsExtraNorm)


def make_config(settings: Detector, **parts: Any) -> Any:
    """Detectron2's configuration node of ``settings``; ``parts`` as :func:`detectron2_config` takes them."""
    return as_node(detectron2_config(settings, **parts))


def as_node(config: Mapping[str, Any]) -> Any:
    """Detectron2's configuration node of a ``config`` of plain data; what that does not say is Detectron2's default."""
    require_detectron2()
    from detectron2.config import CfgNode, get_cfg

    node = get_cfg()
    node.merge_from_other_cfg(CfgNode(config))
    return node


class Detectron2Network(nn.Module):
    """Detectron2's GeneralizedRCNN, taking and giving what torchvision's detectors take and give.

    Images are RGB in 0..1 of any size; targets have ``boxes`` in their pixels and ``labels`` from 1. In training it
    gives losses, under torchvision's names, otherwise ``boxes``, ``scores`` and ``labels`` of each image, best first.
    """

    describe: Any = staticmethod(detectron2_config)  # settings in Detectron2's words
    losses = LOSSES
    resizing = Resizing
    stages = ("backbone.", "roi_heads.")  # where the ResNet is: stages to 4, and stage 5

    def __init__(self, settings: Detector, body: Body) -> None:
        """``body`` is the ResNet-50 to start from; the heads are drawn by PyTorch's generator.

        Raises ParameterError where Detectron2 is not installed, or cannot do what ``settings`` say.
        """
        super().__init__()
        colours = {"mean": [255 * value for value in body.mean], "std": [255 * value for value in body.std]}
        plain = self.describe(settings, distributed=False, **colours)  # the loop makes it SyncBN on several GPUs
        register()
        from detectron2.modeling import build_model

        config = as_node(plain)
        config.MODEL.DEVICE = "cpu"
        self.model = build_model(config)
        fill_resnet(self.model, body.network.state_dict(), *self.stages)
        self.transform = self.resizing(
            settings.min_sizes, settings.test_size, settings.max_size, [0.0] * 3, [1.0] * 3, cell=1
        )

    def forward(
        self, images: list[Float[Tensor, "3 _ _"]], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        from detectron2.utils.events import EventStorage

        wanted: list[Any] = [None] * len(images) if targets is None else [dict(target) for target in targets]
        resized = [self.transform.resize(image, target) for image, target in zip(images, wanted, strict=True)]
        inputs = [
            self.input_of(image, target, original) for (image, target), original in zip(resized, images, strict=True)
        ]
        if not self.training:
            return [self.found(output["instances"]) for output in self.model(inputs)]
        try:
            with EventStorage():  # Detectron2's parts log into the storage that is open
                losses = self.model(inputs)
        except FloatingPointError:  # boxes that are no numbers: the loop knows what to do with such a loss
            losses = dict.fromkeys(self.losses, next(p for p in self.parameters() if p.requires_grad).sum() * torch.nan)
        return {self.losses[name]: value for name, value in losses.items()}

    def input_of(self, image: Tensor, target: Target | None, original: Tensor) -> dict[str, Any]:
        """What the model takes of an image: as it was resized, its target, and what it ``original``ly was."""
        from detectron2.structures import Boxes, Instances

        entry = {"image": 255 * image, "height": original.shape[-2], "width": original.shape[-1]}
        if self.training and target is not None:
            instances = Instances((image.shape[-2], image.shape[-1]))
            instances.gt_boxes, instances.gt_classes = Boxes(target["boxes"]), target["labels"] - 1
            entry["instances"] = instances
        return entry

    def found(self, instances: Any) -> dict[str, Tensor]:
        """What the model says of an image, best first."""
        order = instances.scores.argsort(descending=True, stable=True)
        boxes, scores, labels = instances.pred_boxes.tensor, instances.scores, instances.pred_classes + 1
        return {"boxes": boxes[order], "scores": scores[order], "labels": labels[order]}


def fill_resnet(
    model: nn.Module, state: Mapping[str, Tensor], to4: str = "backbone.", fifth: str = "roi_heads."
) -> None:
    """Load a ResNet-50's parameters, under torchvision's names, into Detectron2's model.

    ``to4`` is what the names of its stages to 4 begin with there, ``fifth`` that of stage 5: in a C4 it is in the head.
    Raises :class:`WeightsError` if anything of either is left over but the head's own, which fine-tuning is to find.
    """
    given = {}
    for name, tensor in detectron2_names(state).items():
        given[f"{fifth if name.startswith('res5.') else to4}{name}"] = tensor
    of_resnet = (to4, f"{fifth}res5.")
    mine = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(of_resnet) and not name.startswith(f"{fifth}res5.norm.") and "num_batches" not in name
    }
    wrong = sorted(given.keys() ^ mine.keys()) or [n for n in mine if mine[n].shape != given[n].shape]
    if wrong:
        raise WeightsError(
            f"the weights are not those of a ResNet-50 as Detectron2 has it: {wrong[0]} and {len(wrong) - 1} more are "
            "in one and not in the other, or of another shape"
        )
    model.load_state_dict(given, strict=False)
