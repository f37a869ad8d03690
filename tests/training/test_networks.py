"""Dense networks: timm's parameters, the pyramid's finest level, seeds; heads; slow copies."""

from collections import OrderedDict

import pytest
import timm
import torch
import torch.nn.functional as F
from torchvision.ops import FeaturePyramidNetwork

from foundling.errors import ParameterError
from foundling.training.networks import (
    finest_level,
    fit_to_device,
    follow,
    make_network,
    mlp,
    slow_copy,
    target_rate,
)

VIT = ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3})
RESNET = ("resnet10t", {})
SWIN = (
    "swin_tiny_patch4_window7_224",
    {"img_size": 64, "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_vit_map_holds_the_patch_tokens_in_reading_order(generator: torch.Generator) -> None:
    network = make_network(*VIT, seed=0).eval()
    images = torch.randn(2, 3, 32, 48, generator=generator)
    tokens = network.backbone.forward_features(images)
    features = network(images)
    assert (network.stride, network.channels, network.fpn) == (8, 24, None)
    assert features.shape == (2, 24, 4, 6)
    for row in range(4):
        for column in range(6):
            assert torch.equal(features[:, :, row, column], tokens[:, 1 + 6 * row + column])
    assert torch.equal(network.image_features(images), tokens[:, 0])


@pytest.mark.parametrize(("architecture", "options"), [RESNET, SWIN])
def test_pyramid_gives_four_pixels_a_cell_at_any_size(architecture: str, options: dict) -> None:  # type: ignore[type-arg]
    network = make_network(architecture, options, seed=0).eval()
    assert (network.stride, network.channels) == (4, 256)
    with torch.no_grad():
        for height, width in ((64, 64), (96, 32), (68, 100)):
            images = torch.zeros(1, 3, height, width)
            assert network(images).shape == (1, 256, height // 4, width // 4)
            assert network.image_features(images).shape == (1, network.backbone.num_features)


@pytest.mark.parametrize("sides", [(16, 8, 4, 2), (13, 7, 4, 2)])
def test_finest_level_is_what_torchvision_gives(generator: torch.Generator, sides: tuple[int, ...]) -> None:
    widths = [4, 6, 8, 10]
    fpn = FeaturePyramidNetwork(widths, 12)
    maps = [torch.randn(2, c, n, n, generator=generator) for c, n in zip(widths, sides, strict=True)]
    expected = fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))["0"]
    torch.testing.assert_close(finest_level(fpn, maps), expected)


def test_pyramid_of_a_resnet_stands_on_the_output_of_its_four_layers(generator: torch.Generator) -> None:
    network = make_network(*RESNET, seed=0).eval()
    images = torch.randn(1, 3, 64, 64, generator=generator)
    b, fpn = network.backbone, network.fpn
    x, maps = b.maxpool(b.act1(b.bn1(b.conv1(images)))), []
    for layer in (b.layer1, b.layer2, b.layer3, b.layer4):
        maps.append(x := layer(x))
    assert fpn is not None
    torch.testing.assert_close(network(images), finest_level(fpn, maps))
    torch.testing.assert_close(network.image_features(images), maps[-1].mean((2, 3)))


def test_pyramid_of_a_swin_stands_on_normalised_stages(generator: torch.Generator) -> None:
    network = make_network(*SWIN, seed=0).eval()
    images = torch.randn(1, 3, 64, 64, generator=generator)
    b, fpn = network.backbone, network.fpn
    x, maps = b.patch_embed(images), []
    for stage in b.layers:
        x = stage(x)
        maps.append(F.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
    assert fpn is not None and b.norm.weight.eq(1).all()  # so the last stage's norm is the plain one too
    torch.testing.assert_close(network(images), finest_level(fpn, maps))


@pytest.mark.parametrize(("architecture", "options"), [VIT, RESNET, SWIN])
def test_backbone_keeps_timms_names_and_every_parameter_learns(architecture: str, options: dict) -> None:  # type: ignore[type-arg]
    network = make_network(architecture, options, seed=0)
    plain = timm.create_model(architecture, pretrained=False, num_classes=0, **options)
    assert {n: p.shape for n, p in plain.state_dict().items()} == {
        n: p.shape for n, p in network.backbone.state_dict().items()
    }
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_parameters_are_drawn_from_the_seed_and_nothing_else_is() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = (make_network(*VIT, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["backbone.patch_embed.proj.weight"], c["backbone.patch_embed.proj.weight"])


def test_an_architecture_that_will_not_do_is_named() -> None:
    with pytest.raises(ParameterError, match=r"'resnet_50' is no network of timm's: .* \(near this name: .*resnet50"):
        make_network("resnet_50", {}, 0)
    with pytest.raises(ParameterError, match="'vgg11' is none that is trained here: use a ViT, a ResNet or a Swin"):
        make_network("vgg11", {}, 0)
    with pytest.raises(ParameterError, match=r"options \{'colour': 3\} do not fit .* 'resnet18': .*colour"):
        make_network("resnet18", {"colour": 3}, 0)
    with pytest.raises(ParameterError, match=r"'embed_dim': 25.* do not fit .*divisible"):
        make_network(VIT[0], VIT[1] | {"embed_dim": 25}, 0)


def test_a_vit_does_without_fused_attention_on_a_cpu_alone(generator: torch.Generator) -> None:
    network, images = make_network(*VIT, seed=0).eval(), torch.randn(2, 3, 32, 32, generator=generator)
    elsewhere = make_network(*VIT, seed=0)
    fit_to_device(elsewhere, torch.device("meta"))
    with torch.no_grad():
        before = network(images)
        fit_to_device(network, torch.device("cpu"))
        torch.testing.assert_close(network(images), before)
    assert [block.attn.fused_attn for block in elsewhere.backbone.blocks] == [True, True]
    assert [block.attn.fused_attn for block in network.backbone.blocks] == [False, False]
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}


@pytest.mark.parametrize(("processes", "shared"), [(1, False), (2, True)])
def test_batch_statistics_are_shared_among_gpus(monkeypatch: pytest.MonkeyPatch, processes: int, shared: bool) -> None:
    network = torch.nn.Sequential(make_network(*RESNET, seed=0), mlp(4, 8, 5))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    fit_to_device(network, torch.device("cuda"), processes)
    norms = [type(part) for part in network.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 5 and {issubclass(norm, torch.nn.SyncBatchNorm) for norm in norms} == {shared}


def test_head_is_linear_norm_relu_linear(generator: torch.Generator) -> None:
    head, x = mlp(4, 8, 5), torch.randn(6, 4, generator=generator)
    assert [n for n, _ in head.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight"]
    hidden = x @ head[0].weight.T + head[0].bias
    hidden = ((hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(head(x), hidden @ head[3].weight.T)


def test_slow_network_follows_by_hand() -> None:
    slow, fast = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(slow.weight, 1.0)
    torch.nn.init.constant_(fast.weight, 3.0)
    fast.running_mean[:] = 10.0
    fast.num_batches_tracked += 7
    follow(slow, fast, 0.25)
    assert slow.weight.tolist() == [1.5, 1.5]
    assert slow.running_mean.tolist() == [2.5, 2.5]
    assert int(slow.num_batches_tracked) == 7
    follow(slow, fast, 0.0, statistics_rate=1.0)
    assert slow.weight.tolist() == [1.5, 1.5] and slow.running_mean.tolist() == [10.0, 10.0]
    follow(slow, fast, 1.0)
    assert torch.equal(slow.weight, fast.weight) and fast.weight.tolist() == [3.0, 3.0]


def test_slow_copy_is_a_copy_and_takes_no_gradient() -> None:
    fast = mlp(2, 3, 2)
    slow = slow_copy(fast)
    assert all(torch.equal(a, b) for a, b in zip(slow.parameters(), fast.parameters(), strict=True))
    assert not any(p.requires_grad for p in slow.parameters()) and all(p.requires_grad for p in fast.parameters())
    torch.nn.init.zeros_(fast[0].weight)
    assert slow[0].weight.abs().sum() > 0


def test_targets_rate_goes_from_its_start_to_nothing() -> None:
    assert [target_rate(step, 100, 0.9) for step in (0, 50, 100)] == pytest.approx([0.1, 0.05, 0.0])
