"""SOLOv2's and BoxInst's losses: written out in loops, by hand, what they do not see, and colours against OpenCV's."""

import math

import cv2
import numpy as np
import pytest
import torch
from masked import rectangles
from torch import Tensor

from foundling.training.instance.losses import (
    OFFSETS,
    alike,
    category_loss,
    dice_loss,
    mask_losses,
    pairwise_loss,
    projection_loss,
    rgb_to_lab,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def random_logits(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(0, 2, shape))


# Categories


def test_the_loss_of_cells_is_the_focal_loss_by_its_definition(rng: np.random.Generator) -> None:
    logits = [random_logits(rng, 2, 5, 5), random_logits(rng, 2, 3, 3)]
    cells = [torch.from_numpy(rng.random(part.shape) < 0.2) for part in logits]
    total, positives = 0.0, 0
    for said, true in zip(logits, cells, strict=True):
        for x, y in zip(said.flatten().tolist(), true.flatten().tolist(), strict=True):
            p, a = (sigmoid(x), 0.25) if y else (1 - sigmoid(x), 0.75)
            total -= a * (1 - p) ** 2 * math.log(p)
            positives += y
    assert category_loss(logits, cells).item() == pytest.approx(total / (positives + 1), rel=1e-9)


def test_without_an_object_only_what_is_said_costs() -> None:
    sure = [torch.full((1, 4, 4), -20.0)]
    nothing = [torch.zeros(1, 4, 4, dtype=torch.bool)]
    assert category_loss(sure, nothing).item() == pytest.approx(0.0, abs=1e-6)
    assert category_loss([-sure[0]], nothing).item() > 100


# Masks


def naive_dice(a: np.ndarray, b: np.ndarray) -> float:
    above = below = 0.0
    for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
        above, below = above + 2 * x * y, below + x * x + y * y
    return 1 - above / (below + 1e-5)


def naive_projection(a: np.ndarray, b: np.ndarray, mean: bool) -> float:
    lines = [lambda m: [m[i] for i in range(m.shape[0])], lambda m: [m[:, j] for j in range(m.shape[1])]]
    pick = (lambda line: sum(line) / len(line)) if mean else max
    return sum(naive_dice(*(np.array([pick(line) for line in of(m)]) for m in (a, b))) for of in lines)


def test_dice_and_projections_by_their_definitions(rng: np.random.Generator) -> None:
    masks, targets = torch.from_numpy(rng.random((4, 6, 9))), torch.from_numpy((rng.random((4, 6, 9)) < 0.4) * 1.0)
    whole = dice_loss(masks.flatten(1), targets.flatten(1))
    for i in range(4):
        a, b = masks[i].numpy(), targets[i].numpy()
        assert whole[i].item() == pytest.approx(naive_dice(a, b), rel=1e-9)
        for mean in (False, True):
            found = projection_loss(masks, targets, mean)[i].item()
            assert found == pytest.approx(naive_projection(a, b, mean), rel=1e-9)


def test_projections_see_the_box_alone_and_means_the_profile() -> None:
    """A diagonal fills its box as a square does; its means along rows do not."""
    diagonal, square = torch.eye(6)[None], torch.ones(1, 6, 6)
    assert projection_loss(diagonal, square).item() == pytest.approx(0.0, abs=1e-5)
    assert projection_loss(diagonal, square, mean=True).item() > 1
    assert dice_loss(diagonal.flatten(1), square.flatten(1)).item() > 0.7


def naive_pairwise(logits: np.ndarray, targets: np.ndarray, near: np.ndarray) -> float:
    total, pairs = 0.0, 0
    for n, y, x in np.ndindex(logits.shape):
        in_box = targets[n, y].any() and targets[n, :, x].any()
        for k, (dy, dx) in enumerate(OFFSETS):
            if not in_box or not near[n, k, y, x]:
                continue
            p = sigmoid(logits[n, y, x])
            inside = 0 <= y + dy < logits.shape[1] and 0 <= x + dx < logits.shape[2]
            assert inside  # alike() never says otherwise
            q = sigmoid(logits[n, y + dy, x + dx])
            total, pairs = total - math.log(p * q + (1 - p) * (1 - q)), pairs + 1
    return total / max(pairs, 1)


def near_inside(rng: np.random.Generator, count: int, height: int, width: int) -> Tensor:
    """Random likeness, never with what is beyond the border."""
    near = rng.random((count, 8, height, width)) < 0.5
    for k, (dy, dx) in enumerate(OFFSETS):
        for y, x in np.ndindex(height, width):
            near[:, k, y, x] &= 0 <= y + dy < height and 0 <= x + dx < width
    return torch.from_numpy(near)


def test_the_pairwise_loss_by_its_definition(rng: np.random.Generator) -> None:
    logits, targets = random_logits(rng, 3, 7, 8), rectangles([(1, 1, 6, 5), (0, 0, 8, 7), (3, 2, 4, 3)], (7, 8))
    near = near_inside(rng, 3, 7, 8)
    expected = naive_pairwise(logits.numpy(), targets.numpy(), near.numpy())
    assert pairwise_loss(logits, targets, near).item() == pytest.approx(expected, rel=1e-9)


def test_pairs_that_agree_cost_nothing_and_no_pair_neither() -> None:
    targets, near = rectangles([(0, 0, 6, 6)], (6, 6)), torch.ones(1, 8, 6, 6, dtype=torch.bool)
    assert pairwise_loss(torch.full((1, 6, 6), -40.0), targets, near & False).item() == 0
    inner = torch.zeros(1, 8, 6, 6, dtype=torch.bool)
    inner[:, :, 2:4, 2:4] = True
    assert pairwise_loss(torch.full((1, 6, 6), -40.0), targets, inner).item() == pytest.approx(0.0, abs=1e-6)
    assert pairwise_loss(torch.zeros(1, 6, 6), targets, inner).item() == pytest.approx(math.log(2))


def test_masks_of_grids_are_averaged_over_grids_and_dice_over_all(rng: np.random.Generator) -> None:
    logits = [random_logits(rng, 3, 8, 8), random_logits(rng, 0, 8, 8), random_logits(rng, 1, 8, 8)]
    targets = [torch.from_numpy(rng.random(part.shape) < 0.3) for part in logits]
    near = [near_inside(rng, len(part), 8, 8) for part in logits]
    found = mask_losses(logits, targets, near)
    masks, true = [part.sigmoid().numpy() for part in logits], [part.numpy() * 1.0 for part in targets]
    dice = [naive_dice(masks[i][row], true[i][row]) for i in (0, 2) for row in range(len(masks[i]))]
    assert found.dice.item() == pytest.approx(np.mean(dice), rel=1e-6)
    for name, mean in (("projection", False), ("average", True)):
        pairs = [[naive_projection(m, t, mean) for m, t in zip(masks[i], true[i], strict=True)] for i in (0, 2)]
        grids = [np.mean(grid) for grid in pairs]
        assert getattr(found, name).item() == pytest.approx(np.mean(grids), rel=1e-6)
    agree = [naive_pairwise(logits[i].numpy(), targets[i].numpy(), near[i].numpy()) for i in (0, 2)]
    assert found.pairwise.item() == pytest.approx(np.mean(agree), rel=1e-6)
    assert mask_losses(logits, targets, None).pairwise.item() == 0


def test_no_mask_at_all_has_a_loss_of_zero_and_the_flip_of_all_changes_none(rng: np.random.Generator) -> None:
    nothing = [torch.zeros(0, 8, 8)]
    found = mask_losses(nothing, [torch.zeros(0, 8, 8, dtype=torch.bool)], None)
    assert [part.item() for part in found] == [0, 0, 0, 0]
    logits, targets = random_logits(rng, 3, 8, 8), torch.from_numpy(rng.random((3, 8, 8)) < 0.3)
    images, valid = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(3, 8, 8) > 0
    here = mask_losses([logits], [targets], [alike(images, valid, 0.1)])
    there = mask_losses([logits.flip(-1)], [targets.flip(-1)], [alike(images.flip(-1), valid, 0.1)])
    torch.testing.assert_close(torch.stack([*here]), torch.stack([*there]))


def test_sure_and_wrong_masks_have_finite_gradients() -> None:
    logits = torch.full((1, 8, 8), 200.0, requires_grad=True)
    near = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    near[:, :, 2:6, 2:6] = True
    parts = mask_losses([logits], [rectangles([(0, 0, 8, 8)], (8, 8)) & False], [near])
    torch.stack([*parts]).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


# Colours


def test_lab_of_known_colours_and_about_that_of_opencv() -> None:
    """OpenCV looks its values up in a table, which is off by up to a third."""
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]).view(5, 3, 1, 1)
    known = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(rgb_to_lab(colours)[..., 0, 0].numpy(), known, atol=0.02)
    images = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    for image, found in zip(images, rgb_to_lab(images), strict=True):
        expected = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
        np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=0.5)


def test_what_is_alike_by_its_definition(rng: np.random.Generator) -> None:
    images = torch.from_numpy(rng.choice([0.2, 0.22, 0.8], (1, 3, 7, 6)).astype(np.float32))
    valid = torch.ones(1, 7, 6, dtype=torch.bool)
    valid[0, 5:] = False
    lab = cv2.cvtColor(images[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB).astype(np.float64)
    found = alike(images, valid, 0.3)[0]
    seen = 0
    for k, (dy, dx) in enumerate(OFFSETS):
        for y, x in np.ndindex(7, 6):
            there = (y + dy, x + dx)
            expected = False
            if 0 <= there[0] < 7 and 0 <= there[1] < 6 and valid[0, y, x] and valid[0, there[0], there[1]]:
                expected = math.exp(-np.linalg.norm(lab[y, x] - lab[there]) / 2) >= 0.3
            assert bool(found[k, y, x]) == expected
            seen += expected
    assert 0 < seen < 8 * 42
