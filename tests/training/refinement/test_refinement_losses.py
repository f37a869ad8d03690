"""Matching and the terms of Eq. 6, against loops over every permutation and every number."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from foundling.training.refinement.losses import BoxLosses, Weights, box_losses, match_boxes, pair_costs

WEIGHTS = Weights(2.0, 5.0, 2.0, 0.1)


def corners(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def naive_giou(a: list[float], b: list[float]) -> float:
    """Eq. 5's bracket, of centres and sizes."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = corners(a), corners(b)
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return shared / union - (hull - union) / hull


def naive_cost(box: list[float], logits: list[float], target: list[float], weights: Weights) -> float:
    likely = math.exp(logits[0]) / (math.exp(logits[0]) + math.exp(logits[1]))
    l1 = sum(abs(p - q) for p, q in zip(box, target, strict=True))
    return weights.l1 * l1 - weights.giou * naive_giou(box, target) - weights.classes * likely


def naive_losses(boxes: Tensor, logits: Tensor, targets: list[Tensor], weights: Weights) -> list[float]:
    """Eqs. 3 to 5 with the cheapest of all permutations, and DETR's weighted mean for the class."""
    classes = total = l1 = giou = 0.0
    count = 0
    for image in range(len(boxes)):
        own, said, wanted = boxes[image].tolist(), logits[image].tolist(), targets[image].tolist()
        best = min(
            itertools.permutations(range(len(own)), len(wanted)),
            key=lambda slots: sum(naive_cost(own[s], said[s], t, weights) for s, t in zip(slots, wanted, strict=True)),
        )
        for slot, (yes, no) in enumerate(said):
            weight = 1.0 if slot in best else weights.no_object
            said_right = (yes if slot in best else no) - math.log(math.exp(yes) + math.exp(no))
            classes, total = classes - weight * said_right, total + weight
        for slot, target in zip(best, wanted, strict=True):
            l1 += sum(abs(p - q) for p, q in zip(own[slot], target, strict=True))
            giou += 1 - naive_giou(own[slot], target)
            count += 1
    return [classes / total, l1 / count, giou / count]


def example(seed: int, slots: int = 4, counts: tuple[int, ...] = (1, 3, 2)) -> tuple[Tensor, Tensor, list[Tensor]]:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Tensor:
        centres, sizes = rng.uniform(0.2, 0.8, (*shape, 2)), rng.uniform(0.05, 0.4, (*shape, 2))
        return torch.from_numpy(np.concatenate([centres, sizes], -1))

    logits = torch.from_numpy(rng.normal(size=(len(counts), slots, 2)) * 2)
    return some(len(counts), slots), logits, [some(n) for n in counts]


def computed(boxes: Tensor, logits: Tensor, targets: list[Tensor], weights: Weights = WEIGHTS) -> BoxLosses:
    pairs = match_boxes(boxes, logits, targets, weights)
    return box_losses(boxes, logits, targets, pairs, weights.no_object, sum(len(slots) for slots, _ in pairs))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weights", [WEIGHTS, Weights(0.1, 5.0, 2.0, 0.1), Weights(1.0, 0.0, 3.0, 1.0)])
def test_losses_agree_with_loops_over_all_permutations(seed: int, weights: Weights) -> None:
    boxes, logits, targets = example(seed)
    found = [value.item() for value in computed(boxes, logits, targets, weights)]
    assert found == pytest.approx(naive_losses(boxes, logits, targets, weights), abs=1e-6)
    single = [value.item() for value in computed(boxes.float(), logits.float(), [t.float() for t in targets], weights)]
    assert single == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_costs_agree_with_loops(seed: int) -> None:
    boxes, logits, targets = example(seed)
    costs = pair_costs(boxes[1], logits[1], targets[1], WEIGHTS)
    for slot, target in np.ndindex(*costs.shape):
        expected = naive_cost(boxes[1, slot].tolist(), logits[1, slot].tolist(), targets[1][target].tolist(), WEIGHTS)
        assert costs[slot, target].item() == pytest.approx(expected, abs=1e-6)


def test_one_box_by_hand() -> None:
    """Half of a box is shared, and all is in the hull: IoU 1/3, GIoU the same; L1 is the shift."""
    boxes = torch.tensor([[[0.4, 0.5, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]]], dtype=torch.float64)
    logits = torch.zeros(1, 2, 2, dtype=torch.float64)
    targets = [torch.tensor([[0.5, 0.5, 0.2, 0.2]], dtype=torch.float64)]
    pairs = match_boxes(boxes, logits, targets, WEIGHTS)
    assert [(slots.tolist(), chosen.tolist()) for slots, chosen in pairs] == [([0], [0])]
    losses = box_losses(boxes, logits, targets, pairs, 0.1, 1)
    assert [value.item() for value in losses] == pytest.approx([math.log(2), 0.1, 2 / 3])
    assert [value.item() for value in losses.weighted(WEIGHTS)] == pytest.approx([2 * math.log(2), 0.5, 4 / 3])


def test_boxes_that_are_right_cost_nothing() -> None:
    _, _, targets = example(0, counts=(2,))
    boxes = torch.cat([targets[0].flip(0), torch.full((1, 4), 0.3)])[None]
    logits = torch.tensor([[[40.0, -40.0], [40.0, -40.0], [-40.0, 40.0]]], dtype=torch.float64)
    assert [value.item() for value in computed(boxes, logits, targets)] == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_order_of_slots_and_targets_does_not_matter() -> None:
    boxes, logits, targets = example(3)
    order = torch.tensor([2, 0, 3, 1])
    turned = computed(boxes[:, order], logits[:, order], [t.flip(0) for t in targets])
    assert [v.item() for v in turned] == pytest.approx([v.item() for v in computed(boxes, logits, targets)], abs=1e-9)


def test_of_more_targets_than_boxes_the_first_count() -> None:
    boxes, logits, targets = example(4, slots=2, counts=(5,))
    few = computed(boxes, logits, [targets[0][:2]])
    assert [v.item() for v in computed(boxes, logits, targets)] == [v.item() for v in few]


def test_boxes_without_a_counterpart_are_moved_by_their_class_alone() -> None:
    boxes, logits, targets = example(1, counts=(1,))
    boxes.requires_grad_(), logits.requires_grad_()
    torch.stack(list(computed(boxes, logits, targets))).sum().backward()
    (slots, _) = match_boxes(boxes, logits, targets, WEIGHTS)[0]
    assert boxes.grad is not None and logits.grad is not None
    assert (boxes.grad[0].abs().sum(1) > 0).nonzero().flatten().tolist() == slots.tolist()
    assert (logits.grad.abs().sum(2) > 0).all()


def test_without_an_image_all_is_nothing_but_has_a_gradient() -> None:
    boxes, logits = torch.rand(3, 2, 4, requires_grad=True), torch.rand(3, 2, 2, requires_grad=True)
    losses = box_losses(boxes[[]], logits[[]], [], [], 0.1, 1)
    assert [value.item() for value in losses] == [0, 0, 0]
    torch.stack(list(losses)).sum().backward()
    assert boxes.grad is not None and not boxes.grad.any()


def test_numbers_that_are_none_make_a_loss_that_is_none() -> None:
    """The loop stops there, and says so."""
    boxes, logits, targets = example(2)
    assert all(torch.isnan(value) for value in computed(boxes * torch.nan, logits * torch.nan, targets))
