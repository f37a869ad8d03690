"""The Detectron2 engine: what it is without Detectron2, and with it: the network, the optimiser, training, results."""

import copy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foundling.errors import ParameterError, WeightsError
from foundling.training.detection import detectron2_engine
from foundling.training.detection.bodies import load_body
from foundling.training.detection.detectron2_config import preset
from foundling.training.detection.detectron2_engine import Detectron2Network, make_config
from foundling.training.detection.engines import make_engine
from foundling.training.detection.networks import make_detector
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import DetectorTask, learning_rate

SMALL = preset("small")


def changed(**changes: Any) -> Detector:
    return Detector.model_validate(SMALL.model_dump() | changes)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing Detectron2 fails, as if it were not there."""
    monkeypatch.setitem(sys.modules, "detectron2", None)
    detectron2_engine.register.cache_clear()


def test_without_detectron2_the_remedy_is_named(absent: None) -> None:
    message = (
        r"engine = 'detectron2' needs Detectron2, .* environment\.yml, which takes it from conda-forge .* torchvision"
    )
    for use in (detectron2_engine.require_detectron2, detectron2_engine.register, lambda: make_config(SMALL)):
        with pytest.raises(ParameterError, match=message):
            use()
    with pytest.raises(ParameterError, match=message):
        make_engine(SMALL, load_body(SMALL))


def test_weights_that_are_no_resnet50(absent: None) -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential()
            self.roi_heads = nn.Sequential()

    with pytest.raises(
        WeightsError, match=r"not those of a ResNet-50 as .*: backbone\.res2\.0\.conv1\.weight and 0 more"
    ):
        detectron2_engine.fill_resnet(Empty(), {"layer1.0.conv1.weight": torch.zeros(1)})


# With Detectron2

needs_detectron2 = pytest.mark.detectron2


@pytest.fixture(scope="module")
def network() -> Detectron2Network:
    pytest.importorskip("detectron2")
    torch.manual_seed(3)
    return Detectron2Network(SMALL, load_body(SMALL))


@pytest.fixture
def images(rng: np.random.Generator) -> list[Tensor]:
    return [torch.from_numpy(rng.random((3, *size), dtype=np.float32)) for size in ((96, 128), (128, 96))]


@pytest.fixture
def targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[10.0, 20, 70, 80]])
    return [
        {"boxes": boxes, "labels": torch.tensor([1])},
        {"boxes": boxes[:, [1, 0, 3, 2]], "labels": torch.tensor([1])},
    ]


@needs_detectron2
def test_the_head_has_one_norm_more_and_the_first_stages_are_kept(network: Detectron2Network) -> None:
    state = network.model.state_dict()
    assert state["roi_heads.res5.norm.running_mean"].shape == (2048,)
    trained = {name for name, parameter in network.model.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if name.startswith(("backbone.stem", "backbone.res2"))]
    kept = [module for name, module in network.model.named_modules() if name.startswith("backbone.res2")]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in kept)
    for name in ("backbone.res3.0.conv1.norm.weight", "roi_heads.res5.2.conv3.weight", "roi_heads.res5.norm.weight"):
        assert name in trained
    detectron2_engine.register()  # once more does no harm


@needs_detectron2
def test_the_backbone_starts_from_the_weights(network: Detectron2Network) -> None:
    torch.manual_seed(3)
    body = load_body(SMALL).network.state_dict()
    state = network.model.state_dict()
    for theirs, ours in {
        "backbone.stem.conv1.weight": "conv1.weight",
        "backbone.res4.5.conv3.norm.running_var": "layer3.5.bn3.running_var",
        "roi_heads.res5.0.shortcut.weight": "layer4.0.downsample.0.weight",
    }.items():
        assert torch.equal(state[theirs], body[ours]), theirs


@needs_detectron2
def test_losses(network: Detectron2Network, images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    """Named as torchvision's; boxes are scaled with their images, and the caller's stay as they are."""
    before = copy.deepcopy(targets)
    losses: Any = network.train()(images, targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(before, targets, strict=True))
    network.zero_grad()


@needs_detectron2
@torch.no_grad()
def test_resizing_is_detectron2s(network: Detectron2Network, rng: np.random.Generator) -> None:
    """Sizes are the same whatever the image's; pixels to what rounding to whole levels makes of them."""
    from detectron2.data.transforms import ResizeShortestEdge

    network.eval()
    for _ in range(200):
        height, width = rng.integers(20, 700, 2).tolist()
        ours = network.transform.resize(torch.zeros(3, height, width))[0].shape[1:]
        theirs = ResizeShortestEdge.get_output_shape(height, width, SMALL.test_size, SMALL.max_size)
        assert tuple(ours) == theirs, (height, width)
    for size in ((60, 50), (300, 250)):  # larger, smaller
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        expected = ResizeShortestEdge(96, 128).get_transform(pixels).apply_image(pixels)
        found = network.transform.resize(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)[0]
        np.testing.assert_allclose(255 * found.permute(1, 2, 0).numpy(), expected, atol=1.01)


