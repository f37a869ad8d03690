"""What an Odin run reads and writes: the scenes it trains on, its state for resuming, and the exported network."""

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from foundling import paths
from foundling.datasets.scenes import VERSION, render_scene, split_seeds
from foundling.errors import ParameterError


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


def export(file: Path, network: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a network in half precision as safetensors, its provenance as JSON in the header, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    part = file.with_name(file.name + ".part")
    save_file(tensors, part, {"foundling": json.dumps(provenance, sort_keys=True)})
    part.replace(file)
