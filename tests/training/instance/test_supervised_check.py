"""A check of SOLOv2's training: with true masks as labels it learns the easy scenes, whatever found masks are worth."""

from pathlib import Path

import pytest

from foundling.datasets import open_dataset
from foundling.evaluation import class_agnostic, to_results
from foundling.training.instance.predict import load_instances, segment_instances
from foundling.training.instance.settings import Solo
from foundling.training.instance.train import train_instances
from foundling.training.pseudo_labels import labels_of_targets
from foundling.training.recipes import recipe


@pytest.mark.slow
@pytest.mark.long  # 2 minutes on two cores, and one more where the scenes have to be drawn
def test_true_masks_are_learned(tmp_path: Path) -> None:
    train = open_dataset("scenes", split="single_train", size=128).subset(limit=1000).samples
    held_out = open_dataset("scenes", split="single_val", size=128).subset(limit=150).samples
    told = recipe({"settings": "scenes_instances", "steps": 600, "seed": 1}, "check", {"solo": Solo})
    outcome = train_instances(train, labels_of_targets(train), told, tmp_path / "run", progress=False, cpu=True)
    found = segment_instances(load_instances(outcome.file), held_out)
    results = to_results({sample.image_id: one for sample, one in found})
    values = class_agnostic(results, held_out, resamples=0).values
    print({name: value.value for name, value in values.items()})
    assert values["AP50"].value is not None and values["AP50"].value >= 70
