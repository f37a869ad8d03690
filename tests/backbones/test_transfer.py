"""Networks trained here, as timm, torchvision and Detectron2 load them: the same features under other names."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, maskrcnn_resnet50_fpn

from foundling import cli
from foundling.backbones.detectors import StagesPyramid, VitPyramid, torchvision_backbone
from foundling.backbones.transfer import load_timm, read_trained, to_detectron2
from foundling.errors import WeightsError
from foundling.training import checkpoints
from foundling.training.networks import DenseNetwork, make_network
from foundling.training.settings import settings_from

VIT = ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 3})
SWIN = (
    "swin_tiny_patch4_window7_224",
    {"img_size": 64, "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
)
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}


def trained_network(architecture: str, options: dict[str, Any]) -> DenseNetwork:
    """A network whose every parameter and running statistic is random, and fits in half precision."""
    network = make_network(architecture, options, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            if value.ndim == 1:  # biases, and what batch normalisation scales by and divides by
                spread = torch.rand(value.shape, generator=generator)
                value.copy_(0.5 + spread if name.endswith(("weight", "var")) else spread - 0.5)
            value.copy_(value.half())
    return network


def write_run(folder: Path, architecture: str, options: dict[str, Any]) -> tuple[DenseNetwork, Path, Path]:
    """A network, and its two files as `foundling train` writes them."""
    settings = settings_from({"objective": "odin", "architecture": architecture, "options": options}, "here")
    network, about = trained_network(architecture, options), checkpoints.about_run(settings, 1, "nothing")
    plain, dense = folder / "run.safetensors", folder / "run_dense.safetensors"
    checkpoints.export(plain, network.backbone.state_dict(), about)
    projector = {"projector.0.weight": torch.zeros(2, 2)}
    checkpoints.export(dense, {**network.state_dict(), **projector}, about)
    return network, plain, dense


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> tuple[DenseNetwork, Path, Path]:
    return write_run(tmp_path_factory.mktemp("resnet50"), "resnet50", {})


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[DenseNetwork, Path, Path]:
    return write_run(tmp_path_factory.mktemp("resnet18"), "resnet18", {})


@pytest.fixture
def images() -> Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def stages(network: DenseNetwork, images: Tensor) -> list[Tensor]:
    """timm's maps after each stage, at 4 to 32 pixels a cell."""
    maps: list[Tensor] = network.backbone.forward_intermediates(images, indices=network.levels, intermediates_only=True)
    return maps


def assert_maps_close(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.std()))


# timm


@pytest.mark.parametrize("network", [VIT, SWIN, ("resnet18", {})], ids=lambda network: network[0])
@torch.no_grad()
def test_timm_gets_the_same_network(tmp_path: Path, images: Tensor, network: tuple[str, dict[str, Any]]) -> None:
    trained, plain, dense = write_run(tmp_path, *network)
    square = images[..., :64]
    expected = trained.backbone.forward_features(square)
    by_hand = timm.create_model(network[0], num_classes=0, **network[1]).eval()  # as data/README.md says
    by_hand.load_state_dict(load_file(plain))
    for model in (by_hand, load_timm(plain), load_timm(dense)):
        assert not model.training and all(p.dtype == torch.float32 for p in model.parameters())
        torch.testing.assert_close(model.forward_features(square), expected, **CLOSE)
    other_size = load_timm(plain).forward_features(images)
    torch.testing.assert_close(other_size, trained.backbone.forward_features(images), **CLOSE)


def test_options_of_the_file_can_be_changed(tmp_path: Path) -> None:
    _, plain, _ = write_run(tmp_path, *VIT)
    rates = [m.drop_prob for m in load_timm(plain, drop_path_rate=0.2).modules() if hasattr(m, "drop_prob")]
    assert max(rates) == pytest.approx(0.2)
    with pytest.raises(WeightsError, match=r"cannot make vit_tiny_patch16_224 with the options .*'patch_sise': 8"):
        load_timm(plain, patch_sise=8)


# torchvision