def both_engines(
    settings: Detector, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[Detectron2Network, nn.Module]:
    """Detectron2's network and torchvision's with the same parameters, and running statistics that fit the images."""
    torch.manual_seed(5)
    theirs = Detectron2Network(settings, load_body(settings))
    ours = make_detector(settings.model_copy(update={"engine": "torchvision"}), load_body(settings))
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        theirs.train()(images, targets)
        for name, tensor in theirs.model.state_dict().items():
            if name.endswith("bias"):
                tensor.add_(0.02 * torch.randn(tensor.shape))
    ours.load_state_dict(torchvisions(theirs.model.state_dict(), settings.classes, ours.state_dict()))
    return theirs, ours


@needs_detectron2
@pytest.mark.parametrize("classes", [1, 3])
@torch.no_grad()
def test_with_the_same_weights_it_finds_what_torchvisions_engine_finds(
    classes: int, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> None:
    """R50-C4 of either engine is the same function of images whose sides are multiples of 32.

    Others are padded by torchvision, not by Detectron2. torchvision also rounds anchors: they are square and even here.
    """
    pytest.importorskip("detectron2")
    settings = changed(classes=classes, ratios=[1.0], score_threshold=0.0, test_proposals=30)
    theirs, ours = (network.eval() for network in both_engines(settings, images, targets))
    for image in images:
        a, b = theirs([image])[0], ours([image])[0]
        assert len(a["boxes"]) == len(b["boxes"]) > 3 and a.keys() == b.keys()
        for name, scale in (("scores", 1.0), ("boxes", 100.0)):
            torch.testing.assert_close(a[name], b[name], rtol=0.0, atol=1e-4 * scale)
        assert torch.equal(a["labels"], b["labels"])


@needs_detectron2
@torch.no_grad()
def test_and_learns_what_torchvisions_engine_learns(images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    """The same losses where all anchors and proposals are taken, and none is left to chance.

    Where there are fewer anchors than asked for, Detectron2 divides by what was asked for, torchvision by what it took.
    """
    pytest.importorskip("detectron2")
    asked = 100_000
    settings = changed(ratios=[1.0], min_sizes=[96], rpn_samples=asked, roi_samples=400, rpn_proposals=40)
    theirs, ours = (network.train() for network in both_engines(settings, images, targets))
    a, b = theirs(images, targets), ours(images, targets)
    for name in ("loss_classifier", "loss_box_reg"):
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)
    shares = [float(a[name] / b[name]) for name in ("loss_objectness", "loss_rpn_box_reg")]
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)
    anchors = 2 * 3 * (128 // 16) ** 2
    assert 0 < shares[0] * 2 * asked <= anchors and shares[0] * 2 * asked == pytest.approx(round(shares[0] * 2 * asked))


def torchvisions(state: dict[str, Tensor], classes: int, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detectron2's parameters of a C4 detector under the names of this project's, written out by hand."""
    found = {}
    for name, tensor in state.items():
        if name.startswith("roi_heads.box_predictor.cls_score"):  # Detectron2 counts the background last
            tensor = tensor.roll(1, 0)
        if name.startswith("roi_heads.box_predictor.bbox_pred"):  # and gives it no boxes
            tensor = torch.cat([torch.zeros_like(tensor[:4]), tensor])
        for theirs, ours in {
            "proposal_generator.rpn_head.conv.": "rpn.head.conv.0.0.",
            "proposal_generator.rpn_head.objectness_logits.": "rpn.head.cls_logits.",
            "proposal_generator.rpn_head.anchor_deltas.": "rpn.head.bbox_pred.",
            "roi_heads.box_predictor.": "roi_heads.box_predictor.",
            "roi_heads.res5.norm.": "roi_heads.box_head.norm.",
            "roi_heads.res5.": "roi_heads.box_head.stage.",
            "backbone.stem.": "backbone.stem.",
            "backbone.res2.": "backbone.layer1.",
            "backbone.res3.": "backbone.layer2.",
            "backbone.res4.": "backbone.layer3.",
        }.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        if name.startswith(("backbone.", "roi_heads.box_head.stage")):
            name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
            for i in (1, 2, 3):
                name = name.replace(f"conv{i}.norm.", f"bn{i}.")
        found[name] = tensor
    counters = {name: tensor for name, tensor in like.items() if name.endswith("num_batches_tracked")}
    return {name: found.get(name, counters.get(name)) for name in like}  # type: ignore[misc]


@needs_detectron2
def test_the_optimiser_and_its_rates_are_detectron2s() -> None:
    """Over all steps of LOST's schedule: the rate of every parameter, its decay, the momentum."""
    pytest.importorskip("detectron2")
    from detectron2.solver import build_lr_scheduler, build_optimizer

    settings = preset("VOC07_OD").model_copy(update={"weights": "random"})
    task = DetectorTask(settings, load_body(settings), ("object",) * 20)
    ours, config = task.make_optimiser(settings), make_config(settings, distributed=False)
    theirs = build_optimizer(config, task.detector)
    told = [
        {id(p): (group["weight_decay"], group["momentum"], group["nesterov"]) for p in group["params"]}
        for group in (*ours.param_groups, None, *theirs.param_groups)
        if group
    ]
    split = len(ours.param_groups)
    merged = [{k: v for part in parts for k, v in part.items()} for parts in (told[:split], told[split:])]
    assert merged[0] == merged[1] and len(merged[0]) == sum(p.requires_grad for p in task.parameters())
    scheduler = build_lr_scheduler(config, theirs)
    for step in range(settings.steps):
        if step < 200 or step % 1000 < 2:
            assert theirs.param_groups[0]["lr"] == pytest.approx(learning_rate(step, settings), rel=1e-6), step
        theirs._opt_called = True  # type: ignore[attr-defined]
        scheduler.step()


@needs_detectron2
def test_losses_in_half_precision(
    network: Detectron2Network, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses: Any = network.train()(images, targets)
    assert all(value.isfinite() for value in losses.values())
