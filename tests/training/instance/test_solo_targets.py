"""Which cells stand for which object: by hand, against loops over cells, mirrored, and what lies at the edge."""

import math

import numpy as np
import torch
from masked import rectangles
from torch import Tensor

from foundling.training.instance.targets import assign, boxes_of, cell_maps, centres_of, quartered

SCALES = [(1.0, 20.0), (10.0, 40.0), (30.0, 2048.0)]
GRIDS = [12, 8, 5]


def naive(masks: Tensor, size: tuple[int, int], centre: float) -> set[tuple[int, int, int, int]]:
    """(grid, row, column, object): a cell is asked whether the shrunken box reaches into it, and whether it is next
    to the one that the centre is in."""
    found = set()
    for number, mask in enumerate(masks.numpy()):
        y, x = np.nonzero(mask)
        cx, cy = x.mean() + 0.5, y.mean() + 0.5
        w, h = x.max() + 1 - x.min(), y.max() + 1 - y.min()
        for level, (grid, (low, high)) in enumerate(zip(GRIDS, SCALES, strict=True)):
            if not low <= math.sqrt(w * h) <= high:
                continue
            tall, wide = size[0] / grid, size[1] / grid
            own = (int(cy // tall), int(cx // wide))
            for row, column in np.ndindex(grid, grid):
                top, left = row * tall, column * wide
                down = cy + centre * h / 2 >= top and cy - centre * h / 2 < top + tall
                across = cx + centre * w / 2 >= left and cx - centre * w / 2 < left + wide
                if down and across and abs(row - own[0]) <= 1 and abs(column - own[1]) <= 1:
                    found.add((level, row, column, number))
    return found


def as_set(masks: Tensor, size: tuple[int, int], centre: float) -> set[tuple[int, int, int, int]]:
    rows = list(zip(*(part.tolist() for part in assign(masks, size, GRIDS, SCALES, centre)), strict=True))
    assert len(set(rows)) == len(rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)  # grid by grid
    return set(rows)


def random_masks(rng: np.random.Generator, count: int, height: int, width: int) -> Tensor:
    """Ellipses of many sizes, some cut by the border."""
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(count):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(2, height / 2, 2)
        masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
    return torch.from_numpy(np.stack(masks))


def test_cells_are_those_of_the_definition(rng: np.random.Generator) -> None:
    masks = random_masks(rng, 40, 60, 90)
    for centre in (0.2, 0.9):
        assert as_set(masks, (64, 96), centre) == naive(masks, (64, 96), centre)


def test_one_square_by_hand() -> None:
    """16 x 16 pixels around (36, 20) of 64: on the grid of 8 the point (36, 20) is in row 2, column 4; a fifth of the
    box, 3.2 pixels, stays within the cell's 32 to 40 and 16 to 24."""
    masks = rectangles([(28, 12, 44, 28)], (64, 64))
    assert boxes_of(masks).tolist() == [[28, 12, 44, 28]] and centres_of(masks).tolist() == [[36, 20]]
    one = assign(masks, (64, 64), [8], [(1.0, 16.0)])
    assert [part.tolist() for part in one] == [[0], [2], [4], [0]]
    whole = assign(masks, (64, 64), [8], [(16.0, 16.0)], 1.0)  # both ends of the scale included
    assert sorted(zip(whole.row.tolist(), whole.column.tolist(), strict=True)) == [
        (row, column) for row in (1, 2, 3) for column in (3, 4, 5)
    ]
    assert len(assign(masks, (64, 64), [8], [(1.0, 15.9)]).row) == 0


def test_mirrored_masks_have_mirrored_cells(rng: np.random.Generator) -> None:
    masks = random_masks(rng, 20, 64, 96)
    mirrored = {
        (level, row, GRIDS[level] - 1 - column, i) for level, row, column, i in as_set(masks.flip(-1), (64, 96), 0.2)
    }
    assert mirrored == as_set(masks, (64, 96), 0.2)


def test_an_object_may_be_on_two_grids_and_a_cell_stand_for_two_objects() -> None:
    masks = rectangles([(20, 20, 44, 44), (24, 24, 40, 40)], (64, 64))  # sides 24 and 16, the same centre
    positives = assign(masks, (64, 64), GRIDS, SCALES)
    assert {(level, i) for level, i in zip(positives.level.tolist(), positives.object.tolist(), strict=True)} == {
        (0, 1), (1, 0), (1, 1)
    }  # fmt: skip
    maps = cell_maps([positives], GRIDS)
    shared = {
        (row, column)
        for level, row, column in zip(*(part.tolist() for part in positives[:3]), strict=True)
        if level == 1
    }
    assert set(map(tuple, torch.nonzero(maps[1][0]).tolist())) == shared
    assert int((positives.level == 1).sum()) == 2 * len(shared)


def test_no_objects_and_objects_at_the_edge() -> None:
    nothing = torch.zeros(0, 64, 64, dtype=torch.bool)
    assert all(len(part) == 0 for part in assign(nothing, (64, 64), GRIDS, SCALES))
    assert not any(cells.any() for cells in cell_maps([assign(nothing, (64, 64), GRIDS, SCALES)], GRIDS))
    corner = assign(rectangles([(60, 60, 64, 64)], (64, 64)), (64, 64), [16], [(1.0, 99.0)], 1.0)
    assert sorted(zip(corner.row.tolist(), corner.column.tolist(), strict=True)) == [(15, 15)]


def test_a_quarter_of_a_mask_is_inside_where_half_of_its_pixels_are() -> None:
    mask = torch.zeros(1, 6, 10, dtype=torch.bool)
    mask[0, :2, :4] = True  # half of the first cell
    mask[0, :2, 4:7] = True  # 6 of the 16 pixels of the second
    mask[0, 4:, 8:] = True  # 4 of the last one's, whose other pixels are beyond the border
    small = quartered(mask, (8, 12))
    assert small.shape == (1, 2, 3) and torch.nonzero(small[0]).tolist() == [[0, 0]]
