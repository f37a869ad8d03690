"""Spectral masks: planted parts, scikit-learn's partitions, degenerate images, and what must not change the masks."""

import numpy as np
import pytest
import torch
from oracles import make_features
from PIL import Image
from scipy.linalg import eigh
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score

from foundling.discovery import METHODS, spectral, spectral_masks
from foundling.discovery.spectral import fuzzy_memberships, one_hot, partition
from foundling.types import Discovery, ParameterError


def blocky(rng: np.random.Generator, grid: tuple[int, int], parts: int = 4, noise: float = 0.35) -> np.ndarray:
    """Descriptors of rectangles in a grid, each about its own direction."""
    rows, columns = np.indices(grid)
    part = (rows * 2 // grid[0]) * 3 + columns * 3 // grid[1]
    directions = rng.standard_normal((6, 8))
    return (directions[part.ravel() % parts] + noise * rng.standard_normal((rows.size, 8))).astype(np.float32)


def labels_of(found: Discovery, k: int) -> np.ndarray:
    masks = found.masks[found.levels == k]
    assert len(masks) == k
    assert masks.any((1, 2)).all()
    assert (masks.sum(0) == 1).all()  # every patch in one part
    return masks.argmax(0).ravel()


def naive_partition(descriptors: np.ndarray, k: int) -> np.ndarray:
    """The dense generalised problem and scikit-learn's k-means."""
    x = descriptors.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    weights = np.maximum(x @ x.T, 0)
    np.fill_diagonal(weights, 0)
    degree = np.diag(weights.sum(1))
    vectors = eigh(degree - weights, degree)[1]
    return KMeans(k, n_init=10, random_state=0).fit(vectors[:, 1:k]).labels_


def test_planted_parts_by_hand() -> None:
    """Three directions at right angles: at k = 3 they are the parts, in the order of their first patches."""
    part = np.array([[2, 2, 0, 0], [2, 2, 0, 0], [1, 1, 1, 0]])
    (found,) = spectral_masks(make_features((3, 4), keys=[np.eye(3)[part.ravel()]]), (3, 2))
    assert found.levels.tolist() == [3, 3, 3, 2, 2]
    assert [mask.tolist() for mask in found.masks[:3]] == [(part == p).tolist() for p in (2, 0, 1)]
    assert found.boxes[:3].tolist() == [[0, 0, 32, 32], [32, 0, 64, 48], [0, 32, 48, 48]]
    assert found.scores.tolist() == [1] * 5
    assert found.values == pytest.approx(
        {"eigenvalue_2": 0, "eigenvalue_3": 0, "gap_3": 5 / 4, "gap_2": 0}, abs=1e-12
    )  # within five patches of a part the next eigenvalue is 1 + 1 / 4
    assert found.flags == ("undefined_cut",)  # of three separate parts there are many ways to make two


@pytest.mark.parametrize("grid", [(7, 9), (14, 15)])
def test_partitions_are_those_of_the_definition_and_of_scikit_learn(
    grid: tuple[int, int], rng: np.random.Generator
) -> None:
    keys = np.stack([blocky(rng, grid, parts) for parts in (3, 4, 6)])
    scores, library = [], []
    for found, descriptors in zip(spectral_masks(make_features(grid, keys=keys)), keys, strict=True):
        unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        affinity = np.maximum(unit @ unit.T, 0).astype(np.float64)
        for k in (2, 3, 4, 5, 6):
            ours = labels_of(found, k)
            scores.append(adjusted_rand_score(naive_partition(descriptors, k), ours))
            theirs = SpectralClustering(k, affinity="precomputed", random_state=0).fit(affinity).labels_
            library.append(adjusted_rand_score(theirs, ours))
    assert np.median(scores) == 1
    assert np.median(library) == 1
    assert np.mean(scores) > 0.95  # k-means may end in another optimum


@pytest.mark.parametrize("mistake", ["", "diagonal", "unscaled"])
def test_a_broken_embedding_is_told_apart(mistake: str, rng: np.random.Generator) -> None:
    """Without the zero diagonal, or with u instead of v, eigenvectors differ by more than rounding."""
    keys = blocky(rng, (7, 9))
    found = spectral_masks(make_features((7, 9), keys=[keys]), (3,), soft=True)[0]
    x = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    weights = np.maximum(x @ x.T, 0).astype(np.float64)
    if mistake != "diagonal":
        np.fill_diagonal(weights, 0)
    degree = weights.sum(1)
    vectors = eigh(np.diag(degree) - weights, np.diag(degree))[1][:, 1:3]
    points = vectors * np.sqrt(degree)[:, None] if mistake == "unscaled" else vectors
    masks = torch.from_numpy(found.masks.reshape(1, 3, -1))
    by_definition = fuzzy_memberships(torch.from_numpy(points)[None], masks).numpy()
    difference = np.abs(by_definition[0] - found.memberships.reshape(3, -1)).max()
    assert difference > 1e-3 if mistake else difference < 1e-5, difference


def test_one_eigendecomposition_serves_all(rng: np.random.Generator) -> None:
    features = make_features((7, 9), keys=[blocky(rng, (7, 9))])
    (together,) = spectral_masks(features)
    for k in (2, 4, 6):
        (alone,) = spectral_masks(features, (k,))
        np.testing.assert_array_equal(labels_of(alone, k), labels_of(together, k))
        np.testing.assert_allclose(alone.values[f"gap_{k}"], together.values[f"gap_{k}"], atol=1e-9)


def test_mirroring_rescaling_and_batching(rng: np.random.Generator) -> None:
    grid = (12, 13)
    images = np.stack([blocky(rng, grid, parts) for parts in (3, 4, 5)])
    together = spectral_masks(make_features(grid, keys=images), (3, 4))
    for i, keys in enumerate(images):
        lengths = rng.uniform(0.1, 9, (len(keys), 1)).astype(np.float32)
        mirrored = keys.reshape(*grid, -1)[:, ::-1].reshape(keys.shape)
        for k in (3, 4):
            labels = labels_of(together[i], k)
            np.testing.assert_array_equal(
                labels_of(spectral_masks(make_features(grid, keys=[keys * lengths]), (3, 4))[0], k), labels
            )
            flipped = labels_of(spectral_masks(make_features(grid, keys=[mirrored]), (3, 4))[0], k)
            assert adjusted_rand_score(flipped.reshape(grid)[:, ::-1].ravel(), labels) > 0.99
            np.testing.assert_array_equal(
                labels_of(spectral_masks(make_features(grid, keys=[keys]), (3, 4))[0], k), labels
            )


def test_a_permutation_of_patches_permutes_the_parts(rng: np.random.Generator) -> None:
    keys, order = blocky(rng, (7, 9), 3), rng.permutation(63)
    for k in (2, 3):
        labels = labels_of(spectral_masks(make_features((7, 9), keys=[keys]), (k,))[0], k)
        permuted = labels_of(spectral_masks(make_features((7, 9), keys=[keys[order]]), (k,))[0], k)
        assert adjusted_rand_score(permuted, labels[order]) > 0.99


def test_memberships_by_hand() -> None:
    points = torch.tensor([[[0.0], [2.0], [4.0], [6.0], [1.0]]])
    masks = one_hot(torch.tensor([[0, 0, 1, 1, 0]]), 2)
    at = [np.array([0, 2, 4, 6, 1]) - 1, np.array([0, 2, 4, 6, 1]) - 5]  # from the means 1 and 5
    first = at[1] ** 2 / (at[0] ** 2 + at[1] ** 2)
    np.testing.assert_allclose(fuzzy_memberships(points, masks)[0], [first, 1 - first], atol=1e-6)


def test_memberships_of_a_partition_add_up_to_one(rng: np.random.Generator) -> None:
    (found,) = spectral_masks(make_features((7, 9), keys=[blocky(rng, (7, 9))]), soft=True)
    assert found.memberships.shape == found.masks.shape
    assert (found.memberships >= 0).all()
    for k in (2, 3, 4, 5, 6):
        part = found.levels == k
        np.testing.assert_allclose(found.memberships[part].sum(0), 1, atol=1e-12)
        np.testing.assert_array_equal(found.memberships[part].argmax(0).ravel(), labels_of(found, k))
    assert spectral_masks(make_features((7, 9), keys=[blocky(rng, (7, 9))]))[0].memberships is None


def test_colours_can_decide() -> None:
    """Descriptors without structure, and a picture of two halves."""
    picture = Image.new("RGB", (64, 48), (255, 0, 0))
    picture.paste((0, 0, 255), (24, 0, 64, 48))
    features = make_features((6, 8), patch_size=8, keys=[np.ones((48, 3))], images=(picture,))
    (found,) = spectral_masks(features, (2,), colour=10.0)
    expected = np.zeros((6, 8), dtype=bool)
    expected[:, :3] = True
    assert (found.masks[0] == expected).mean() > 0.9
    assert spectral_masks(features, (2,))[0].flags == ("undefined_cut",)
    assert METHODS["spectral"].facets(colour=10) == ("keys", "images")
    assert METHODS["spectral"].facets() == ("keys",)


@pytest.mark.parametrize("value", [1.0, 0.0])
@pytest.mark.parametrize("grid", [(3, 4), (12, 12)])
def test_patches_all_alike_give_stretches_of_the_raster_order(value: float, grid: tuple[int, int]) -> None:
    patches = grid[0] * grid[1]
    (found,) = spectral_masks(make_features(grid, keys=np.full((1, patches, 3), value)), (2, 5))
    assert found.flags == ("undefined_cut",)
    assert labels_of(found, 2).tolist() == [0] * (patches // 2) + [1] * (patches // 2)
    assert (np.diff(labels_of(found, 5)) >= 0).all()
    assert set(np.bincount(labels_of(found, 5))) <= {patches // 5, patches // 5 + 1}
    assert found.values["gap_2"] < 1e-9


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("patches", [1, 12])
def test_features_that_are_not_finite_are_flagged(broken: float, patches: int, rng: np.random.Generator) -> None:
    keys = rng.standard_normal((2, patches, 3))
    keys[0, 0, 1] = broken
    bad, good = spectral_masks(make_features((1, patches), keys=keys), (1,) if patches == 1 else (2, 3), soft=True)
    assert bad.flags == ("not_finite",)
    assert bad.values == {}
    assert np.isfinite(bad.memberships).all()
    assert "not_finite" not in good.flags
    if patches > 1:
        assert labels_of(bad, 3).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_few_patches() -> None:
    one = make_features((1, 1), keys=[[[1.0, 2.0]]])
    assert spectral_masks(one, (1,))[0].masks.tolist() == [[[True]]]
    with pytest.raises(
        ParameterError, match="k is 2, but an image has 1 patches: choose k at most 1, or larger images"
    ):
        spectral_masks(one, (1, 2))
    two = make_features((1, 2), keys=[[[1.0, 0.1], [0.2, 1.0]]])
    (found,) = spectral_masks(two, (1, 2))
    assert found.masks[:, 0].tolist() == [[True, True], [True, False], [False, True]]
    assert found.values.keys() == {"eigenvalue_2", "gap_1"}
    with pytest.raises(ParameterError, match="k is 6, but an image has 2 patches"):
        spectral_masks(two)


def test_more_parts_than_patches_that_differ() -> None:
    keys = np.repeat(np.eye(2), [5, 7], axis=0)
    (found,) = spectral_masks(make_features((3, 4), keys=[keys]), (2, 5))
    assert labels_of(found, 2).tolist() == [0] * 5 + [1] * 7
    labels_of(found, 5)
    assert found.flags == ("undefined_cut",)


def test_above_the_limit_a_smaller_image_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "PATCH_LIMIT", 11)
    with pytest.raises(ParameterError, match=r"12 patches, and a graph of more than 11 .* resize it \(max_side\)"):
        spectral_masks(make_features((3, 4), keys=np.ones((1, 12, 2))), (2,))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ks", (), r"ks is \(\): give different whole numbers"),
        ("ks", (2, 2), r"ks is \(2, 2\)"),
        ("ks", (0,), r"ks is \(0,\)"),
        ("ks", (2.0,), r"ks is \(2.0,\)"),
        ("ks", 3, "ks is 3"),
        ("facet", "cls", "facet is 'cls': choose one of keys, queries, values, tokens"),
        ("colour", -1.0, "colour is -1.0: give the weight of colours, 0 or more"),
        ("colour", float("nan"), "colour is nan"),
        ("colour", True, "colour is True"),
        ("soft", 1, "soft is 1: choose true or false"),
        ("seed", -1, "seed is -1: give a whole number"),
    ],
)
def test_errors_name_the_value_and_the_choices(setting: str, value: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        METHODS["spectral"].facets(**{setting: value})


def test_the_same_seed_gives_the_same_partition(rng: np.random.Generator) -> None:
    weights = torch.rand(2, 60, 60, generator=torch.Generator().manual_seed(3))
    weights = weights + weights.transpose(1, 2)
    a, b = partition(weights, (4,), seed=1), partition(weights, (4,), seed=1)
    assert torch.equal(a.labels[4], b.labels[4])
