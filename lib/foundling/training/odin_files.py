"""What an Odin run reads and writes: the scenes it trains on, its state for resuming, and the exported network."""

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from foundling import paths
from foundling.datasets.scenes import VERSION, render_scene, split_seeds
from foundling.errors import ParameterError
from foundling.training.odin_views import normalise


def training_scenes(count: int, side: int, multi_share: float) -> UInt8[np.ndarray, "scene h w 3"]:
    """The first scenes of the training splits, ``side`` pixels wide, rendered once and then read from the data folder.

    ``multi_share`` (0..1) of the ``count`` scenes are of the ``multi`` kind.
    """
    file = paths.data_dir() / "scenes" / f"train_{side}px_{count}_{round(100 * multi_share)}multi_v{VERSION}.npy"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        multi = round(count * multi_share)
        plan = [(seed, "single") for seed in split_seeds("single_train", count - multi)]
        plan += [(seed, "multi") for seed in split_seeds("multi_train", multi)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            drawn = pool.map(lambda scene: render_scene(scene[0], side, scene[1])[0], plan)
            images = np.stack(list(tqdm(drawn, f"scenes {side} px", count, disable=None)))
        with tempfile.TemporaryDirectory(dir=file.parent) as building:
            part = Path(building) / file.name
            np.save(part, images)
            part.replace(file)
    images = np.load(file)
    return images


def save_state(
    file: Path, networks: nn.Module, optimiser: torch.optim.Optimizer, step: int, settings: dict[str, Any]
) -> None:
    """Write all that a run needs to go on after ``step`` steps, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"networks": networks.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "settings": settings}
    part = file.with_name(file.name + ".part")
    torch.save(state, part)
    part.replace(file)


def load_state(file: Path, networks: nn.Module, optimiser: torch.optim.Optimizer, settings: dict[str, Any]) -> int:
    """Load what :func:`save_state` wrote, if anything; returns the number of steps done.

    Raises ParameterError if the file belongs to a run with other settings.
    """
    if not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)
    theirs = state["settings"]
    if other := [f"{name}={theirs.get(name)}" for name in settings if theirs.get(name) != settings[name]]:
        raise ParameterError(
            f"{file} belongs to a run with other settings ({', '.join(other)}): "
            "use the same settings, or delete the file to start anew"
        )
    networks.load_state_dict(state["networks"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


@torch.no_grad()
def centre_keys(f: VisionTransformer, images: UInt8[np.ndarray, "scene h w 3"], side: int) -> None:
    """Set the key biases of f so that the mean patch key over ``images``, ``side`` pixels wide, is zero in every block.

    What is added to all keys is ignored by the softmax over keys: the network's output does not depend on a key bias,
    and training leaves it where it started. Methods that look at the signs of products of keys do depend on it.
    """
    projections = [m for name, m in f.named_modules() if name.endswith("attn.qkv") and isinstance(m, nn.Linear)]
    means = [torch.zeros(m.in_features, dtype=torch.float64) for m in projections]

    def add_keys(mean: Tensor, qkv: nn.Module, inputs: Any, output: Tensor) -> None:
        keys = output[:, 1:].chunk(3, dim=-1)[1].double()
        mean += keys.mean(1).sum(0) / len(images)

    hooks = [m.register_forward_hook(partial(add_keys, mean)) for m, mean in zip(projections, means, strict=True)]
    for start in range(0, len(images), 32):
        small = [cv2.resize(i, (side, side), interpolation=cv2.INTER_AREA) for i in images[start : start + 32]]
        f.forward_features(normalise(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 255))
    for hook, qkv, mean in zip(hooks, projections, means, strict=True):
        hook.remove()
        qkv.bias.chunk(3)[1].sub_(mean.float())


def export(file: Path, network: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a network in half precision as safetensors, its provenance as JSON in the header, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    part = file.with_name(file.name + ".part")
    save_file(tensors, part, {"foundling": json.dumps(provenance, sort_keys=True)})
    part.chmod(0o644)  # safetensors makes files that only their owner may read
    part.replace(file)
