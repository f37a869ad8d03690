"""The settings of a detector: the paper's are legal, what cannot be is refused."""

import re
from typing import Any

import pytest
from boxed import PAPER

from foundling.training.detection.settings import Detector


def test_the_papers_settings_are_legal_and_the_defaults_are_theirs_where_a_laptop_need_not_differ() -> None:
    paper, default = Detector(**PAPER), Detector()
    for name in ("norm", "roi_positive", "detections", "ratios", "max_size", "classes"):
        assert getattr(paper, name) == getattr(default, name)
    assert (paper.gamma, paper.box_beta, paper.nms_threshold, paper.score_threshold) == (0.1, 0.0, 0.4, 0.01)
    assert (paper.weight_decay, paper.beta1, paper.warmup_factor) == (1e-4, 0.9, 0.001)
    assert not [name for name, field in Detector.model_fields.items() if not field.description]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"anchors": [[8], [16]]}, "the maps of vit are 1: give each a list of sides"),
        ({"strides": [8, 16], "anchors": [[8, 12], [16]]}, "the maps of vit are 2"),
        ({"network": "r50_fpn"}, "the maps of r50_fpn are 5"),
        ({"strides": [8, 32], "anchors": [[8], [32]]}, "each must be twice the one before"),
        ({"max_size": 100}, "max_size = 100 must be at least the largest shorter side, 128"),
        ({"decay_at": [30]}, "wants schedule: steps, not cosine"),
        ({"decay_at": [50, 30], "schedule": "steps"}, "must rise, and begin after the warmup of 20"),
        ({"decay_at": [10], "schedule": "steps"}, "must rise, and begin after the warmup of 20"),
        ({"warmup": 400}, "warmup = 400 must be less than steps = 400"),
        ({"engine": "mmdet"}, "Input should be 'torchvision' or 'detectron2'"),
        ({"optimiser": "lars"}, "Input should be 'sgd' or 'adamw'"),
        ({"anchors": [[]]}, "at least 1 item"),
        ({"freeze_at": 6}, "less than or equal to 5"),
        ({"nms": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Detector(**wrong)