@pytest.mark.parametrize("frozen_norm", [True, False])
@torch.no_grad()
def test_torchvisions_resnet_and_pyramid_give_the_same_maps(
    resnet50: tuple[DenseNetwork, Path, Path], images: Tensor, frozen_norm: bool
) -> None:
    trained, plain, dense = resnet50
    backbone: Any = torchvision_backbone(dense, frozen_norm).eval()
    assert_maps_close(list(backbone.body(images).values()), stages(trained, images))
    maps = backbone(images)
    assert list(maps) == ["0", "1", "2", "3", "pool"] and backbone.out_channels == 256
    assert_maps_close([maps["0"]], [trained(images)])
    assert all(p.requires_grad for p in backbone.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules()) is not frozen_norm
    without: Any = torchvision_backbone(plain, frozen_norm).eval()
    assert_maps_close(list(without.body(images).values()), stages(trained, images))


@torch.no_grad()
def test_torchvisions_own_detector_takes_the_file_as_it_is(
    resnet50: tuple[DenseNetwork, Path, Path], images: Tensor
) -> None:
    trained, plain, _ = resnet50
    detector = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2
    ).eval()  # as data/README.md says
    detector.backbone.body.load_state_dict(load_file(plain))
    assert_maps_close(list(detector.backbone.body(images).values()), stages(trained, images))


@pytest.mark.parametrize("network", [SWIN, ("resnet10t", {})], ids=lambda network: network[0])
@torch.no_grad()
def test_other_stages_give_what_training_used(
    tmp_path: Path, images: Tensor, network: tuple[str, dict[str, Any]]
) -> None:
    trained, plain, dense = write_run(tmp_path, *network)
    backbone = torchvision_backbone(dense).eval()
    assert isinstance(backbone, StagesPyramid)
    maps = backbone(images)
    assert_maps_close([maps["0"]], [trained(images)])
    assert [tuple(m.shape[-2:]) for m in maps.values()] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert not torch.equal(torchvision_backbone(plain).eval()(images)["0"], maps["0"])  # has no pyramid


@pytest.mark.parametrize(("patch", "finest"), [(16, 4), (8, 4), (4, 4), (32, 4), (14, 3.5)])
@torch.no_grad()
def test_a_vit_gives_maps_of_five_sizes(tmp_path: Path, patch: int, finest: float) -> None:
    trained, plain, _ = write_run(tmp_path, VIT[0], {**VIT[1], "patch_size": patch, "img_size": 4 * patch})
    backbone: Any = torchvision_backbone(plain).eval()
    assert isinstance(backbone, VitPyramid)
    images = torch.randn(1, 3, 8 * patch, 16 * patch, generator=torch.Generator().manual_seed(0))
    maps = backbone(images)
    sides = [tuple(math.ceil(side / finest / 2**level) for side in images.shape[-2:]) for level in range(5)]
    assert [tuple(m.shape) for m in maps.values()] == [(1, 256, *side) for side in sides]
    same = [level for level, m in enumerate(maps.values()) if m.shape[-2:] == (8, 16)]
    (scale,) = [backbone.scales[level] for level in same]
    assert_maps_close([maps[str(same[0])]], [scale(trained(images))])


@pytest.mark.parametrize("network", [VIT, SWIN, ("resnet18", {})], ids=lambda network: network[0])
def test_detectors_train_and_detect(tmp_path: Path, network: tuple[str, dict[str, Any]]) -> None:
    """One step of Mask R-CNN reaches the first layer of the backbone; Faster R-CNN returns boxes."""
    _, plain, _ = write_run(tmp_path, *network)
    torch.manual_seed(0)
    photos = [torch.rand(3, 50, 70), torch.rand(3, 64, 40)]  # of sizes that no stride divides
    masks = torch.zeros(1, 50, 70, dtype=torch.uint8)
    masks[:, 10:40, 10:50] = 1
    target = {"boxes": torch.tensor([[10.0, 10, 50, 40]]), "labels": torch.tensor([1]), "masks": masks}
    other = {**target, "boxes": torch.tensor([[5.0, 5, 30, 60]]), "masks": torch.ones(1, 64, 40, dtype=torch.uint8)}
    few = {f"rpn_{when}_nms_top_n_{mode}": 20 for when in ("pre", "post") for mode in ("train", "test")}
    sizes: dict[str, Any] = {"num_classes": 2, "min_size": 64, "max_size": 96, **few}
    backbone: Any = torchvision_backbone(plain)
    losses = MaskRCNN(backbone, **sizes)(photos, [target, other])
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    first = next(m for m in backbone.body.modules() if isinstance(m, nn.Conv2d)).weight
    assert first.grad is not None and first.grad.isfinite().all() and first.grad.abs().max() > 0
    with torch.no_grad():
        found = FasterRCNN(backbone, **sizes, box_score_thresh=0.0).eval()(photos)
    assert len(found) == 2 and all(f["boxes"].shape[0] > 0 for f in found)


