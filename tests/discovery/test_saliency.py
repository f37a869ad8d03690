"""Saliency: the border rule by hand, planted objects, degenerate images, and what must not change the mask."""

import numpy as np
import pytest
from oracles import make_features

from foundling.discovery import METHODS, border_foreground, saliency, spectral_masks
from foundling.types import ParameterError


def two(first: np.ndarray) -> np.ndarray:
    return np.stack([first, ~first])


def drawn(*rows: str) -> np.ndarray:
    return np.array([[letter == "x" for letter in row] for row in rows])


def test_the_part_with_fewer_border_patches_is_the_foreground() -> None:
    inside = drawn("....", ".xx.", "....")
    assert border_foreground(two(inside)) == 0
    assert border_foreground(two(~inside)) == 1
    # 4 of the 10 border patches, although it is the larger part
    assert border_foreground(two(drawn("x...", "xxx.", "xx.."))) == 0
    assert border_foreground(two(drawn(".xxx", "...x", "..xx"))) == 1


def test_corners_count_once() -> None:
    """Counted twice, the four corners would weigh eight, against six patches of the other part."""
    assert border_foreground(two(drawn("x..x", "....", "x..x"))) == 0
    assert border_foreground(two(drawn("x.x", ".x.", "x.x"))) == 1  # 4 each: the smaller one


def test_on_a_tie_the_smaller_part_then_the_first() -> None:
    assert border_foreground(two(drawn("xx..", "xxx.", "xx.."))) == 1
    assert border_foreground(two(drawn("xx..", "xx..", "xx.."))) == 0
    assert border_foreground(two(drawn("..xx", "..xx", "..xx"))) == 0
    assert border_foreground(two(drawn("xx.."))) == 0


def planted(grid: tuple[int, int], mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    axes = np.array([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0]])
    return axes[mask.ravel().astype(int)] + rng.normal(0, 0.1, (grid[0] * grid[1], 3))


@pytest.mark.parametrize("grid", [(6, 8), (13, 12)])
def test_a_planted_object_is_found_whole(grid: tuple[int, int], rng: np.random.Generator) -> None:
    """In two pieces: parts are not split."""
    mask = np.zeros(grid, dtype=bool)
    mask[1:3, 1:3] = mask[4, 5:] = True
    size = (grid[0] * 16 - 3, grid[1] * 16 - 5)
    features = make_features(grid, sizes=[size], keys=[planted(grid, mask, rng)])
    (found,) = saliency(features)
    np.testing.assert_array_equal(found.masks, mask[None])
    assert found.boxes.tolist() == [[16, 16, size[1], 80]]
    assert found.flags == ()
    border = mask.sum() - mask[1:-1, 1:-1].sum()
    assert found.values["border"] == border / (2 * sum(grid) - 4)
    (parts,) = spectral_masks(features, (2,))
    assert any((found.masks[0] == part).all() for part in parts.masks)
    for name in ("eigenvalue_2", "gap_2"):
        assert found.values[name] == pytest.approx(parts.values[name], abs=1e-12)


def test_mirroring_rescaling_and_batching(rng: np.random.Generator) -> None:
    grid, masks = (6, 8), rng.random((3, 6, 8)) < 0.3
    keys = np.stack([planted(grid, mask, rng) for mask in masks])
    together = saliency(make_features(grid, keys=keys))
    for one, x in zip(together, keys, strict=True):
        mirrored = x.reshape(6, 8, 3)[:, ::-1].reshape(48, 3)
        (other,) = saliency(make_features(grid, keys=[5 * mirrored]))
        np.testing.assert_array_equal(other.masks[0][:, ::-1], one.masks[0])


@pytest.mark.parametrize(
    ("keys", "flag"), [(np.ones((6, 2)), "undefined_cut"), (np.full((6, 2), np.nan), "not_finite")]
)
def test_without_a_graph_the_whole_image(keys: np.ndarray, flag: str) -> None:
    (found,) = saliency(make_features((2, 3), keys=[keys]))
    assert found.masks.all()
    assert found.flags == (flag,)
    assert found.boxes.tolist() == [[0, 0, 48, 32]]


def test_one_and_two_patches() -> None:
    for keys in ([[1.0, 2.0]], [[1.0, 0.0], [0.5, 1.0]]):
        (found,) = saliency(make_features((1, len(keys)), keys=[keys]))
        assert found.masks.all()
        assert found.flags == ("undefined_cut",)


def test_errors_name_the_value_and_the_choices() -> None:
    with pytest.raises(ParameterError, match="facet is 'cls': choose one of"):
        saliency(make_features((1, 2), keys=[[[1.0], [2.0]]]), facet="cls")
    with pytest.raises(ParameterError, match="seed is 'a'"):
        METHODS["saliency"].facets(seed="a")
    assert METHODS["saliency"].facets(facet="tokens", colour=0.5) == ("tokens", "images")
