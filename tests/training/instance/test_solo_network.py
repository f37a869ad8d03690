"""SOLOv2's network, its loss as a whole, and what is read from what it says."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from masked import SIDE, rectangles, small
from pycocotools import mask as coco_mask
from torch import Generator, Tensor

from foundling.training.detection.bodies import empty_body
from foundling.training.instance.decode import as_detections, enlarged, find_instances
from foundling.training.instance.images import MaskedBatch
from foundling.training.instance.losses import category_loss, mask_losses
from foundling.training.instance.networks import MaskBranch, SoloNetwork, evened, with_coordinates
from foundling.training.instance.solo import SoloTask, draw
from foundling.training.instance.targets import cell_maps
from foundling.training.instance.train import solo_body
from foundling.training.instance.views import SoloViews, make_views


def network_of(**changes: Any) -> SoloNetwork:
    torch.manual_seed(0)
    settings = small(**changes)
    return SoloNetwork(settings, solo_body(settings))


def views_of(settings: Any, count: int = 3) -> SoloViews:
    generator = Generator().manual_seed(0)
    pixels = [torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator) for _ in range(count)]
    masks = [rectangles([(2 * i, 0, 16 + 2 * i, 20), (4, 24, 12, 32)], (SIDE, SIDE)) for i in range(count)]
    return make_views(MaskedBatch(pixels, masks, []), settings, 32, generator)


def test_what_a_network_says_has_its_sizes() -> None:
    network = network_of()
    categories, kernels, features = network(torch.rand(2, 3, 64, 96), torch.ones(2, 1, 64, 96, dtype=torch.bool))
    assert [tuple(part.shape) for part in categories] == [(2, 6, 6), (2, 4, 4)]
    assert [tuple(part.shape) for part in kernels] == [(2, 16, 6, 6), (2, 16, 4, 4)]
    assert features.shape == (2, 16, 16, 24) and network.cell == 32
    assert torch.cat([part.flatten() for part in categories]).sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)


def test_on_one_map_of_coarser_cells_masks_are_of_four_pixels() -> None:
    network = network_of(strides=[8], grids=[4], scales=[[1.0, 99.0]])
    assert network(torch.rand(1, 3, 32, 64), torch.ones(1, 1, 32, 64, dtype=torch.bool))[2].shape == (1, 16, 8, 16)


def test_a_resnet_has_five_grids() -> None:
    grids = {"grids": [8, 6, 4, 3, 2], "scales": [[1.0, 16.0], [8.0, 32.0], [16.0, 64.0], [32.0, 99.0], [64.0, 999.0]]}
    network = network_of(network="r50_fpn", **grids).eval()
    with torch.no_grad():
        categories, _, features = network(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64, dtype=torch.bool))
    assert [part.shape[-1] for part in categories] == grids["grids"] and features.shape == (1, 16, 16, 16)
    body = network.backbone.body
    assert not any(p.requires_grad for p in body.parameters())
    assert all(p.requires_grad for p in network.backbone.fpn.parameters())


def test_a_resnets_maps_are_evened() -> None:
    sides = {"0": 32, "1": 16, "2": 8, "3": 4, "pool": 2}
    maps = evened({name: torch.rand(1, 2, side, side) for name, side in sides.items()})
    assert [m.shape[-1] for m in maps] == [16, 16, 8, 4, 4]


def test_coordinates_run_from_corner_to_corner() -> None:
    maps = with_coordinates(torch.zeros(1, 1, 3, 5))
    assert maps[0, 1, 0].tolist() == [-1, -0.5, 0, 0.5, 1] and maps[0, 2, :, 0].tolist() == [-1, 0, 1]


def test_only_the_coarsest_map_of_the_mask_branch_knows_where_it_is() -> None:
    branch = MaskBranch(8, 16, 16, 3)
    assert [len(steps) for steps in branch.branches] == [1, 1, 2]  # type: ignore[arg-type]
    assert [steps[0][0].in_channels for steps in branch.branches] == [8, 8, 10]  # type: ignore[index]
    assert branch([torch.rand(1, 8, 16, 16), torch.rand(1, 8, 8, 8), torch.rand(1, 8, 4, 4)]).shape == (1, 16, 16, 16)


# The loss


def test_masks_are_drawn_by_the_filters_of_their_cells() -> None:
    """Each positive cell alone, in a loop, against all at once."""
    settings = small(strength=0.0)
    views = views_of(settings)
    generator = Generator().manual_seed(1)
    kernels = [torch.randn(3, 16, grid, grid, generator=generator) for grid in settings.grids]
    features = torch.randn(3, 16, 8, 8, generator=generator)
    logits, targets, near = draw(kernels, features, views)
    assert near is not None and views.alike is not None
    place = [0, 0]
    for image, positives in enumerate(views.positives):
        for level, row, column, number in zip(*(part.tolist() for part in positives), strict=True):
            at = place[level]
            expected = (kernels[level][image, :, row, column, None, None] * features[image]).sum(0)
            torch.testing.assert_close(logits[level][at], expected)
            assert torch.equal(targets[level][at], views.masks[image][number])
            assert torch.equal(near[level][at], views.alike[image])
            place[level] += 1
    assert place == [len(part) for part in logits] and min(place) > 0


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    weights = {"category_weight": 2.0, "dice_weight": 3.0, "projection_weight": 0.5, "average_weight": 0.25}
    settings = small(pairwise_weight=4.0, pairwise_warmup=10, **weights)
    torch.manual_seed(0)
    task, views = SoloTask(settings, solo_body(settings)), views_of(settings)
    found = task(views)
    categories, kernels, features = task.network(views.images, views.inside)
    category = category_loss(categories, cell_maps(views.positives, settings.grids))
    parts = mask_losses(*draw(kernels, features, views))
    expected = 2 * category + 3 * parts.dice + 0.5 * parts.projection + 0.25 * parts.average + 0.4 * parts.pairwise
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    task.after_step(4)
    assert task(views)["loss"].item() == pytest.approx(expected.item() + 2 * parts.pairwise.item(), rel=1e-5)
    task.after_step(99)
    assert task.warmth().item() == 1


def test_images_whose_objects_are_on_no_grid_still_teach_what_is_no_object() -> None:
    settings = small(scales=[[500.0, 600.0], [600.0, 700.0]])
    torch.manual_seed(0)
    task = SoloTask(settings, solo_body(settings))
    found = task(views_of(settings))
    found["loss"].backward()
    assert found["dice"].item() == 0 and found["category"].item() > 0
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)


# What is read from it


def said_of(squares: list[tuple[int, int, int, int]], scores: list[float], grid: int = 8) -> Any:
    """As if the network had said that these squares (in cells of masks, of 16 x 16) are objects."""
    masks = rectangles(squares, (16, 16)).float()
    features = torch.cat([masks, torch.ones(1, 16, 16)])[None]  # a filter picks a square, and takes 1/2 off
    category, kernels = torch.full((1, grid, grid), -9.0), torch.zeros(1, len(features[0]), grid, grid)
    for i, score in enumerate(scores):
        category[0, 0, 2 * i] = math.log(score / (1 - score))
        kernels[0, i, 0, 2 * i], kernels[0, -1, 0, 2 * i] = 40.0, -20.0
    return [category], [kernels], features


def test_objects_are_found_by_hand() -> None:
    said = said_of([(1, 2, 5, 8), (8, 8, 14, 14)], [0.6, 0.9])
    found = find_instances(said, 0, small(), (64, 64), (64, 64))
    assert found.scores == pytest.approx([0.9, 0.6], abs=1e-5) and found.labels.tolist() == [0, 0]
    assert np.abs(found.boxes - [[32, 32, 56, 56], [4, 8, 20, 32]]).max() <= 1
    assert found.masks is not None
    assert [mask["size"] for mask in found.masks] == [[64, 64], [64, 64]]
    for mask, box in zip(found.masks, found.boxes, strict=True):
        y, x = np.nonzero(coco_mask.decode(mask))
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_masks_come_back_to_the_original_size_without_the_padding() -> None:
    said = said_of([(4, 4, 12, 8)], [0.8])
    found = find_instances(said, 0, small(), (32, 64), (64, 128))  # half of its height was padding
    assert found.masks is not None and found.masks[0]["size"] == [64, 128]
    assert np.abs(found.boxes[0] - [32, 32, 96, 64]).max() <= 2
    assert enlarged(torch.zeros(0, 4, 4), (16, 16), (9, 7)).shape == (0, 9, 7)


def test_thresholds_and_limits() -> None:
    same = said_of([(1, 2, 5, 8), (1, 2, 5, 8), (8, 8, 14, 14)], [0.6, 0.9, 0.3])
    kept = find_instances(same, 0, small(), (64, 64), (64, 64))
    assert kept.scores == pytest.approx([0.9, 0.3, 0.6 * math.exp(-2)], abs=1e-4)  # one square twice
    assert len(find_instances(same, 0, small(kept_threshold=0.2), (64, 64), (64, 64))) == 2
    assert len(find_instances(same, 0, small(score_threshold=0.7), (64, 64), (64, 64))) == 1
    assert find_instances(same, 0, small(detections=2), (64, 64), (64, 64)).scores == pytest.approx(
        [0.9, 0.3], abs=1e-4
    )
    assert find_instances(same, 0, small(candidates=1), (64, 64), (64, 64)).scores == pytest.approx([0.9], abs=1e-4)
    assert len(find_instances(same, 0, small(smallest=30), (64, 64), (64, 64))) == 1
    nothing = find_instances(same, 0, small(score_threshold=0.95), (64, 64), (64, 64))
    assert len(nothing) == 0 and nothing.masks == () and nothing.boxes.shape == (0, 4)


def test_a_mirrored_saying_is_a_mirrored_finding() -> None:
    said = said_of([(1, 2, 5, 8), (8, 8, 14, 14)], [0.6, 0.9])
    features: Tensor = said[2].flip(-1)
    here = find_instances(said, 0, small(), (64, 64), (64, 64))
    there = find_instances((said[0], said[1], features), 0, small(), (64, 64), (64, 64))
    assert there.boxes[:, [2, 0]].tolist() == (64 - here.boxes[:, [0, 2]]).tolist()
    assert there.scores == pytest.approx(here.scores)


def test_empty_masks_are_no_detections() -> None:
    masks = rectangles([(1, 1, 3, 4), (0, 0, 0, 0)], (5, 6)).numpy()
    found = as_detections(masks, np.array([0.5, 0.4]), np.array([3, 2]))
    assert found.boxes.tolist() == [[1, 1, 3, 4]] and found.scores.tolist() == [0.5] and found.labels.tolist() == [3]


def test_a_network_is_made_again_from_names_alone() -> None:
    settings = small()
    body = solo_body(settings)
    again = SoloNetwork(settings, empty_body(body.architecture, body.options, body.mean, body.std))
    assert set(again.state_dict()) == set(network_of().state_dict())
