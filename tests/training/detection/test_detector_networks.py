"""The parts of a detector: against torchvision's own, against loops, what is kept as it is, sizes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from boxed import SIDE, small
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import ResNet, resnet18
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from foundling.backbones import load_backbone
from foundling.backbones.registry import BACKBONES
from foundling.backbones.weights import fetch_weights
from foundling.errors import WeightsError
from foundling.training.checkpoints import export
from foundling.training.detection.bodies import Body, empty_body, freeze_resnet, freeze_vit, load_body
from foundling.training.detection.heads import Resizing, box_losses
from foundling.training.detection.networks import Aligned, Res5Head, make_detector
from foundling.training.detection.task import DetectorTask
from foundling.training.networks import fit_to_device

FPN: dict[str, Any] = {"network": "r50_fpn", "anchors": [[4], [8], [16], [32], [64]]}


def example() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images and their boxes."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, SIDE, SIDE, generator=generator) for _ in range(2)]
    boxes = [torch.tensor([[2.0, 3.0, 20.0, 24.0]]), torch.tensor([[8.0, 1.0, 30.0, 15.0], [0.0, 16.0, 14.0, 32.0]])]
    return images, [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in boxes]


def test_r50_fpn_is_torchvisions_own_detector() -> None:
    """Built by torchvision's constructors and given the same parameters: the same losses, the same boxes."""
    torch.manual_seed(0)
    settings = small(**FPN, box_beta=1 / 9, norm="frozen", freeze_at=2, score_threshold=0.0)
    mine = make_detector(settings, load_body(settings))
    theirs = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 3, 2),
        box_head=TwoMLPHead(256 * 9, 32),
        box_predictor=FastRCNNPredictor(32, 2),
        rpn_anchor_generator=AnchorGenerator(tuple(map(tuple, settings.anchors)), ((0.5, 1.0, 2.0),) * 5),
        min_size=SIDE, rpn_batch_size_per_image=16, rpn_post_nms_top_n_train=16, rpn_post_nms_top_n_test=16,
        rpn_pre_nms_top_n_train=64, rpn_pre_nms_top_n_test=32, box_batch_size_per_image=16,
        box_score_thresh=0.0, box_nms_thresh=0.4,
    )  # fmt: skip
    assert {n for n, p in mine.named_parameters() if p.requires_grad} == {
        n for n, p in theirs.named_parameters() if p.requires_grad
    }
    theirs.load_state_dict(mine.state_dict())
    found = []
    for network in (mine, theirs):
        torch.manual_seed(1)
        losses = network.train()(*example())
        with torch.inference_mode():
            found.append((losses, network.eval()(example()[0])))
    assert found[0][0].keys() == found[1][0].keys()
    for name, loss in found[0][0].items():
        assert loss.item() == pytest.approx(found[1][0][name].item(), rel=1e-5), name
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert len(one["boxes"]) > 2
        torch.testing.assert_close(one, other)


def test_the_losses_of_boxes_written_out() -> None:
    rng = np.random.default_rng(0)
    scores, deltas, wanted = rng.normal(size=(6, 3)), rng.normal(size=(6, 12)), rng.normal(size=(6, 4))
    labels = np.array([0, 2, 1, 0, 2, 0])
    for beta in (0.0, 1 / 9):
        classes = boxes = 0.0
        for i, label in enumerate(labels.tolist()):
            classes -= scores[i, label] - math.log(np.exp(scores[i]).sum())
            for c in range(4 if label else 0):
                distance = abs(deltas[i, 4 * label + c] - wanted[i, c])
                boxes += 0.5 * distance**2 / beta if distance < beta else distance - 0.5 * beta
        found = box_losses(*map(torch.from_numpy, (scores, deltas, labels, wanted)), beta)
        assert found["loss_classifier"].item() == pytest.approx(classes / 6)
        assert found["loss_box_reg"].item() == pytest.approx(boxes / 6)


def test_boxes_are_cut_out_with_half_a_cells_shift() -> None:
    """Of a map that rises by 1 a cell, RoIAlign gives the bins' centres, whose first cell lies at half a cell."""
    ramp = torch.arange(8.0).expand(8, 8)
    maps = {"0": torch.stack([ramp, ramp.T])[None]}
    box = torch.tensor([[32.0, 16.0, 96.0, 80.0]])
    cut = Aligned(2, 16)(maps, [box], None)
    columns = [(32 + 16) / 16 - 0.5, (32 + 48) / 16 - 0.5]
    rows = [(16 + 16) / 16 - 0.5, (16 + 48) / 16 - 0.5]
    torch.testing.assert_close(cut[0, 0], torch.tensor([columns, columns]))
    torch.testing.assert_close(cut[0, 1], torch.tensor([rows, rows]).T.contiguous())


