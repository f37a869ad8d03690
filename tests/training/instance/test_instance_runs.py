"""Instance segmenters from settings in a file: on a file of masks, on a folder of proposals, what is absent."""

import json
from pathlib import Path
from typing import Any

import pytest
from masked import masked_images, small, small_mask_rcnn

from commandline import foundling
from foundling.errors import DataMissing, ParameterError
from foundling.training.instance.predict import load_instances
from foundling.training.instance.runs import train_on_masks
from foundling.training.instance.settings import RUNS, MaskRcnn, MaskRcnnOnMasks, Solo, SoloOnMasks
from foundling.training.label_files import coco_labels, write_pseudo_labels
from foundling.training.settings import checked


def given(**changes: Any) -> SoloOnMasks:
    return SoloOnMasks(**small(steps=2).model_dump(), **changes)


def test_a_file_of_masks_and_a_folder_of_proposals_are_the_same_labels(tmp_path: Path) -> None:
    samples, labels = masked_images(tmp_path / "photos")
    file = write_pseudo_labels(tmp_path / "masks.json", labels)
    content = coco_labels(labels)
    folder = tmp_path / "proposed"
    folder.mkdir()
    (folder / "images.json").write_text(json.dumps({**content, "annotations": []}))
    entries = [{**entry, "score": 1.0} for entry in content["annotations"]]
    (folder / "proposals.json").write_text(json.dumps(entries))
    root = str(tmp_path / "photos")
    first = train_on_masks(given(labels=str(file), root=root), tmp_path / "a", progress=False)
    second = train_on_masks(given(labels=str(folder), root=root), tmp_path / "b", progress=False)
    assert first.file.read_bytes() == second.file.read_bytes()
    assert load_instances(first.file).settings == small(steps=2)  # no path of this machine
    assert len(samples) == 8


def test_small_masks_are_not_learned(tmp_path: Path) -> None:
    _, labels = masked_images(tmp_path / "photos")
    file = write_pseudo_labels(tmp_path / "masks.json", labels)
    given_masks = {"labels": str(file), "root": str(tmp_path / "photos")}
    with pytest.raises(ParameterError, match="none of the 8 images has a box"):
        train_on_masks(given(least=0.3, **given_masks), tmp_path / "a", progress=False)  # they cover a quarter
    assert train_on_masks(given(least=0.2, **given_masks), tmp_path / "b", progress=False).finished


def test_the_command_trains_on_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, labels = masked_images(tmp_path / "photos")
    file = write_pseudo_labels(tmp_path / "masks.json", labels)
    written = tmp_path / "solo.yaml"
    written.write_text(json.dumps(small(steps=2).model_dump()))  # JSON is YAML
    options = ["--cpu", "--set", f"labels={file}", "--set", f"root={tmp_path / 'photos'}"]
    assert foundling("train", written, "--out", tmp_path / "run", *options) == 0
    assert "all steps done" in capsys.readouterr().out and (tmp_path / "run.safetensors").is_file()


def test_mask_rcnn_has_the_classes_of_its_labels(tmp_path: Path) -> None:
    _, labels = masked_images(tmp_path / "photos")
    file = write_pseudo_labels(tmp_path / "masks.json", labels)
    settings = MaskRcnnOnMasks(
        **small_mask_rcnn(steps=2, classes=5).model_dump(), labels=str(file), root=str(tmp_path / "photos")
    )
    assert load_instances(train_on_masks(settings, tmp_path / "run", progress=False).file).settings.classes == 1


def test_what_is_absent_is_named(tmp_path: Path) -> None:
    _, labels = masked_images(tmp_path / "photos")
    file, out = write_pseudo_labels(tmp_path / "masks.json", labels), tmp_path / "run"
    with pytest.raises(ParameterError, match=r"labels is not given \(masks: a COCO instances JSON"):
        train_on_masks(given(root=str(tmp_path)), out)
    with pytest.raises(ParameterError, match="root is not given"):
        train_on_masks(given(labels=str(file)), out)
    with pytest.raises(DataMissing, match=r"8 of 8 images are not in .*, the first 0\.png"):
        train_on_masks(given(labels=str(file), root=str(tmp_path)), out)
    with pytest.raises(DataMissing, match=r"holds no proposals\.json: give the folder that `foundling propose` wrote"):
        train_on_masks(given(labels=str(tmp_path), root=str(tmp_path)), out)
    (tmp_path / "proposals.json").write_text("{")
    with pytest.raises(ParameterError, match="is no JSON"):
        train_on_masks(given(labels=str(tmp_path), root=str(tmp_path)), out)
    (tmp_path / "proposals.json").write_text("[]")
    (tmp_path / "images.json").write_text("[]")
    with pytest.raises(ParameterError, match=r"images\.json holds a list, no COCO images .*: run propose again"):
        train_on_masks(given(labels=str(tmp_path), root=str(tmp_path)), out)


def test_a_file_of_settings_names_its_objective() -> None:
    assert isinstance(checked(RUNS, {"objective": "solo"}, "x"), Solo)
    assert isinstance(checked(RUNS, {"objective": "mask_rcnn", "rounds": 2}, "x"), MaskRcnn)
