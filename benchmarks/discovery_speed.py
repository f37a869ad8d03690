"""What LOST and TokenCut cost beside the network: seconds of each step as a share of the forward pass.

ViT-S/16, 480×640 pixels (1,200 patches), CPU, two threads, one image at a time. The forward pass is the one that gives
the keys. The steps take turns within each round; the table gives the best of all rounds, by the clock and by processor
time, which is the one to trust on a busy machine. Beside ours stands each method done
plainly: LOST with the whole similarity matrix and its rows summed, TokenCut with the dense generalised eigenproblem of
its authors' code. The boxes must agree.

python benchmarks/discovery_speed.py [--images FOLDER] [--weights FILE] [--rounds N]
"""

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from PIL import Image

from foundling.backbones import Backbone, extract, load_backbone
from foundling.backbones.vit import transformer_facets
from foundling.datasets.images import list_images, read_image
from foundling.discovery import lost, tokencut
from foundling.discovery.components import component_at, mask_box
from foundling.types import PatchFeatures

WIDTH, HEIGHT = 640, 480
TARGETS = {"LOST": 2.0, "TokenCut": 8.0}  # per cent of the forward pass


def drawn_images(count: int) -> list[Image.Image]:
    """Soft random colours with a few hard-edged discs."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).copy()
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        for cx, cy, radius in random.uniform((0, 0, 40), (WIDTH, HEIGHT, 120), (3, 3)):
            pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = random.integers(0, 256, 3)
        images.append(Image.fromarray(pixels))
    return images


def plain_lost(features: PatchFeatures) -> np.ndarray:
    """LOST with the whole matrix of products, as published; our order among patches of equal degree."""
    keys = features.facet("keys")[0]
    products = keys @ keys.T
    others = products.clone().fill_diagonal_(0)
    degree = (others > 0).sum(1).tolist()
    patches = range(len(degree))
    seed = min(patches, key=lambda p: (degree[p], p))
    lowest = [seed, *sorted(set(patches) - {seed}, key=lambda p: (degree[p], -p))][:100]
    seeds = [p for p in lowest if products[seed, p] > 0]
    return boxed(features, (products[seeds].sum(0) > 0).numpy(), seed)


def plain_tokencut(features: PatchFeatures) -> np.ndarray:
    """TokenCut with the dense generalised eigenproblem."""
    unit = torch.nn.functional.normalize(features.facet("keys")[0], dim=1)
    weights = np.where((unit @ unit.T > 0.2).numpy(), 1.0, 1e-5)
    degree = np.diag(weights.sum(axis=1))
    vector = scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 2])[1][:, 0]
    seed = int(np.argmax(np.abs(vector)))
    above = vector > vector.mean()
    return boxed(features, above == above[seed], seed)


def boxed(features: PatchFeatures, side: np.ndarray, seed: int) -> np.ndarray:
    """The box of the component that holds ``seed``."""
    component = component_at(side.reshape(features.grid), divmod(seed, features.grid[1]))
    return mask_box(component, features.patch_size, (HEIGHT, WIDTH))


def centred(features: PatchFeatures) -> PatchFeatures:
    """Keys of an untrained network all point one way; without their mean, similarities take both signs."""
    features.facet("keys").sub_(features.facet("keys").mean(dim=1, keepdim=True))
    return features


def seconds(step: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call, by the clock and of all processors."""
    start = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start[0], time.process_time() - start[1]


@torch.inference_mode()
def measure(backbone: Backbone, batches: Iterable[PatchFeatures], rounds: int) -> dict[str, np.ndarray]:
    """The least seconds of each step on one image: by the clock, of all processors."""
    batches = list(batches)
    pixels = torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for features in batches:
            steps: dict[str, Callable[[], object]] = {
                "forward": lambda: transformer_facets(backbone.network, pixels, ("keys",), backbone.blocks - 1),
                "LOST": lambda features=features: lost(features),
                "TokenCut": lambda features=features: tokencut(features),
                "LOST, plain": lambda features=features: plain_lost(features),
                "TokenCut, dense": lambda features=features: plain_tokencut(features),
            }
            for name, step in steps.items():
                times.setdefault(name, []).append(seconds(step))
    return {name: np.min(values, axis=0) for name, values in times.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photos (default: drawn pictures)")
    parser.add_argument("--weights", default="random", help="checkpoint of a DINO ViT-S/16 (default: random weights)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=4, help="how many pictures (default: 4)")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    backbone = load_backbone("dino_vits16", weights=arguments.weights, device="cpu")
    pictures = drawn_images(arguments.count)
    if arguments.images:
        paths = list_images([arguments.images])[0][: arguments.count]
        pictures = [read_image(path).resize((WIDTH, HEIGHT)) for path in paths]
    found = list(extract(backbone, pictures, ("keys",), batch_size=1))
    if arguments.weights == "random":
        found = [centred(features) for features in found]
    for features in found:
        assert lost(features)[0].boxes[0].tolist() == plain_lost(features).tolist(), "LOST boxes differ"
        assert tokencut(features)[0].boxes[0].tolist() == plain_tokencut(features).tolist(), "TokenCut boxes differ"
    print(f"boxes agree on all {len(found)} images")
    best = measure(backbone, found, arguments.rounds)
    print(f"{'':<16} {'ms':>8} {'% of forward':>13} {'processor ms':>13} {'% of forward':>13}  target")
    for name, (clock, processor) in best.items():
        shares = 100 * best[name] / best["forward"]
        target = f"{TARGETS[name]:.0f} %" if name in TARGETS else ""
        print(f"{name:<16} {1e3 * clock:8.1f} {shares[0]:13.2f} {1e3 * processor:13.1f} {shares[1]:13.2f}  {target}")