def test_the_extra_norm_comes_before_the_mean() -> None:
    torch.manual_seed(0)
    stage, norm = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
    boxes = torch.randn(5, 4, 8, 8)
    out = stage(boxes)
    expected = (out - out.mean((0, 2, 3), keepdim=True)) / (
        out.var((0, 2, 3), correction=0, keepdim=True) + 1e-5
    ) ** 0.5
    torch.testing.assert_close(Res5Head(stage, norm)(boxes), expected.mean((2, 3)))
    settings = small(network="r50_c4", weights="random", pool=2)
    detector = make_detector(settings, load_body(settings))
    head: Any = detector.roi_heads.box_head
    assert head(torch.randn(3, 1024, 2, 2)).shape == (3, 2048) and isinstance(head.norm, nn.BatchNorm2d)
    assert not any(isinstance(part, FrozenBatchNorm2d) for part in head.modules())  # freeze_at ends before it
    assert not any(p.requires_grad for p in detector.backbone.parameters())  # 5: all of the backbone


@pytest.mark.parametrize("freeze_at", range(6))
def test_what_is_frozen_of_a_resnet_neither_learns_nor_moves(freeze_at: int) -> None:
    network = resnet18()
    freeze_resnet(network, freeze_at, "batch", stages=4)
    kept = {name for name, part in network.named_children() if not any(p.requires_grad for p in part.parameters())}
    expected = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"][: freeze_at + 1 if freeze_at else 0]
    assert kept - {"relu", "maxpool", "avgpool"} == set(expected)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.train()(torch.randn(2, 3, SIDE, SIDE))
    moved = {name.split(".")[0] for name, value in network.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {"bn1", "layer1", "layer2", "layer3", "layer4"} - set(expected)


def test_frozen_norms_are_frozen_everywhere_but_all_else_learns() -> None:
    network = resnet18()
    freeze_resnet(network, 0, "frozen", stages=4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert all(p.requires_grad for p in network.parameters())


def test_what_is_frozen_of_a_vit() -> None:
    for freeze_at, blocks, embedding in ((0, 0, False), (1, 0, True), (2, 1, True), (4, 3, True)):
        vit = empty_body("vit_tiny_patch16_224", {"depth": 4, "img_size": SIDE}, (0.5,) * 3, (0.5,) * 3).network
        freeze_vit(vit, freeze_at)
        assert [not any(p.requires_grad for p in b.parameters()) for b in vit.blocks] == [i < blocks for i in range(4)]
        assert vit.pos_embed.requires_grad != embedding and vit.patch_embed.proj.weight.requires_grad != embedding
        assert vit.norm.weight.requires_grad
    freeze_vit(vit, 5)
    assert not any(p.requires_grad for p in vit.parameters())


def test_sizes_of_images_and_boxes() -> None:
    resizing = Resizing([20, 30], 16, 40, [0.0] * 3, [1.0] * 3, 8)
    resizing.eval()
    image, target = resizing.resize(torch.rand(3, 64, 128), {"boxes": torch.tensor([[0.0, 0.0, 128.0, 64.0]])})
    assert image.shape == (3, 16, 32) and target["boxes"].tolist() == [[0, 0, 32, 16]]
    image, _ = resizing.resize(torch.rand(3, 10, 100))  # 16 would make the other side 160
    assert image.shape == (3, 4, 40)
    resizing.train()
    sides = {resizing.resize(torch.rand(3, 25, 25))[0].shape[-1] for _ in range(40)}
    assert sides == {20, 30}
    shapes = {tuple(resizing([torch.rand(3, 25, 25)] * 6)[0].image_sizes) for _ in range(8)}
    assert any(len(set(sizes)) == 2 for sizes in shapes)  # each image its own
    resizing.together = True
    shapes = {tuple(resizing([torch.rand(3, 25, 25)] * 6)[0].image_sizes) for _ in range(20)}
    assert shapes == {((20, 20),) * 6, ((30, 30),) * 6}
    stripes = (torch.arange(64) % 2).float().expand(3, 64, 64)  # half grey after smoothing, whatever the phase
    shrunk = resizing.eval().resize(stripes)[0]
    assert (shrunk[:, :, 1:-1] - 0.5).abs().max() < 0.07
    plain = F.interpolate(stripes[None], (16, 16), mode="bilinear")[0]
    assert resizing.resize(torch.rand(3, 16, 16))[0].shape == plain.shape


def test_the_pyramid_has_the_strides_that_were_asked_for() -> None:
    settings = small(strides=[4, 8, 16], anchors=[[8], [16], [32]])
    detector = make_detector(settings, load_body(settings))
    maps = detector.backbone(torch.rand(1, 3, 2 * SIDE, SIDE))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "0": (1, 16, 16, 8), "1": (1, 16, 8, 4), "2": (1, 16, 4, 2),
    }  # fmt: skip


def test_the_backbone_is_the_one_that_was_named() -> None:
    body = load_body(small(weights="scenes_odin"))
    theirs = load_backbone("scenes_odin", device="cpu").network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in body.network.state_dict().items())
    detector = make_detector(small(weights="scenes_odin"), body)
    fit_to_device(detector, torch.device("cpu"))
    inside: Any = detector.backbone.body
    assert inside is body.network
    with pytest.raises(WeightsError, match="weights = scenes_odin is not what network = r50_c4 stands on, a ResNet-50"):
        load_body(small(network="r50_c4", weights="scenes_odin"))
    with pytest.raises(WeightsError, match="weights = dino_resnet50 is not what network = vit stands on, a ViT"):
        load_body(small(weights="dino_resnet50"))
    with pytest.raises(WeightsError, match="there is no such file"):
        load_body(small(weights="nowhere.safetensors"))


