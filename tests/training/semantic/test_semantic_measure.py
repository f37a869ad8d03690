"""Label maps against the truth: tables image by image, and what counts where there is none."""

from pathlib import Path

import numpy as np
import pytest
from labelled_discs import CLUSTERS, disc, write_discs

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.base import Dataset
from foundling.discovery.export import encode_mask
from foundling.errors import ParameterError
from foundling.evaluation.segmentation import segmentation_scores
from foundling.training.semantic.measure import confusions, maps_of
from foundling.types import Failure, Sample, Target


def annotated(sample: Sample) -> Sample:
    truth = disc(sample.image_id)[1]
    no = np.zeros(1, dtype=bool)
    target = Target(np.array([[0.0, 0, 1, 1]]), np.array([int(truth.max()) - 1]), no, no, no, [encode_mask(truth > 0)])
    return Sample(sample.name, sample.path, sample.image_id, target)


@pytest.fixture
def discs(tmp_path: Path) -> tuple[Dataset, PseudoMasks]:
    samples, masks = write_discs(tmp_path, 6)
    return Dataset("discs", "all", tuple(map(annotated, samples)), ("red", "green"), True), masks


def test_true_maps_are_right(discs: tuple[Dataset, PseudoMasks]) -> None:
    dataset, masks = discs
    failures: list[Failure] = []
    tables = confusions(maps_of(masks, dataset.samples), dataset, CLUSTERS, failures)
    assert tables.shape == (6, 3, 3) and failures == []
    truth = np.concatenate([disc(seed)[1].ravel() for seed in range(6)])
    np.testing.assert_array_equal(tables.sum(0), np.diag(np.bincount(truth)))
    assert segmentation_scores(tables, resamples=0).miou.value == 100


def test_any_order_and_void_is_background(discs: tuple[Dataset, PseudoMasks]) -> None:
    dataset, _ = discs
    found = np.full(disc(1)[1].shape, 2, dtype=np.uint8)
    found[:5] = 255
    tables = confusions([(dataset[1], found), (dataset[0], disc(0)[1])], dataset, CLUSTERS, [])
    truth = disc(1)[1]
    assert tables[1, 0].sum() == 5 * 48 and tables[1, 1].sum() == 0
    np.testing.assert_array_equal(tables[1, 2], np.bincount(truth[5:].ravel(), minlength=3))
    assert tables[0].any() and not tables[2:].any()


def test_images_without_a_map(discs: tuple[Dataset, PseudoMasks]) -> None:
    dataset, masks = discs
    failed = Failure("4.png", 4, "damaged")
    masks = PseudoMasks((None, *masks.files[1:4], None, masks.files[5]), CLUSTERS, ("0.png",), (failed,))
    assert [sample.name for sample, _ in maps_of(masks, dataset.samples)] == ["1.png", "2.png", "3.png", "5.png"]


def test_what_does_not_fit(discs: tuple[Dataset, PseudoMasks], tmp_path: Path) -> None:
    dataset, masks = discs
    with pytest.raises(ParameterError, match=r"7\.png is not among the 6 images of discs"):
        confusions([(Sample("7.png", tmp_path, 7), disc(1)[1])], dataset, CLUSTERS, [])
    with pytest.raises(ParameterError, match="resize the prediction"):
        confusions([(dataset[0], disc(1)[1])], dataset, CLUSTERS, [])
    with pytest.raises(ParameterError, match="the predicted label map holds 2"):
        confusions([(dataset[2], disc(2)[1])], dataset, 1, [])
    with pytest.raises(ParameterError, match="6 label maps for 5 images"):
        next(maps_of(masks, dataset.samples[:5]))
    failures: list[Failure] = []
    dataset[3].path.write_bytes(b"no image")
    tables = confusions([(dataset[3], disc(3)[1])], dataset, CLUSTERS, failures)
    assert not tables.any() and [(failure.name, failure.index) for failure in failures] == [("3.png", 3)]
