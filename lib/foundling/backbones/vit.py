"""Facets of a transformer: an explicit forward over its blocks that stops where the last facet asked for is known.

A hook on the qkv layer would be shorter, but some timm models never call that layer (they multiply with its weight),
so the products are taken here from the block's own parameters.
"""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from foundling.backbones.positions import resample_positions

Transformer = VisionTransformer | Eva
PRODUCTS = ("queries", "keys", "values")  # the order of the rows of a fused qkv weight
NORMS = ("last", "all", "none")


def transformer_facets(
    network: Transformer,
    pixels: Float[Tensor, "image 3 height width"],
    facets: Collection[str],
    block: int,
    bias: bool = True,
    norm: str = "last",
) -> dict[str, Tensor]:
    """The named facets of block ``block`` (0 is the first) for images whose sides are multiples of the patch size.

    ``keys``, ``queries``, ``values``: the attention input of the block times its own weights, heads concatenated in
    order, before any rotation; with ``bias`` as the network has it, or without, which takes the same vector off every
    patch. ``attention``: the softmax of the CLS query against all tokens, after the rotation where there is one, and
    always with the bias. ``tokens``, ``cls``: the output of the block, after the network's final norm if ``norm`` is
    "all", or if it is "last" and the block is the last one; "none" leaves it out everywhere. CLS and register tokens
    are dropped from all patch facets. Nothing beyond what is asked for is computed: keys of the last block need
    neither its attention nor its MLP.
    """
    prefix, blocks = network.num_prefix_tokens, list(network.blocks.children())
    tokens, rope = _embed(network, pixels)
    for layer in blocks[:block]:
        tokens = _run(layer, tokens, rope)
    current = blocks[block]
    out = _attention_facets(current, tokens, rope, prefix, facets, bias)
    if "tokens" in facets or "cls" in facets:
        tokens = _run(current, tokens, rope)
        normed = norm == "all" or (norm == "last" and block == len(blocks) - 1)
        tokens = network.norm(tokens) if normed else tokens
        whole = {"tokens": tokens[:, prefix:], "cls": tokens[:, 0]}
        out |= {name: whole[name] for name in whole if name in facets}
    return out


def _embed(
    network: Any, pixels: Float[Tensor, "image 3 height width"]
) -> tuple[Float[Tensor, "image token channel"], Tensor | None]:
    """The input of the first block and the rotary embedding, if there is one."""
    patches = network.patch_embed.proj(pixels)  # [image, channel, rows, columns]
    grid = (patches.shape[2], patches.shape[3])
    tokens = network.patch_embed.norm(patches.flatten(2).transpose(1, 2))  # [image, patch, channel]
    first = [t.expand(len(tokens), -1, -1) for t in (network.cls_token, network.reg_token) if t is not None]
    tokens = torch.cat([*first, tokens], dim=1)
    if network.pos_embed is not None:
        tokens = tokens + resample_positions(network.pos_embed, network.num_prefix_tokens, grid)
    rotary = getattr(network, "rope", None)
    return network.norm_pre(tokens), None if rotary is None else rotary.get_embed(shape=list(grid))


def _run(layer: Any, tokens: Tensor, rope: Tensor | None) -> Tensor:
    return layer(tokens) if rope is None else layer(tokens, rope=rope)


def _attention_facets(
    layer: Any, tokens: Tensor, rope: Tensor | None, prefix: int, facets: Collection[str], bias: bool
) -> dict[str, Tensor]:
    attention = "attention" in facets
    wanted = [p for p in PRODUCTS if p in facets or (attention and p != "values")]
    if not wanted:
        return {}
    inputs = layer.norm1(tokens)
    products = {name: _product(layer.attn, inputs, name, bias or attention) for name in wanted}
    out = {name: products[name][:, prefix:] for name in wanted if name in facets}
    if attention and not bias:
        out = {name: _product(layer.attn, inputs[:, prefix:], name, bias=False) for name in out}
    if attention:
        out["attention"] = _cls_attention(layer.attn, products["queries"], products["keys"], rope, prefix)
    return out


def _product(
    attention: Any, inputs: Float[Tensor, "image token channel"], name: str, bias: bool = True
) -> Float[Tensor, "image token channel"]:
    """Queries, keys or values of one attention layer: its rows of the fused weight, with or without their bias."""
    weight = attention.qkv.weight.chunk(3)[PRODUCTS.index(name)]
    return F.linear(inputs, weight, _bias(attention, name) if bias else None)


def _bias(attention: Any, name: str) -> Float[Tensor, " channel"] | None:
    """The bias of queries, keys or values, wherever the layer keeps it; ``None`` if it has none."""
    if attention.qkv.bias is not None:
        return attention.qkv.bias.chunk(3)[PRODUCTS.index(name)]
    separate: Tensor | None = getattr(attention, f"{name[0]}_bias", None)  # timm's Eva: q_bias, k_bias and v_bias
    return separate


def _cls_attention(
    attention: Any, queries: Tensor, keys: Tensor, rope: Tensor | None, prefix: int
) -> Float[Tensor, "image head patch"]:
    """softmax(q k^T / sqrt(d)) of the CLS row, its patch columns; the softmax runs over every token."""
    q, k = (_split_heads(x, attention.num_heads) for x in (queries[:, :1], keys))  # [image, head, token, head channel]
    q, k = attention.q_norm(q), attention.k_norm(k)
    if rope is not None:  # the CLS query itself is not rotated
        rotated = apply_rot_embed_cat(k[:, :, prefix:], rope, half=attention.rotate_half)
        k = torch.cat((k[:, :, :prefix], rotated.to(k.dtype)), dim=2)
    logits = (q * attention.scale) @ k.transpose(-2, -1)  # [image, head, 1, token]
    return logits.float().softmax(dim=-1)[:, :, 0, prefix:]


def _split_heads(x: Float[Tensor, "image token channel"], heads: int) -> Float[Tensor, "image head token part"]:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
