"""K-means with restarts: by hand, against scikit-learn, empty clusters, and what must not change the result."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from foundling.discovery.restarts import restarted_kmeans


def planted(rng: np.random.Generator, k: int, dimensions: int, count: int = 90, spread: float = 0.1) -> np.ndarray:
    centres = rng.standard_normal((k, dimensions)) * 3
    return centres[rng.integers(0, k, count)] + rng.standard_normal((count, dimensions)) * spread


def test_by_hand() -> None:
    points = torch.tensor([[[9.0], [0.0], [1.0], [10.0], [0.5]]])
    labels, centres = restarted_kmeans(points, 2)
    assert labels.tolist() == [[0, 1, 1, 0, 1]]  # numbered by first point
    mean = points.mean()
    torch.testing.assert_close(centres[0] + mean, torch.tensor([[9.5], [0.5]]))


@pytest.mark.parametrize(("k", "spread"), [(2, 2.0), (3, 0.3), (5, 1.0), (6, 0.1)])
def test_as_tight_as_scikit_learn(k: int, spread: float, rng: np.random.Generator) -> None:
    points = np.stack([planted(rng, k, 3, spread=spread) for _ in range(4)])
    labels, centres = restarted_kmeans(torch.from_numpy(points), k)
    for i, x in enumerate(points):
        reference = KMeans(k, n_init=10, random_state=0).fit(x)
        inertia = ((x - x.mean(0) - centres[i, labels[i]].numpy()) ** 2).sum()
        assert inertia <= reference.inertia_ * 1.01
        means = np.stack([x[labels[i] == j].mean(0) for j in range(k)])
        np.testing.assert_allclose(centres[i].numpy() + x.mean(0), means, atol=1e-12)
        nearest = ((x[:, None] - means) ** 2).sum(2).argmin(1)
        assert (nearest == labels[i].numpy()).all()  # nothing left to do for Lloyd's iterations


def test_an_image_does_not_depend_on_the_others_nor_on_scale(rng: np.random.Generator) -> None:
    points = torch.from_numpy(np.stack([planted(rng, 4, 3, spread=0.8) for _ in range(3)]))
    labels, _ = restarted_kmeans(points, 4)
    for i in range(3):
        assert torch.equal(restarted_kmeans(points[i : i + 1], 4)[0][0], labels[i])
    assert torch.equal(restarted_kmeans(1e-6 * points + 1e-6, 4)[0], labels)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_no_cluster_is_empty_however_few_points_differ(k: int) -> None:
    for points in (
        torch.zeros(1, 8, 2),
        torch.tensor([[[0.0], [0], [0], [1], [1], [1], [1], [1]]]),
        torch.rand(2, 8, 3),
    ):
        labels, _ = restarted_kmeans(points, k)
        for one in labels.tolist():
            assert set(one) == set(range(k))
            assert [one.index(j) for j in range(k)] == sorted(one.index(j) for j in range(k))


def test_points_without_coordinates_are_one_cluster() -> None:
    labels, centres = restarted_kmeans(torch.zeros(2, 5, 0), 1)
    assert labels.tolist() == [[0] * 5] * 2
    assert centres.shape == (2, 1, 0)
