"""CorRet by hand, against loops from the definition, and bad input."""

import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation import retrieval
from foundling.evaluation.retrieval import chance_corret, corret


def naive(descriptors, categories, neighbours):
    shares = []
    kept = [i for i, names in enumerate(categories) if names]
    for i in kept:
        cosine = {
            j: descriptors[i] @ descriptors[j] / np.linalg.norm(descriptors[i]) / np.linalg.norm(descriptors[j])
            for j in kept
            if j != i
        }
        nearest = sorted(cosine, key=lambda j: -cosine[j])[:neighbours]
        shares.append(sum(bool(categories[i] & categories[j]) for j in nearest) / neighbours)
    return 100 * np.mean(shares)


def test_by_hand() -> None:
    angles = np.deg2rad([0, 10, 90, 100])
    descriptors = np.stack([np.cos(angles), np.sin(angles)], 1) * [[1.0], [5.0], [1.0], [0.1]]
    result = corret(descriptors, [{0}, {0, 1}, {2}, {1}], neighbours=1)
    assert result.neighbours.ravel().tolist() == [1, 0, 3, 2]
    assert result.shares.tolist() == [1, 1, 0, 0]
    assert result.corret.value == 50


def test_loops_from_the_definition() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(40, 8))
    categories = [set(rng.choice(5, rng.integers(0, 4), replace=False).tolist()) for _ in range(40)]
    result = corret(descriptors, categories)
    assert result.corret.value == pytest.approx(naive(descriptors, categories, 10))
    assert len(result.shares) == sum(map(bool, categories))


def test_an_image_is_not_its_own_neighbour_even_among_twins() -> None:
    result = corret(np.ones((5, 3)), [{0}] * 5, neighbours=2)
    assert all(i not in row for i, row in enumerate(result.neighbours.tolist()))


def test_chance_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chance_corret([{0}, {0, 1}, {1}, set()]) == pytest.approx(100 * 4 / 6)  # of three images' two others each
    rng = np.random.default_rng(1)
    categories = [set(rng.choice(9, rng.integers(0, 3), replace=False).tolist()) for _ in range(50)]
    kept = [names for names in categories if names]
    pairs = [bool(a & b) for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j]
    assert chance_corret(categories) == pytest.approx(100 * np.mean(pairs))
    monkeypatch.setattr(retrieval, "ROWS", 7)
    assert chance_corret(categories) == pytest.approx(100 * np.mean(pairs))
    assert chance_corret([{3}, set()]) is None and chance_corret([]) is None


def test_bad_input() -> None:
    with pytest.raises(ParameterError, match="3 descriptors for 2 images"):
        corret(np.ones((3, 2)), [{0}, {1}])
    with pytest.raises(ParameterError, match="10 neighbours among 2 annotated images"):
        corret(np.ones((3, 2)), [{0}, {1}, set()])
    with pytest.raises(ParameterError, match="finite and not zero"):
        corret(np.zeros((3, 2)), [{0}, {1}, {1}], neighbours=1)
