"""How many images a second a detector's training does, and how much of its time goes by waiting for images.

python benchmarks/detector_speed.py [--network r50_c4|r50_fpn|vit] [--device cpu|cuda] [--batch N] [--workers N]

The networks are the paper's (appendix D), or torchvision's with a pyramid, from random weights, at a shorter side of
800 pixels; ``vit`` is the embedded network at the settings of ``studies/training/scenes_cad.yaml``. The images are JPEG
files of 500×375 pixels (scenes, cut), as large as those of VOC, with a box each. The first steps do not count.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foundling.datasets.scenes import render_scene
from foundling.discovery.export import encode_mask
from foundling.studies import read_mapping
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import train_detector
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.training.recipes import RECIPES
from foundling.training.settings import Common
from foundling.types import Sample

HEIGHT, WIDTH = 375, 500
FPN: dict[str, Any] = {"network": "r50_fpn", "anchors": [[32], [64], [128], [256], [512]], "pool": 7, "hidden": 1024}
FILES = {"r50_c4": "voc07_cad", "r50_fpn": "voc07_cad", "vit": "scenes_cad"}
WARM = 5  # steps that do not count


def settings_for(network: str, arguments: argparse.Namespace) -> Detector:
    """The settings of a run of as many steps as are timed."""
    file = RECIPES / f"{FILES[network]}.yaml"
    values = read_mapping(file, file.name, "training", Common)
    steps = WARM + arguments.steps
    run = {"steps": steps, "warmup": 1, "schedule": "cosine", "decay_at": [], "log_every": 1, "save_every": steps}
    run |= {"batch": arguments.batch, "workers": arguments.workers, "precision": arguments.precision, "precise_bn": 0}
    start = {} if network == "vit" else {"weights": "random"}
    return Detector(**values | (FPN if network == "r50_fpn" else {}) | run | start)


def photos(folder: Path, count: int) -> tuple[list[Sample], PseudoLabels]:
    """Scenes as JPEG files, each with the box and the mask of its object."""
    samples, images = [], []
    for i in range(count):
        pixels, masks, _ = render_scene(i, 512, "single")
        path = folder / f"{i}.jpg"
        Image.fromarray(pixels[:HEIGHT, :WIDTH]).save(path, quality=95)
        mask = np.asarray(masks[0][:HEIGHT, :WIDTH], dtype=bool)
        rows, columns = np.nonzero(mask)
        if len(rows):
            box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=np.float64)
            samples.append(Sample(path.name, path, i))
            kind, found = np.zeros(1, np.int64), (encode_mask(mask),)
            images.append(ImageLabels(path.name, i, (HEIGHT, WIDTH), box, kind, found))
    return samples, PseudoLabels(tuple(images))


def print_speed(network: str, history: Sequence[Mapping[str, float]]) -> None:
    """A row of the table: the medians of the steps that count."""
    rows = history[WARM:]
    speed, waiting = (float(np.median([row[name] for row in rows])) for name in ("images_per_second", "waiting"))
    print(f"| {network} | {speed:.1f} | {100 * waiting:.1f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=FILES, action="append")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    print("| network | images/s | waiting for images |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = photos(Path(folder), 2 * arguments.batch)
        for network in arguments.network or FILES:
            settings, out = settings_for(network, arguments), Path(folder) / network
            outcome = train_detector(*data, settings, out, progress=False, cpu=arguments.device == "cpu")
            print_speed(network, outcome.history)


if __name__ == "__main__":
    main()
