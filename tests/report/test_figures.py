"""What is drawn: boxes, maps, masks and colours lie where the data say, and a file has the same bytes each time."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from foundling.errors import FoundlingError
from foundling.report.figures import (
    gallery,
    mask_edges,
    pca_colours,
    show_image,
    show_mask,
    show_patch,
    show_patch_map,
    show_pca,
)
from foundling.report.style import FOUND, TRUTH, save_figure, subplots, use_style

WIDTH, HEIGHT, PATCH = 50, 34, 16
GRID = (3, 4)  # the last row and column reach beyond the image


@pytest.fixture
def image(rng) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))


@pytest.fixture
def ax():
    return subplots()[1]


def corners(ax) -> list[tuple[float, float, float, float]]:
    return [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in ax.patches]


def test_boxes_lie_in_pixel_coordinates(ax, image):
    boxes = np.array([[5.0, 6.0, 20.0, 30.0], [np.nan] * 4])
    truths = np.array([[0.0, 0.0, 50.0, 34.0]])
    assert show_image(ax, image, boxes, truths, "a title", key=True) is ax
    assert sorted(corners(ax)) == [(0, 0, 50, 34), (5, 6, 20, 30)]  # nan is not drawn
    colour = {corners(ax)[i]: to_hex(p.get_edgecolor()) for i, p in enumerate(ax.patches)}
    assert colour == {(5, 6, 20, 30): FOUND.lower(), (0, 0, 50, 34): TRUTH.lower()}
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, WIDTH), (HEIGHT, 0))
    assert ax.images[0].get_extent() == [0, WIDTH, HEIGHT, 0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["found", "annotated"]
    assert ax.get_title(loc="left") == "a title"
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), np.asarray(image))


def test_boxes_end_where_the_image_does(ax, image):
    show_image(ax, image, np.array([[-9.0, 5.0, 400.0, 300.0]]))
    assert corners(ax) == [(0, 5, 50, 34)]


def test_without_boxes_there_is_no_key(ax, image):
    show_image(ax, image, key=True)
    assert not ax.patches and ax.get_legend() is None


def test_a_patch_map_covers_its_patches_exactly(ax, image, rng):
    values = rng.random(GRID)
    show_patch_map(ax, image, torch.from_numpy(values), PATCH, limits=(0.0, 2.0))
    drawn = ax.images[-1]
    np.testing.assert_array_equal(np.asarray(drawn.get_array()), values)
    assert drawn.get_extent() == [0, GRID[1] * PATCH, GRID[0] * PATCH, 0]
    assert drawn.get_clim() == (0, 2)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, WIDTH), (HEIGHT, 0))  # padding is cut off


def test_a_rendered_patch_map_shows_each_value_at_its_pixels(tmp_path):
    """Rendered at one screen pixel an image pixel, every pixel has the colour of its patch."""
    values = np.arange(12.0).reshape(GRID)
    fig = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)
    ax = fig.add_axes((0, 0, 1, 1))
    show_patch_map(ax, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), values, PATCH, cmap="gray")
    fig.canvas.draw()
    red = np.asarray(fig.canvas.buffer_rgba())[..., 0].astype(float)
    expected = np.kron(values, np.ones((PATCH, PATCH)))[:HEIGHT, :WIDTH] / 11 * 255
    assert np.abs(red - expected).max() <= 1


def test_centred_maps_and_their_scale(ax, image):
    values = np.array([[-1.0, 0.5], [0.25, 0.0]])
    show_patch_map(ax, image, values, PATCH, centred=True, colorbar=True, label="eigenvector", opacity=0.5)
    assert ax.images[-1].get_clim() == (-1, 1)
    assert len(ax.images) == 2 and ax.images[-1].get_alpha() == 0.5  # the photo below, the map above
    assert ax.child_axes[0].get_ylabel() == "eigenvector"
    show_patch_map(ax, image, np.zeros((2, 2)), PATCH, centred=True)
    assert ax.images[-1].get_clim() == (-1, 1)  # nothing to scale by


def test_a_seed_is_marked_at_its_patch(ax, image):
    show_image(ax, image)
    show_patch(ax, (1, 2), PATCH)
    assert corners(ax) == [(32, 16, 48, 32)]
    assert ax.lines[0].get_xydata().tolist() == [[40, 24]]


def test_a_mask_tints_what_it_covers(ax, image):
    mask = np.zeros(GRID, dtype=bool)
    mask[1, 1:3] = True
    show_mask(ax, image, mask, PATCH, opacity=0.4)
    tint = np.asarray(ax.images[-1].get_array())
    np.testing.assert_allclose(tint[mask], [[*to_rgb(FOUND), 0.4]] * 2)
    assert (tint[~mask][:, 3] == 0).all()
    outline = np.array(ax.collections[0].get_segments())
    assert outline.reshape(-1, 2).min(axis=0).tolist() == [16, 16]
    assert outline.reshape(-1, 2).max(axis=0).tolist() == [48, 32]
    assert len(outline) == 6  # around two cells


def test_a_pixel_mask_has_no_patch_size(ax, image):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[3:7, 10:20] = True
    show_mask(ax, image, mask)
    assert ax.images[-1].get_extent() == [0, WIDTH, HEIGHT, 0]


def test_mask_edges_agree_with_a_loop(rng):
    mask = rng.random((5, 7)) < 0.5

    def inside(y, x):
        return 0 <= y < 5 and 0 <= x < 7 and mask[y, x]

    expected = set()
    for y in range(6):
        for x in range(8):
            if inside(y, x) != inside(y - 1, x):
                expected.add(((x, y), (x + 1, y)))
            if inside(y, x) != inside(y, x - 1):
                expected.add(((x, y), (x, y + 1)))
    found = [tuple(map(tuple, edge)) for edge in mask_edges(mask).tolist()]
    assert len(found) == len(set(found)) and set(found) == expected


def test_pca_finds_the_directions_of_most_variance(rng):
    """Three independent channels of falling spread, rotated into eight: the colours are these channels."""
    hidden = rng.uniform(-1, 1, (2, 12, 3)) * [9.0, 3.0, 1.0]
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0][:3]
    colours = pca_colours(hidden @ basis + 5, (3, 4))
    assert colours.shape == (2, 3, 4, 3)
    centred = hidden.reshape(24, 3) - hidden.reshape(24, 3).mean(axis=0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    for i in range(3):
        correlation = np.corrcoef(colours.reshape(24, 3)[:, i], centred @ directions[:, i])[0, 1]
        assert abs(correlation) > 0.99
    assert colours.min() == 0 and colours.max() == 1


def test_pca_does_not_depend_on_scale_shift_or_other_units(rng):
    features = rng.normal(size=(2, 12, 6))
    colours = pca_colours(features, (3, 4))
    np.testing.assert_allclose(pca_colours(features * 40 - 7, (3, 4)), colours, atol=1e-8)
    np.testing.assert_allclose(pca_colours(torch.from_numpy(features), (3, 4)), colours, atol=1e-12)


def test_degenerate_features_are_grey(rng):
    assert (pca_colours(np.full((1, 12, 5), 3.0), (3, 4)) == 0.5).all()
    line = rng.normal(size=(12, 1)) * np.ones((1, 5))  # one direction only
    colours = pca_colours(line, (3, 4))
    assert np.ptp(colours[..., 0]) == 1 and (colours[..., 1:] == 0.5).all()
    assert (pca_colours(np.ones((1, 1, 4)), (1, 1)) == 0.5).all()
    with pytest.raises(FoundlingError, match="12 patches do not fill a grid of 3 × 5 = 15"):
        pca_colours(np.zeros((12, 4)), (3, 5))


def test_pca_is_drawn_from_features_or_given_colours(ax, image, rng):
    features = rng.normal(size=(12, 6))
    show_pca(ax, image, features, GRID, PATCH)
    show_pca(ax, image, pca_colours(features, GRID)[0], GRID, PATCH)
    one, other = (np.asarray(drawn.get_array()) for drawn in ax.images)
    np.testing.assert_allclose(one, other)
    assert ax.images[0].get_extent() == [0, 64, 48, 0]


def test_a_gallery_has_a_cell_an_image(image):
    tall = image.resize((20, 60))
    boxes = [np.array([[1.0, 2.0, 3.0, 4.0]]), None, np.array([[np.nan] * 4])]
    fig = gallery([image, tall, image], boxes, titles=["one", "two", "three"], columns=2)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["one", "two", "three", ""]
    assert [len(ax.patches) for ax in fig.axes] == [1, 0, 0, 0]
    assert not fig.axes[3].axison and not fig.axes[3].images
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["found"]
    assert len(gallery([image]).axes) == 1


def drawn_width(ax) -> float:
    ax.figure.canvas.draw()
    return ax._left_title.get_window_extent().width


def test_a_file_name_is_drawn_as_it_is(image):
    """Between two ``$`` matplotlib would set a formula, and here fail: its subscript is empty."""
    name = "$5_and_$6.png"
    fig = gallery([image], titles=[name])
    show_image(subplots()[1], image, title=name).figure.canvas.draw()
    literal = drawn_width(fig.axes[0])
    assert literal > 0.9 * drawn_width(gallery([image], titles=["S5_and_S6.png"]).axes[0])


@pytest.mark.parametrize("draw", [show_patch_map, show_mask])
def test_titles_of_maps_may_hold_formulas(image, draw):
    values = np.ones(GRID, dtype=bool) if draw is show_mask else np.ones(GRID)
    ax = subplots()[1]
    show_image(ax, image, title="a name")  # what was drawn before on the axis does not matter
    formula = drawn_width(draw(ax, image, values, PATCH, title="inverse degree $1/d_p$"))
    literal = drawn_width(show_image(subplots()[1], image, title="inverse degree $1/d_p$"))
    assert formula < literal - 10  # pixels: two signs and the underscore are gone


def test_a_gallery_explains_what_does_not_fit(image):
    with pytest.raises(FoundlingError, match="2 images but 1 boxes"):
        gallery([image, image], boxes=[None])
    with pytest.raises(FoundlingError, match="no images"):
        gallery([])


def test_saved_figures_have_the_same_bytes_and_no_date(tmp_path, image):
    for name in ("a", "b"):
        save_figure(gallery([image], [np.array([[1.0, 2.0, 30.0, 20.0]])]), tmp_path / name / "f.png")
    first = (tmp_path / "a" / "f.png").read_bytes()
    assert (tmp_path / "b" / "f.png").read_bytes() == first
    with Image.open(tmp_path / "a" / "f.png") as saved:
        assert set(saved.info) <= {"dpi"}
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["f.png"]


def test_saving_does_not_depend_on_the_settings_of_the_process(tmp_path, image):
    plain = save_figure(gallery([image], titles=["t"]), tmp_path / "plain.png").read_bytes()
    with plt.rc_context({"font.size": 30, "figure.facecolor": "red", "axes.titlelocation": "center"}):
        assert save_figure(gallery([image], titles=["t"]), tmp_path / "loud.png").read_bytes() == plain
    with plt.rc_context():
        use_style()
        assert save_figure(gallery([image], titles=["t"]), tmp_path / "set.png").read_bytes() == plain


def test_saving_refuses_other_formats_and_huge_figures(tmp_path):
    fig, _ = subplots()
    with pytest.raises(FoundlingError, match=r"name 'f\.pdf' as 'f\.png'"):
        save_figure(fig, tmp_path / "f.pdf")
    with pytest.raises(FoundlingError, match="dpi is 600: choose at most 150"):
        save_figure(fig, tmp_path / "f.png", dpi=600)
