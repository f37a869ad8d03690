"""Segmenters of several seeds: each its own file, found again, stopped and taken up."""

from pathlib import Path

import pytest
from masked import masked_images, small, small_mask_rcnn

from foundling.training.instance.seeds import seeded, train_seeds
from foundling.training.instance.settings import MaskRcnn


def test_seeds_have_files_of_their_own_and_are_found_again(tmp_path: Path) -> None:
    samples, labels = masked_images(tmp_path / "photos")
    settings, runs = small(steps=2), tmp_path / "runs"
    first = train_seeds(samples, labels, settings, runs, "solo", [0, 3], progress=False, cpu=True)
    assert [outcome.file.name.split("-")[0] for outcome in first] == ["solo_0", "solo_3"]
    written = [outcome.file.read_bytes() for outcome in first]
    assert written[0] != written[1]
    before = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    again = train_seeds(samples, labels, settings, runs, "solo", [3, 0], progress=False, cpu=True)
    assert [outcome.file for outcome in again] == [first[1].file, first[0].file]
    assert {path: path.stat().st_mtime_ns for path in runs.iterdir()} == before
    other = train_seeds(samples, labels, small(steps=3), runs, "solo", [0], progress=False, cpu=True)
    assert other[0].file != first[0].file


def test_minutes_bound_all_seeds_and_the_next_call_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, labels = masked_images(tmp_path / "photos")
    settings, runs = small(steps=2), tmp_path / "runs"
    given = (samples, labels, settings, runs, "solo", [0, 1])
    (stopped,) = train_seeds(*given, minutes=1e-9, progress=False, cpu=True)
    assert not stopped.finished and stopped.steps == 1
    assert "solo_0: stopped after 1 of 2 steps; run again to go on" in capsys.readouterr().out
    outcomes = train_seeds(*given, progress=False, cpu=True)
    assert [outcome.finished for outcome in outcomes] == [True, True]


def test_classes_are_those_of_the_labels_where_there_is_a_choice() -> None:
    told = seeded(small_mask_rcnn(), 5, 4)
    assert isinstance(told, MaskRcnn) and (told.seed, told.classes) == (5, 4)
    assert seeded(small(), 5, 1) == small(seed=5)
