"""What discovering masks adds to a step of Odin: floating-point operations (Odin, A.5) and time.

python benchmarks/odin_overhead.py [--rounds 3] [--vit]

Operations are counted by PyTorch as a step runs (a multiplication with its addition is two), for two images of noise
and random weights, with the paper's heads and 16 masks. Shares are of the two views' forward and backward passes, as
the paper's seem to be, and of the whole step, which also holds the target network's passes, the heads and the loss.
Times are those of this project's default settings on the CPU.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foundling.discovery.kmeans import kmeans
from foundling.training.batches import Batch
from foundling.training.odin import Odin
from foundling.training.settings import Odin as Settings

IMAGES = 2
PAPER: dict[str, Any] = {
    "masks": 16, "hidden": 4096, "projection": 256, "view_side": 224, "precision": "fp32", "batch": IMAGES,
}  # fmt: skip
RESNET: dict[str, Any] = {**PAPER, "architecture": "resnet50", "options": {}, "cluster_on": "projections"}
RUNS = {
    "ResNet-50 + FPN, spanning view 224": ({**RESNET, "span_side": 224}, "+16 %, k-means +1.2 % (0.25 GFLOP)"),
    "ResNet-50 + FPN, spanning view 448": ({**RESNET, "span_side": 448}, "+67 %, k-means +5 % (1 GFLOP)"),
    "ViT-B/8, spanning view 224": (
        {**PAPER, "architecture": "vit_base_patch8_224", "options": {}, "span_side": 224},
        "not stated",
    ),
}


def batch_of(settings: Settings) -> Batch:
    pixels = np.random.default_rng(0).integers(0, 256, (settings.batch, 3, 256, 256), dtype=np.uint8)
    return Batch(torch.from_numpy(pixels), torch.arange(settings.batch))


def operations(work: Callable[[], object]) -> float:
    """GFLOP an image; attention as plain products, which the counter knows on every device."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / IMAGES / 1e9


def count(name: str, values: dict[str, Any], printed: str) -> None:
    settings = Settings(**values)
    odin = Odin(settings, settings.batch)
    views = odin.make_views(batch_of(settings), Generator().manual_seed(0))
    span = views.views.span
    assert span is not None

    def learn() -> None:
        for image in views.views.images:
            odin.network(image).mean().backward()

    made: list[Tensor] = []  # the discovery features, then what k-means clusters

    @torch.no_grad()
    def discover() -> None:
        made.append(odin.discovery(span).flatten(2).transpose(1, 2))

    @torch.no_grad()
    def project() -> None:
        if odin.discovery_projector is not None:
            made.append(odin.discovery_projector(made[0].flatten(0, 1)).unflatten(0, made[0].shape[:2]))

    parts = {"both views, forward and backward": operations(learn), "discovery network": operations(discover)}
    parts |= {"projections of every place": operations(project)}
    cluster = operations(lambda: kmeans(made[-1], settings.masks, Generator().manual_seed(0), settings.iterations))
    whole = operations(lambda: odin(views)["loss"].backward())
    parts |= {f"k-means, {settings.iterations} iterations": cluster, "the whole step": whole}
    views_alone = parts["both views, forward and backward"]
    print(f"{name} (published: {printed})")
    for part, amount in parts.items():
        print(
            f"  {part:34} {amount:8.2f} GFLOP  {amount / views_alone:6.1%} of the views  {amount / whole:6.1%} of all"
        )


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def clock(rounds: int) -> None:
    """The share of the masks, and of k-means in them, of the processor time of a step with the default settings."""
    settings = Settings()
    odin = Odin(settings, settings.batch)
    spent = [step_seconds(odin, step) for step in range(rounds + 1)]
    whole, segmenting, clustering = np.median(spent[1:], axis=0)  # the first is the warm-up
    print(
        f"default settings, {settings.batch} images a step: {whole:.2f} s of processor time, masks "
        f"{segmenting / whole:.1%} of it, k-means {clustering / whole:.1%}"
    )


def step_seconds(odin: Odin, step: int) -> tuple[float, float, float]:
    """Processor time of a step without its optimiser, of its masks, and of their k-means."""
    s = odin.settings
    batch, drawn = batch_of(s), Generator().manual_seed(step)

    def learn() -> None:
        views = odin.make_views(batch, drawn)
        with torch.autocast("cpu", torch.bfloat16):
            loss = odin(views)["loss"]
        loss.backward()

    span = odin.make_views(batch, drawn).views.span
    assert span is not None
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        features = odin.discovery(span).flatten(2).transpose(1, 2).float()
        segmenting = seconds(lambda: odin.segment(span, step))
    clustering = seconds(lambda: kmeans(features, s.masks, drawn, s.iterations))
    return seconds(learn), segmenting, clustering


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="steps that are timed")
    parser.add_argument("--vit", action="store_true", help="count ViT-B/8 as well: minutes on a CPU")
    options = parser.parse_args()
    for name, (values, printed) in RUNS.items():
        if options.vit or not name.startswith("ViT"):
            count(name, values, printed)
    clock(options.rounds)


if __name__ == "__main__":
    main()