def test_a_pyramid_of_another_network_is_refused(resnet18: tuple[DenseNetwork, Path, Path], tmp_path: Path) -> None:
    _, _, dense = resnet18
    tensors, trained = load_file(dense), read_trained(dense)
    tensors["fpn.inner_blocks.0.0.weight"] = torch.zeros(256, 7, 1, 1)
    file = rewrite(tmp_path, tensors, {"architecture": trained.architecture})
    with pytest.raises(WeightsError, match=r"other\.safetensors: its feature pyramid does not fit a resnet18 \(inner"):
        torchvision_backbone(file)


# Detectron2


def test_detectron2_names_by_hand(resnet50: tuple[DenseNetwork, Path, Path], tmp_path: Path) -> None:
    trained, _, dense = resnet50
    config = to_detectron2(dense, tmp_path / "r50.pkl")
    content = pickle.loads((tmp_path / "r50.pkl").read_bytes())
    assert (content["__author__"], content["matching_heuristics"]) == ("foundling", True)
    arrays, state = content["model"], trained.state_dict()
    for theirs, mine in {
        "stem.conv1.weight": "backbone.conv1.weight",
        "stem.conv1.norm.running_var": "backbone.bn1.running_var",
        "res2.0.conv3.norm.bias": "backbone.layer1.0.bn3.bias",
        "res3.0.shortcut.weight": "backbone.layer2.0.downsample.0.weight",
        "res4.0.shortcut.norm.running_mean": "backbone.layer3.0.downsample.1.running_mean",
        "res5.2.conv2.weight": "backbone.layer4.2.conv2.weight",
        "fpn_lateral2.weight": "fpn.inner_blocks.0.0.weight",
        "fpn_lateral5.bias": "fpn.inner_blocks.3.0.bias",
        "fpn_output2.weight": "fpn.layer_blocks.0.0.weight",
    }.items():
        assert arrays[theirs].dtype == "float32" and torch.equal(torch.from_numpy(arrays[theirs]), state[mine]), theirs
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(arrays) == len(state) - len(counters)
    assert yaml.safe_load((tmp_path / "r50.yaml").read_text()) == config == {
        "MODEL": {
            "WEIGHTS": str(tmp_path / "r50.pkl"),
            "PIXEL_MEAN": [123.675, 116.28, 103.53],
            "PIXEL_STD": [58.395, 57.12, 57.375],
            "RESNETS": {
                "DEPTH": 50, "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "RES2_OUT_CHANNELS": 256, "STRIDE_IN_1X1": False,
            },
        },
        "INPUT": {"FORMAT": "RGB"},
    }  # fmt: skip


