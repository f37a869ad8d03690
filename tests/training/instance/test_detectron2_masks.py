"""Detectron2's Mask R-CNN: its config and files as plain data; with it: its network, losses, results, a run."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from masked import masked_images, rectangles, small_mask_rcnn
from torch import Tensor

from foundling.errors import ParameterError
from foundling.training.detection import detectron2_engine
from foundling.training.detection.bodies import load_body
from foundling.training.instance.detectron2_config import mask_config, write_mask_config
from foundling.training.instance.detectron2_masks import Detectron2Masks, write_masks_for_detectron2
from foundling.training.instance.mask_rcnn import make_mask_rcnn
from foundling.training.instance.predict import load_instances, segment_instances
from foundling.training.instance.settings import SEGMENTERS, MaskRcnn
from foundling.training.instance.train import train_instances
from foundling.training.label_files import detectron2_dataset
from foundling.training.recipes import recipe

SIDES = [[16], [24], [32], [48], [64]]


def fpn(**changes: Any) -> MaskRcnn:
    own = {"engine": "detectron2", "network": "r50_fpn", "anchors": SIDES, "optimiser": "sgd", "schedule": "steps"}
    return small_mask_rcnn(**own | {"learning_rate": 1e-3, "batch": 2, "min_sizes": [64], "test_size": 64} | changes)


# Without Detectron2


def test_the_config_is_detectron2s_mask_rcnn() -> None:
    config = mask_config(fpn(mask_depth=3, hidden=40), train=["a"])
    model = config["MODEL"]
    assert model["MASK_ON"] and config["INPUT"]["MASK_FORMAT"] == "bitmask" and config["DATASETS"]["TRAIN"] == ["a"]
    assert model["BACKBONE"] == {"NAME": "build_resnet_fpn_backbone", "FREEZE_AT": 5}
    assert model["ROI_HEADS"]["NAME"] == "StandardROIHeads" and model["ROI_HEADS"]["NUM_CLASSES"] == 1
    assert model["ANCHOR_GENERATOR"]["SIZES"] == SIDES and model["RPN"]["IN_FEATURES"][-1] == "p6"
    assert (model["ROI_MASK_HEAD"]["NUM_CONV"], model["ROI_BOX_HEAD"]["FC_DIM"]) == (3, 40)
    assert model["RESNETS"]["OUT_FEATURES"] == model["FPN"]["IN_FEATURES"] == ["res2", "res3", "res4", "res5"]
    assert model["ROI_HEADS"]["IN_FEATURES"] == model["RPN"]["IN_FEATURES"][:-1]


def test_the_settings_of_table_7_are_those_of_detectron2s_own_config() -> None:
    """What its Base-RCNN-FPN.yaml and mask_rcnn_R_50_FPN_1x.yaml set, but for the steps, and the frozen backbone."""
    told = recipe({"settings": "instanceness_mask_rcnn", "engine": "detectron2"}, "x", SEGMENTERS)
    model = mask_config(told)["MODEL"]
    expected = {
        "RPN": {"PRE_NMS_TOPK_TRAIN": 2000, "PRE_NMS_TOPK_TEST": 1000, "POST_NMS_TOPK_TRAIN": 1000,
                "POST_NMS_TOPK_TEST": 1000, "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"]},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 4, "POOLER_RESOLUTION": 14},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
    }  # fmt: skip
    for part, values in expected.items():
        assert {name: model[part][name] for name in values} == values


@pytest.mark.parametrize(("name", "value"), [("network", "vit"), ("optimiser", "adamw"), ("clip", 1.0)])
def test_what_it_cannot_say_is_refused(name: str, value: Any) -> None:
    settings = fpn().model_copy(update={name: value})
    with pytest.raises(ParameterError, match=f"{name} = {value!r}: the Detectron2 engine takes .* torchvision"):
        mask_config(settings)


def test_its_files_hold_masks_as_run_lengths(tmp_path: Path) -> None:
    samples, labels = masked_images(tmp_path / "photos", count=3)
    files = write_masks_for_detectron2(tmp_path / "d2", samples, labels, fpn(), "found")
    told = yaml.safe_load(files["config"].read_text())
    assert told["MODEL"]["WEIGHTS"] == str(files["weights"]) and told["DATASETS"]["TRAIN"] == ["found"]
    assert told == mask_config(fpn(), weights=str(files["weights"]), train=["found"], **_colours(told))
    entries = json.loads(files["dataset"].read_bytes())["dataset"]
    assert entries == detectron2_dataset(labels, samples)
    assert labels.images[0].masks is not None
    assert entries[0]["annotations"][0]["segmentation"] == labels.images[0].masks[0]
    assert "Detectron2's own trainer" in files["config"].read_text()


def _colours(told: dict[str, Any]) -> dict[str, Any]:
    return {"mean": told["MODEL"]["PIXEL_MEAN"], "std": told["MODEL"]["PIXEL_STD"]}


def test_labels_without_masks_are_refused(tmp_path: Path) -> None:
    samples, labels = masked_images(tmp_path / "photos", count=2)
    boxes = replace(labels, images=tuple(replace(image, masks=None) for image in labels.images))
    with pytest.raises(ParameterError, match=r"0\.png and 1 more images have boxes but no masks: make labels"):
        write_masks_for_detectron2(tmp_path / "d2", samples, boxes, fpn(), "found")
    assert not (tmp_path / "d2").exists()


def test_without_detectron2_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    detectron2_engine.register.cache_clear()
    with pytest.raises(ParameterError, match=r"engine = 'detectron2' needs Detectron2, .* torchvision"):
        make_mask_rcnn(fpn(), load_body(fpn()))


# With it

needs_detectron2 = pytest.mark.detectron2


@pytest.fixture(scope="module")
def network() -> Detectron2Masks:
    pytest.importorskip("detectron2")
    torch.manual_seed(3)
    return Detectron2Masks(fpn(), load_body(fpn()))


def pictures() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.random((3, *size), dtype=np.float32)) for size in ((64, 80), (80, 64))]
    box = (8, 12, 40, 52)
    targets = [
        {
            "boxes": torch.tensor([box], dtype=torch.float32),
            "labels": torch.tensor([1]),
            "masks": rectangles([box], (image.shape[1], image.shape[2])),
        }
        for image in images
    ]
    return images, targets


@needs_detectron2
def test_losses_have_torchvisions_names(network: Detectron2Masks) -> None:
    images, targets = pictures()
    before = copy.deepcopy(targets)
    losses: Any = network.train()(images, targets)
    names = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", "loss_mask"}
    assert set(losses) == names and all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(torch.equal(a["masks"], b["masks"]) for a, b in zip(before, targets, strict=True))
    trained = [name for name, parameter in network.model.named_parameters() if parameter.requires_grad]
    assert not [name for name in trained if name.startswith("backbone.bottom_up.")]
    assert any(name.startswith("backbone.fpn_lateral") for name in trained)


@needs_detectron2
def test_the_loss_of_masks_is_that_of_the_mask_in_the_box(network: Detectron2Masks) -> None:
    """A mask that fills its box, and logits that say so, cost nothing; logits of the other sign much."""
    images, targets = pictures()
    predictor = network.model.roi_heads.mask_head.predictor
    kept = copy.deepcopy(predictor.state_dict())
    costs = []
    for bias in (10.0, -10.0):
        torch.nn.init.zeros_(predictor.weight)
        torch.nn.init.constant_(predictor.bias, bias)
        torch.manual_seed(0)
        losses: Any = network.train()(images, targets)
        costs.append(losses["loss_mask"].item())
    predictor.load_state_dict(kept)
    assert costs[0] < costs[1] and sum(costs) == pytest.approx(10.0, rel=1e-3)


@needs_detectron2
@torch.no_grad()
def test_masks_have_the_size_of_the_image(network: Detectron2Masks) -> None:
    images, _ = pictures()
    for image, found in zip(images, network.eval()(images), strict=True):
        found = dict(found)
        assert found["masks"].shape == (len(found["boxes"]), 1, *image.shape[1:])
        assert set(found["masks"].unique().tolist()) <= {0.0, 1.0} and (found["labels"] == 1).all()


@needs_detectron2
def test_the_backbone_starts_from_the_weights(network: Detectron2Masks) -> None:
    torch.manual_seed(3)
    body, state = load_body(fpn()).network.state_dict(), network.model.state_dict()
    names = {"stem.conv1.weight": "conv1.weight", "res5.0.shortcut.weight": "layer4.0.downsample.0.weight"}
    for theirs, ours in names.items():
        assert torch.equal(state[f"backbone.bottom_up.{theirs}"], body[ours])


@needs_detectron2
def test_a_run_and_what_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    samples, labels = masked_images(tmp_path / "photos", count=4)
    outcome = train_instances(samples, labels, fpn(steps=2), tmp_path / "run", progress=False, cpu=True)
    assert outcome.finished and "loss_mask" in outcome.history[-1]
    for sample, found in segment_instances(load_instances(outcome.file), samples, workers=1):
        assert found.masks is not None and len(found.masks) == len(found.boxes), sample


@needs_detectron2
def test_the_file_is_merged(tmp_path: Path) -> None:
    get_cfg = pytest.importorskip("detectron2.config").get_cfg
    config = get_cfg()
    config.merge_from_file(str(write_mask_config(tmp_path / "d2.yaml", fpn())))
    assert config.MODEL.MASK_ON and config.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION == 7
