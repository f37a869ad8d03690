"""Components and boxes on the patch grid."""

import numpy as np
import pytest
from oracles import naive_box, naive_components

from foundling.discovery.components import component_at, largest_component, mask_box


def drawn(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


PICTURE = drawn(
    "##..#",
    "..#.#",
    "..#..",
)


def test_components_do_not_join_at_corners() -> None:
    assert component_at(PICTURE, (0, 1)).tolist() == drawn("##...", ".....", ".....").tolist()
    assert component_at(PICTURE, (2, 2)).tolist() == drawn(".....", "..#..", "..#..").tolist()


def test_a_seed_outside_the_mask_has_no_component() -> None:
    assert not component_at(PICTURE, (0, 2)).any()


def test_of_equal_components_the_first_in_raster_order_is_the_largest() -> None:
    assert largest_component(PICTURE).tolist() == drawn("##...", ".....", ".....").tolist()
    assert not largest_component(np.zeros((2, 3), dtype=bool)).any()


def test_the_box_is_columns_then_rows_far_corner_exclusive() -> None:
    mask = component_at(PICTURE, (0, 4))
    assert mask_box(mask, 16).tolist() == [64, 0, 80, 32]
    assert mask_box(mask, 16, (48, 70)).tolist() == [64, 0, 70, 32]  # clipped at the image's width
    assert mask_box(mask, 16, (20, 80)).tolist() == [64, 0, 80, 20]  # and height


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        mask_box(np.zeros((2, 2), dtype=bool), 16)


def test_against_flood_fill(rng: np.random.Generator) -> None:
    for _ in range(50):
        mask = rng.random((rng.integers(1, 9), rng.integers(1, 9))) < 0.55
        components = naive_components(mask)
        for component in components:
            seed = min(component)
            ours = component_at(mask, seed)
            assert {(int(r), int(c)) for r, c in np.argwhere(ours)} == component
            assert mask_box(ours, 8).tolist() == naive_box(component, 8, None)
        if components:
            assert {(int(r), int(c)) for r, c in np.argwhere(largest_component(mask))} == max(components, key=len)
