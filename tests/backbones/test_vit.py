"""Facets against what timm's own forward computes, recorded inside its attention, for each family of transformer."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from foundling.backbones.positions import resample_positions
from foundling.backbones.vit import transformer_facets

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dino": ("vit_small_patch16_224", {}),
    "mocov3": ("vit_small_patch16_224", {"num_heads": 6}),
    "dinov2": ("vit_small_patch14_dinov2", {"img_size": 70}),
    "selfpatch": (
        "vit_small_patch16_224",
        {"class_token": False, "global_pool": "avg", "fc_norm": False, "final_norm": False},
    ),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", {}),
    "dinov3 without bias": ("vit_small_patch16_dinov3", {}),
}
PREFIX = {"selfpatch": 0, "dinov3": 5, "dinov3 without bias": 5}
GRID = (3, 5)


def build(family: str, **changes: Any) -> nn.Module:
    name, options = FAMILIES[family]
    torch.manual_seed(5)
    size = {"embed_dim": 48, "depth": 3, "num_heads": 2, "num_classes": 0}
    network = timm.create_model(name, **(size | options | changes)).eval().requires_grad_(False)
    for parameter in network.parameters():  # biases, layer scales and register tokens are trivial when untrained
        parameter.copy_(torch.randn_like(parameter) * 0.2)
    return network


def as_timm_sees_it(family: str, network: nn.Module, grid: tuple[int, int]) -> nn.Module:
    """The same parameters in a timm network for ``grid``: its own forward then needs no resampling."""
    side = network.patch_embed.patch_size[0]
    if network.pos_embed is None:
        other = network
    else:
        other = build(family, img_size=(grid[0] * side, grid[1] * side))
        state = network.state_dict()
        state["pos_embed"] = resample_positions(network.pos_embed, network.num_prefix_tokens, grid)
        other.load_state_dict(state)
    for block in other.blocks:
        block.attn.fused_attn = False
    return other


def record(network: nn.Module, pixels: Tensor, block: int) -> dict[str, Tensor]:
    """What passes through the attention of ``block`` during timm's forward, and what leaves the block."""
    seen: dict[str, Tensor] = {}
    attention = network.blocks[block].attn

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: seen.__setitem__(name, output.clone())

    hooks = [
        attention.q_norm.register_forward_hook(keep("queries")),
        attention.k_norm.register_forward_hook(keep("keys")),
        attention.attn_drop.register_forward_hook(keep("softmax")),
        attention.norm.register_forward_hook(keep("mixed values")),
        network.blocks[block].norm1.register_forward_hook(keep("inputs")),
        network.blocks[block].register_forward_hook(keep("output")),
    ]
    seen["final"] = network.forward_features(pixels)
    for hook in hooks:
        hook.remove()
    return seen


def joined(x: Tensor) -> Tensor:
    """[image, head, token, part] → [image, token, channel], head 0 first."""
    return torch.cat(list(x.unbind(1)), dim=-1)


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_facets_are_what_timm_computes(family: str, block: int) -> None:
    network = build(family)
    prefix, side = network.num_prefix_tokens, network.patch_embed.patch_size[0]
    assert prefix == PREFIX.get(family, 1)
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, GRID[0] * side, GRID[1] * side)
    other = as_timm_sees_it(family, network, GRID)
    seen = record(other, pixels, block)
    names = ["keys", "queries", "values", "tokens"] + (["cls", "attention"] if prefix else [])
    found = transformer_facets(network, pixels, names, block)

    assert set(found) == set(names)
    assert torch.allclose(found["keys"], joined(seen["keys"])[:, prefix:], atol=1e-5)
    assert torch.allclose(found["queries"], joined(seen["queries"])[:, prefix:], atol=1e-5)
    output = seen["final"] if block == 2 else seen["output"]
    assert torch.allclose(found["tokens"], output[:, prefix:], atol=1e-5)
    if prefix:
        assert torch.allclose(found["cls"], output[:, 0], atol=1e-5)
        assert torch.allclose(found["attention"], seen["softmax"][:, :, 0, prefix:], atol=1e-6)
        assert (found["attention"].sum(-1) < 1).all()  # the softmax also covers CLS and registers

    # Values are seen only after mixing: the product written out gives timm's mixture, and ours is that product.
    values = value_product(other.blocks[block].attn, seen["inputs"])
    heads = values.unflatten(2, (seen["softmax"].shape[1], -1)).transpose(1, 2)
    assert torch.allclose(joined(seen["softmax"] @ heads), seen["mixed values"], atol=1e-5)
    assert torch.allclose(found["values"], values[:, prefix:], atol=1e-5)


