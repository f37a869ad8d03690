"""What is drawn of instances: colours that stay with their objects, every mask where it lies, nothing where none is."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from foundling.errors import FoundlingError
from foundling.report.figures_instances import (
    DROPPED,
    KEPT,
    LAYERS,
    PALE,
    STRONG,
    candidate_sheet,
    k_strip,
    part_colours,
    show_layers,
    show_parts,
    truth_colours,
)
from foundling.report.style import subplots

GRID = (6, 8)


@pytest.fixture
def image(rng):
    return Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))


@pytest.fixture
def ax():
    return subplots()[1]


def masks(*parts):
    """Masks on ``GRID``, each of a rectangle (rows, columns)."""
    stack = np.zeros((len(parts), *GRID), dtype=bool)
    for mask, (rows, columns) in zip(stack, parts, strict=True):
        mask[slice(*rows), slice(*columns)] = True
    return stack


LEFT, RIGHT = ((0, 3), (0, 3)), ((0, 3), (5, 8))
TRUTHS = masks(LEFT, RIGHT)


def rest(parts):
    """The parts, and as the last what they leave over: a partition."""
    return np.concatenate([parts, ~parts.any(axis=0, keepdims=True)])


def test_a_part_has_the_colour_of_the_object_it_coincides_with():
    both = rest(masks(((0, 3), (0, 8))))  # one part over both objects and what lies between: IoU 3/8 with each
    apart = rest(masks(RIGHT, ((0, 4), (0, 3))))  # the second: IoU 9 / 12
    first, second = part_colours([both, apart], TRUTHS)
    assert first == [PALE[0], PALE[1]]
    assert second == [STRONG[1], STRONG[0], PALE[1]]  # the background keeps its colour
    assert part_colours([apart], TRUTHS, at_least=0.8)[0] == [STRONG[1], PALE[0], PALE[1]]


def test_an_object_gives_its_colour_once():
    halves = masks(((0, 3), (0, 3)), ((0, 3), (0, 2)))  # IoU 1 and 2/3 with the same object
    assert part_colours([halves], TRUTHS)[0] == [STRONG[0], PALE[0]]


def test_pale_colours_are_handed_on_by_overlap(rng):
    """In whatever order the parts of the next partition come, they keep their colours."""
    parts = masks(((0, 2), (0, 8)), ((2, 4), (0, 8)), ((4, 6), (0, 8)))
    order = rng.permutation(3)
    first, second = part_colours([parts, parts[order]], np.zeros((0, *GRID), dtype=bool))
    assert first == list(PALE[:3])
    assert second == [first[i] for i in order]


def test_more_objects_than_colours():
    assert truth_colours(len(STRONG) + 1)[-1] == STRONG[0]
    assert truth_colours(0) == []


def test_masks_cover_their_cells_and_nothing_else(ax, image):
    parts = masks(LEFT, ((2, 4), (2, 5)))
    assert show_parts(ax, image, parts, [STRONG[0], PALE[0]], "k = 2", opacity=0.5) is ax
    tint = np.asarray(ax.images[-1].get_array())
    np.testing.assert_allclose(tint[parts[1]], [[*to_rgb(PALE[0]), 0.5]] * 6)  # the later mask lies above
    np.testing.assert_allclose(tint[parts[0] & ~parts[1]], [[*to_rgb(STRONG[0]), 0.5]] * 8)
    assert (tint[~parts.any(axis=0)] == 0).all()
    assert ax.images[-1].get_extent() == [0, 32, 24, 0]
    grey = np.asarray(ax.images[0].get_array())
    assert (grey[..., 0] == grey[..., 2]).all()
    outlined = np.array(ax.collections[0].get_segments())
    assert outlined.reshape(-1, 2).max(axis=0).tolist() == [12, 12]  # only the strong one: 3 cells of 4 pixels
    assert ax.get_title(loc="left") == "k = 2"


def test_no_masks_at_all(ax, image):
    none = np.zeros((0, *GRID), dtype=bool)
    show_parts(ax, image, none, [])
    show_layers(ax, image, none)
    assert (np.asarray(ax.images[-1].get_array()) == 0).all()
    assert part_colours([none, TRUTHS], none) == [[], list(PALE[:2])]


def test_one_colour_a_mask(ax, image):
    with pytest.raises(FoundlingError, match="2 masks but 1 colours: give one a mask"):
        show_parts(ax, image, TRUTHS, ["red"])


@pytest.mark.parametrize("names", [["net"], ["net", "other"], ["a", "b", "c"]])
def test_a_strip_has_the_truth_in_front(image, names):
    partitions = [rest(masks(LEFT)), rest(TRUTHS)]
    fig = k_strip(image, dict.fromkeys(names, partitions), TRUTHS, [2, 3])
    shown = [ax for ax in fig.axes if ax.images]
    titles = [ax.get_title(loc="left") for ax in shown]
    assert titles.count("image") == titles.count("annotated") == titles.count("k = 2") == titles.count("k = 3") == 1
    assert len(shown) == 2 + 2 * len(names)
    truth = shown[titles.index("annotated")]
    last = shown[-1]  # k = 3: both objects, each a part of its own
    for cells, colour in zip(TRUTHS, STRONG, strict=False):
        for ax in (truth, last):
            np.testing.assert_allclose(np.asarray(ax.images[-1].get_array())[cells][0, :3], to_rgb(colour))
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == names


def test_a_strip_with_a_partition_missing(image):
    with pytest.raises(FoundlingError, match="row 'net' has 1 partitions for 2 values of k"):
        k_strip(image, {"net": [TRUTHS]}, TRUTHS, [2, 3])


def test_layers_have_the_smallest_on_top(ax, image):
    small, large = masks(((1, 2), (1, 2)))[0], masks(((0, 3), (0, 4)))[0]
    show_layers(ax, image, np.stack([small, large]), "split (2)", region=large)
    tint = np.asarray(ax.images[-1].get_array())
    assert tuple(tint[1, 1, :3]) == to_rgb(LAYERS[1])
    assert tuple(tint[0, 0, :3]) == to_rgb(LAYERS[0])
    np.testing.assert_allclose(tint[~large], [[0, 0, 0, 0.6]] * 36)  # outside the region it is dark
    edges = np.array(ax.collections[0].get_segments())
    assert edges.reshape(-1, 2).max(axis=0).tolist() == [16, 12]


def test_the_sheet_of_candidates(image):
    stack = np.concatenate([TRUTHS, ~TRUTHS[:1]])
    fig = candidate_sheet(image, stack, ["a", "b", "c"], [True, False, True], columns=2)
    assert [ax.get_title(loc="center") for ax in fig.axes] == ["a", "b", "c", ""]
    for ax, mask, colour in zip(fig.axes, stack, (KEPT, DROPPED, KEPT), strict=False):
        tint = np.asarray(ax.images[-1].get_array())
        assert tuple(tint[mask][0, :3]) == to_rgb(colour)
        assert (tint[~mask] == 0).all()
    with pytest.raises(FoundlingError, match="3 masks but 2 titles: give one a mask"):
        candidate_sheet(image, stack, ["a", "b"], [True] * 3)
    assert len(candidate_sheet(image, stack[:0], [], []).axes) == 1
