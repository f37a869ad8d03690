"""How long a step of box-based refinement takes, and how much of it goes by finding boxes.

python benchmarks/refinement_speed.py [--method lost|tokencut] [--device cpu|cuda] [--batch N] [--side N] [--scenes]

The networks are the paper's, ViT-S/16 and a ResNet-50, from random weights, at its batch of 36 squares of 304 pixels;
with ``--scenes`` those of ``studies/training/scenes_refine.yaml``, on the embedded network. The images are scenes as
PNG files. The first steps of each phase do not count.

Patches of a network with random weights are not like those of a trained one, but boxes take as long to find.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foundling.datasets.scenes import render_scene
from foundling.studies import read_mapping
from foundling.training.recipes import RECIPES
from foundling.training.refinement.settings import Refinement
from foundling.training.refinement.task import discovery_share, refine
from foundling.training.settings import Common
from foundling.types import Sample

WARM = 3  # steps that do not count


def settings_for(arguments: argparse.Namespace) -> Refinement:
    """The settings of a run of as many steps as are timed, in both phases."""
    file = RECIPES / ("scenes_refine.yaml" if arguments.scenes else f"refine_{arguments.method}_paper.yaml")
    values = read_mapping(file, file.name, "training", Common)
    steps = WARM + arguments.steps
    run: dict[str, Any] = {"phases": [{"h": steps}, {"f": steps}], "log_every": 1, "save_every": 2 * steps}
    run |= {"export_at": [], "held_out": 0, "workers": arguments.workers, "precision": arguments.precision}
    if not arguments.scenes:
        run |= {"weights": "random", "network_weights": "random"}
    run |= {name: value for name in ("batch", "side") if (value := getattr(arguments, name))}
    return Refinement(**values | run)


def write_scenes(folder: Path, count: int) -> list[Sample]:
    """Scenes as PNG files."""
    samples = []
    for i in range(count):
        path = folder / f"{i}.png"
        Image.fromarray(render_scene(i, 320, "single")[0]).save(path)
        samples.append(Sample(path.name, path, i))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("lost", "tokencut"), default="lost")
    parser.add_argument("--scenes", action="store_true", help="the small run that notebook 07 does")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch", type=int, default=0, help="images a step; 0: that of the recipe")
    parser.add_argument("--side", type=int, default=0, help="pixels; 0: that of the recipe")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    settings = settings_for(arguments)
    with tempfile.TemporaryDirectory() as folder:
        samples = write_scenes(Path(folder), 2 * settings.batch)
        history = refine(samples, settings, Path(folder) / "run", progress=False, cpu=arguments.device == "cpu").history
    print("| phase | seconds a step | finding boxes | waiting for images |\n|---|---|---|---|")
    for number, name in enumerate(("h", "f")):
        rows = [row for row in history if row["phase"] == number][WARM:]
        seconds = float(np.median([settings.batch / row["images_per_second"] for row in rows]))
        waiting = float(np.median([row["waiting"] for row in rows]))
        print(f"| {name} | {seconds:.3f} | {100 * discovery_share(rows, settings):.1f} % | {100 * waiting:.1f} % |")


if __name__ == "__main__":
    main()
