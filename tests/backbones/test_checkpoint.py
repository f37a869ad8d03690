"""Checkpoints in the formats their authors publish, written here with small networks; and files that do not fit."""

import argparse
import dataclasses
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from foundling.backbones import BACKBONES, Entry, load_backbone
from foundling.backbones.networks import build_network
from foundling.errors import WeightsError
from foundling.files import checksum

Small = Callable[..., Entry]
State = dict[str, Tensor]


def state_of(entry: Entry, seed: int = 11) -> State:
    """The parameters of an untrained network of this entry, all of them different from zero."""
    torch.manual_seed(seed)
    state = build_network(entry, seed).state_dict()
    return {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + k: v for k, v in state.items()}


def head(prefix: str) -> State:
    return {f"{prefix}mlp.0.weight": torch.ones(7, 48), f"{prefix}last_layer.weight_v": torch.ones(9, 7)}


def dino_full(good: State, bad: State) -> Any:
    """A DINO training checkpoint: student under DDP, teacher plain, the arguments as a Namespace."""
    return {
        "student": prefixed(prefixed(bad, "backbone."), "module.") | head("module.head."),
        "teacher": prefixed(good, "backbone.") | head("head."),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 300,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 9)},
    }


def moco(good: State, bad: State) -> Any:
    state = prefixed(good, "module.base_encoder.") | prefixed(bad, "module.momentum_encoder.")
    state |= {"module.base_encoder.head.0.weight": torch.ones(8, 48), "module.predictor.0.weight": torch.ones(8, 8)}
    return {"epoch": 300, "arch": "vit_small", "state_dict": state, "optimizer": {}}


def mae(good: State, bad: State) -> Any:
    decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 197, 8)}
    decoder |= {"decoder_embed.weight": torch.ones(8, 48), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    return {"model": good | decoder}


def msn(good: State, bad: State) -> Any:
    fc = {"module.fc.fc1.weight": torch.ones(8, 48), "module.fc.bn1.weight": torch.ones(8)}
    return {
        "encoder": prefixed(bad, "module.") | fc,
        "target_encoder": prefixed(good, "module.") | fc,
        "prototypes": torch.ones(4, 8),
        "opt": {},
        "epoch": 600,
    }


def selfpatch(good: State, bad: State) -> Any:
    heads = {"ca_head.cls_token": torch.ones(1, 1, 48), "ca_head.norm.weight": torch.ones(48)} | head("p_head.")
    return {
        "student": prefixed(prefixed(bad, "backbone."), "module.") | prefixed(heads, "module."),
        "teacher": prefixed(good, "backbone.") | heads,
        "args": argparse.Namespace(epochs=200),
    }


def dinov2(good: State, bad: State) -> Any:
    return good | {"mask_token": torch.zeros(1, 48)}


def dinov3(good: State, bad: State) -> Any:
    """Meta's names: storage tokens, one masked qkv bias, layer scales as modules, the frequencies of the rotation."""
    out: State = {"rope_embed.periods": torch.ones(4), "mask_token": torch.zeros(1, 48)}
    for key, value in good.items():
        if key == "reg_token":
            out["storage_tokens"] = value
        elif key.endswith("q_bias"):
            parts = (value, torch.full_like(value, torch.nan), good[key.replace("q_bias", "v_bias")])
            out[key.replace("q_bias", "qkv.bias")] = torch.cat(parts)
            out[key.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(value))
        elif not key.endswith("v_bias"):
            out[key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    return out


def plain(good: State, bad: State) -> Any:
    return good


PUBLISHED = {
    "dino_vits16": [plain, dino_full],
    "dino_vits8_300ep": [plain],
    "deit_vits16": [lambda good, bad: {"model": good | {"head.weight": torch.ones(5, 48), "head.bias": torch.ones(5)}}],
    "mae_vitb16": [mae],
    "mocov3_vits16": [moco],
    "msn_vitb16": [msn],
    "selfpatch_vits16": [selfpatch, plain],
    "dinov2_vits14": [dinov2],
    "dinov3_vits16": [dinov3],
    "scenes_odin": [plain],
}
CASES = [(name, write) for name, writers in PUBLISHED.items() for write in writers]


@pytest.mark.parametrize(("name", "write"), CASES, ids=[f"{n}-{w.__name__}" for n, w in CASES])
def test_published_formats(name: str, write: Callable[[State, State], Any], small: Small, tmp_path: Path) -> None:
    entry = small(name)
    good, bad = state_of(entry), state_of(entry, seed=12)
    path = tmp_path / entry.file.replace(".safetensors", ".pth")
    torch.save(write(good, bad), path)
    backbone = load_backbone(name, weights=path, device="cpu")
    loaded = backbone.network.state_dict()
    assert loaded.keys() == good.keys()
    assert all(torch.equal(loaded[k], good[k]) for k in good)
    assert backbone.checksum == checksum(path)[:12]
    assert backbone.weights == str(path)


def test_dinov3_of_timm_without_bias(small: Small, tmp_path: Path) -> None:
    """timm also publishes DINOv3 without its (zero) biases: they become zeros."""
    entry = small("dinov3_vits16")
    state = {k: v for k, v in state_of(entry).items() if not k.endswith("_bias")}
    save_file(state, tmp_path / "model.safetensors")
    loaded = load_backbone("dinov3_vits16", weights=tmp_path / "model.safetensors", device="cpu").network.state_dict()
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    assert all(not loaded[k].any() for k in loaded.keys() - state.keys())


def test_half_precision_safetensors(small: Small, tmp_path: Path) -> None:
    """The embedded checkpoints are kept in float16; the network is float32."""
    state = state_of(small("scenes_odin"))
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "a.safetensors")
    loaded = load_backbone("scenes_odin", weights=tmp_path / "a.safetensors", device="cpu").network.state_dict()
    assert all(v.dtype == torch.float32 and torch.equal(v, state[k].half().float()) for k, v in loaded.items())


def cnn_formats(state: State) -> dict[str, Any]:
    torchvision = state | {"fc.weight": torch.ones(10, 2048), "fc.bias": torch.ones(10)}
    old = {k: v for k, v in torchvision.items() if not k.endswith("num_batches_tracked")}
    neck = {"neck.mlp.0.weight": torch.ones(3, 3), "queue": torch.ones(4)}
    return {
        "supervised_resnet50": old,
        "dino_resnet50": state,
        "densecl_resnet101": {"meta": {}, "state_dict": prefixed(state, "backbone.") | neck},
    }


@pytest.mark.parametrize("name", ["supervised_resnet50", "dino_resnet50", "densecl_resnet101"])
def test_published_formats_of_cnns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(BACKBONES[name], architecture="resnet50")  # as DenseCL's, and quicker
    monkeypatch.setitem(BACKBONES, name, entry)
    state = state_of(entry)
    torch.save(cnn_formats(state)[name], tmp_path / "cnn.pth")
    loaded = load_backbone(name, weights=tmp_path / "cnn.pth", device="cpu").network.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items() if not k.endswith("num_batches_tracked"))


