"""Detectron2's config of a detector, as plain data: importing this needs neither Detectron2 nor torch.

LOST's own configs (RN50_DINO_FRCNN_*.yaml, for Detectron2 0.5) set some values and leave the others to Detectron2.
Here all that training and evaluation depend on are written down, so that another version means the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from foundling.errors import ParameterError
from foundling.files import write_bytes
from foundling.training.detection.settings import Detector

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # of RGB in 0..255, of all ResNets in the registry
HEAD = "Res5ROIHeadsExtraNorm"  # of MoCo: stage 5 with one more normalisation; foundling registers it
EVAL_PERIOD = 5000  # steps, of LOST's configs; see write_config

_LOST: dict[str, Any] = {
    "engine": "detectron2",
    "network": "r50_c4",
    "weights": "dino_resnet50",
    "classes": 1,
    "min_sizes": list(range(480, 801, 32)),
    "test_size": 800,
    "max_size": 1333,
    "anchors": [[32, 64, 128, 256, 512]],
    "ratios": [0.5, 1.0, 2.0],
    "pool": 14,
    "freeze_at": 2,
    "norm": "batch",
    "box_beta": 0.0,
    "rpn_samples": 256,
    "rpn_candidates": 12000,
    "rpn_proposals": 2000,
    "test_proposals": 1000,
    "roi_samples": 512,
    "roi_positive": 0.25,
    "score_threshold": 0.01,
    "nms_threshold": 0.4,
    "detections": 100,
    "steps": 24000,
    "batch": 16,
    "optimiser": "sgd",
    "schedule": "steps",
    "decay_at": [18000, 22000],
    "gamma": 0.1,
    "learning_rate": 0.02,
    "backbone_rate": 1.0,
    "warmup": 100,
    "warmup_factor": 0.001,
    "weight_decay": 1e-4,
    "beta1": 0.9,
    "clip": 0.0,
    "precision": "fp32",
    "precise_bn": 200,
    "workers": 4,
    "save_every": 1000,
}
# Where a paper's text and its config differ, the config holds: it made the numbers.
_CHANGES: dict[str, dict[str, Any]] = {
    "VOC07_CAD": {"steps": 10000},  # ends before the learning rate falls
    "VOC12_CAD": {"score_threshold": 0.05, "nms_threshold": 0.5},  # Detectron2's defaults
    "COCO20k_CAD": {},
    "VOC07_OD": {"classes": 20, "score_threshold": 0.005},
    "VOC12_OD": {"classes": 20, "score_threshold": 0.005},
    # a few images of 96 pixels on a CPU: to see that all works, not to learn much
    "small": {
        "weights": "random", "min_sizes": [80, 96], "test_size": 96, "max_size": 128, "anchors": [[24, 48, 96]],
        "pool": 7, "rpn_samples": 32, "rpn_candidates": 200, "rpn_proposals": 32, "test_proposals": 16,
        "roi_samples": 8, "steps": 4, "batch": 2, "decay_at": [3], "learning_rate": 0.005, "warmup": 2,
        "precise_bn": 2, "workers": 0, "save_every": 2, "log_every": 1,
    },
}  # fmt: skip
PRESETS = {name: Detector.model_validate(_LOST | changes) for name, changes in _CHANGES.items()}
DATASETS = {  # as LOST's scripts name them: what is trained on, and what is evaluated on
    "VOC07_CAD": ("voc_2007_trainval_LOST_CAD", "voc_2007_test_CAD_coco_style"),
    "VOC12_CAD": ("voc_2012_trainval_LOST_CAD", "voc_2007_test_CAD_coco_style"),
    "COCO20k_CAD": ("coco20k_train_LOST_CAD", "coco20k_train_CAD_gt"),
    "VOC07_OD": ("voc_2007_trainval_LOST_OD_clu20", "voc_2007_test_coco_style"),
    "VOC12_OD": ("voc_2012_trainval_LOST_OD_clu20", "voc_2007_test_coco_style"),
}


def check_detectron2(settings: Detector, network: str = "r50_c4") -> None:
    """Raises :class:`ParameterError` for settings that Detectron2's ``network`` and its config cannot say."""
    for name, legal in {
        "engine": "detectron2",
        "network": network,
        "optimiser": "sgd",
        "schedule": "steps",
        "backbone_rate": 1.0,
        "clip": 0.0,
    }.items():
        if (value := getattr(settings, name)) != legal:
            raise ParameterError(
                f"{name} = {value!r}: the Detectron2 engine takes {legal!r}, as its config can say no other; change "
                "it, or train with engine: torchvision"
            )


