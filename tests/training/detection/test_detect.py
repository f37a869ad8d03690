"""What a trained detector finds: in original pixels, image by image; files that are none, or another engine's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from boxed import PAPER, SIDE, boxed_images, small
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundling.errors import ImageError, ParameterError, WeightsError
from foundling.training.detection.predict import TrainedDetector, as_detections, detect, load_detector
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import train_detector
from foundling.types import Failure, Sample


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a detector after two steps."""
    folder = tmp_path_factory.mktemp("detector")
    samples, labels = boxed_images(folder)
    settings = small(steps=2, score_threshold=0.0, test_size=2 * SIDE)
    return train_detector(samples, labels, settings, folder / "run", progress=False, cpu=True).file


def test_the_file_is_all_that_is_needed(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundling.training.detection.bodies.load_backbone", None)  # its weights are in the file
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(trained.read_bytes())
    detector = load_detector(alone)
    assert detector.classes == ("object",) and detector.settings.test_size == 2 * SIDE
    assert len(detector.checksum) == 12 and detector.weights == str(alone)
    assert not detector.network.training and not any(p.requires_grad for p in detector.network.parameters())
    stored = load_file(alone)
    for name, value in detector.network.state_dict().items():
        assert torch.equal(value.half() if value.is_floating_point() else value, stored[name])


def test_no_image_changes_what_is_found_in_another(trained: Path, tmp_path: Path) -> None:
    """Alone, or in a batch with one of the same size and one of another."""
    rng, samples = np.random.default_rng(1), []
    for i, (height, width) in enumerate([(SIDE, SIDE), (SIDE, SIDE), (SIDE, 2 * SIDE), (SIDE, SIDE)]):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path.name, path, i))
    detector = load_detector(trained)
    for (_, one), sample in zip(detect(detector, samples, batch_size=4), samples, strict=True):
        ((_, alone),) = detect(detector, [sample])
        assert len(one) == len(alone) > 2
        np.testing.assert_allclose(one.boxes[:5], alone.boxes[:5], atol=1e-3)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)


class Fixed(nn.Module):
    """Finds two boxes in the lower left quarter, wherever it is asked."""

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        found = []
        for image in images:
            height, width = image.shape[-2:]
            boxes = torch.tensor([[0.0, height / 2, width / 4, height], [0.0, height / 2, width / 2, height]])
            scores = torch.tensor([0.25, 0.5 + 0.25 * image.mean().item()])
            found.append({"boxes": boxes, "scores": scores, "labels": torch.tensor([3, 1])})
        return found


@pytest.fixture
def pictures(tmp_path: Path) -> list[Sample]:
    """Grey images, ever brighter and of different sizes; the third is broken."""
    samples = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (20 + 4 * i, 40), (50 * i,) * 3).save(path)
        samples.append(Sample(path.name, path, 10 + i))
    samples[2].path.write_bytes(b"no image")
    return samples


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_each_image_in_its_own_pixels_and_in_order(pictures: list[Sample], batch_size: int) -> None:
    detector = TrainedDetector(Fixed(), small(), ("a", "b", "c"), "", "", torch.device("cpu"))
    failures: list[Failure] = []
    found = list(detect(detector, pictures, failures=failures, batch_size=batch_size))
    assert [sample.image_id for sample, _ in found] == [10, 11, 13, 14]
    assert [(failure.name, failure.index) for failure in failures] == [("2.png", 2)]
    for (_, one), i in zip(found, (0, 1, 3, 4), strict=True):
        width = 20 + 4 * i
        assert one.boxes.tolist() == [[0, 20, width / 2, 40], [0, 20, width / 4, 40]]
        assert one.scores.tolist() == pytest.approx([0.5 + 0.25 * 50 * i / 255, 0.25]) and one.labels.tolist() == [0, 2]
    for workers in (0, 1):  # one thread reads ahead at least
        same = list(detect(detector, pictures, failures=[], batch_size=batch_size, workers=workers))
        assert [sample.image_id for sample, _ in same] == [10, 11, 13, 14]
    with pytest.raises(ImageError, match=r"2\.png: not an image"):
        list(detect(detector, pictures))
    with pytest.raises(ParameterError, match="batch_size=0: must be at least 1"):
        detect(detector, pictures, batch_size=0)


def test_boxes_are_in_original_pixels_whatever_size_the_network_sees(trained: Path, tmp_path: Path) -> None:
    """The same picture twice as large is the same to the network, which sees both at one size."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    samples = []
    for factor in (1, 2):
        path = tmp_path / f"{factor}.png"
        Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(path)
        samples.append(Sample(path.name, path, factor))
    (_, one), (_, two) = detect(load_detector(trained), samples)
    assert len(one) > 2 and (np.diff(one.scores) <= 0).all() and (one.labels == 0).all()
    assert one.boxes.min() >= 0 and one.boxes.max() <= 4 * SIDE
    np.testing.assert_allclose(two.boxes[:3], 2 * one.boxes[:3], atol=3)


def test_nothing_found_is_no_error() -> None:
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    found = as_detections(none)
    assert found.boxes.shape == (0, 4) and len(found) == 0


# Files


def with_header(file: Path, out: Path, **changes: Any) -> Path:
    """The file with another header."""
    with safe_open(file, "pt") as content:
        told = json.loads(content.metadata()["foundling"])
    told = {name: value for name, value in (told | changes).items() if value is not None}
    save_file(load_file(file), out, {"foundling": json.dumps(told)})
    return out


def test_files_that_are_no_detector_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors: there is no such file"):
        load_detector(tmp_path / "nowhere.safetensors")
    for suffix in (".pth", ".pkl"):
        foreign = tmp_path / f"model_final{suffix}"
        foreign.write_bytes(b"anything")
        with pytest.raises(WeightsError, match="looks like a checkpoint of Detectron2 itself"):
            load_detector(foreign)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(trained.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="is no safetensors file, or damaged"):
        load_detector(damaged)
    out = tmp_path / "other.safetensors"
    with pytest.raises(WeightsError, match="holds no detector but a network of the kind 'odin'"):
        load_detector(with_header(trained, out, method="odin"))
    with pytest.raises(WeightsError, match=r"does not say how to make its network \(classes missing\)"):
        load_detector(with_header(trained, out, classes=None))
    with pytest.raises(WeightsError, match=r"does not hold what its header says .*size mismatch"):
        load_detector(with_header(trained, out, settings=small(channels=24).model_dump()))
    with pytest.raises(WeightsError, match=r"does not hold what its header says .*nonsense"):
        load_detector(with_header(trained, out, settings={"nonsense": 1}))
    save_file({"x": torch.zeros(1)}, out)
    with pytest.raises(WeightsError, match="holds no detector: name a file"):
        load_detector(out)


def test_a_file_of_the_other_engine_says_so_where_that_is_missing(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("foundling.training.detection.detectron2_engine")
    try:
        import detectron2  # noqa: F401
    except ImportError:
        settings = Detector(**PAPER, engine="detectron2").model_dump()
        about = {"engine": "detectron2", "architecture": "resnet50", "arguments": {}, "settings": settings}
        with pytest.raises(ParameterError, match="needs Detectron2, which cannot be imported here"):
            load_detector(with_header(trained, tmp_path / "d2.safetensors", **about))
