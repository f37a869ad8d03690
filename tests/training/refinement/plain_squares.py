"""Images of one bright square on noise, written by tests, and settings of a run of seconds on them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from foundling.training.refinement.settings import Refinement
from foundling.types import Sample

SMALL = {"channels": [8, 8, 16, 16]}


def settings(**changes: Any) -> Refinement:
    """Those of a run of seconds: f is the embedded network, h a thin ResNet."""
    given: dict[str, Any] = {
        "discovery": {"k": 1, "centre": True}, "side": 32, "batch": 4, "boxes": 3, "phases": [{"h": 3}, {"f": 3}],
        "network_options": SMALL, "held_out": 2, "look_every": 2, "workers": 0, "log_every": 1, "save_every": 1,
        "refine_rate": 1e-4,
    }  # fmt: skip
    return Refinement(**(given | changes))


def write_squares(folder: Path, count: int = 12, bigger: int = 0) -> list[Sample]:
    """Images of 40×48 or 48×40 pixels in ``folder``, their sides longer by ``bigger``."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        height, width = (side + bigger for side in ((40, 48) if seed % 2 else (48, 40)))
        pixels = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
        y, x = rng.integers(0, 20, 2)
        pixels[y : y + 18, x : x + 18, seed % 3] = 250
        path = folder / f"{seed}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path.name, path, seed))
    return samples


def refine_in_a_group(rank: int, processes: int, port: int, folder: Path) -> None:
    """Process ``rank`` of a run; writes its networks. In the images of the last process nothing is ever found."""
    from foundling.training.refinement import task
    from foundling.training.refinement.sources import PatchSource

    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in group.items()})
    torch.set_num_threads(1)
    made: list[task.RefinementTask] = []
    plain = task.RefinementTask.__init__

    def kept(self: task.RefinementTask, *arguments: Any) -> None:
        plain(self, *arguments)
        made.append(self)

    task.RefinementTask.__init__ = kept  # type: ignore[method-assign]
    if rank == processes - 1:
        PatchSource.discover = lambda self, look: [torch.zeros(0, 4)] * len(look.map)  # type: ignore[method-assign]
    samples = write_squares(folder / f"images{rank}")
    told = settings(phases=[{"h": 1}, {"f": 2}, {"h": 1}])
    outcome = task.refine(samples, told, folder / "run", progress=False, cpu=True)
    state = {name: value for name, value in made[0].state_dict().items() if "running" not in name}
    torch.save({"state": state, "losses": [row["loss"] for row in outcome.history]}, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
