"""Images of one bright disc, red or green, on blue noise, and label maps of them, written by tests."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.index_masks import write_labels
from foundling.training.semantic.settings import Semantic
from foundling.types import Sample

CLUSTERS = 2  # red, green


def settings(**changes: Any) -> Semantic:
    """Those of a run of seconds."""
    given: dict[str, Any] = {
        "network": "vit", "weights": "random", "channels": 8, "detail": 4, "side": 32, "test_side": 32, "steps": 6,
        "warmup": 2, "batch": 4, "learning_rate": 1e-3, "backbone_rate": 0.1, "weight_decay": 0.0, "clip": 0.0,
        "workers": 0, "log_every": 2, "save_every": 2,
    }  # fmt: skip
    return Semantic(**(given | changes))


def disc(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of 40×48 or 48×40 pixels and its true label map."""
    rng = np.random.default_rng(seed)
    height, width = (40, 48) if seed % 2 else (48, 40)
    y, x = rng.uniform(14, 26, 2)
    inside = np.hypot(*(np.mgrid[:height, :width] - np.array([y, x])[:, None, None])) < 10
    pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
    kind = seed // 2 % CLUSTERS
    pixels[..., kind][inside], pixels[..., 2][~inside] = 250, 250
    return pixels, np.where(inside, kind + 1, 0).astype(np.uint8)


def write_discs(folder: Path, count: int = 12, first: int = 0) -> tuple[list[Sample], PseudoMasks]:
    """Images and true label maps in ``folder``."""
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    samples, files = [], []
    for seed in range(first, first + count):
        pixels, labels = disc(seed)
        name = f"{seed}.png"
        Image.fromarray(pixels).save(folder / name)
        write_labels(folder / "maps" / name, labels)
        samples.append(Sample(name, folder / name, seed))
        files.append(folder / "maps" / name)
    return samples, PseudoMasks(tuple(files), CLUSTERS, (), ())