def detectron2_config(
    settings: Detector,
    *,
    network: str = "r50_c4",
    weights: str = "",
    train: Sequence[str] = (),
    test: Sequence[str] = (),
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    distributed: bool = True,
) -> dict[str, Any]:
    """What ``settings`` are in Detectron2's own words, to be merged into its defaults.

    All but ``network`` is described: what another than R50-C4 has in its place is for the caller to put there.
    ``weights`` is a file for Detectron2 (:func:`foundling.backbones.transfer.to_detectron2` writes it), ``train`` and
    ``test`` are names of registered datasets; ``mean`` and ``std`` are of RGB in 0..255. Unless ``distributed``, batch
    normalisation is a plain one: the same on one device, and possible on a CPU.

    Raises :class:`ParameterError` as :func:`check_detectron2`.
    """
    check_detectron2(settings, network)
    norm = "FrozenBN" if settings.norm == "frozen" else "SyncBN" if distributed else "BN"
    return {
        "VERSION": 2,
        "MODEL": {"WEIGHTS": weights, "PIXEL_MEAN": list(mean), "PIXEL_STD": list(std), **_model(settings, norm)},
        "INPUT": {
            "FORMAT": "RGB",
            "MIN_SIZE_TRAIN": list(settings.min_sizes),
            "MIN_SIZE_TRAIN_SAMPLING": "choice",
            "MAX_SIZE_TRAIN": settings.max_size,
            "MIN_SIZE_TEST": settings.test_size,
            "MAX_SIZE_TEST": settings.max_size,
            "RANDOM_FLIP": "horizontal",
            "CROP": {"ENABLED": False},
        },
        "DATASETS": {"TRAIN": list(train), "TEST": list(test)},
        "DATALOADER": {
            "NUM_WORKERS": settings.workers,
            "ASPECT_RATIO_GROUPING": True,
            "FILTER_EMPTY_ANNOTATIONS": True,
            "SAMPLER_TRAIN": "TrainingSampler",
        },
        "SOLVER": _solver(settings),
        "TEST": {
            "EVAL_PERIOD": EVAL_PERIOD,
            "DETECTIONS_PER_IMAGE": settings.detections,
            "PRECISE_BN": {"ENABLED": settings.precise_bn > 0, "NUM_ITER": settings.precise_bn},
        },
        "SEED": settings.seed,
    }


