"""K-means against the textbook's loops and scikit-learn, when it stops, and its proposals."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Generator

from foundling.discovery.kmeans import CHECK_EVERY, KS, _nearest, generators, kmeans, kmeans_levels, kmeans_masks
from foundling.errors import ParameterError
from foundling.types import PatchFeatures


def drawn(seed=0) -> Generator:
    return Generator().manual_seed(seed)


def vectors(images=3, patches=40, channels=6, seed=0) -> torch.Tensor:
    return torch.randn(images, patches, channels, generator=drawn(seed))


def features_of(tokens, grid, names=("a", "b"), sizes=None) -> PatchFeatures:
    sizes = torch.tensor([[grid[0] * 8, grid[1] * 8]] * len(tokens)) if sizes is None else torch.tensor(sizes)
    return PatchFeatures(grid, 8, sizes, sizes, names[: len(tokens)], tuple(range(len(tokens))), tokens=tokens)


def naive_kmeans(x, centres, iterations) -> list[int]:
    """Lloyd's algorithm in plain loops from given centres."""
    x, centres = [row.tolist() for row in x], [row.tolist() for row in centres]

    def nearest(point):
        distances = [sum((a - b) ** 2 for a, b in zip(point, centre, strict=True)) for centre in centres]
        return distances.index(min(distances))

    for _ in range(iterations):
        labels = [nearest(point) for point in x]
        for k in range(len(centres)):
            members = [point for point, label in zip(x, labels, strict=True) if label == k]
            if members:
                centres[k] = [sum(values) / len(members) for values in zip(*members, strict=True)]
    return [nearest(point) for point in x]


@pytest.mark.parametrize("iterations", [0, 1, 3, 20])
def test_iterations_are_those_of_lloyd(iterations):
    x = vectors().double()
    unit = torch.nn.functional.normalize(x, dim=-1)
    first = torch.rand(3, 40, generator=drawn(5)).argsort(1)[:, :4]
    labels = kmeans(x.float(), 4, drawn(5), iterations)
    for i in range(3):
        assert labels[i].tolist() == naive_kmeans(unit[i], unit[i, first[i]], iterations)


def test_the_same_as_scikit_learn_from_the_same_centres():
    x = vectors(1, 60)
    first = torch.rand(1, 60, generator=drawn(2)).argsort(1)[0, :5]
    theirs = KMeans(5, init=x[0, first].numpy(), n_init=1, max_iter=100, tol=0).fit(x[0].numpy()).labels_
    assert kmeans(x, 5, drawn(2), 100, normalise=False)[0].tolist() == theirs.tolist()


def quick_and_slow() -> torch.Tensor:
    """Two images of 200 points on a line: in the first, two points a hundred times, which no longer move at once."""
    return torch.stack([torch.tensor([0.0, 1.0]).repeat(100)[:, None], vectors(1, 200, 1)[0]])


def test_it_goes_on_while_anything_in_the_batch_moves():
    x, first = quick_and_slow(), torch.rand(2, 200, generator=drawn(1)).argsort(1)[:, :10]
    early, late = (naive_kmeans(x[1].double(), x[1, first[1]].double(), n) for n in (CHECK_EVERY, 40))
    assert early != late
    labels = kmeans(x, 10, drawn(1), 40, normalise=False)
    assert labels[1].tolist() == late
    assert labels[0].tolist() == naive_kmeans(x[0], x[0, first[0]], 40)


def test_it_stops_when_nothing_moves(monkeypatch):
    """Without an end, 100 iterations would look for the nearest centres 101 times."""
    looks = []
    monkeypatch.setattr("foundling.discovery.kmeans._nearest", lambda *given: looks.append(0) or _nearest(*given))
    kmeans(quick_and_slow()[:1], 2, drawn(1), 100, normalise=False)
    assert len(looks) == 1 + CHECK_EVERY


def test_more_clusters_than_different_patches():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)[None]
    labels = kmeans(x, 6, drawn(), 10)[0]
    assert labels[0::2].unique().numel() == labels[1::2].unique().numel() == 1
    assert labels[0] != labels[1]


def test_one_cluster_is_the_whole_image():
    assert kmeans(vectors(), 1, drawn()).unique().tolist() == [0]


def test_as_many_clusters_as_patches():
    assert kmeans(vectors(1, 12), 12, drawn())[0].sort().values.tolist() == list(range(12))


def test_an_image_does_not_depend_on_its_batch():
    x, names = vectors(4), ("a", "b", "c", "d")
    together = kmeans_levels(x, (2, 8), generators(names, 3), 10)
    for i in range(4):
        torch.testing.assert_close(
            kmeans_levels(x[i : i + 1], (2, 8), generators(names[i : i + 1], 3), 10)[0], together[i]
        )


def test_seeds_and_names_differ():
    x = vectors(1, 200).expand(3, -1, -1)
    runs = [*kmeans(x[:2], 8, generators(("a", "b"), 0), 1), kmeans(x[:1], 8, generators(("a",), 1), 1)[0]]
    assert not any(torch.equal(runs[i], runs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_computed_in_float32_under_autocast():
    x = vectors(2, 50)
    with torch.autocast("cpu", torch.bfloat16):
        inside = kmeans(x, 7, drawn())
    torch.testing.assert_close(inside, kmeans(x, 7, drawn()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 41}, "k is 41, but an image has 40 patches: choose k at most 40"),
        ({"k": 0}, "k is 0"),
        ({"k": 3, "iterations": -1}, "iterations is -1"),
    ],
)
def test_values_that_are_not_legal(arguments, message):
    with pytest.raises(ParameterError, match=message):
        kmeans(vectors(), generator=drawn(), **arguments)


def test_proposals_are_255_masks_that_tile_the_image_once_a_level():
    found = kmeans_masks(features_of(vectors(2, 256), (16, 16)))
    assert sum(KS) == 255
    for discovery in found:
        assert discovery.masks.shape == (255, 16, 16) and len(discovery.boxes) == len(discovery.scores) == 255
        assert (discovery.masks.sum(0) == len(KS)).all() and discovery.masks.any((1, 2)).all()
        assert discovery.masks[0].all() and discovery.boxes[0].tolist() == [0, 0, 128, 128]


def test_boxes_of_proposals_by_hand():
    """Two regions that two clusters separate; the image ends inside the last column of patches."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[torch.tensor([0, 0, 1, 0, 0, 1])][None]
    discovery = kmeans_masks(features_of(x, (2, 3), sizes=[[16, 21]]), (2,))[0]
    assert sorted(discovery.boxes.tolist()) == [[0, 0, 16, 16], [16, 0, 21, 16]]


def test_empty_clusters_are_no_proposals():
    discovery = kmeans_masks(features_of(torch.ones(1, 6, 2), (2, 3)), (1, 4))[0]
    assert discovery.masks.shape == (2, 2, 3) and discovery.masks.all()


def test_a_seed_gives_a_named_image_the_same_masks_in_any_batch():
    tokens = vectors(2, 30)
    both, alone = (
        kmeans_masks(features_of(tokens, (5, 6)), (4, 8)),
        kmeans_masks(features_of(tokens[1:], (5, 6), ("b",)), (4, 8)),
    )
    np.testing.assert_array_equal(both[1].masks, alone[0].masks)
