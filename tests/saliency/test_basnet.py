"""BASNet: the published names and shapes, maps against a plain forward pass, weights from files that fit or do not."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from foundling.errors import ParameterError, WeightsError
from foundling.saliency import NETWORKS, Basnet, load_saliency_network

# SHA-256 over the sorted lines "name [shape]" of the published code's state dict, BASNet(3, 1)
PUBLISHED = "7023dc8db40904075ce2d9f44d2136d545fef95fcf1084ce840271651e5bed8f"


@pytest.fixture
def small() -> Basnet:
    torch.manual_seed(0)
    network = Basnet(2).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = Basnet().state_dict()
    lines = "\n".join(f"{name} {list(value.shape)}" for name, value in sorted(state.items()))
    assert len(state) == 517
    assert hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED


def plain(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The eight maps, layer by layer as the paper's figure 2 has them, from nothing but the parameters."""

    def conv(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, dilation * (weight.shape[-1] // 2), dilation)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def unit(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        return norm(f"bn{name}", conv(f"conv{name}", x, dilation=dilation)).relu()

    def block(name: str, x: Tensor, stride: int = 1) -> Tensor:
        inner = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride)).relu()
        if f"{name}.downsample.0.weight" in state:
            x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride))
        return (norm(f"{name}.bn2", conv(f"{name}.conv2", inner)) + x).relu()

    def up(x: Tensor, times: int) -> Tensor:
        return F.interpolate(x, scale_factor=times, mode="bilinear")

    h = norm("inbn", conv("inconv", x)).relu()
    levels = []
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for i in range(blocks):
            h = block(f"encoder{stage}.{i}", h, 2 if i == 0 and stage > 1 else 1)
        levels.append(h)
    for stage in (5, 6):
        h = F.max_pool2d(h, 2)
        for i in (1, 2, 3):
            h = block(f"resb{stage}_{i}", h)
        levels.append(h)
    for part in ("1", "m", "2"):
        h = unit(f"bg_{part}", h, 2)
    maps = [up(conv("outconvb", h), 32)]
    for stage in (6, 5, 4, 3, 2, 1):
        h = torch.cat([h if stage == 6 else up(h, 2), levels[stage - 1]], 1)
        for part in ("1", "m", "2"):
            h = unit(f"{stage}d_{part}", h, 2 if stage == 6 and part != "1" else 1)
        side = conv(f"outconv{stage}", h)
        maps.append(up(side, 32 if stage == 6 else 2 ** (stage - 1)) if stage > 1 else side)
    refined = {name.removeprefix("refunet."): value for name, value in state.items() if name.startswith("refunet.")}
    state = refined
    h, kept = conv("conv0", maps[-1]), []
    for level in (1, 2, 3, 4):
        kept.append(unit(str(level), h))
        h = F.max_pool2d(kept[-1], 2)
    h = unit("5", h)
    for level in (4, 3, 2, 1):
        h = unit(f"_d{level}", torch.cat([up(h, 2), kept[level - 1]], 1))
    maps.append(maps[-1] + conv("conv_d0", h))
    return maps[::-1]


def test_maps_are_those_of_a_plain_forward_pass(small: Basnet) -> None:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = small(images)
        expected = torch.cat(plain(small.state_dict(), images), 1).transpose(0, 1)
    assert maps.shape == (8, 2, 64, 96)
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    assert len({round(float(m.std()), 6) for m in maps}) == 8  # eight maps, none the copy of another


def test_an_image_does_not_depend_on_those_beside_it(small: Basnet) -> None:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(small(images)[:, 1:2], small(images[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(48, 64), (64, 33), (0, 32)])
def test_sides_must_be_multiples_of_32(small: Basnet, size: tuple[int, int]) -> None:
    with pytest.raises(ParameterError, match=f"{size[1]}×{size[0]} pixels.*multiples of 32"):
        small(torch.zeros(1, 3, *size))
    with pytest.raises(ParameterError, match="width = 0"):
        Basnet(0)


@pytest.mark.parametrize("form", ["plain", "unsupervised", "parallel", "old", "safetensors"])
def test_checkpoints_load_as_they_are_published(tmp_path: Path, small: Basnet, form: str) -> None:
    state = small.state_dict()
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "unsupervised":  # as MaskContrast's, which the code of COMUS opens with ["net"]
        torch.save({"net": state, "epoch": 3}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        old = {name: value for name, value in state.items() if form == "plain" or "num_batches" not in name}
        torch.save(old, path)
    loaded = load_saliency_network(path)
    assert (loaded.side, loaded.network.width, loaded.weights, len(loaded.checksum)) == (256, 2, str(path), 12)
    assert not loaded.network.training and not any(p.requires_grad for p in loaded.network.parameters())
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded.network(images), small(images))


def test_what_does_not_fit_is_named(tmp_path: Path, small: Basnet) -> None:
    state = small.state_dict()
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"resnet\.pth: no BASNet, for it has no inconv\.weight \(it has conv1"):
        load_saliency_network(tmp_path / "resnet.pth")
    del state["conv3d_m.bias"]
    state["outconv1.weight"] = torch.zeros(1, 5, 3, 3)
    torch.save(state | {"extra.weight": torch.zeros(1)}, tmp_path / "cut.pth")
    with pytest.raises(
        WeightsError, match=r"1 missing: conv3d_m\.bias; 1 unexpected: extra.*outconv1\.weight is \[1, 5"
    ):
        load_saliency_network(tmp_path / "cut.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(WeightsError, match=r"text\.pth"):
        load_saliency_network(tmp_path / "text.pth")
    torch.save({"net": Basnet(1).state_dict(), "args": Path("x")}, tmp_path / "objects.pth")
    with pytest.raises(WeightsError, match="objects other than tensors"):
        load_saliency_network(tmp_path / "objects.pth")
    with pytest.raises(WeightsError, match=r"no such file.*basnet_unsupervised"):
        load_saliency_network(tmp_path / "none.pth")
    with pytest.raises(ParameterError, match=r"side = 100.*multiple of 32"):
        load_saliency_network("random", width=1, side=100)


def test_published_networks_are_looked_for_among_the_weights(
    tmp_path: Path, small: Basnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    published = {name: entry for name, entry in NETWORKS.items() if not entry.embedded}
    assert "basnet_unsupervised" in published
    for name, entry in published.items():
        with pytest.raises(WeightsError, match=f"{name}: .*{entry.file} from https.*{tmp_path}"):
            load_saliency_network(name)
    file = tmp_path / "weights" / "basnet_unsupervised.pth"
    file.parent.mkdir()
    torch.save({"net": small.state_dict()}, file)
    assert load_saliency_network("basnet_unsupervised").weights == str(file)


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (load_saliency_network("random", seed=seed, width=1, side=32) for seed in (1, 1, 2))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(first.network(images), again.network(images))
    assert not torch.equal(first.network(images), other.network(images))
    assert first.checksum == "random(1)"
