"""What notebook 07 shows of runs: hours of phases, how far f has moved, h's input, its answers, what f finds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foundling.backbones import load_backbone
from foundling.saliency.segments import discover_segments
from foundling.training.loop import Outcome
from foundling.training.refinement.runs import RefinedRun, found_by
from foundling.training.refinement.saved import HBoxes
from foundling.training.refinement.segmenter import segmenter_of
from foundling.training.refinement.settings import Refinement
from foundling.training.refinement.shown import detections, last_drift, phase_hours, seen_by_h
from foundling.types import Sample
from small_datasets import write_noise


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return write_noise(tmp_path_factory.mktemp("images"))


def test_hours_of_each_phase() -> None:
    seconds = [36.0, 72.0, 90.0, 360.0]
    rows = [{"phase": float(i in (1, 2)), "seconds": second} for i, second in enumerate(seconds)]
    assert phase_hours(rows) == pytest.approx({"h": (36 + 270) / 3600, "refined": (36 + 18) / 3600})
    assert phase_hours([]) == {}


def test_how_far_f_has_moved() -> None:
    def run(*drifts: float | None) -> RefinedRun:
        rows = [{"step": i, **({} if drift is None else {"drift": drift})} for i, drift in enumerate(drifts)]
        return RefinedRun(0, Refinement(), Outcome(True, 1, Path("a"), rows))

    assert last_drift([run(0.0, 0.5, None), run(0.1)]) == pytest.approx(0.3)
    assert last_drift([run(0.5), run(None)]) is None


@pytest.mark.parametrize(("layout", "shape"), [("products", (3, 64, 192)), ("grid", (576, 8, 8))])
def test_what_h_sees_is_a_map_of_the_square(samples: list[Sample], layout: str, shape: tuple[int, ...]) -> None:
    shown = seen_by_h(Refinement(layout=layout, side=64), samples[0])
    assert shown.shape == shape and np.isfinite(shown).all()


def test_the_answers_of_h_the_surest_first() -> None:
    boxes = np.arange(2 * 3 * 4, dtype=np.float64).reshape(2, 3, 4)
    said = HBoxes(boxes, np.array([[0.2, 0.9, 0.2], [np.nan] * 3]))
    found = detections(said, 0)
    assert found is not None and found.scores.tolist() == [0.9, 0.2, 0.2]
    np.testing.assert_array_equal(found.boxes, boxes[0][[1, 0, 2]])
    assert detections(said, 1) is None


def test_what_f_finds_with_other_weights(samples: list[Sample], tmp_path: Path) -> None:
    settings = Refinement()
    network = load_backbone("scenes_odin", device="cpu").network
    torch.save({name: 1.2 * value for name, value in network.state_dict().items()}, tmp_path / "other.pth")
    plain = found_by(settings, "pretrained", samples, tmp_path / "kept", device="cpu")
    other = found_by(settings, tmp_path / "other.pth", samples, device="cpu")
    assert list(plain.boxes) == ["lost"] and np.isfinite(plain.boxes["lost"]).all()
    assert (tmp_path / "kept" / "boxes_000000.json").is_file()
    assert not np.array_equal(plain.boxes["lost"], other.boxes["lost"])


def test_what_a_segmenter_finds(samples: list[Sample]) -> None:
    settings = Refinement(method="segmenter", weights="random", side=64)
    found = found_by(settings, "random", samples, device="cpu")
    expected = discover_segments(segmenter_of(settings, "cpu"), samples, progress=False)
    np.testing.assert_array_equal(found.boxes["segmenter"], expected.boxes["segmenter"])
