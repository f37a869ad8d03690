"""Label propagation against explicit loops, features that leave no doubt, flips, sizes and what is decided."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.discovery.propagation import Rule, carry, decide, first_labels, frame_size, propagate
from foundling.errors import ParameterError


def naive(features, first, rule):
    """From the definition, cell by cell: features [frame, row, column, channel], first [label, row, column]."""
    rows, columns = first.shape[1:]
    context = [(features[0], first)]
    out = []
    for frame in features[1:]:
        found = np.zeros_like(first)
        for i in range(rows):
            for j in range(columns):
                places = []
                for seen, labels in context:
                    for y in range(rows):
                        for x in range(columns):
                            if abs(y - i) > rule.radius or abs(x - j) > rule.radius:
                                continue
                            a, b = frame[i, j], seen[y, x]
                            cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                            places.append((math.exp(cosine / rule.temperature), labels[:, y, x]))
                places.sort(key=lambda place: -place[0])
                best = places[: rule.top]
                total = sum(weight for weight, _ in best)
                for weight, labels in best:
                    found[:, i, j] += weight / total * labels
        out.append(found)
        recent = [*context[1:], (frame, found)]
        context = [context[0], *recent[len(recent) - rule.frames :]] if rule.frames else context[:1]
    return out


def one_hot(rng, labels, rows, columns):
    number = rng.integers(0, labels, (rows, columns))
    return np.moveaxis(np.eye(labels)[number], -1, 0)


def run(features, first, rule):
    flat = [torch.from_numpy(frame.reshape(-1, frame.shape[-1])).float() for frame in features]
    return [found.numpy() for found in propagate(iter(flat), torch.from_numpy(first).float(), rule)]


@pytest.mark.parametrize(
    ("grid", "rule"),
    [
        ((5, 6), Rule()),  # the window is wider than the picture
        ((6, 7), Rule(frames=2, radius=1, top=3)),
        ((4, 5), Rule(frames=1, radius=2, top=1, temperature=0.5)),
        ((4, 4), Rule(frames=0, radius=1, top=50)),  # more than there are in the window: all of them
        ((2, 37), Rule(frames=2, radius=3, top=5)),  # several tiles
    ],
)
def test_the_oracle(rng, grid, rule):
    features = rng.normal(size=(5, *grid, 4))
    first = one_hot(rng, 3, *grid)
    expected = naive(features, first, rule)
    found = run(features, first, rule)
    assert len(found) == 4
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
        assert mine.sum(0) == pytest.approx(np.ones(grid), abs=1e-5)


def test_places_as_similar_as_the_last_that_counts_count_as_well():
    """Nine equal places and top=5: their mean, whichever five a sort would have put first."""
    labels = torch.zeros(1, 2, 3, 3)
    labels[0, 1, 0] = 1
    labels[0, 0, 1:] = 1
    same = torch.ones(1, 3, 3, 1)
    found = carry(same[0], same, labels, Rule(radius=2, top=5))
    assert found[1].numpy() == pytest.approx(np.full((3, 3), 1 / 3))


def test_soft_labels_are_handed_on_as_they_are():
    """Each cell of the second frame is as near to both of the first: half and half, and so then is the third."""
    first = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    frames = [torch.eye(2), torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])]
    second, third = propagate(frames, first, Rule(top=2))
    assert second.numpy() == pytest.approx(np.full((2, 1, 2), 0.5))
    assert third.numpy() == pytest.approx(np.full((2, 1, 2), 0.5))


def test_the_first_frame_is_never_forgotten_and_others_are():
    """Frames after the first show other things; when the first one's picture returns, so do its labels."""
    first = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    here, other = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]), torch.tensor([[0, 0, 1.0], [0, 0, 1.0]])
    found = list(propagate([here, other, other, other, here.flip(0)], first, Rule(frames=1, top=1)))
    assert found[-1].numpy() == pytest.approx(first.flip(2).numpy(), abs=1e-6)