def value_product(attention: nn.Module, inputs: Tensor) -> Tensor:
    """The last third of the fused product, its bias from wherever this kind of layer keeps it."""
    channels = inputs.shape[-1]
    bias = attention.qkv.bias[2 * channels :] if attention.qkv.bias is not None else attention.v_bias
    product = inputs @ attention.qkv.weight[2 * channels :].T
    return product if bias is None else product + bias


@pytest.mark.parametrize("family", FAMILIES)
def test_without_bias_every_patch_loses_the_same_vector_and_attention_stays(family: str) -> None:
    network = build(family)
    side = network.patch_embed.patch_size[0]
    pixels = torch.randn(2, 3, GRID[0] * side, GRID[1] * side)
    names = ["keys", "queries", "values"] + (["attention"] if network.num_prefix_tokens else [])
    seen = record(as_timm_sees_it(family, network, GRID), pixels, 1)
    weight, prefix = network.blocks[1].attn.qkv.weight, network.num_prefix_tokens
    naive = [seen["inputs"][:, prefix:] @ rows.T for rows in weight.split(48)]  # queries, keys, values: no bias at all
    for asked in (names, names[:3]):
        found = transformer_facets(network, pixels, asked, 1, bias=False)
        for name, expected in zip(("queries", "keys", "values"), naive, strict=True):
            assert torch.allclose(found[name], expected, atol=1e-5)
    whole = transformer_facets(network, pixels, names, 1)
    if prefix:
        found = transformer_facets(network, pixels, names, 1, bias=False)
        assert torch.equal(found["attention"], whole["attention"])
    taken = whole["values"] - transformer_facets(network, pixels, ["values"], 1, bias=False)["values"]
    assert torch.allclose(taken, taken[:1, :1].expand_as(taken), atol=1e-5)
    assert (taken.abs().max() > 0.1) == (family != "dinov3 without bias")


@pytest.mark.parametrize("family", ["dino", "dinov3"])
@pytest.mark.parametrize("block", [0, 2])
def test_the_final_norm_is_that_of_all_blocks_or_of_none(family: str, block: int) -> None:
    network = build(family)
    pixels = torch.randn(2, 3, GRID[0] * 16, GRID[1] * 16)
    output = record(as_timm_sees_it(family, network, GRID), pixels, block)["output"]
    prefix = network.num_prefix_tokens
    for norm, expected in (("none", output), ("all", network.norm(output))):
        found = transformer_facets(network, pixels, ["tokens", "cls", "keys"], block, norm=norm)
        assert torch.allclose(found["tokens"], expected[:, prefix:], atol=1e-5)
        assert torch.allclose(found["cls"], expected[:, 0], atol=1e-5)
    last = transformer_facets(network, pixels, ["tokens", "keys"], block, norm="last")
    same = transformer_facets(network, pixels, ["tokens"], block, norm="all" if block == 2 else "none")
    assert torch.equal(last["tokens"], same["tokens"])
    assert torch.equal(last["keys"], found["keys"])  # keys are taken before any of it


def test_only_what_is_asked_for_is_computed() -> None:
    network = build("dino")
    pixels = torch.randn(1, 3, 32, 32)

    class Forbidden(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            raise AssertionError("not needed for what was asked")

    expected = transformer_facets(network, pixels, ["keys", "attention"], 1)
    network.blocks[1].attn.proj = Forbidden()
    network.blocks[1].mlp = Forbidden()
    network.blocks[2] = Forbidden()
    network.norm = Forbidden()
    found = transformer_facets(network, pixels, ["keys", "attention"], 1)
    assert torch.equal(found["keys"], expected["keys"])
    assert torch.equal(found["attention"], expected["attention"])


def test_twelve_heads_are_not_six() -> None:
    """The keys do not depend on the number of heads, the attention does: a wrong count must not go unseen."""
    six, three = build("mocov3"), build("mocov3", num_heads=3)
    three.load_state_dict(six.state_dict())
    pixels = torch.randn(1, 3, 48, 64)
    a, b = (transformer_facets(n, pixels, ["keys", "attention"], 0) for n in (six, three))
    assert torch.equal(a["keys"], b["keys"])
    assert a["attention"].shape == (1, 6, 12) and b["attention"].shape == (1, 3, 12)
