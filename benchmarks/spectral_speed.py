"""What spectral masks, TokenCut and MaskCut cost, beside scikit-learn and the authors' dense solver.

One image at a time, 480×640 pixels in 1,200 patches, CPU, two threads; best of all rounds, by the clock and by
processor time, which is the one to trust on a busy machine.

(a) all of k = 2 to 6 by ``spectral_masks``, from the features, against five calls of scikit-learn's
    ``SpectralClustering(affinity="precomputed")``, which get the weights for nothing; adjusted Rand indices of all
    partitions;
(b) ``tokencut`` against the dense generalised eigenproblem on the same graph, and the boxes;
(c) ``maskcut`` with three masks against one ``tokencut``;
(d) peak memory at 4,000 patches, each method in a process of its own, above that of a process that only loads;
(e) ``--device cuda``: a batch of 64 images, forward pass, TokenCut and all k, and the spectral part's share.

python benchmarks/spectral_speed.py [--network scenes_odin] [--images FOLDER] [--count N] [--rounds N]
python benchmarks/spectral_speed.py --memory
python benchmarks/spectral_speed.py --device cuda
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from discovery_speed import HEIGHT, WIDTH, boxed, centred, drawn_images, seconds
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from foundling.backbones import extract, load_backbone
from foundling.backbones.vit import transformer_facets
from foundling.datasets.images import list_images, read_image
from foundling.discovery import maskcut, spectral_masks, tokencut
from foundling.discovery.affinity import cosine_affinity
from foundling.types import PatchFeatures

KS = (2, 3, 4, 5, 6)
METHODS: dict[str, Callable[[PatchFeatures], object]] = {
    "loading": lambda features: None,
    "spectral_masks": spectral_masks,
    "tokencut": tokencut,
    "maskcut": maskcut,
}


def scikit_learn(affinity: np.ndarray) -> list[np.ndarray]:
    return [SpectralClustering(k, affinity="precomputed", random_state=0).fit(affinity).labels_ for k in KS]


def dense_vector(weights: np.ndarray) -> np.ndarray:
    degree = np.diag(weights.sum(axis=1))
    return scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 2])[1][:, 0]


def token_graph(features: PatchFeatures) -> np.ndarray:
    unit = torch.nn.functional.normalize(features.facet("keys")[0], dim=1)
    return np.where((unit @ unit.T > 0.2).numpy(), 1.0, 1e-5)


def dense_box(features: PatchFeatures) -> list[float]:
    vector = dense_vector(token_graph(features))
    above = vector > vector.mean()
    seed = int(np.argmax(np.abs(vector)))
    return boxed(features, above == above[seed], seed).tolist()


def compare(batches: list[PatchFeatures]) -> None:
    """Adjusted Rand indices and boxes."""
    scores, boxes, missing = [], 0, 0
    for features in batches:
        (found,) = spectral_masks(features, KS)
        theirs = scikit_learn(cosine_affinity(features.facet("keys"))[0].double().numpy())
        for k, labels in zip(KS, theirs, strict=True):
            masks = found.masks[found.levels == k]
            missing += len(masks) != k or not masks.any((1, 2)).all()
            scores.append(adjusted_rand_score(labels, masks.argmax(0).ravel()))
        boxes += tokencut(features)[0].boxes[0].tolist() == dense_box(features)
    print(
        f"adjusted Rand index, {len(scores)} partitions: median {np.median(scores):.4f}, mean {np.mean(scores):.4f}, "
        f"least {min(scores):.3f}; at least 0.98 in {np.mean(np.array(scores) >= 0.98):.0%}; missing {missing}"
    )
    print(f"TokenCut's box is the dense solver's in {boxes} of {len(batches)} images")


@torch.inference_mode()
def measure(batches: list[PatchFeatures], rounds: int) -> None:
    """Seconds of each step, summed over the images, of the best round of each."""
    least: dict[str, np.ndarray] = {}
    for i, features in enumerate(batches):
        affinity = cosine_affinity(features.facet("keys"))[0].double().numpy()
        graph = token_graph(features)
        steps: dict[str, Callable[[], object]] = {
            "all k": lambda features=features: spectral_masks(features, KS),
            "scikit-learn": lambda affinity=affinity: scikit_learn(affinity),
            "TokenCut": lambda features=features: tokencut(features),
            "dense solver": lambda graph=graph: dense_vector(graph),
            "MaskCut": lambda features=features: maskcut(features, 3, tau=0.2),
        }
        best = {name: np.min([seconds(step) for _ in range(rounds)], axis=0) for name, step in steps.items()}
        least = {name: least.get(name, np.zeros(2)) + best[name] for name in steps}
        print(f"image {i}: " + ", ".join(f"{name} {1e3 * best[name][1]:.0f}" for name in steps), flush=True)
    print(f"{'milliseconds an image':<24} {'clock':>8} {'processor':>10}")
    for name, values in least.items():
        print(f"{name:<24} {1e3 * values[0] / len(batches):8.1f} {1e3 * values[1] / len(batches):10.1f}")
    for text, above, below in (
        ("scikit-learn / all k, at least 8", "scikit-learn", "all k"),
        ("dense solver / TokenCut, at least 5", "dense solver", "TokenCut"),
        ("MaskCut / TokenCut, at most 3.2", "MaskCut", "TokenCut"),
    ):
        clock, processor = least[above] / least[below]
        print(f"{text:<36} {clock:6.2f} by the clock {processor:6.2f} in processor time")


def random_features(patches: tuple[int, int], channels: int = 384) -> PatchFeatures:
    """Smooth random descriptors, as neighbouring patches have similar ones."""
    noise = torch.randn(1, channels, 8, 10, generator=torch.Generator().manual_seed(0))
    keys = torch.nn.functional.interpolate(noise, patches, mode="bicubic").flatten(2).transpose(1, 2).contiguous()
    keys += 0.3 * torch.randn(keys.shape, generator=torch.Generator().manual_seed(1))
    size = torch.tensor([[16 * patches[0], 16 * patches[1]]])
    return PatchFeatures(patches, 16, size, size, ("random",), (0,), keys=keys)


def memory() -> None:
    """Peak MiB of each method at 50×80 patches."""
    peaks = {}
    for name in METHODS:
        command = [sys.executable, __file__, "--child", name]
        peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:<16} peak {peaks[name]:6.0f} MiB, {peaks[name] - peaks['loading']:6.0f} more than loading")


def child(name: str) -> None:
    torch.set_num_threads(1)
    METHODS[name](random_features((50, 80)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@torch.inference_mode()
def share(device: str, count: int, rounds: int) -> None:
    """Forward pass, TokenCut and all k of a batch on one device, and the share of the last two."""
    backbone = load_backbone("dino_vits16", weights="random", device=device)
    pictures = drawn_images(4)
    pixels = torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)).to(device)
    one = [centred(features) for features in extract(backbone, pictures, ("keys",), batch_size=1)]
    keys = torch.cat([one[i % len(one)].facet("keys") for i in range(count)])
    sizes = torch.tensor([[HEIGHT, WIDTH]] * count)
    names = tuple(map(str, range(count)))
    features = PatchFeatures(one[0].grid, one[0].patch_size, sizes, sizes, names, tuple(range(count)), keys=keys)
    steps: dict[str, Callable[[], object]] = {
        "forward": lambda: transformer_facets(backbone.network, pixels, ("keys",), backbone.blocks - 1),
        "TokenCut": lambda: tokencut(features),
        "all k": lambda: spectral_masks(features, KS),
    }
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best.get(name, np.inf), time.perf_counter() - start)
    for name, value in best.items():
        print(f"{name:<10} {1e3 * value:8.1f} ms, {value / sum(best.values()):.1%}")
    spectral = (best["TokenCut"] + best["all k"]) / sum(best.values())
    print(f"spectral part of a batch of {count} on {device}: {spectral:.1%} (on a GPU below 30 %)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="dino_vits16", choices=("dino_vits16", "scenes_odin"))
    parser.add_argument("--images", type=Path, help="folder of photos (default: drawn pictures)")
    parser.add_argument("--count", type=int, default=8, help="how many pictures (default: 8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="only measure memory")
    parser.add_argument("--device", help="only measure a batch of 64 (or --count) images on this device")
    parser.add_argument("--child", choices=tuple(METHODS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.child:
        child(arguments.child)
    elif arguments.memory:
        memory()
    elif arguments.device:
        share(arguments.device, 64 if arguments.device == "cuda" else arguments.count, arguments.rounds)
    else:
        trained = arguments.network == "scenes_odin"  # patches of 8 pixels: half the size gives as many
        size = (WIDTH // 2, HEIGHT // 2) if trained else (WIDTH, HEIGHT)
        pictures = drawn_images(arguments.count)
        if arguments.images:
            paths = list_images([arguments.images])[0][: arguments.count]
            pictures = [read_image(path) for path in paths]
        pictures = [picture.resize(size) for picture in pictures]
        weights = "pretrained" if trained else "random"
        backbone = load_backbone(arguments.network, weights=weights, device="cpu")
        found = list(extract(backbone, pictures, ("keys",), batch_size=1))
        batches = found if trained else [centred(features) for features in found]
        compare(batches)
        measure(batches[:4], arguments.rounds)
