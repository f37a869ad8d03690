"""What is seen without labels: agreement of h and the boxes found, boxes that cover all, how far f has moved."""

import copy
from collections.abc import Sequence

import pytest
import torch
from plain_squares import settings
from torch import Tensor, nn

from foundling.training.refinement.agreement import covers, look_at, mean, overlaps
from foundling.training.refinement.networks import BoxNetwork
from foundling.training.refinement.sources import Look, Source, make_source

SIDE = 10


class Fixed(nn.Module):
    """Six numbers a box, whatever is seen: the first box the left half, the second, and surest, the right half."""

    def forward(self, maps: Tensor) -> Tensor:
        halves = torch.tensor([[0.25, 0.5, 0.5, 0.999999], [0.75, 0.5, 0.5, 0.999999]]).logit()
        six = torch.cat([halves, torch.tensor([[0.0, 1.0], [2.0, 0.0]])], 1)
        return six.flatten().expand(len(maps), -1)


class Known(Source):
    """An f whose map and output are its images, plus ``shift``, and whose boxes are given."""

    def __init__(self, found: Sequence[list[list[float]]], shift: float = 0.0) -> None:
        super().__init__()
        self.found, self.shift = found, shift

    def look(self, views: Tensor, output: bool = True) -> Look:
        return Look(views, views[:, 0] + self.shift if output else None, None)

    def discover(self, look: Look) -> list[Tensor]:
        first = int(look.map[0, 0, 0, 0])
        return [torch.tensor(boxes).reshape(-1, 4) for boxes in self.found[first : first + len(look.map)]]


RIGHT, LEFT, ALL = [5.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 10.0], [0.0, 0.0, 10.0, 10.0]


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers).float().view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)


def test_the_surest_box_is_held_against_the_first_box_found() -> None:
    boxes, logits = BoxNetwork(Fixed(), 3)(numbered(0, 1, 2, 3))
    found = [torch.tensor([RIGHT, LEFT]), torch.zeros(0, 4), torch.tensor([LEFT]), torch.tensor([ALL])]
    assert overlaps(boxes, logits, found, SIDE).tolist() == pytest.approx([1.0, 0.0, 0.5], abs=1e-4)
    assert overlaps(boxes, logits, [torch.zeros(0, 4)] * 4, SIDE).shape == (0,)


def test_a_box_of_the_whole_square() -> None:
    assert covers(torch.tensor([ALL]), SIDE)
    assert not covers(torch.tensor([RIGHT, ALL]), SIDE) and not covers(torch.zeros(0, 4), SIDE)


def test_a_look_is_a_mean_over_images_in_whatever_batches() -> None:
    found = [[RIGHT], [], [LEFT], [ALL]]
    source, frozen, head = Known(found, shift=0.5), Known(found), BoxNetwork(Fixed(), 3)
    expected = {"agreement": (1 + 0 + 0.5) / 3, "covering": 1 / 4, "drift": 0.25}
    for batches in ([numbered(0, 1, 2, 3)], [numbered(0, 1, 2), numbered(3)]):
        assert look_at(source, frozen, head, batches) == pytest.approx(expected, abs=1e-4)
    nothing = look_at(Known([[], []]), frozen, head, [numbered(0, 1)])
    assert nothing == {"agreement": 0.0, "covering": 0.0, "drift": 0.0}
    assert mean(torch.zeros(0)) == 0.0


def test_drift_is_the_mean_square_of_the_cls_token() -> None:
    source = make_source(settings()).eval()
    frozen = copy.deepcopy(source)
    with torch.no_grad():
        source.trained().norm.bias.add_(0.1)  # type: ignore[union-attr,operator]
    head = BoxNetwork(Fixed(), 3)
    seen = look_at(source, frozen, head, [torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))])
    assert seen["drift"] == pytest.approx(0.01, rel=1e-4)
