"""Mask R-CNN's heads: their losses against torchvision's own, masks that follow their image, views and their labels."""

import pytest
import torch
from masked import SIDE, rectangles, small_mask_rcnn
from torch import Generator
from torchvision.models.detection.roi_heads import RoIHeads

from foundling.training.detection.bodies import load_body
from foundling.training.instance.images import MaskedBatch
from foundling.training.instance.mask_rcnn import MaskRcnnTask, make_mask_rcnn


def task_of(**changes: float) -> MaskRcnnTask:
    torch.manual_seed(0)
    settings = small_mask_rcnn(**changes)
    return MaskRcnnTask(settings, load_body(settings), ("object",)).train()


def batch() -> MaskedBatch:
    pixels = torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8, generator=Generator().manual_seed(0))
    masks = [rectangles([(2, 4, 20, 14), (16, 16, 32, 30)], (SIDE, SIDE)), rectangles([(8, 0, 30, 30)], (SIDE, SIDE))]
    return MaskedBatch([pixels, pixels], masks, [torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)])


def test_losses_of_the_heads_are_torchvisions_own() -> None:
    """Where the loss of boxes turns from squares to distances at its 1/9."""
    detector = task_of(box_beta=1 / 9).detector
    features = {"0": torch.rand(2, 16, 4, 4, generator=Generator().manual_seed(0))}
    proposals = [torch.tensor([[2.0, 3, 21, 15], [0, 0, 9, 9], [15, 15, 32, 31]]), torch.tensor([[8.0, 1, 29, 31]])]
    targets = [target for _, target in task_of().make_views(batch(), Generator().manual_seed(0))]
    shapes = [(SIDE, SIDE)] * 2
    losses = []
    for forward in (detector.roi_heads.forward, lambda *a: RoIHeads.forward(detector.roi_heads, *a)):
        torch.manual_seed(1)
        losses.append(forward(features, [boxes.clone() for boxes in proposals], shapes, targets)[1])
    assert losses[0].keys() == losses[1].keys() == {"loss_classifier", "loss_box_reg", "loss_mask"}
    for name, value in losses[0].items():
        assert value.item() == pytest.approx(losses[1][name].item(), rel=1e-6)


def test_masks_are_resized_with_their_image_and_its_boxes() -> None:
    detector = make_mask_rcnn(small_mask_rcnn(min_sizes=[2 * SIDE]), load_body(small_mask_rcnn())).train()
    masks = rectangles([(2, 4, 20, 14)], (SIDE, SIDE))
    target = {"boxes": torch.tensor([[2.0, 4, 20, 14]]), "masks": masks, "labels": torch.ones(1, dtype=torch.int64)}
    image, resized = detector.transform.resize(torch.rand(3, SIDE, SIDE), target)
    assert image.shape == (3, 2 * SIDE, 2 * SIDE) and resized["boxes"].tolist() == [[4, 8, 40, 28]]
    assert torch.equal(resized["masks"], rectangles([(4, 8, 40, 28)], (2 * SIDE, 2 * SIDE)))


def test_views_are_mirrored_with_their_masks_and_count_classes_from_one() -> None:
    given, seen = batch(), set()
    for seed in range(6):
        for i, (image, target) in enumerate(task_of().make_views(given, Generator().manual_seed(seed))):
            mirrored = not torch.equal(image, given.images[i] / 255)
            masks = given.masks[i].flip(-1) if mirrored else given.masks[i]
            assert torch.equal(target["masks"], masks) and target["labels"].unique().tolist() == [1]
            for mask, (x0, y0, x1, y1) in zip(masks, target["boxes"].int().tolist(), strict=True):
                assert mask[y0:y1, x0:x1].all() and mask.sum() == (x1 - x0) * (y1 - y0)
            seen.add(mirrored)
    assert seen == {True, False}
