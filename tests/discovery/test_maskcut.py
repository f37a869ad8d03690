"""MaskCut: by hand, against its rules in loops, the corner rule, rejected masks, and what must not change the masks."""

import numpy as np
import pytest
from oracles import make_features, naive_components, naive_cut
from scipy.linalg import eigh

from foundling.discovery import METHODS, maskcut, spectral, tokencut
from foundling.discovery.maskcut import _State, corner_foreground
from foundling.discovery.tokencut import Cut
from foundling.types import ParameterError

Grid = tuple[int, int]


def top(values: np.ndarray) -> int:
    """The first of the largest, which many patches of a graph of equal weights are, up to rounding."""
    return next(p for p in range(len(values)) if values[p] >= max(values) - 1e-9 * abs(max(values)))


def naive_maskcut(
    facet: np.ndarray, grid: Grid, n: int, tau: float, *, mistake: str = ""
) -> tuple[list[np.ndarray], float]:
    """CutLER's rules, one step after the other; and how clearly every decision about a patch was made."""
    x = facet.astype(np.float64)
    painting, previous = np.zeros(grid), np.zeros(grid, dtype=bool)
    taken, masks, clear = np.zeros(grid), [], np.inf
    for i in range(n):
        if i >= 1:
            painting = ((painting + previous) > 0).astype(float)
            x = facet * (1 - painting).reshape(-1, 1)
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        weights = np.where(unit @ unit.T > tau, 1.0, 1e-5)
        degree = np.diag(weights.sum(1))
        values, vectors = eigh(degree - weights, degree)
        v = vectors[:, 1]
        if v[top(np.abs(v))] < 0:  # our choice of the sign
            v = -v
        clear = min(clear, np.abs(v - v.mean()).min() * 1e3, values[2] - values[1])
        half = (v > v.mean()).reshape(grid)
        corners = int(half[0, 0]) + int(half[0, -1]) + int(half[-1, 0]) + int(half[-1, -1])
        if (corners >= 3 and mistake != "corners") or not half.flat[top(np.abs(v))]:
            half, seed = ~half, top(-v)
        else:
            seed = top(v)
        at = divmod(seed, grid[1])
        component = next(c for c in naive_components(half) if at in c)
        mask = np.array([[(r, c) in component for c in range(grid[1])] for r in range(grid[0])])
        if i >= 1 and mistake != "accept":
            union = (mask | previous).sum()
            iou = (mask & previous).sum() / union if union else 0.0
            if iou > 0.5 or mask.mean() <= 0.01:
                mask = np.zeros(grid, dtype=bool)
        previous = mask if mistake != "forget" or mask.any() else previous
        output = np.clip(mask.astype(float) - taken, 0, None)
        taken += output
        if output.any():
            masks.append(output > 0)
    return masks, clear


def blobs(rng: np.random.Generator, grid: Grid, count: int) -> np.ndarray:
    """Discs of their own direction on a ground of another, all noisy."""
    rows, columns = np.indices(grid)
    part = np.zeros(grid, dtype=int)
    for i in range(1, count + 1):
        r, c, radius = rng.uniform(0, grid[0]), rng.uniform(0, grid[1]), rng.uniform(1, 3)
        part[(rows - r) ** 2 + (columns - c) ** 2 < radius**2] = i
    axes = rng.standard_normal((count + 1, 5))
    return (axes[part.ravel()] + 0.3 * rng.standard_normal((rows.size, 5))).astype(np.float32)