def test_random_weights_are_a_function_of_the_seed(small: Small) -> None:
    small("dino_vits16")
    before = torch.random.get_rng_state()
    a, b, c = (load_backbone("dino_vits16", "random", "cpu", seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    states = [x.network.state_dict() for x in (a, b, c)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["pos_embed"], states[2]["pos_embed"])
    assert (a.weights, a.checksum, c.checksum) == ("random", "random(1)", "random(2)")


def fails(path: Path, name: str = "dino_vits16") -> str:
    with pytest.raises(WeightsError) as caught:
        load_backbone(name, weights=path, device="cpu")
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_and_unexpected_parameters(small: Small, tmp_path: Path) -> None:
    state = state_of(small("dino_vits16"))
    path = tmp_path / "w.pth"
    torch.save({k: v for k, v in state.items() if ".mlp." not in k} | {"blocks.3.norm1.weight": torch.ones(48)}, path)
    message = fails(path)
    assert "does not fit dino_vits16 (vit_small_patch16_224, patch size 16, " in message
    assert "12 missing: blocks.0.mlp.fc1.bias, blocks.0.mlp.fc1.weight, blocks.0.mlp.fc2.bias, …" in message
    assert "1 unexpected: blocks.3.norm1.weight" in message
    assert "Expected the file dino_deitsmall16_pretrain.pth" in message


def test_another_patch_size(small: Small, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state_of(small("dino_vits8")), path)
    small("dino_vits16")
    message = fails(path)
    assert "patch_embed.proj.weight is [48, 3, 8, 8], expected [48, 3, 16, 16]" in message
    assert "pos_embed is [1, 785, 48], expected [1, 197, 48]" in message


def test_no_such_file(tmp_path: Path) -> None:
    assert "there is no such file; give 'pretrained', 'random' or the path" in fails(tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>", b"PK\x03\x04"], ids=["empty", "page", "zip"])
def test_not_a_checkpoint(suffix: str, content: bytes, small: Small, tmp_path: Path) -> None:
    small("dino_vits16")
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert re.search("not a (readable )?checkpoint", fails(path))


def test_cut_short(small: Small, tmp_path: Path) -> None:
    state = state_of(small("dino_vits16"))
    for path, save in ((tmp_path / "w.pth", torch.save), (tmp_path / "w.safetensors", save_file)):
        save(state, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "may be damaged or cut short: get it again" in fails(path)


def test_holds_no_parameters(small: Small, tmp_path: Path) -> None:
    small("dino_vits16")
    torch.save({"epoch": 3, "args": argparse.Namespace(), "optimizer": {"lr": 1.0}}, tmp_path / "w.pth")
    assert "no network parameters found in it (it holds: 'epoch', 'args', 'optimizer')" in fails(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "w.pth")
    assert "(it holds: list)" in fails(tmp_path / "w.pth")


class Trap:
    """An object whose unpickling would run code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def test_code_in_a_file_is_not_executed(small: Small, tmp_path: Path) -> None:
    small("dino_vits16")
    mark, path = tmp_path / "mark", tmp_path / "w.pth"
    torch.save({"model": Trap(mark)}, path)
    assert re.search(r"the file holds objects other than tensors \(_?io\.open\)\. Only tensors are read", fails(path))
    path.write_bytes(pickle.dumps(Trap(mark)))
    assert "the file is not a checkpoint" in fails(path)
    assert not mark.exists()
