"""Parameter names of published checkpoints → the names of our networks, where dropping prefixes is not enough."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]


def dinov3(state: Mapping[str, Tensor]) -> State:
    """The names of Meta's DINOv3 files, or of timm's files without a qkv bias, as timm's ``Eva`` with a qkv bias.

    The key part of the bias is masked to zero in the original, and timm keeps no parameter for it.
    """
    out: State = {}
    for key, value in state.items():
        if key.endswith("attn.qkv.bias"):
            query, _, out[key.replace("qkv.bias", "v_bias")] = value.chunk(3)
            out[key.replace("qkv.bias", "q_bias")] = query
        elif not key.endswith("attn.qkv.bias_mask"):
            renamed = key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
            out["reg_token" if key == "storage_tokens" else renamed] = value
    for key in [k for k in out if k.endswith("attn.qkv.weight")]:
        for bias in ("q_bias", "v_bias"):
            out.setdefault(key.replace("qkv.weight", bias), torch.zeros(out[key].shape[0] // 3))
    return out


REMAPS: dict[str, Callable[[Mapping[str, Tensor]], State]] = {"dinov3": dinov3}
