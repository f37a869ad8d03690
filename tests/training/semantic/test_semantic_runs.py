"""`foundling train` on label maps: from a folder, from a teacher, and what the settings must say."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from labelled_discs import settings, write_discs

from foundling import cli
from foundling.commands.train import read_settings
from foundling.errors import DataMissing, ParameterError
from foundling.training.recipes import RECIPES, recipe
from foundling.training.semantic.runs import open_maps, train_on_maps
from foundling.training.semantic.settings import Semantic, SemanticOnMaps
from foundling.training.semantic.task import train_semantic


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """A folder of images, with their label maps in a folder beside it."""
    write_discs(tmp_path / "images", 8)
    (tmp_path / "images" / "maps").rename(tmp_path / "maps")
    return tmp_path


def on_maps(discs: Path, **changes: Any) -> SemanticOnMaps:
    told = settings(steps=20, learning_rate=0.01, backbone_rate=0.0).model_dump()
    return SemanticOnMaps(**(told | {"dataset": "folder", "root": str(discs / "images")} | changes))


def test_a_folder_of_maps_and_then_a_teacher(discs: Path) -> None:
    first = train_on_maps(on_maps(discs, maps=str(discs / "maps"), clusters=2), discs / "one", progress=False)
    assert first.finished
    # What is written says nothing of where images and maps lay: the run goes on, or is made again, elsewhere.
    (discs / "maps").rename(discs / "other")
    again = train_on_maps(on_maps(discs, maps=str(discs / "other"), clusters=2), discs / "one", progress=False)
    assert again.file.read_bytes() == first.file.read_bytes() and again.steps == 20

    told = on_maps(discs, teacher=str(first.file), keep_empty=True, steps=3)
    second = train_on_maps(told, discs / "two", progress=False, cpu=True)
    assert sorted(file.name for file in (discs / "two_masks").glob("*.png")) == [f"{i}.png" for i in range(8)]
    samples, _ = write_discs(discs / "images", 8)
    masks = open_maps(discs / "two_masks", samples, 2)
    plain = Semantic(**told.model_dump(include=set(Semantic.model_fields)))
    alone = train_semantic(samples, masks, plain, discs / "alone", progress=False)
    assert alone.file.read_bytes() == second.file.read_bytes()


def test_maps_that_are_not_there(discs: Path) -> None:
    samples, _ = write_discs(discs / "images", 8)
    with pytest.raises(DataMissing, match="nowhere: no such folder of label maps"):
        open_maps(discs / "nowhere", samples, 2)
    (discs / "maps" / "3.png").unlink()
    assert [file is not None for file in open_maps(discs / "maps", samples, 2).files] == [i != 3 for i in range(8)]
    with pytest.raises(DataMissing, match=r"none of the 8 images has a label map here; .* the first would be 0\.png"):
        open_maps(discs, samples, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give either maps, a folder of label maps, or teacher"),
        ({"maps": "a", "clusters": 2, "teacher": "b"}, "give either maps"),
        ({"maps": "a"}, "clusters is the number of clusters of maps"),
        ({"teacher": "a", "clusters": 2}, "clusters is the number of clusters of maps"),
        ({"teacher": "a", "root": ""}, "dataset 'folder' needs root"),
    ],
)
def test_settings_say_where_labels_come_from(discs: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_maps(discs, **changes)


def test_an_unknown_dataset_is_named(discs: Path) -> None:
    with pytest.raises(ParameterError, match="discs"):
        train_on_maps(on_maps(discs, dataset="discs", maps="a", clusters=2), discs / "run", progress=False)


# The command


def test_the_command_trains_segmenters(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = on_maps(discs, maps=str(discs / "maps"), clusters=2, epochs=2).model_dump()
    file = discs / "told.yaml"
    file.write_text(yaml.safe_dump(told))
    command = ["train", str(file), "--out", str(discs / "run"), "--cpu"]
    assert cli.main([*command, "--set", "warmup=0", "--minutes", "1e-9"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{discs / 'run'}.safetensors: 1 steps done, run again to go on\n"
    assert "8 images with maps of 2 clusters" in printed.err
    assert cli.main([*command, "--set", "warmup=0"]) == 0
    assert capsys.readouterr().out == f"{discs / 'run'}.safetensors: all steps done\n"
    assert cli.main([*command, "--set", "maps="]) == 2
    assert cli.main([*command, "--set", "maps=''"]) == 2
    assert "give either maps" in capsys.readouterr().err


PUBLISHED = {
    "comus_semantic_1": {"side": 512, "min_area": 0.5, "max_area": 2.0, "epochs": 10, "keep_empty": False},
    "comus_semantic_2": {"side": 512, "min_area": 0.5, "max_area": 2.0, "epochs": 5, "keep_empty": True},
    "comus_semantic_coco": {"side": 256, "min_area": 0.2, "max_area": 1.0, "epochs": 1, "keep_empty": False},
}
ALL: dict[str, Any] = {
    "network": "deeplab_r50", "weights": "dino_resnet50", "output_stride": 8, "batch": 56, "learning_rate": 6e-5,
    "backbone_rate": 1.0, "schedule": "constant", "warmup": 0, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999,
    "clip": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_settings(name: str) -> None:
    """Table 11, and what only the code says."""
    found = recipe({"settings": name}, "test", {"semantic": Semantic}).model_dump()
    expected = ALL | PUBLISHED[name]
    expected["test_side"] = expected["side"]
    assert {key: found[key] for key in expected} == expected
    settings = read_settings(RECIPES / f"{name}.yaml", ["teacher=run.safetensors", "dataset=voc12"])
    assert isinstance(settings, SemanticOnMaps) and settings.teacher == "run.safetensors"