def test_features_that_leave_no_doubt_carry_the_mask_exactly(rng):
    """Every point has a feature of its own, which moves with it: the labels move with it as well."""
    rows, columns = 20, 24
    points = rng.normal(size=(rows, columns, 16))
    first = one_hot(rng, 3, rows, columns)
    shifts = [(0, 0), (1, -2), (3, 1), (-2, 4)]
    features = np.stack([np.roll(points, shift, (0, 1)) for shift in shifts])
    found = run(features, first, Rule(top=1, radius=25))
    for labels, shift in zip(found, shifts[1:], strict=True):
        assert labels == pytest.approx(np.roll(first, shift, (1, 2)), abs=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flip_of_all_frames_flips_the_labels(rng, axis):
    features, first = rng.normal(size=(4, 18, 21, 5)), one_hot(rng, 3, 18, 21)
    rule = Rule(radius=3)
    flipped = run(np.flip(features, axis).copy(), np.flip(first, axis).copy(), rule)
    for mine, theirs in zip(run(features, first, rule), flipped, strict=True):
        assert mine == pytest.approx(np.flip(theirs, axis), abs=1e-5)


def test_the_length_of_features_and_the_order_of_labels_do_not_matter(rng):
    features, first = rng.normal(size=(3, 5, 5, 4)), one_hot(rng, 3, 5, 5)
    rule = Rule(radius=2)
    scaled = run(features * rng.uniform(0.1, 9, (3, 5, 5, 1)), first[[2, 0, 1]], rule)
    for mine, theirs in zip(run(features, first, rule), scaled, strict=True):
        assert mine[[2, 0, 1]] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "cell", "short_side", "expected"),
    [
        ((480, 854), 8, 480, (480, 832)),  # DAVIS, as in DINO's code
        ((854, 480), 16, 480, (832, 480)),
        ((480, 910), 32, 480, (480, 896)),
        ((480, 480), 8, 480, (480, 448)),  # so in DINO's code
        ((240, 427), 8, 480, (480, 832)),
        ((480, 854), 14, 480, (476, 826)),  # 832 and 480 cut to whole cells
        ((224, 224), 8, None, (224, 224)),
        ((225, 231), 8, None, (224, 224)),
    ],
)
def test_the_size_at_which_frames_are_described(size, cell, short_side, expected):
    assert frame_size(size, cell, short_side) == expected


def test_too_small_for_a_cell():
    with pytest.raises(ParameterError, match=r"frames of 9×6 pixels become 9×6 with short_side=None.*one cell of 8"):
        frame_size((6, 9), 8, None)


def test_the_first_mask_on_the_grid():
    """Nearest pixels: of each block of 4 × 4, the one at its row and column 2."""
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2, 6] = 1
    mask[6, 10] = 2
    mask[2, 2] = 255  # void
    mask[0, 0] = 2
    labels = first_labels(mask, (2, 3), 2)
    assert labels.argmax(0).tolist() == [[0, 1, 0], [0, 0, 2]]
    assert labels.sum(0).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_what_is_decided_is_stretched_label_by_label():
    """A small object whose best cell has less than half wins there, because its label is stretched to 0..1."""
    labels = torch.tensor([[[0.6, 1.0, 1.0, 1.0]], [[0.4, 0.0, 0.0, 0.0]]])
    assert decide(labels, 1, (1, 4)).tolist() == [[1, 0, 0, 0]]
    assert decide(labels, 2, (2, 8))[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]  # stretched: 1, 3/4, 1/4, 0
    gone = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])  # both are the same everywhere
    assert decide(gone, 1, (1, 2)).tolist() == [[0, 0]]


def test_decisions_return_to_the_size_of_the_file(rng):
    labels = torch.from_numpy(rng.uniform(size=(3, 4, 5)))
    small = decide(labels.float(), 8, (32, 40))
    large = decide(labels.float(), 8, (45, 61))
    assert np.array_equal(large, np.array(Image.fromarray(small).resize((61, 45), Image.Resampling.NEAREST)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": -1}, "frames=-1: must be at least 0"),
        ({"radius": -1}, "radius=-1: must be at least 0"),
        ({"top": 0}, "top=0: must be at least 1"),
        ({"temperature": 0.0}, r"temperature=0\.0: must be above 0"),
    ],
)
def test_rules_that_make_no_sense(settings, message):
    with pytest.raises(ParameterError, match=message):
        Rule(**settings)


def test_frames_of_another_size():
    with pytest.raises(ParameterError, match="frame 1 has 5 cells, but the first mask lies on 2×3"):
        list(propagate(iter([torch.ones(6, 2), torch.ones(5, 2)]), torch.ones(1, 2, 3)))


def test_a_low_temperature_does_not_overflow(rng):
    features, first = rng.normal(size=(2, 3, 3, 4)), one_hot(rng, 2, 3, 3)
    cold = run(features, first, Rule(temperature=1e-3, top=3))
    nearest = run(features, first, Rule(top=1))
    assert cold[0] == pytest.approx(nearest[0], abs=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same(rng):
    features, first = rng.normal(size=(4, 30, 40, 16)), one_hot(rng, 3, 30, 40)
    frames = [torch.from_numpy(frame.reshape(1200, 16)).float().cuda() for frame in features]
    on_gpu = [labels.cpu().numpy() for labels in propagate(frames, torch.from_numpy(first).float())]
    for mine, theirs in zip(run(features, first, Rule()), on_gpu, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-3)
