"""Between rounds: borders go to where colours change, objects get new clusters, and what is there is not made again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelled_discs import CLUSTERS, disc, settings, write_discs

from foundling.backbones import Backbone, load_backbone
from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.index_masks import write_labels
from foundling.errors import ParameterError
from foundling.training.semantic import regroup as module
from foundling.training.semantic.regroup import Regroup, sharpened
from foundling.training.semantic.rounds import self_train
from foundling.types import VOID, Sample

LOOK = {"descriptor": "texture", "side": 32, "colour": True, "background": "mean"}


def square(top: int, left: int, side: int = 24) -> np.ndarray:
    mask = np.zeros((64, 80), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def picture(*bright: np.ndarray) -> np.ndarray:
    """Bright regions on a dark ground, a little noise in both."""
    noise = np.random.default_rng(0).integers(0, 20, (64, 80, 3))
    return (np.where(np.any(bright, axis=0)[..., None], 220, 20) + noise).astype(np.uint8)


# Borders


@pytest.mark.parametrize("found", [square(10, 14), square(14, 10, 18), square(8, 8, 30)])
def test_borders_move_to_where_colours_change(found: np.ndarray) -> None:
    true = square(12, 12)
    np.testing.assert_array_equal(sharpened(found, picture(true)), true)
    flipped = sharpened(found[:, ::-1].copy(), picture(true)[:, ::-1].copy())
    np.testing.assert_array_equal(flipped[:, ::-1], true)


def test_borders_move_no_further_than_their_reach() -> None:
    near, far = square(12, 6), square(12, 54)
    np.testing.assert_array_equal(sharpened(square(14, 8, 20), picture(near, far)), near)
    moved = sharpened(square(4, 4, 40), picture(square(20, 20, 8)), 5)
    assert moved[9:39, 9:39].all() and not moved[:, 50:].any()


def test_what_has_no_border_stays() -> None:
    image, mask = picture(square(12, 12)), square(10, 14)
    for unmoved in (np.zeros((64, 80), dtype=bool), np.ones((64, 80), dtype=bool)):
        np.testing.assert_array_equal(sharpened(unmoved, image), unmoved)
    np.testing.assert_array_equal(sharpened(mask, image, 0), mask)
    flat = np.full((64, 80, 3), 90, dtype=np.uint8)
    np.testing.assert_array_equal(sharpened(mask, flat), sharpened(mask, flat))


# Clusters


@pytest.fixture(scope="module")
def network() -> Backbone:
    return load_backbone("scenes_odin", device="cpu")


@pytest.fixture
def regroup(network: Backbone) -> Regroup:
    return Regroup(network, min_area=100, reach=4, share=1.0, description=LOOK)


Discs = tuple[list[Sample], PseudoMasks]


@pytest.fixture
def discs(tmp_path: Path) -> Discs:
    """True label maps, but every third image has the wrong cluster, and a little too much."""
    samples, masks = write_discs(tmp_path / "images", 12)
    for i, file in enumerate(masks.files):
        labels = disc(i)[1]
        labels[:3, :3] = 1  # too small for an object
        assert file is not None
        write_labels(file, np.where((labels > 0) & (i % 3 == 0), 3 - labels, labels).astype(np.uint8))
    return samples, masks


def test_like_objects_get_one_cluster(discs: Discs, regroup: Regroup, tmp_path: Path) -> None:
    samples, masks = discs
    found = regroup(masks, samples, tmp_path / "new")
    assert found.clusters == CLUSTERS and found.failures == ()
    assert found.files[1] == tmp_path / "new" / "1.png"
    names = []
    for i in range(len(samples)):
        true, labels = disc(i)[1], found.read(i)
        assert labels is not None
        np.testing.assert_array_equal(labels > 0, true > 0)  # the disc, whose border did not move, and no corner
        names.append((true.max(), labels.max()))
    assert len(set(names)) == CLUSTERS and len({new for _, new in names}) == CLUSTERS


def test_objects_in_doubt_are_void(discs: Discs, regroup: Regroup, tmp_path: Path) -> None:
    samples, masks = discs
    found = replace(regroup, share=0.5)(masks, samples, tmp_path / "new")
    void = [bool((labels == VOID).any()) for i in range(12) if (labels := found.read(i)) is not None]
    assert 6 <= sum(void) < 12  # what lies strictly nearer than the median of its cluster is kept


def test_what_is_there_is_used_again(
    discs: Discs, regroup: Regroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, masks = discs
    first = regroup(masks, samples, tmp_path / "new")
    before = [file.read_bytes() for file in first.files if file is not None]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("described again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "describe_objects", refuse)
        assert regroup(masks, samples, tmp_path / "new") == first
        with pytest.raises(AssertionError, match="described again"):
            replace(regroup, reach=3)(masks, samples, tmp_path / "new")
    assert [f.read_bytes() for f in regroup(masks, samples, tmp_path / "new").files if f is not None] == before


def test_images_that_are_not_usable(discs: Discs, regroup: Regroup, tmp_path: Path) -> None:
    samples, masks = discs
    samples[2].path.write_bytes(b"no image")
    gaps = replace(masks, files=(None, *masks.files[1:]))
    found = regroup(gaps, samples, tmp_path / "new")
    assert found.files[0] is None and found.files[2] is None and sum(file is not None for file in found.files) == 10
    assert [(failure.name, failure.index) for failure in found.failures] == [("2.png", 2)]


def test_what_cannot_be_regrouped(discs: Discs, regroup: Regroup, tmp_path: Path) -> None:
    samples, masks = discs
    with pytest.raises(ParameterError, match="12 label maps for 11 images"):
        regroup(masks, samples[1:], tmp_path / "new")
    with pytest.raises(ParameterError, match="0 objects with a descriptor"):
        replace(regroup, min_area=5000)(masks, samples, tmp_path / "new")


def test_a_round_learns_from_what_was_regrouped(discs: Discs, tmp_path: Path) -> None:
    samples, masks = discs
    asked: list[tuple[PseudoMasks, Path]] = []

    def keep_true(found: PseudoMasks, images: list[Sample], folder: Path) -> PseudoMasks:
        asked.append((found, folder))
        assert list(images) == samples
        return masks

    told = [settings(steps=3, keep_empty=True)] * 2
    rounds = self_train([samples, samples], masks, told, tmp_path / "run", regroup=keep_true, progress=False)
    assert len(asked) == 1 and asked[0][1] == tmp_path / "run_2_regrouped"
    assert asked[0][0].files[0] == tmp_path / "run_2_masks" / "0.png"
    assert rounds[1].masks is masks and rounds[1].outcome.finished
