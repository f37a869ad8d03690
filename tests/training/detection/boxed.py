"""Small pictures of a bright square on noise, their boxes, and settings of a small detector, for tests."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foundling.training.detection.settings import Detector
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.types import Sample

SIDE = 32  # pixels of a picture: four patches of the embedded networks


# LOST's class-agnostic detector of COCO and VOC12 (appendix D)
PAPER: dict[str, Any] = {
    "network": "r50_c4", "weights": "dino_resnet50", "min_sizes": list(range(480, 801, 32)), "test_size": 800,
    "anchors": [[32, 64, 128, 256, 512]], "pool": 14, "freeze_at": 2, "rpn_samples": 256, "rpn_proposals": 2000,
    "test_proposals": 1000, "rpn_candidates": 12000, "roi_samples": 512, "steps": 24000, "batch": 16,
    "optimiser": "sgd", "schedule": "steps", "decay_at": [18000, 22000], "learning_rate": 0.02, "warmup": 100,
}  # fmt: skip


def boxed_images(folder: Path, count: int = 8, side: int = SIDE) -> tuple[list[Sample], PseudoLabels]:
    """Pictures with one square each, of half their side, at a random place, and labels of these."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    samples, images = [], []
    for i in range(count):
        pixels = rng.integers(0, 90, (side, side, 3), dtype=np.uint8)
        x, y = rng.integers(0, side // 2, 2).tolist()
        pixels[y : y + side // 2, x : x + side // 2] = (250, 220, 60)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path.name, path, i))
        box = np.array([[x, y, x + side // 2, y + side // 2]], dtype=np.float64)
        images.append(ImageLabels(path.name, i, (side, side), box, np.zeros(1, np.int64)))
    return samples, PseudoLabels(tuple(images))


def small(**changes: Any) -> Detector:
    """Settings of a detector that trains in a second, its ViT kept as it is."""
    sizes = {"min_sizes": [SIDE], "test_size": SIDE, "anchors": [[12, 20]], "channels": 16, "hidden": 32, "pool": 3}
    few = {"rpn_samples": 16, "rpn_proposals": 16, "test_proposals": 16, "roi_samples": 16, "rpn_candidates": 64}
    run = {"steps": 4, "batch": 4, "warmup": 1, "workers": 0, "weights": "random", "log_every": 2}
    return Detector(**sizes | few | run | changes)


def train_in_a_group(rank: int, processes: int, port: int, folder: Path) -> None:
    """Process ``rank`` of a run whose batches are taken in two parts; writes its network's tensors."""
    import torch

    from foundling.training.detection import task

    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in group.items()})
    torch.set_num_threads(1)
    made: list[task.DetectorTask] = []
    plain = task.DetectorTask.__init__

    def kept(self: task.DetectorTask, *arguments: Any) -> None:
        plain(self, *arguments)
        made.append(self)

    task.DetectorTask.__init__ = kept  # type: ignore[method-assign]
    data = boxed_images(folder / f"images{rank}")
    settings = small(steps=2, accumulate=2, freeze_at=4, warmup=0)
    outcome = task.train_detector(*data, settings, folder / "run", progress=False, cpu=True)
    torch.save({"state": made[0].state_dict(), "loss": outcome.history[-1]["loss"]}, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
