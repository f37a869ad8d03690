"""LOST: by hand, against the definition, and what must not change the result."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dot_similarity, make_features, naive_lost, qk_similarity

from foundling.discovery import METHODS, lost
from foundling.discovery.lost import degrees
from foundling.types import ParameterError

# background, object, a part of it, a patch like the part and like the background
GROUND, THING, PART, RIM = (1, 0), (-1, 1), (0, 1), (1, 1)
HAND = [GROUND, GROUND, THING, GROUND, GROUND, GROUND, PART, RIM]  # two rows of four


def test_by_hand() -> None:
    """Each GROUND is similar to 4 others and RIM, THING to PART, PART to THING and RIM, RIM to GROUND and PART."""
    (found,) = lost(make_features((2, 4), keys=[HAND]), k=2)
    assert found.maps["degree"].tolist() == [[5, 5, 1, 5], [5, 5, 2, 6]]
    np.testing.assert_allclose(found.maps["inverse_degree"][0], [1 / 6, 1 / 6, 1 / 2, 1 / 6])
    assert found.seed == (0, 2)
    assert found.values == {"seed_ties": 1, "min_degree": 1}
    assert found.maps["similarity"].tolist() == [[-1, -1, 2, -1], [-1, -1, 1, 0]]  # RIM is not similar to the seed
    assert found.maps["expansion"].tolist() == [[-1, -1, 3, -1], [-1, -1, 2, 1]]  # but is to THING + PART
    assert found.masks.tolist() == [[[False, False, True, False], [False, False, True, True]]]
    assert found.boxes.tolist() == [[32, 0, 64, 32]]
    assert found.flags == ()


def test_without_expansion_the_box_is_that_of_the_seeds_own_similarities() -> None:
    (found,) = lost(make_features((2, 4), keys=[HAND]), k=1)
    assert found.boxes.tolist() == [[32, 0, 48, 32]]


def test_boxes_are_clipped_to_the_image_but_not_to_the_grid() -> None:
    (found,) = lost(make_features((2, 4), keys=[HAND], sizes=[(27, 60)]), k=2)
    assert found.boxes.tolist() == [[32, 0, 60, 27]]


CASE = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 30), st.integers(0, 2**32 - 1))


@settings(max_examples=150, deadline=None)
@given(CASE)
def test_against_the_definition(case: tuple[int, int, int, int, int]) -> None:
    """Whole-number descriptors: products are exact, and ties and zeros are common."""
    rows, columns, channels, k, seed = case
    keys = np.random.default_rng(seed).integers(-2, 3, (2, rows * columns, channels))
    sizes = [(rows * 8 - 3, columns * 8), (rows * 8, columns * 8 - 7)]
    found = lost(make_features((rows, columns), 8, sizes, keys=keys), k=k)
    for discovery, descriptors, size in zip(found, keys, sizes, strict=True):
        similarity = dot_similarity(descriptors)
        expected = naive_lost(similarity, similarity, (rows, columns), k, 8, size)
        assert discovery.boxes.tolist() == [expected]


def bank(rng: np.random.Generator) -> list[tuple[np.ndarray, tuple[int, int], int, tuple[int, int]]]:
    """Cases on which a broken LOST must differ from ours."""
    return [
        (rng.integers(-2, 3, (30, 3)), (5, 6), int(rng.integers(1, 5)), (int(rng.integers(73, 81)), 96))
        for _ in range(60)
    ]


MISTAKES = ["inclusive", "any_candidate", "extra", "diagonal", "highest"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_broken_method_is_told_apart(mistake: str, rng: np.random.Generator) -> None:
    differing = 0
    for keys, grid, k, size in bank(rng):
        similarity = dot_similarity(keys)
        broken = naive_lost(similarity, similarity, grid, k, 16, size, **{mistake: True})
        differing += lost(make_features(grid, sizes=[size], keys=[keys]), k=k)[0].boxes.tolist() != [broken]
    assert differing >= 5, differing


def test_leaving_the_box_unclipped_is_told_apart(rng: np.random.Generator) -> None:
    keys, grid, k, _ = bank(rng)[0]
    keys[:] = 1
    similarity = dot_similarity(keys)
    broken = naive_lost(similarity, similarity, grid, k, 16, (70, 90), clip=False)
    assert lost(make_features(grid, sizes=[(70, 90)], keys=[keys]), k=k)[0].boxes.tolist() != [broken]


@pytest.mark.parametrize("expansion", ["facet", "qk", "keys", "queries", "values"])
@pytest.mark.parametrize("seed_similarity", ["facet", "qk"])
def test_variants_of_appendix_a1(seed_similarity: str, expansion: str, rng: np.random.Generator) -> None:
    differing = 0
    for _ in range(20):
        facets = {name: rng.integers(-2, 3, (1, 20, 3)) for name in ("keys", "queries", "values")}
        by_name = {name: dot_similarity(value[0]) for name, value in facets.items()}
        by_name["qk"] = qk_similarity(facets["queries"][0], facets["keys"][0])
        by_name["facet"] = by_name["values"]
        expected = naive_lost(by_name[seed_similarity], by_name[expansion], (4, 5), 6, 16, (64, 80))
        features = make_features((4, 5), **facets)
        (found,) = lost(features, k=6, facet="values", seed_similarity=seed_similarity, expansion=expansion)
        assert found.boxes.tolist() == [expected]
        differing += found.boxes.tolist() != lost(features, k=6, facet="keys")[0].boxes.tolist()
    assert differing > 3  # the settings are not ignored


def test_the_qk_seed_is_kept_although_it_is_not_similar_to_itself() -> None:
    queries, keys = [(1.0,), (1.0,), (1.0,), (1.0,)], [(-1.0,), (1.0,), (1.0,), (1.0,)]
    features = make_features((1, 4), queries=[queries], keys=[keys])
    (found,) = lost(features, seed_similarity="qk", expansion="qk")
    assert found.seed == (0, 0)  # its sum with any other is 1·1 - 1·1 = 0, with itself -2
    assert found.boxes.tolist() == [[0, 0, 16, 16]]
    assert found.flags == ("seed_alone",)


def random_features(rng: np.random.Generator, count: int = 1, grid: tuple[int, int] = (7, 9)) -> np.ndarray:
    return rng.standard_normal((count, grid[0] * grid[1], 5)).astype(np.float32)


def unique_seeds(rng: np.random.Generator, wanted: int) -> list[np.ndarray]:
    """Descriptors whose ranking by degree has no ties that could matter: all patches take part."""
    found: list[np.ndarray] = []
    while len(found) < wanted:
        keys = random_features(rng)
        if lost(make_features((7, 9), keys=keys))[0].values["seed_ties"] == 1:
            found.append(keys)
    return found


def test_mirroring_the_image_mirrors_the_box(rng: np.random.Generator) -> None:
    for keys in unique_seeds(rng, 10):
        mirrored = keys.reshape(1, 7, 9, -1)[:, :, ::-1].reshape(keys.shape).copy()
        (x0, y0, x1, y1), (box,) = (
            lost(make_features((7, 9), keys=keys))[0].boxes[0],
            lost(make_features((7, 9), keys=mirrored))[0].boxes,
        )
        assert box.tolist() == [144 - x1, y0, 144 - x0, y1]


def test_scale_and_rotation_of_the_descriptors_do_not_matter(rng: np.random.Generator) -> None:
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    for keys in unique_seeds(rng, 10):
        (before,) = lost(make_features((7, 9), keys=keys), k=9)
        (after,) = lost(make_features((7, 9), keys=keys @ rotation * 3.5), k=9)
        assert after.boxes.tolist() == before.boxes.tolist()
        np.testing.assert_allclose(after.maps["expansion"], before.maps["expansion"] * 3.5**2, rtol=1e-4, atol=1e-3)


def test_a_batch_gives_each_image_its_own_result(rng: np.random.Generator) -> None:
    keys = random_features(rng, 6)
    together = lost(make_features((7, 9), keys=keys), k=8)
    order = rng.permutation(6)
    permuted = lost(make_features((7, 9), keys=keys[order]), k=8)
    for i in range(6):
        (alone,) = lost(make_features((7, 9), keys=keys[i : i + 1]), k=8)
        assert alone.boxes.tolist() == together[i].boxes.tolist()
    for place, i in enumerate(order):
        assert permuted[place].boxes.tolist() == together[i].boxes.tolist()
        assert permuted[place].seed == together[i].seed


def test_more_candidates_than_patches_takes_them_all(rng: np.random.Generator) -> None:
    features = make_features((7, 9), keys=random_features(rng))
    assert lost(features, k=63)[0].boxes.tolist() == lost(features, k=10_000)[0].boxes.tolist()


def test_degrees_by_blocks_are_those_of_the_whole_matrix(rng: np.random.Generator) -> None:
    for patches in (1, 255, 256, 257, 700):
        left = torch.as_tensor(rng.integers(-3, 4, (2, patches, 4)).astype(np.float32))
        right = left.flip(2)  # p · flip(q) is symmetric
        whole = (left.double() @ right.double().transpose(1, 2) > 0).long()
        expected = whole.sum(2) - whole.diagonal(dim1=1, dim2=2)
        assert torch.equal(degrees(left, right), expected)


def test_large_batches_are_worked_on_in_groups(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = random_features(rng, 5)
    whole = lost(make_features((7, 9), keys=keys))
    monkeypatch.setattr(sys.modules["foundling.discovery.lost"], "WORKING_SET", 2 * 256 * 63)  # two images at a time
    for a, b in zip(whole, lost(make_features((7, 9), keys=keys)), strict=True):
        assert a.boxes.tolist() == b.boxes.tolist()


def test_if_all_patches_are_equal_the_object_is_the_image() -> None:
    (found,) = lost(make_features((3, 4), sizes=[(40, 60)], keys=np.ones((1, 12, 2))))
    assert found.boxes.tolist() == [[0, 0, 60, 40]]
    assert found.values == {"seed_ties": 12, "min_degree": 11}
    assert found.flags == ()


def test_without_any_similarity_the_object_is_the_first_patch() -> None:
    (found,) = lost(make_features((3, 4), keys=np.zeros((1, 12, 2))))
    assert found.boxes.tolist() == [[0, 0, 16, 16]]
    assert found.flags == ("seed_alone",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_flagged(value: float, rng: np.random.Generator) -> None:
    keys = random_features(rng, 2, (3, 4))
    keys[0, 7, 1] = value
    broken, sound = lost(make_features((3, 4), keys=keys))
    assert broken.flags == ("not_finite",)
    assert broken.boxes.tolist() == [[0, 0, 64, 48]]
    assert sound.flags == ()


def test_half_precision_features_are_compared_in_single_precision(rng: np.random.Generator) -> None:
    keys = torch.as_tensor(random_features(rng)).half()
    features = make_features((7, 9), keys=keys.float().numpy())
    halves = make_features((7, 9), keys=keys.float().numpy())
    object.__setattr__(halves, "keys", keys)
    assert lost(halves)[0].boxes.tolist() == lost(features)[0].boxes.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "k is 0: give a whole number of patches, at least 1"),
        ({"k": True}, "k is True: give a whole number"),
        ({"facet": "cls"}, "facet is 'cls': choose one of keys, queries, values, tokens"),
        ({"facet": "values"}, "facet 'values' was not extracted"),
        ({"seed_similarity": "kq"}, "seed_similarity is 'kq': choose one of facet, qk"),
        ({"expansion": "both"}, "expansion is 'both': choose one of facet, qk, keys, queries, values, tokens"),
        ({"expansion": "qk"}, "facet 'queries' was not extracted"),
    ],
)
def test_errors_name_the_value_and_the_choices(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        lost(make_features((2, 4), keys=[HAND]), **given)


def test_a_setting_of_the_wrong_type_is_refused_before_any_features_exist() -> None:
    with pytest.raises(ParameterError, match=r"k is 2\.5: give a whole number of patches"):
        METHODS["lost"].facets(k=2.5)
    with pytest.raises(ParameterError, match="facet is None: choose one of keys"):
        METHODS["lost"].facets(facet=None)


def test_facets_are_those_that_the_settings_read() -> None:
    assert METHODS["lost"].facets() == ("keys",)
    assert METHODS["lost"].facets(facet="values") == ("values",)
    assert METHODS["lost"].facets(seed_similarity="qk", expansion="values") == ("queries", "keys", "values")
    assert METHODS["lost"].facets(expansion="queries") == ("keys", "queries")


@pytest.mark.parametrize("facet", ["keys", "tokens"])
def test_centring_takes_off_what_all_patches_of_an_image_share(facet: str, rng: np.random.Generator) -> None:
    descriptors = rng.normal(size=(2, 12, 4))
    shift = 10 * rng.normal(size=(2, 1, 4))
    by_hand = descriptors - descriptors.mean(1, keepdims=True)
    centred = lost(make_features((3, 4), **{facet: descriptors + shift}), k=3, facet=facet, centre=True)
    same = lost(make_features((3, 4), **{facet: by_hand}), k=3, facet=facet)
    raw = lost(make_features((3, 4), **{facet: descriptors + shift}), k=3, facet=facet)
    assert [d.boxes.tolist() for d in centred] == [d.boxes.tolist() for d in same]
    assert [d.maps["degree"].tolist() for d in centred] != [d.maps["degree"].tolist() for d in raw]
    with pytest.raises(ParameterError, match="centre is 'yes': choose true or false"):
        METHODS["lost"].facets(centre="yes")
