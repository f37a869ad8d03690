"""A segmenter from its file, its label maps at the size of the images, and these as files that a later run knows."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from labelled_discs import CLUSTERS, settings, write_discs
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from foundling.datasets.semantic import read_semantic
from foundling.errors import ImageError, ParameterError, WeightsError
from foundling.training.checkpoints import export
from foundling.training.semantic import predict as predicting
from foundling.training.semantic.networks import load_encoder, make_segmenter
from foundling.training.semantic.predict import (
    TrainedSegmenter,
    load_segmenter,
    segment,
    segment_to_files,
)
from foundling.training.semantic.task import METHOD, train_semantic
from foundling.types import Failure, Sample


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that knows a little."""
    folder = tmp_path_factory.mktemp("segmenter")
    told = settings(steps=20, learning_rate=0.01, backbone_rate=0.0)
    return train_semantic(*write_discs(folder, 8), told, folder / "run", progress=False).file


@pytest.fixture(scope="module")
def segmenter(file: Path) -> TrainedSegmenter:
    return load_segmenter(file)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return write_discs(tmp_path / "images", 5)[0]


def expected(segmenter: TrainedSegmenter, sample: Sample) -> np.ndarray:
    """What the network says of one image, step by step."""
    pixels = np.array(Image.open(sample.path).convert("RGB"))
    square = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_LINEAR)
    mean, std = (np.array(values, dtype=np.float32) for values in (segmenter.mean, segmenter.std))
    image = torch.from_numpy(((square / np.float32(255) - mean) / std).transpose(2, 0, 1))[None]
    with torch.inference_mode():
        labels = segmenter.network(image)[0].argmax(0).numpy()
    rows, columns = ((np.arange(side) * 32 // side) for side in pixels.shape[:2])
    return labels[np.ix_(rows, columns)]


def test_maps_have_the_size_of_the_images(segmenter: TrainedSegmenter, samples: list[Sample]) -> None:
    found = list(segment(segmenter, samples, batch_size=2))
    assert [sample.name for sample, _ in found] == [sample.name for sample in samples]
    assert any(labels.any() for _, labels in found)
    for sample, labels in found:
        assert labels.dtype == np.uint8 and labels.max() <= CLUSTERS
        assert (labels == expected(segmenter, sample)).mean() > 0.999


def test_batches_do_not_matter(segmenter: TrainedSegmenter, samples: list[Sample]) -> None:
    one, many = (list(segment(segmenter, samples, batch_size=size)) for size in (1, 8))
    for (_, first), (_, second) in zip(one, many, strict=True):
        assert (first == second).mean() > 0.999
    with pytest.raises(ParameterError, match="batch_size=0"):
        segment(segmenter, samples, batch_size=0)


def test_an_image_that_cannot_be_read(segmenter: TrainedSegmenter, samples: list[Sample]) -> None:
    samples[1].path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1\.png"):
        list(segment(segmenter, samples))
    failures: list[Failure] = []
    found = list(segment(segmenter, samples, failures=failures))
    assert [sample.name for sample, _ in found] == ["0.png", "2.png", "3.png", "4.png"]
    assert [(failure.name, failure.index) for failure in failures] == [("1.png", 1)]


# Files


def test_maps_as_files(segmenter: TrainedSegmenter, samples: list[Sample], tmp_path: Path) -> None:
    masks = segment_to_files(segmenter, samples, tmp_path / "maps", progress=False)
    assert masks.clusters == CLUSTERS and masks.failures == () and masks.left_out == ()
    for i, (sample, labels) in enumerate(segment(segmenter, samples)):
        found = masks.read(i)
        assert found is not None
        np.testing.assert_array_equal(found, labels)
        assert masks.files[i] == tmp_path / "maps" / sample.name
        with Image.open(tmp_path / "maps" / sample.name) as image:
            assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]


def test_what_is_there_is_not_made_again(
    segmenter: TrainedSegmenter, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    plain = predicting.segment

    def counting(segmenter: Any, samples: Any, **options: Any) -> Any:
        asked.append([sample.name for sample in samples])
        return plain(segmenter, samples, **options)

    monkeypatch.setattr(predicting, "segment", counting)
    bad = samples[2].path.read_bytes()
    samples[2].path.write_bytes(b"no image")
    first = segment_to_files(segmenter, samples, tmp_path / "maps", progress=False)
    assert first.files[2] is None and [failure.index for failure in first.failures] == [2]
    segment_to_files(segmenter, samples, tmp_path / "maps", progress=False)
    assert asked[1] == ["2.png"]  # what failed is tried again
    samples[2].path.write_bytes(bad)
    made = segment_to_files(segmenter, samples, tmp_path / "maps", progress=False)  # the images have changed
    assert len(asked[2]) == 5 and made.failures == ()
    (tmp_path / "maps" / "3.png").unlink()
    again = segment_to_files(segmenter, samples, tmp_path / "maps", progress=False)
    assert asked[3] == ["3.png"] and again == made
    assert not list((tmp_path / "maps").glob("*.part"))
    fewer = segment_to_files(segmenter, samples[:3], tmp_path / "maps", progress=False)
    assert len(fewer.files) == 3 and not (tmp_path / "maps" / "4.png").exists()


def test_what_is_in_the_way_stays(segmenter: TrainedSegmenter, samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "3.png").write_bytes(b"someone's")
    with pytest.raises(ParameterError, match=r"3\.png is there already, and no label map that was written here"):
        segment_to_files(segmenter, samples, tmp_path / "maps", progress=False)
    assert (tmp_path / "maps" / "3.png").read_bytes() == b"someone's"
    with pytest.raises(ParameterError, match=r"two images are called '1\.png'"):
        segment_to_files(segmenter, [*samples, samples[1]], tmp_path / "other", progress=False)


def test_equal_maps_give_equal_bytes(segmenter: TrainedSegmenter, samples: list[Sample], tmp_path: Path) -> None:
    for name in ("a", "b"):
        segment_to_files(segmenter, samples, tmp_path / name, batch_size=2, progress=False)
    for sample in samples:
        assert (tmp_path / "a" / sample.name).read_bytes() == (tmp_path / "b" / sample.name).read_bytes()
        read_semantic(tmp_path / "a" / sample.name, CLUSTERS + 1)


# Checkpoints


def changed(file: Path, to: Path, **changes: Any) -> Path:
    """A copy with other entries in its header; None removes one."""
    with safe_open(file, framework="pt") as content:
        told = json.loads(content.metadata()["foundling"])
    told = {name: value for name, value in (told | changes).items() if value is not None}
    save_file(load_file(file), to, {"foundling": json.dumps(told)})
    return to


def test_checkpoints_that_do_not_fit_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such file"):
        load_segmenter(tmp_path / "nowhere.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"damaged\.safetensors is no safetensors file, or damaged"):
        load_segmenter(tmp_path / "damaged.safetensors")
    plain = tmp_path / "plain.safetensors"
    save_file({"x": torch.zeros(1)}, plain)
    with pytest.raises(WeightsError, match=r"holds no semantic segmenter: name a file"):
        load_segmenter(plain)
    with pytest.raises(WeightsError, match="no semantic segmenter but a network of the kind 'detector'"):
        load_segmenter(changed(file, plain, method="detector"))
    with pytest.raises(WeightsError, match=r"does not say how to make its network \(classes missing\)"):
        load_segmenter(changed(file, plain, classes=None))


def test_a_head_of_other_classes_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not hold what its header says .*size mismatch for head"):
        load_segmenter(changed(file, tmp_path / "more.safetensors", classes=list(map(str, range(20)))))


def test_a_segmenter_is_no_encoder(file: Path, tmp_path: Path) -> None:
    samples, masks = write_discs(tmp_path, 8)
    with pytest.raises(WeightsError, match="does not hold"):
        train_semantic(samples, masks, settings(weights=str(file)), tmp_path / "run", progress=False)


def test_deeplab_from_its_file(samples: list[Sample], tmp_path: Path) -> None:
    """Which holds it in half precision, batch statistics too."""
    told = settings(network="deeplab_r50")
    torch.manual_seed(0)
    network = make_segmenter(told, load_encoder(told), CLUSTERS + 1)
    about = {"architecture": "resnet50", "arguments": {}, "classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.2] * 3}
    about |= {"method": METHOD, "settings": told.model_dump()}
    export(tmp_path / "run.safetensors", network.state_dict(), about)
    loaded = load_segmenter(tmp_path / "run.safetensors")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(loaded.network(images), network.eval()(images), atol=0.02)
    found = list(segment(loaded, samples[:2]))
    assert [labels.shape for _, labels in found] == [(48, 40), (40, 48)]
