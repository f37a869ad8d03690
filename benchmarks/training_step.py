"""What one step of Odin consists of, and how many images a second the training loop does.

python benchmarks/training_step.py [--network scenes|vits16|resnet50] [--device cpu|cuda] [--batch N] [--compile]

``scenes`` is the embedded network at its settings; ``vits16`` (ViT-S/16) and ``resnet50`` (with a feature pyramid) have
the paper's resolution, K and heads. The shares come from steps that wait for the device after every part; the speed is
that of the training loop itself, undisturbed; its first steps (compiling, cuDNN's choice of kernels) do not count.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from foundling.training import loop, odin
from foundling.training.batches import Batch
from foundling.training.data import order
from foundling.training.representation import prepare, train
from foundling.training.running import Run, make_accelerator, open_run
from foundling.training.settings import Common, settings_from

PAPER = {"masks": 16, "view_side": 224, "min_area": 0.08, "strength": 1.0, "hidden": 4096, "projection": 256}
NETWORKS: dict[str, dict[str, Any]] = {
    "scenes": {},
    "vits16": {
        "architecture": "vit_small_patch16_224", "options": {}, "span_side": 224, "image_side": 256,
        "clip": 0.0, **PAPER,
    },
    "resnet50": {
        "architecture": "resnet50", "options": {}, "span_side": 448, "image_side": 448, "optimiser": "lars",
        "clip": 0.0, "cluster_on": "projections", **PAPER,
    },
}  # fmt: skip
MATRIX = ("mm", "linear", "conv", "attention", "einsum")  # in the names of operations that are matrix products
WARM = 3  # steps that do not count


def settings_for(name: str, arguments: argparse.Namespace) -> Common:
    """The settings of a run of as many steps as are timed."""
    batch = arguments.batch or (24 if name == "scenes" else 8)
    steps = WARM + arguments.steps
    values = {
        "batch": batch, "images": 2 * batch, "steps": steps, "warmup": 1, "log_every": 1, "monitor_every": steps,
        "save_every": steps, "probes": 2, "precision": arguments.precision, "compile": arguments.compile,
    }  # fmt: skip
    return settings_from({"objective": "odin", **NETWORKS[name], **values}, name)


class Clock:
    """Seconds by name, of parts that may lie within one another."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict[str, float](float)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            result = function(*args, **kwargs)
            self.seconds[name] += self.now() - start
            return result

        return call


def instrument(run: Run, clock: Clock) -> None:
    """Let the parts of a step be timed."""
    objective: Any = run.task
    target = objective.target
    # The call of a module, compiled or not: a hook or another forward would change what is compiled.
    target._compiled_call_impl = clock.timed("targets", target._compiled_call_impl or target._call_impl)
    objective.make_views = clock.timed("views", objective.make_views)
    objective.segment = clock.timed("segment", objective.segment)
    objective.forward = clock.timed("forward", objective.forward)
    objective.after_step = clock.timed("averages", objective.after_step)
    run.accelerator.backward = clock.timed("backward", run.accelerator.backward)
    run.optimiser.step = clock.timed("optimiser", run.optimiser.step)  # type: ignore[method-assign]


def do_step(run: Run, batch: Batch, step: int) -> None:
    """A step as the training loop does it."""
    names, values = loop.find_gradient(run, [batch], step)
    loop.move(run, dict(zip(names, values.tolist(), strict=True)), step)


def shares(settings: Common, cpu: bool, folder: Path) -> dict[str, float]:
    """Mean seconds of a step's parts, and of the whole step."""
    run = open_run(settings, folder / "shares", make_accelerator(settings, cpu), prepare(settings))
    clock, kmeans = Clock(run.accelerator.device), odin.kmeans
    instrument(run, clock)
    batches = run.images.batches(order(len(run.images), settings.batch, 0, 0, settings.steps))
    odin.kmeans = clock.timed("k-means", kmeans)
    for step in range(settings.steps):
        if step == WARM:
            clock.seconds.clear()
        batch = clock.timed("data", next)(batches)
        clock.timed("step", do_step)(run, batch, step)
    odin.kmeans = kmeans
    s = {name: value / (settings.steps - WARM) for name, value in clock.seconds.items()}
    parts = {name: s[name] for name in ("data", "views", "k-means")}
    parts["discovery network"] = s["segment"] - s["k-means"]
    parts["target network"] = s["targets"]
    parts["online network and loss, forward and backward"] = s["forward"] - s["segment"] - s["targets"] + s["backward"]
    parts["optimiser and moving averages"] = s["optimiser"] + s["averages"]
    return {**parts, "whole step": s["data"] + s["step"]}


def images_per_second(settings: Common, cpu: bool, folder: Path) -> float:
    """The median over the steps of the training loop."""
    history = train(settings, folder / "speed", progress=False, cpu=cpu).history
    return float(np.median([row["images_per_second"] for row in history[WARM:]]))


def outside_matrices(settings: Common, cpu: bool, folder: Path) -> float:
    """The share of the device's (or the processor's) time that goes into anything but matrix products."""
    run = open_run(settings, folder / "profile", make_accelerator(settings, cpu), prepare(settings))
    cuda = run.accelerator.device.type == "cuda"
    batches = run.images.batches(order(len(run.images), settings.batch, 0, 0, settings.steps))
    for step in range(WARM):
        do_step(run, next(batches), step)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        for step in range(WARM, settings.steps):
            do_step(run, next(batches), step)
    times = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in profiler.key_averages()}
    matrices = sum(t for name, t in times.items() if any(part in name.lower() for part in MATRIX))
    return 1 - matrices / sum(times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="scenes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="default: 24 for scenes, 8 for the others")
    parser.add_argument("--steps", type=int, default=10, help="that are timed (10)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true", help="also the share of time outside matrix products")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device")
    settings, cpu = settings_for(arguments.network, arguments), arguments.device == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        parts = shares(settings, cpu, Path(folder))
        rate = images_per_second(settings, cpu, Path(folder))
        how = f"{arguments.network}, {arguments.device}, {settings.precision}, batch {settings.batch}"
        print(f"{how}: {rate:.1f} images/s")
        for name, value in parts.items():
            print(f"{name:<48} {1000 * value:9.1f} ms {100 * value / parts['whole step']:6.1f} %")
        if arguments.profile:
            print(f"outside matrix products: {100 * outside_matrices(settings, cpu, Path(folder)):.1f} %")


if __name__ == "__main__":
    main()
