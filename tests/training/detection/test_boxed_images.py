"""Images with boxes on their way to a detector: which are used, what stands in for broken ones, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from boxed import SIDE, boxed_images
from PIL import Image

from foundling.errors import DataMissing, ParameterError
from foundling.training.detection.images import BoxedImages, BoxedSet
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.types import Sample


def with_boxes(labels: PseudoLabels, index: int, boxes: list[list[float]], classes: list[int]) -> PseudoLabels:
    """The same labels but for those of one image."""
    changed = replace(
        labels.images[index],
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(classes, dtype=np.int64),
    )
    return replace(labels, images=(*labels.images[:index], changed, *labels.images[index + 1 :]))


def test_images_with_their_boxes_and_without_those_that_have_none(tmp_path: Path) -> None:
    samples, labels = boxed_images(tmp_path)
    labels = with_boxes(labels, 2, [], [])
    images = BoxedImages(samples[::-1], labels)  # the order is that of the labels
    assert len(images) == 7 and images.identity.startswith("7 images with boxes of 1 classes (")
    pixels, boxes, classes, problems = images[2]
    assert torch.equal(pixels, torch.from_numpy(np.array(Image.open(samples[3].path))).permute(2, 0, 1))
    assert boxes.tolist() == labels.images[3].boxes.tolist() and classes.tolist() == [0] and problems == ()
    assert images.identity != BoxedImages(samples, with_boxes(labels, 3, [[0, 0, 8, 8]], [0])).identity


def test_batches_hold_images_of_any_size(tmp_path: Path) -> None:
    samples, labels = boxed_images(tmp_path)
    Image.new("RGB", (40, 20), "red").save(samples[1].path)
    boxes = np.array([[1.0, 2.0, 40.0, 20.0], [0.0, 0.0, 5.0, 5.5]])
    wide = replace(labels.images[1], size=(20, 40), boxes=boxes, labels=np.array([1, 0]))
    labels = PseudoLabels((labels.images[0], wide, *labels.images[2:]), ("a", "b"))
    (batch,) = BoxedSet(BoxedImages(samples, labels)).batches([[1, 4]])
    assert [tuple(image.shape) for image in batch.images] == [(3, 20, 40), (3, SIDE, SIDE)]
    assert [tuple(boxes.shape) for boxes in batch.boxes] == [(2, 4), (1, 4)]
    assert [part.tolist() for part in batch.labels] == [[1, 0], [0]]
    assert batch.images[0].dtype == torch.uint8 and batch.boxes[0].dtype == torch.float32


def test_a_broken_image_is_reported_once_and_the_next_stands_in(tmp_path: Path) -> None:
    samples, labels = boxed_images(tmp_path, 3)
    samples[1].path.write_bytes(b"no image")
    Image.new("RGB", (9, 7)).save(samples[2].path)
    images = BoxedSet(BoxedImages(samples, labels))
    with pytest.warns(UserWarning) as told:
        first, second = images.batches([[1, 2], [2, 1]])
    texts = [str(warning.message) for warning in told]
    assert len(texts) == 2 and "1.png: not an image" in texts[0] and "9×7 pixels, but its boxes are those" in texts[1]
    whole = images.source[0]
    assert all(torch.equal(image, whole.pixels) for image in (*first.images, *second.images))
    assert all(torch.equal(boxes, whole.boxes) for boxes in (*first.boxes, *second.boxes))
    samples[0].path.unlink()
    with pytest.raises(DataMissing, match="none of the 3 training images can be read"):
        next(iter(images.batches([[0]])))


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    samples, labels = boxed_images(tmp_path, 2)
    with pytest.raises(ParameterError, match="none of the 2 images has a box: there is nothing to train on"):
        BoxedImages(samples, with_boxes(with_boxes(labels, 0, [], []), 1, [], []))
    for box in ([-1.0, 0, 8, 8], [0, 0, SIDE + 1, 8], [4, 4, 4, 9], [0, 9, 5, 8], [0, 0, np.nan, 8]):
        with pytest.raises(ParameterError, match=r"1\.png: the box .* does not lie inside the image of 32×32 pixels"):
            BoxedImages(samples, with_boxes(labels, 1, [[0, 0, 8, 8], box], [0, 0]))
    with pytest.raises(ParameterError, match=r"0\.png: a box of class 1, but there are classes 0 to 0"):
        BoxedImages(samples, with_boxes(labels, 0, [[0, 0, 8, 8]], [1]))
    other = ImageLabels("x.png", 9, (8, 8), np.array([[0.0, 0, 4, 4]]), np.zeros(1, np.int64))
    with pytest.raises(ParameterError, match=r"1 labelled images are not among the 2 samples, the first x\.png"):
        BoxedImages(samples, PseudoLabels((other,)))
    assert len(BoxedImages([*samples, Sample("more.png", tmp_path, 7)], labels)) == 2