def test_three_parts_by_hand() -> None:
    """Two objects on a ground, all at right angles: the smaller is cut off first, then the other, then the ground."""
    part = np.zeros((6, 6), dtype=int)
    part[1:3, 1:3] = 1
    part[1:5, 4] = part[4, 2:5] = part[3, 3] = 2
    (found,) = maskcut(make_features((6, 6), keys=[np.eye(3)[part.ravel()]]), n=2)
    masks, clear = naive_maskcut(np.eye(3)[part.ravel()], (6, 6), 2, 0.15)
    assert clear > 1e-6
    assert len(found.masks) == 2
    np.testing.assert_array_equal(found.masks, masks)
    assert sorted(m.tolist() for m in found.masks) == sorted((part == p).tolist() for p in (1, 2))
    assert found.boxes.tolist()[0] in ([16, 16, 48, 48], [32, 16, 80, 80])
    assert found.seed is not None and found.masks[0][found.seed]
    assert found.maps.keys() == {"eigenvector_1", "eigenvector_2"}
    assert found.values.keys() == {"eigenvalue_1", "gap_1", "eigenvalue_2", "gap_2"}


@pytest.mark.parametrize("tau", [0.15, 0.4])
@pytest.mark.parametrize("grid", [(6, 7), (12, 12)])
def test_against_the_rules(grid: Grid, tau: float, rng: np.random.Generator) -> None:
    compared = 0
    for _ in range(12):
        keys = blobs(rng, grid, 3)
        masks, clear = naive_maskcut(keys, grid, 4, tau)
        if clear > 1e-6:
            (found,) = maskcut(make_features(grid, keys=[keys]), n=4, tau=tau)
            np.testing.assert_array_equal(found.masks, masks)
            compared += 1
    assert compared >= 6, compared


@pytest.mark.parametrize("mistake", ["corners", "forget"])
def test_a_broken_method_is_told_apart(mistake: str, rng: np.random.Generator) -> None:
    differing = 0
    for _ in range(30):
        keys = blobs(rng, (6, 7), 3)
        broken, _ = naive_maskcut(keys, (6, 7), 5, 0.15, mistake=mistake)
        found = maskcut(make_features((6, 7), keys=[keys]), n=5)[0].masks
        differing += len(found) != len(broken) or not np.array_equal(found, broken)
    assert differing >= 2, differing


def test_below_a_tau_of_zero_what_was_found_resembles_all(rng: np.random.Generator) -> None:
    """A similarity of 0 is above it: painted patches are joined with each other and with all."""
    keys, compared = blobs(rng, (12, 12), 3), 0
    for tau in (-0.1, -0.2, -0.3):
        masks, clear = naive_maskcut(keys, (12, 12), 2, tau)
        if clear > 1e-6:
            np.testing.assert_array_equal(maskcut(make_features((12, 12), keys=[keys]), n=2, tau=tau)[0].masks, masks)
            compared += 1
    assert compared


def test_masks_do_not_overlap_and_are_not_empty(rng: np.random.Generator) -> None:
    for found in maskcut(make_features((9, 10), keys=np.stack([blobs(rng, (9, 10), 4) for _ in range(6)])), n=6):
        assert 1 <= len(found.masks) <= 6
        assert found.masks.any((1, 2)).all()
        assert found.masks.sum(0).max() == 1
        assert len(found.boxes) == len(found.scores) == len(found.masks)


def test_one_mask_is_the_mask_of_tokencut_unless_corners_turn_it(rng: np.random.Generator) -> None:
    same = 0
    for _ in range(10):
        features = make_features((9, 10), keys=[blobs(rng, (9, 10), 2)])
        (cut,), (token,) = maskcut(features, n=1, tau=0.2), tokencut(features)
        assert cut.values["eigenvalue_1"] == pytest.approx(token.values["eigenvalue"], abs=1e-9)
        mask = token.masks[0]
        if mask[[0, 0, -1, -1], [0, -1, 0, -1]].sum() == 0:
            same += 1
            np.testing.assert_array_equal(cut.masks[0], mask)
    assert same >= 3


def test_three_corners_turn_the_foreground() -> None:
    for other in (1, 4):
        vector = np.full((3, 3), float(other))
        vector[0, 0], vector[1, 1:] = 5, (-2, -1)  # above the mean: all but the two
        mask, seed, drawn = corner_foreground(vector.ravel(), (3, 3))
        assert mask.astype(int).tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
        assert seed == (1, 1)
        assert drawn[1, 1] == 2
    vector[2] = -1  # two corners: the side of the largest magnitude
    mask, seed, _ = corner_foreground(vector.ravel(), (3, 3))
    assert seed == (0, 0)
    assert mask.astype(int).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def cut_at(*patches: int, size: int = 36) -> Cut:
    vector = np.full(size, -0.1)
    vector[list(patches)] = 1.0
    return Cut(vector, 0.1, 0.2)


