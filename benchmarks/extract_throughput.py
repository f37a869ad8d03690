"""Throughput of ``extract`` over a folder of photos, as a share of the bare forward pass's: rounds of both in turn.

python benchmarks/extract_throughput.py [--folder PHOTOS] [--rounds 5]

ViT-S/16, random weights, keys of the last block, CPU, 2 threads, batches of 16. Without ``--folder`` the photos are
synthetic JPEGs of 480×640 pixels and about 100 KB. The bare pass is the same computation on batches that are decoded,
normalised and padded already. On a machine that does other things at the same time, trust the ratio of processor times.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foundling.backbones import Backbone, extract, load_backbone
from foundling.backbones.vit import transformer_facets

BATCH = 16
BATCHES = 1  # in a round


def write_photos(folder: Path, count: int) -> None:
    """JPEGs with structure at every scale, which compress and decode about as photos do."""
    rng = np.random.default_rng(0)
    for i in range(count):
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (480 // s, 640 // s, 3), dtype=np.uint8)).resize(
                    (640, 480), Image.Resampling.BICUBIC
                ),
                dtype=np.float32,
            )
            * weight
            for s, weight in ((160, 0.5), (32, 0.25), (8, 0.15), (2, 0.1))
        ]
        Image.fromarray(np.sum(layers, axis=0).clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.jpg", quality=90)


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Wall-clock seconds and seconds of all processors that ``work`` takes."""
    start = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


@torch.inference_mode()
def forward(backbone: Backbone, batches: list[torch.Tensor]) -> None:
    for pixels in batches:
        transformer_facets(backbone.network, pixels, ["keys"], backbone.blocks - 1)


def measure(files: list[Path], rounds: int) -> None:
    backbone = load_backbone("dino_vits16", weights="random", device="cpu")
    grids = [f.grid for f in extract(backbone, files, batch_size=BATCH)]  # also the warm-up
    counts = [len(f) for f in extract(backbone, files, batch_size=BATCH)]
    batches = [torch.randn(n, 3, 16 * g[0], 16 * g[1]) for n, g in zip(counts, grids, strict=True)]
    ratios = []
    for i in range(rounds):
        bare = seconds(lambda: forward(backbone, batches))
        whole = seconds(lambda: list(extract(backbone, files, batch_size=BATCH)))
        ratios.append(bare / whole)
        rates = f"bare {len(files) / bare[0]:.2f} images/s, extract {len(files) / whole[0]:.2f}"
        print(f"round {i + 1}: {rates}, ratio {ratios[-1][0]:.3f} (processor time {ratios[-1][1]:.3f})", flush=True)
    wall, processor = np.median(ratios, axis=0)
    print(f"median of {rounds}: extract reaches {wall:.3f} of the bare forward pass's throughput ({processor:.3f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="take the first photos of this folder")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.folder is None:
            write_photos(Path(temporary), BATCH * BATCHES)
        measure(sorted((arguments.folder or Path(temporary)).iterdir())[: BATCH * BATCHES], arguments.rounds)