def _model(settings: Detector, norm: str) -> dict[str, Any]:
    return {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": False,
        "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": settings.freeze_at},
        "RESNETS": {
            "DEPTH": 50,
            "NORM": norm,
            "STRIDE_IN_1X1": False,
            "OUT_FEATURES": ["res4"],
            "NUM_GROUPS": 1,
            "WIDTH_PER_GROUP": 64,
            "STEM_OUT_CHANNELS": 64,
            "RES2_OUT_CHANNELS": 256,
            "RES5_DILATION": 1,
        },
        "PROPOSAL_GENERATOR": {"NAME": "RPN", "MIN_SIZE": 0},
        "ANCHOR_GENERATOR": {
            "NAME": "DefaultAnchorGenerator",
            "SIZES": [list(sides) for sides in settings.anchors],
            "ASPECT_RATIOS": [list(settings.ratios)],
            "OFFSET": 0.0,
        },
        "RPN": {
            "HEAD_NAME": "StandardRPNHead",
            "IN_FEATURES": ["res4"],
            "BOUNDARY_THRESH": -1,
            "IOU_THRESHOLDS": [0.3, 0.7],
            "BATCH_SIZE_PER_IMAGE": settings.rpn_samples,
            "POSITIVE_FRACTION": 0.5,
            "BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
            "SMOOTH_L1_BETA": settings.box_beta,
            "PRE_NMS_TOPK_TRAIN": settings.rpn_candidates,
            "PRE_NMS_TOPK_TEST": settings.rpn_candidates // 2,
            "POST_NMS_TOPK_TRAIN": settings.rpn_proposals,
            "POST_NMS_TOPK_TEST": settings.test_proposals,
            "NMS_THRESH": 0.7,
        },
        "ROI_HEADS": {
            "NAME": HEAD,
            "NUM_CLASSES": settings.classes,
            "IN_FEATURES": ["res4"],
            "IOU_THRESHOLDS": [0.5],
            "BATCH_SIZE_PER_IMAGE": settings.roi_samples,
            "POSITIVE_FRACTION": settings.roi_positive,
            "PROPOSAL_APPEND_GT": True,
            "SCORE_THRESH_TEST": settings.score_threshold,
            "NMS_THRESH_TEST": settings.nms_threshold,
        },
        "ROI_BOX_HEAD": {
            "NORM": norm,  # as in LOST's configs; stage 5 as a head takes that of RESNETS
            "POOLER_TYPE": "ROIAlignV2",
            "POOLER_RESOLUTION": settings.pool,
            "POOLER_SAMPLING_RATIO": 0,
            "BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
            "SMOOTH_L1_BETA": settings.box_beta,
            "CLS_AGNOSTIC_BBOX_REG": False,
        },
    }


def _solver(settings: Detector) -> dict[str, Any]:
    return {
        "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "MAX_ITER": settings.steps,
        "STEPS": list(settings.decay_at),
        "GAMMA": settings.gamma,
        "BASE_LR": settings.learning_rate,
        "MOMENTUM": settings.beta1,
        "NESTEROV": False,
        "WEIGHT_DECAY": settings.weight_decay,
        "WEIGHT_DECAY_NORM": 0.0,
        "BIAS_LR_FACTOR": 1.0,
        "WARMUP_METHOD": "linear",
        "WARMUP_FACTOR": settings.warmup_factor,
        "WARMUP_ITERS": settings.warmup,
        "IMS_PER_BATCH": settings.batch,
        "CHECKPOINT_PERIOD": settings.save_every,
        "CLIP_GRADIENTS": {"ENABLED": False},
        "AMP": {"ENABLED": settings.precision != "fp32"},
    }


_NOTE = """\
# For Detectron2's and LOST's own scripts: cfg.merge_from_file("{name}"), once ROI_HEADS_REGISTRY has {head}
# (import foundling.training.detection.detectron2_engine and call its register(), or run LOST's train_net_for_LOST_*.py)
# and the datasets are registered. `foundling` itself evaluates after training, not every EVAL_PERIOD steps.
"""


def write_config(file: Path, settings: Detector, **parts: Any) -> Path:
    """Write :func:`detectron2_config` as the YAML file that Detectron2 merges, whole or not at all."""
    config = detectron2_config(settings, **parts)
    note = _NOTE.format(name=file.name, head=HEAD)
    return write_bytes(file, (note + yaml.safe_dump(config, sort_keys=False, default_flow_style=None)).encode())


def preset(name: str) -> Detector:
    """The settings called ``name``, those of LOST's config RN50_DINO_FRCNN_<name>.yaml, or ``small``."""
    if name not in PRESETS:
        raise ParameterError(f"no config called {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