def test_a_backbone_from_a_file_that_was_trained_here(tmp_path: Path) -> None:
    entry = BACKBONES["scenes_odin"]
    body = load_body(small(weights=str(fetch_weights(entry))))
    assert body.architecture == entry.architecture and body.mean == entry.mean
    theirs = load_backbone("scenes_odin", device="cpu").network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in body.network.state_dict().items())
    network = timm.create_model("resnet50", num_classes=0)
    about = {"architecture": "resnet50", "arguments": {}, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    export(tmp_path / "resnet.safetensors", network.state_dict(), about)
    body = load_body(small(network="r50_c4", weights=str(tmp_path / "resnet.safetensors")))
    assert body.mean == (0.1, 0.2, 0.3) and isinstance(body.network, ResNet)
    mine, theirs = body.network.state_dict(), network.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n].half().to(mine[n])) for n in mine)
    with pytest.raises(WeightsError, match=r"resnet\.safetensors is not what network = vit stands on, a ViT"):
        load_body(small(weights=str(tmp_path / "resnet.safetensors")))


def test_boxes_of_one_precision_whatever_that_of_the_networks() -> None:
    settings = small()
    detector = make_detector(settings, load_body(settings)).eval()
    images, targets = example()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found = detector(images)
        losses = detector.train()(images, targets)
    assert all(result["boxes"].dtype == result["scores"].dtype == torch.float32 for result in found)
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_norms_are_not_decayed_and_the_backbone_has_its_own_rate() -> None:
    settings = small(freeze_at=4, backbone_rate=0.25, weight_decay=0.125, optimiser="sgd", beta1=0.75)
    task = DetectorTask(settings, load_body(settings), ("object",))
    optimiser = task.make_optimiser(settings)
    assert isinstance(optimiser, torch.optim.SGD) and optimiser.defaults["momentum"] == 0.75
    names = {id(p): name for name, p in task.named_parameters()}
    seen: dict[str, tuple[float, float]] = {}
    for group in optimiser.param_groups:
        seen |= {names[id(p)]: (group["weight_decay"], group["rate"]) for p in group["params"]}
    assert seen.keys() == {n for n, p in task.named_parameters() if p.requires_grad}
    assert seen["detector.backbone.body.norm.weight"] == (0.0, 0.25)
    assert seen["detector.backbone.body.blocks.3.attn.qkv.weight"] == (0.125, 0.25)
    assert seen["detector.backbone.scales.0.1.weight"] == (0.0, 1.0)  # the LayerNorm of a map
    assert seen["detector.roi_heads.box_head.fc6.bias"] == (0.125, 1.0)


def test_a_body_says_how_to_make_it_again() -> None:
    body = load_body(small())
    again = empty_body(body.architecture, body.options, body.mean, body.std)
    again.network.load_state_dict(body.network.state_dict())
    assert isinstance(again, Body) and again[1:] == body[1:]
