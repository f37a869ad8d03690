"""Detectron2's config as plain data: every value that LOST's configs set or leave to Detectron2 0.5, and the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.errors import ParameterError
from foundling.training.detection.detectron2_config import (
    DATASETS,
    PRESETS,
    detectron2_config,
    preset,
    write_config,
)
from foundling.training.detection.settings import Detector

# RN50_DINO_FRCNN_*.yaml: what all five say
COMMON: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.MASK_ON": False,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "INPUT.MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.FORMAT": "RGB",
    "TEST.EVAL_PERIOD": 5000,
    "TEST.PRECISE_BN.ENABLED": True,
    "SOLVER.STEPS": [18000, 22000],
    "SOLVER.WARMUP_ITERS": 100,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
}
# and what they leave to Detectron2 0.5
LEFT: dict[str, Any] = {
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.GAMMA": 0.1,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
}
# classes, steps, lowest score, largest IoU of two detections
OWN = {
    "VOC07_CAD": (1, 10000, 0.01, 0.4),
    "VOC12_CAD": (1, 24000, 0.05, 0.5),
    "COCO20k_CAD": (1, 24000, 0.01, 0.4),
    "VOC07_OD": (20, 24000, 0.005, 0.4),
    "VOC12_OD": (20, 24000, 0.005, 0.4),
}


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


@pytest.mark.parametrize("name", OWN)
def test_every_value_of_the_papers_configs(name: str) -> None:
    config = flat(detectron2_config(preset(name), train=[DATASETS[name][0]], test=[DATASETS[name][1]]))
    classes, steps, score, nms = OWN[name]
    own = {
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "SOLVER.MAX_ITER": steps,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": score,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": nms,
        "DATASETS.TRAIN": [DATASETS[name][0]],
        "DATASETS.TEST": [DATASETS[name][1]],
    }
    for key, value in (COMMON | LEFT | own).items():
        assert config[key] == value, key
    assert preset(name).weights == "dino_resnet50" and preset(name).accumulate == 1


def test_there_are_five_and_a_small_one() -> None:
    assert list(PRESETS) == [*OWN, "small"] and list(DATASETS) == list(OWN)
    with pytest.raises(ParameterError, match="no config called 'VOC07': choose one of VOC07_CAD, VOC12_CAD, COCO20k"):
        preset("VOC07")


def test_one_device_has_a_plain_norm() -> None:
    for changes, options, expected in (
        ({}, {}, "SyncBN"),
        ({}, {"distributed": False}, "BN"),
        ({"norm": "frozen"}, {}, "FrozenBN"),
        ({"norm": "frozen"}, {"distributed": False}, "FrozenBN"),
    ):
        config = flat(detectron2_config(preset("small").model_copy(update=changes), **options))
        assert config["MODEL.RESNETS.NORM"] == config["MODEL.ROI_BOX_HEAD.NORM"] == expected


def test_settings_reach_the_config() -> None:
    """Each setting that the config can say changes it, and nothing else does."""
    base = flat(detectron2_config(preset("small")))
    silent = {"save_every": "SOLVER.CHECKPOINT_PERIOD", "workers": "DATALOADER.NUM_WORKERS", "seed": "SEED"}
    changes = {
        "classes": 7, "min_sizes": [64], "test_size": 64, "max_size": 999, "anchors": [[16]], "ratios": [1.0],
        "pool": 4, "freeze_at": 1, "norm": "frozen", "box_beta": 0.5, "rpn_samples": 9, "rpn_candidates": 91,
        "rpn_proposals": 19, "test_proposals": 11, "roi_samples": 5, "roi_positive": 0.5, "score_threshold": 0.3,
        "nms_threshold": 0.3, "detections": 3, "steps": 77, "batch": 3, "decay_at": [9], "gamma": 0.5,
        "learning_rate": 0.1, "warmup": 3, "warmup_factor": 0.5, "weight_decay": 0.1, "beta1": 0.5,
        "precision": "bf16", "precise_bn": 0, **dict.fromkeys(silent, 9),
    }  # fmt: skip
    seen: set[str] = set()
    for name, value in changes.items():
        settings = Detector.model_validate(preset("small").model_dump() | {name: value})
        moved = {key for key, now in flat(detectron2_config(settings)).items() if base[key] != now}
        assert moved and not moved & seen, name
        seen |= moved
    idle = Detector.model_validate(preset("small").model_dump() | {"accumulate": 2, "log_every": 9, "hidden": 99})
    assert flat(detectron2_config(idle)) == base


@pytest.mark.parametrize(
    ("name", "value"),
    [("engine", "torchvision"), ("optimiser", "adamw"), ("schedule", "cosine"), ("clip", 1.0), ("backbone_rate", 0.1)],
)
def test_what_the_config_cannot_say_is_refused(name: str, value: Any) -> None:
    settings = preset("small").model_copy(update={name: value, "decay_at": []})
    with pytest.raises(ParameterError, match=f"{name} = {value!r}: the Detectron2 engine takes .* train with engine"):
        detectron2_config(settings)


def test_other_networks_are_torchvisions() -> None:
    for network in ("r50_fpn", "vit"):
        with pytest.raises(ParameterError, match=f"network = '{network}': the Detectron2 engine takes 'r50_c4'"):
            detectron2_config(preset("small").model_copy(update={"network": network}))


def test_the_file_says_the_same(tmp_path: Path) -> None:
    file = write_config(tmp_path / "d2.yaml", preset("VOC07_OD"), weights="dino.pkl", train=["a"], test=["b"])
    text = file.read_text()
    expected = detectron2_config(preset("VOC07_OD"), weights="dino.pkl", train=["a"], test=["b"])
    assert yaml.safe_load(text) == expected and expected["MODEL"]["WEIGHTS"] == "dino.pkl"
    assert text.startswith("#") and 'cfg.merge_from_file("d2.yaml")' in text


@pytest.mark.detectron2
@pytest.mark.parametrize("name", OWN)
def test_only_what_the_papers_configs_set_differs_from_detectron2s_defaults(name: str, tmp_path: Path) -> None:
    config_of = pytest.importorskip("detectron2.config").get_cfg
    merged, defaults = config_of(), flat(config_of())
    merged.merge_from_file(str(write_config(tmp_path / "d2.yaml", preset(name))))
    changed = {key for key, value in flat(merged).items() if value != defaults[key]}
    told = set(COMMON) | {"MODEL.ROI_HEADS.NUM_CLASSES", "SOLVER.MAX_ITER"}
    told |= set() if name == "VOC12_CAD" else {"MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.NMS_THRESH_TEST"}
    same = {"MODEL.META_ARCHITECTURE", "MODEL.RPN.PRE_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TEST", "MODEL.MASK_ON"}
    same |= {"MODEL.RESNETS.DEPTH", "MODEL.BACKBONE.FREEZE_AT", "INPUT.MIN_SIZE_TEST", "SOLVER.IMS_PER_BATCH"}
    ours = {"SEED", "SOLVER.CHECKPOINT_PERIOD"}
    assert changed == (told - same) | ours
