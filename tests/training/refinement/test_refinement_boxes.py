"""Boxes of h: decoded, turned into pixels and back, and which is surest."""

import math

import pytest
import torch

from foundling.training.refinement.boxes import decode, from_corners, object_scores, surest, to_corners


def test_decoding_by_hand() -> None:
    boxes, logits = decode(torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0, -1.0, math.log(3), 0.0, 0.0, 0.0, 5.0, 6.0]]))
    torch.testing.assert_close(boxes, torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.75, 0.5, 0.5, 0.5]]]))
    assert logits.tolist() == [[[2.0, -1.0], [5.0, 6.0]]]


def test_decoding_agrees_with_loops() -> None:
    numbers = torch.randn(4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    boxes, logits = decode(numbers)
    for image in range(4):
        for slot in range(5):
            six = numbers[image, 6 * slot : 6 * slot + 6].tolist()
            x, y, w, h = (1 / (1 + math.exp(-value)) for value in six[:4])
            assert boxes[image, slot].tolist() == pytest.approx([x, y, w, h], abs=1e-6)
            assert logits[image, slot].tolist() == six[4:]
            corners = [100 * max(0, x - w / 2), 50 * max(0, y - h / 2), 100 * min(1, x + w / 2), 50 * min(1, y + h / 2)]
            assert to_corners(boxes, 50.0, 100.0)[image, slot].tolist() == pytest.approx(corners, abs=1e-6)
            likely = math.exp(six[4]) / (math.exp(six[4]) + math.exp(six[5]))
            assert object_scores(logits)[image, slot].item() == pytest.approx(likely, abs=1e-6)


def test_there_and_back() -> None:
    corners = torch.tensor([[3.0, 5.0, 20.0, 40.0], [0.0, 0.0, 64.0, 48.0]])
    told = from_corners(corners, 48.0, 64.0)
    assert told[1].tolist() == [0.5, 0.5, 1.0, 1.0]
    torch.testing.assert_close(to_corners(told, 48.0, 64.0), corners)


def test_the_surest_box_is_that_of_the_largest_margin_and_the_first_of_equals() -> None:
    boxes = torch.arange(24.0).view(2, 3, 4)
    logits = torch.tensor([[[0.0, 5.0], [9.0, 8.0], [3.0, 1.0]], [[1.0, 0.0], [2.0, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(surest(boxes, logits), torch.stack([boxes[0, 2], boxes[1, 0]]))
