"""Detectron2's config of a Mask R-CNN, R50-FPN, as plain data: importing this needs neither Detectron2 nor torch."""

from pathlib import Path
from typing import Any

import yaml

from foundling.files import write_bytes
from foundling.training.detection.detectron2_config import detectron2_config
from foundling.training.instance.settings import MaskRcnn

NETWORK = "r50_fpn"
STAGES = ["res2", "res3", "res4", "res5"]
MAPS = ["p2", "p3", "p4", "p5", "p6"]


def mask_config(settings: MaskRcnn, **parts: Any) -> dict[str, Any]:
    """What ``settings`` are in Detectron2's own words, to be merged into its defaults.

    ``parts`` are those of :func:`~foundling.training.detection.detectron2_config.detectron2_config`, which says all
    that is not the pyramid's, its heads' or the masks'. Masks come as bitmaps: pseudo-masks have no polygons.

    Raises :class:`ParameterError` for settings that Detectron2's R50-FPN and its config cannot say.
    """
    config = detectron2_config(settings, network=NETWORK, **parts)
    _put(config, _changes(settings))
    return config


def _changes(settings: MaskRcnn) -> dict[str, Any]:
    return {
        "MODEL": {
            "MASK_ON": True,
            "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
            "RESNETS": {"OUT_FEATURES": STAGES},
            "FPN": {"IN_FEATURES": STAGES, "OUT_CHANNELS": 256, "NORM": "", "FUSE_TYPE": "sum"},
            "RPN": {"IN_FEATURES": MAPS},
            "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": MAPS[:-1]},
            "ROI_BOX_HEAD": {
                "NAME": "FastRCNNConvFCHead",
                "NUM_CONV": 0,
                "NUM_FC": 2,
                "FC_DIM": settings.hidden,
                "NORM": "",
            },
            "ROI_MASK_HEAD": {
                "NAME": "MaskRCNNConvUpsampleHead",
                "NUM_CONV": settings.mask_depth,
                "CONV_DIM": settings.mask_width,
                "NORM": "",
                "CLS_AGNOSTIC_MASK": False,
                "POOLER_TYPE": "ROIAlignV2",
                "POOLER_RESOLUTION": settings.mask_pool,
                "POOLER_SAMPLING_RATIO": 0,
            },
        },
        "INPUT": {"MASK_FORMAT": "bitmask"},
    }


def _put(config: dict[str, Any], changes: dict[str, Any]) -> None:
    """Write ``changes`` into ``config``, level by level."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(name), dict):
            _put(config[name], value)
        else:
            config[name] = value


_NOTE = """\
# For Detectron2's own trainer: cfg.merge_from_file("{name}"), once the datasets are registered.
"""


def write_mask_config(file: Path, settings: MaskRcnn, **parts: Any) -> Path:
    """Write :func:`mask_config` as the YAML file that Detectron2 merges, whole or not at all."""
    told = yaml.safe_dump(mask_config(settings, **parts), sort_keys=False, default_flow_style=None)
    return write_bytes(file, (_NOTE.format(name=file.name) + told).encode())
