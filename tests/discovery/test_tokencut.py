"""TokenCut: by hand, against the dense problem, undefined cuts, and what must not change the result."""

import numpy as np
import pytest
import torch
from oracles import make_features, naive_cut, naive_tokencut
from scipy.linalg import eigh

from foundling.discovery import METHODS, eigen, tokencut
from foundling.discovery.tokencut import Cut, foreground, normalised_cuts, similar_patches
from foundling.types import ParameterError

EPSILON = 1e-5


def cliques(*sizes: int) -> np.ndarray:
    """Which patches are joined, in a graph of complete parts that are not joined to each other."""
    part = np.repeat(np.arange(len(sizes)), sizes)
    return part[:, None] == part


def random_graph(rng: np.random.Generator, patches: int, channels: int = 4, tau: float = 0.2) -> np.ndarray:
    points = rng.standard_normal((patches, channels))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    joined = points @ points.T > tau
    return joined | joined.T


def cut_of(joined: np.ndarray) -> Cut:
    return normalised_cuts(torch.from_numpy(joined)[None])[0]


def dense_cut(joined: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The dense generalised problem, as the authors solve it."""
    weights = np.where(joined, 1.0, EPSILON)
    degree = np.diag(weights.sum(axis=1))
    values, vectors = eigh(degree - weights, degree, subset_by_index=[1, 2])
    return vectors[:, 0], float(values[0]), float(values[1])


@pytest.mark.parametrize(("small", "large"), [(2, 6), (20, 61)])
def test_two_parts_by_hand(small: int, large: int) -> None:
    """The second eigenvector is one number on each part: λ = ε (n / d_small + m / d_large), the next λ is 1."""
    axis = [[1.0, 0.0]] * small + [[0.0, 1.0]] * large
    patches = small + large
    (found,) = tokencut(make_features((1, patches), keys=[axis]))
    d_small, d_large = small + EPSILON * large, large + EPSILON * small
    second = EPSILON * (large / d_small + small / d_large)
    np.testing.assert_allclose(found.values["eigenvalue"], second, rtol=1e-6, atol=0)
    np.testing.assert_allclose(found.values["gap"], 1 - second, rtol=1e-9)
    vector = found.maps["eigenvector"][0]
    np.testing.assert_allclose(vector[0] / vector[-1], -large * d_large / (small * d_small), rtol=1e-6)
    assert found.boxes.tolist() == [[0, 0, 16 * small, 16]]  # the small part's entries are the larger ones
    assert found.masks.sum() == small
    assert found.flags == ()
    assert found.maps["eigenvector"][found.seed] > 0


@pytest.mark.parametrize("tau", [-0.1, 0.2, 0.4])
def test_against_the_definition(tau: float, rng: np.random.Generator) -> None:
    for grid in [(2, 3), (5, 6), (9, 8)]:
        keys = rng.standard_normal((2, grid[0] * grid[1], 4)).astype(np.float32)
        size = (grid[0] * 16 - 3, grid[1] * 16 - 9)
        for found, descriptors in zip(
            tokencut(make_features(grid, sizes=[size] * 2, keys=keys), tau), keys, strict=True
        ):
            vector, second, third = naive_cut(descriptors, tau)
            np.testing.assert_allclose(found.values["eigenvalue"], second, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found.values["gap"], third - second, rtol=1e-7, atol=1e-11)
            if third - second > 1e-4:
                np.testing.assert_allclose(np.abs(found.maps["eigenvector"].ravel()), np.abs(vector), atol=1e-7)
                if np.abs(vector - vector.mean()).min() > 1e-9:  # else rounding says which side a patch is on
                    assert found.boxes.tolist() == [naive_tokencut(descriptors, grid, tau, 16, size)]


@pytest.mark.parametrize("mistake", ["median", "signed", "diagonal"])
def test_a_broken_method_is_told_apart(mistake: str, rng: np.random.Generator) -> None:
    differing = 0
    for _ in range(20):
        keys = rng.standard_normal((30, 4)).astype(np.float32)
        broken = naive_tokencut(keys, (5, 6), 0.2, 16, (80, 96), **{mistake: True})
        differing += tokencut(make_features((5, 6), keys=[keys]))[0].boxes.tolist() != [broken]
    assert differing >= 3, differing


def test_a_similarity_of_exactly_tau_does_not_join() -> None:
    at_right_angles = make_features((1, 2), keys=[[[1.0, 0.0], [0.0, 1.0]]]).keys
    assert similar_patches(at_right_angles, 0.0)[0].tolist() == [[True, False], [False, True]]
    assert similar_patches(at_right_angles, -0.01)[0].all()


@pytest.mark.parametrize("patches", [64, 130, 300])
def test_iterations_give_what_the_dense_problem_gives(patches: int, rng: np.random.Generator) -> None:
    for tau in (-0.3, 0.2, 0.6):
        joined = random_graph(rng, patches, tau=tau)
        fast, (vector, second, third) = cut_of(joined), dense_cut(joined)
        np.testing.assert_allclose([fast.second, fast.third], [second, third], rtol=0, atol=1e-11)
        degree = EPSILON * patches + (1 - EPSILON) * joined.sum(axis=1)
        assert abs(fast.vector * degree @ vector) > 1 - 1e-9
        np.testing.assert_allclose(fast.vector * degree @ fast.vector, 1, rtol=1e-9)  # unit v'Dv, as the dense solver's


def test_nearly_separate_parts_are_resolved() -> None:
    """Six parts of nearly equal size: eigenvalues 2 to 6 lie within 1e-5 of 0, and of each other."""
    joined = cliques(40, 41, 43, 46, 50, 55)
    fast, (vector, second, third) = cut_of(joined), dense_cut(joined)
    assert 1e-9 < third - second < 1e-5
    np.testing.assert_allclose(fast.third - fast.second, third - second, rtol=1e-4)
    side = foreground(fast.vector, (1, 275))[0]
    assert side.tolist() == foreground(vector, (1, 275))[0].tolist()


@pytest.mark.parametrize("sizes", [(2, 2, 2), (27, 27, 27), (40, 40, 40, 40)])
def test_equal_parts_have_no_defined_cut(sizes: tuple[int, ...]) -> None:
    """λ2 = λ3 exactly."""
    axes = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    first, again = (tokencut(make_features((1, sum(sizes)), keys=[axes]))[0] for _ in range(2))
    assert first.flags == ("undefined_cut",)
    assert first.values["gap"] < 1e-9
    assert again.boxes.tolist() == first.boxes.tolist()


def test_one_patch_more_defines_it() -> None:
    axes = np.repeat(np.eye(3), (26, 27, 28), axis=0)
    (found,) = tokencut(make_features((1, 81), keys=[axes]))
    assert found.flags == ()
    assert found.values["gap"] > 1e-7
    assert found.boxes.tolist() == [[16 * 53, 0, 16 * 81, 16]]  # the largest part is cut off
    assert found.boxes.tolist() == [naive_tokencut(axes, (1, 81), 0.2, 16, (16, 16 * 81))]


@pytest.mark.parametrize("value", [1.0, 0.0])
@pytest.mark.parametrize("grid", [(3, 4), (9, 9), (1, 1), (1, 2)])
def test_patches_all_alike_give_the_whole_image(value: float, grid: tuple[int, int]) -> None:
    keys = np.full((1, grid[0] * grid[1], 3), value)
    (found,) = tokencut(make_features(grid, sizes=[(grid[0] * 16 - 5, grid[1] * 16 - 1)], keys=keys))
    assert found.boxes.tolist() == [[0, 0, grid[1] * 16 - 1, grid[0] * 16 - 5]]
    assert found.flags == ("undefined_cut",)
    assert found.values == {"gap": 0}


def test_patches_none_alike_give_the_whole_image() -> None:
    (found,) = tokencut(make_features((2, 4), keys=[np.eye(8)]))
    assert found.boxes.tolist() == [[0, 0, 64, 32]]
    assert found.flags == ("undefined_cut",)


def test_two_patches_have_no_third_eigenvalue() -> None:
    (found,) = tokencut(make_features((1, 3), keys=[[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]))
    assert found.values.keys() == {"eigenvalue", "gap"}
    assert found.values["gap"] > 0
    (found,) = tokencut(make_features((1, 2), keys=[[[1.0, 0.0], [0.0, 1.0]]]))
    assert found.values == {"gap": 0.0}


def test_features_that_are_not_finite_are_flagged() -> None:
    keys = np.ones((2, 6, 2))
    keys[0, 3] = np.nan
    keys[1, 3] = -1
    broken, sound = tokencut(make_features((2, 3), keys=keys))
    assert broken.flags == ("not_finite",)
    assert broken.boxes.tolist() == [[0, 0, 48, 32]]
    assert sound.boxes.tolist() == [[0, 16, 16, 32]]


def test_the_sign_of_the_eigenvector_does_not_matter(rng: np.random.Generator) -> None:
    for _ in range(20):
        vector = rng.standard_normal(30)
        (mask, seed, drawn), (other, same_seed, same) = foreground(vector, (5, 6)), foreground(-vector, (5, 6))
        assert mask.tolist() == other.tolist()
        assert seed == same_seed
        np.testing.assert_array_equal(drawn, same)
        assert drawn[seed] > 0


def test_the_cut_is_at_the_mean_and_not_at_zero() -> None:
    vector = np.array([6, 0.5, 0.5, 0.5, -1, -1])  # the mean is 0.92
    mask, seed, drawn = foreground(vector, (1, 6))
    assert mask.tolist() == [[True] + [False] * 5]
    assert seed == (0, 0)
    assert drawn.tolist() == [vector.tolist()]
    mask, seed, drawn = foreground(vector - 6, (2, 3))  # all are below zero, five below the mean of -5.1
    assert mask.tolist() == [[False, True, True], [True, True, True]]
    assert seed == (1, 1)
    assert drawn[seed] == 7


def separated(rng: np.random.Generator, count: int, grid: tuple[int, int] = (9, 10)) -> list[np.ndarray]:
    """Descriptors with a cut that is clearly defined."""
    found: list[np.ndarray] = []
    while len(found) < count:
        keys = rng.standard_normal((1, grid[0] * grid[1], 4)).astype(np.float32)
        if tokencut(make_features(grid, keys=keys))[0].values["gap"] > 0.01:
            found.append(keys)
    return found


def test_mirroring_rescaling_and_batching(rng: np.random.Generator) -> None:
    images = separated(rng, 4)
    together = tokencut(make_features((9, 10), keys=np.concatenate(images)))
    backwards = tokencut(make_features((9, 10), keys=np.concatenate(images[::-1])))
    for i, keys in enumerate(images):
        mirrored = keys.reshape(9, 10, 4)[:, ::-1].reshape(1, 90, 4).copy()
        x0, y0, x1, y1 = together[i].boxes[0]
        assert tokencut(make_features((9, 10), keys=mirrored))[0].boxes.tolist() == [[160 - x1, y0, 160 - x0, y1]]
        lengths = rng.uniform(0.1, 9, (1, 90, 1)).astype(np.float32)  # only directions count
        assert tokencut(make_features((9, 10), keys=keys * lengths))[0].boxes.tolist() == together[i].boxes.tolist()
        assert tokencut(make_features((9, 10), keys=keys))[0].boxes.tolist() == together[i].boxes.tolist()
        assert backwards[3 - i].boxes.tolist() == together[i].boxes.tolist()


def test_large_batches_are_worked_on_in_groups(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.concatenate(separated(rng, 3))
    whole = tokencut(make_features((9, 10), keys=keys))
    monkeypatch.setitem(eigen.WORKING_SET, "cpu", 2 * 90**2)
    for a, b in zip(whole, tokencut(make_features((9, 10), keys=keys)), strict=True):
        assert a.boxes.tolist() == b.boxes.tolist()


@pytest.mark.parametrize("tau", [1.5, -2, float("nan"), True, "0.2", None])
def test_tau_must_be_a_cosine(tau: object) -> None:
    with pytest.raises(ParameterError, match=r"tau is .*: give a cosine similarity between -1 and 1"):
        METHODS["tokencut"].facets(tau=tau)


def test_errors_name_the_value_and_the_choices() -> None:
    features = make_features((1, 2), keys=[[[1.0], [2.0]]])
    with pytest.raises(ParameterError, match="tau is 2: give a cosine similarity"):
        tokencut(features, tau=2)
    with pytest.raises(ParameterError, match="facet is 'attention': choose one of keys, queries, values, tokens"):
        tokencut(features, facet="attention")
    with pytest.raises(ParameterError, match="facet 'tokens' was not extracted"):
        tokencut(features, facet="tokens")
    assert METHODS["tokencut"].facets(facet="tokens") == ("tokens",)


def test_centring_takes_off_what_all_patches_of_an_image_share(rng: np.random.Generator) -> None:
    keys = rng.normal(size=(2, 12, 4))
    by_hand = keys - keys.mean(1, keepdims=True)
    centred = tokencut(make_features((3, 4), keys=keys + 5), centre=True)
    same = tokencut(make_features((3, 4), keys=by_hand))
    assert [d.boxes.tolist() for d in centred] == [d.boxes.tolist() for d in same]
    with pytest.raises(ParameterError, match="centre is 1: choose true or false"):
        METHODS["tokencut"].facets(centre=1)