def test_the_command_writes_both_files(
    resnet18: tuple[DenseNetwork, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "d2" / "r18.pkl"
    assert cli.main(["weights", str(resnet18[1]), "--detectron2", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: weights for Detectron2\n{out.with_suffix('.yaml')}: ")
    assert "STRIDE_IN_1X1: false" in printed and "FORMAT: RGB" in printed and "DEPTH: 18" in printed
    assert sorted(path.name for path in out.parent.iterdir()) == ["r18.pkl", "r18.yaml"]
    assert cli.main(["weights", str(resnet18[1]), "--detectron2", str(tmp_path / "r18.pth")]) == 2
    assert "r18.pth: Detectron2 tells its files by their ending" in capsys.readouterr().err
    assert cli.main(["weights", "--detectron2", str(out)]) == 2
    assert "r18.pkl: name the file to write it from, RUN.safetensors" in capsys.readouterr().err


def test_what_detectron2_does_not_have_is_refused(tmp_path: Path) -> None:
    _, plain, _ = write_run(tmp_path, *VIT)
    with pytest.raises(WeightsError, match=r"run\.safetensors holds vit_tiny_patch16_224 .* one of resnet18, resnet34"):
        to_detectron2(plain, tmp_path / "a.pkl")
    _, plain, _ = write_run(tmp_path, "resnet18", {"avg_down": True})
    with pytest.raises(WeightsError, match=r"holds resnet18 with the options \{'avg_down': True\}"):
        to_detectron2(plain, tmp_path / "a.pkl")
    assert not (tmp_path / "a.pkl").exists()


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("architecture", "norm"), [("resnet18", "FrozenBN"), ("resnet50", "FrozenBN"), ("resnet50", "BN")]
)
@torch.no_grad()
def test_detectron2_gives_the_same_maps(
    architecture: str, norm: str, images: Tensor, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Through its own config and checkpointer: the stages, alone and under a pyramid, and the pyramid's finest map."""
    pytest.importorskip("detectron2")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_backbone

    trained, _, dense = request.getfixturevalue(architecture)
    out = tmp_path / "weights.pkl"
    to_detectron2(dense, out)
    cfg = get_cfg()
    cfg.merge_from_file(str(out.with_suffix(".yaml")))
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.OUT_FEATURES = names = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = names
    expected = stages(trained, images)
    for builder in ("build_resnet_backbone", "build_resnet_fpn_backbone"):
        cfg.MODEL.BACKBONE.NAME = builder
        backbone = build_backbone(cfg, ShapeSpec(channels=3)).eval()
        DetectionCheckpointer(backbone).load(cfg.MODEL.WEIGHTS)
        found = backbone(images) if builder == "build_resnet_backbone" else backbone.bottom_up(images)
        assert_maps_close([found[name] for name in names], expected)
    assert_maps_close([backbone(images)["p2"]], [trained(images)])


@pytest.mark.detectron2
@torch.no_grad()
def test_detectron2s_mask_rcnn_loads_the_backbone(
    resnet50: tuple[DenseNetwork, Path, Path], images: Tensor, tmp_path: Path
) -> None:
    """The whole detector: names get their prefix, pixels are normalised as in training, and it runs."""
    pytest.importorskip("detectron2")
    from detectron2 import model_zoo
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    trained, plain, _ = resnet50
    to_detectron2(plain, tmp_path / "weights.pkl")
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_file(str(tmp_path / "weights.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    detector = build_model(cfg).eval()
    DetectionCheckpointer(detector).load(cfg.MODEL.WEIGHTS)
    pixels = (images.clamp(0, 1) * 255).round()
    prepared = detector.preprocess_image([{"image": pixels[0]}]).tensor
    mean, std = (torch.tensor(values)[:, None, None] for values in (read_trained(plain).mean, read_trained(plain).std))
    torch.testing.assert_close(prepared, (pixels / 255 - mean) / std, **CLOSE)
    found = detector.backbone.bottom_up(prepared)
    assert_maps_close([found[f"res{i}"] for i in (2, 3, 4, 5)], stages(trained, prepared))
    (result,) = detector([{"image": pixels[0]}])
    assert result["instances"].image_size == (64, 96)


# Files that cannot be used


def rewrite(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """A file with these tensors, whose header says ``about`` and what is always there."""
    file = folder / "other.safetensors"
    header = {"arguments": {}, "mean": [0.5] * 3, "std": [0.5] * 3, **about}
    save_file(tensors, file, {"foundling": json.dumps(header)})
    return file


def test_a_file_of_another_architecture(resnet18: tuple[DenseNetwork, Path, Path], tmp_path: Path) -> None:
    file = rewrite(tmp_path, load_file(resnet18[1]), {"architecture": "resnet34"})
    message = r"other\.safetensors does not hold what its header says, resnet34 .*Missing key.*export it again"
    for use in (load_timm, torchvision_backbone, lambda path: to_detectron2(path, tmp_path / "a.pkl")):
        with pytest.raises(WeightsError, match=message):
            use(file)
    assert not (tmp_path / "a.pkl").exists()
    file = rewrite(tmp_path, load_file(resnet18[1]), {"architecture": "resnet0815"})
    with pytest.raises(WeightsError, match=r"'resnet0815', which timm \S+ does not have: use a file of `foundling"):
        load_timm(file)


def test_files_without_a_header_and_broken_ones(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match=r"a\.safetensors: there is no such file; name one that `foundling train`"):
        load_timm(file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"a\.safetensors is no safetensors file, or damaged \(.*get it again"):
        load_timm(file)
    tensors = {"conv1.weight": torch.zeros(2)}
    for header, missing in ((None, "architecture"), ({"foundling": '{"architecture": "resnet18"}'}, "arguments")):
        save_file(tensors, file, header)
        with pytest.raises(WeightsError, match=rf"does not say which network it holds .*foundling: {missing}.*name a "):
            load_timm(file)
    save_file(tensors, file, {"foundling": "{"})
    with pytest.raises(WeightsError, match=r"the entry 'foundling' of its header is not JSON"):
        load_timm(file)