def test_a_repeated_or_tiny_mask_is_rejected_and_then_passes() -> None:
    """IoU above 0.5 with the one before: nothing is painted; the next one has nothing to be compared with."""
    state = _State((6, 6))
    state.add(cut_at(7, 8, 13, 14))
    state.add(cut_at(7, 8, 13, 14, 15))  # IoU 0.8
    assert len(state.masks) == 1
    assert state.previous is not None and not state.previous.any()
    state.add(cut_at(7, 8, 13, 14, 15))
    assert [np.flatnonzero(mask).tolist() for mask in state.masks] == [[7, 8, 13, 14], [15]]
    large = _State((10, 10))
    large.add(cut_at(50, 51, size=100))
    for _ in range(2):
        large.add(cut_at(70, size=100))  # 1 % of the grid, however often it comes
        assert len(large.masks) == 1
    large.add(cut_at(70, 71, size=100))
    assert len(large.masks) == 2


def test_batching_mirroring_and_rescaling(rng: np.random.Generator) -> None:
    grid, images = (8, 9), []
    while len(images) < 3:
        keys = blobs(rng, (8, 9), 2)
        if naive_maskcut(keys, grid, 2, 0.15)[1] > 1e-5:
            images.append(keys)
    together = maskcut(make_features(grid, keys=np.stack(images)), n=2)
    for one, keys in zip(together, images, strict=True):
        lengths = rng.uniform(0.1, 9, (len(keys), 1)).astype(np.float32)
        np.testing.assert_array_equal(maskcut(make_features(grid, keys=[keys * lengths]), n=2)[0].masks, one.masks)
        mirrored = keys.reshape(*grid, -1)[:, ::-1].reshape(keys.shape)
        (other,) = maskcut(make_features(grid, keys=[mirrored]), n=2)
        np.testing.assert_array_equal(other.masks[:, :, ::-1], one.masks)


@pytest.mark.parametrize(("value", "flag"), [(1.0, "undefined_cut"), (0.0, "undefined_cut"), (np.nan, "not_finite")])
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (3, 4)])
def test_without_a_graph_there_is_one_mask_of_all(grid: Grid, value: float, flag: str) -> None:
    keys = np.full((1, grid[0] * grid[1], 3), value)
    (found,) = maskcut(make_features(grid, keys=keys))
    assert found.masks.tolist() == [np.ones(grid, dtype=bool).tolist()]
    assert found.flags == (flag,)
    assert found.seed is None


def test_when_nothing_is_left_there_are_fewer_masks() -> None:
    keys = np.repeat(np.eye(2), [3, 5], axis=0)
    (found,) = maskcut(make_features((2, 4), keys=[keys]), n=6)
    assert found.masks.sum() <= 8
    assert naive_cut(keys, 0.15)[1] > 0
    assert 1 <= len(found.masks) <= 3


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("n", 0, "n is 0: give a whole number of masks, at least 1"),
        ("n", 2.0, "n is 2.0"),
        ("n", True, "n is True"),
        ("tau", 1.5, "tau is 1.5: give a cosine similarity between -1 and 1"),
        ("tau", float("nan"), "tau is nan"),
        ("facet", "cls", "facet is 'cls': choose one of"),
        ("centre", 1, "centre is 1: choose true or false"),
    ],
)
def test_errors_name_the_value_and_the_choices(setting: str, value: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        METHODS["maskcut"].facets(**{setting: value})


def test_above_the_limit_a_smaller_image_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "PATCH_LIMIT", 5)
    with pytest.raises(ParameterError, match=r"6 patches, .* resize it \(max_side\)"):
        maskcut(make_features((2, 3), keys=np.ones((1, 6, 2))))
