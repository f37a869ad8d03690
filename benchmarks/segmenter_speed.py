"""How many images a second the training of segmenters does, and how much of its time goes by waiting for images.

python benchmarks/segmenter_speed.py [--network deeplab|solo|unet|vit] [--device cpu|cuda] [--batch N] [--workers N]

``deeplab`` is COMUS' DeepLabv3 on a ResNet-50 on crops of 512 pixels, ``solo`` SOLOv2 on a ResNet-50 at a shorter side
of 800, from random weights; ``unet`` and ``vit`` are what notebook 06 trains, at the settings of
``studies/training/scenes_semantic.yaml`` and ``scenes_instances.yaml``. The images are those of ``detector_speed.py``,
with a mask each. The first steps do not count.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detector_speed import WARM, photos, print_speed

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.index_masks import write_labels
from foundling.discovery.export import decode_mask
from foundling.studies import read_mapping
from foundling.training.instance.settings import Solo
from foundling.training.instance.train import train_instances
from foundling.training.pseudo_labels import PseudoLabels
from foundling.training.recipes import RECIPES
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.task import train_semantic
from foundling.training.settings import Common
from foundling.types import Sample

CLUSTERS = 20  # VOC's
RESNET = {"weights": "random"}
FILES: dict[str, tuple[str, dict[str, Any]]] = {  # network -> its recipe, and what differs from it
    "deeplab": ("comus_semantic_1", {**RESNET, "epochs": 0}),
    "solo": ("instanceness_solo", {**RESNET, "network": "r50_fpn", "min_sizes": [800]}),
    "unet": ("scenes_semantic", {}),
    "vit": ("scenes_instances", {}),
}


def settings_for(network: str, arguments: argparse.Namespace) -> Semantic | Solo:
    """The settings of a run of as many steps as are timed."""
    name, changes = FILES[network]
    values = read_mapping(RECIPES / f"{name}.yaml", f"{name}.yaml", "training", Common)
    steps = WARM + arguments.steps
    run = {"steps": steps, "warmup": 1, "log_every": 1, "save_every": steps}
    run |= {key: value for key in ("batch", "workers", "precision") if (value := getattr(arguments, key)) is not None}
    kind = Semantic if values["objective"] == "semantic" else Solo
    return kind(**values | changes | run)


def label_maps(folder: Path, samples: Sequence[Sample], labels: PseudoLabels) -> PseudoMasks:
    """The masks as label maps, in one of 20 clusters."""
    files = []
    for i, image in enumerate(labels.images):
        assert image.masks is not None
        files.append(folder / f"{samples[i].name}.png")
        write_labels(files[-1], (decode_mask(image.masks[0]) * (1 + i % CLUSTERS)).astype(np.uint8))
    return PseudoMasks(tuple(files), CLUSTERS, (), ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=FILES, action="append")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="that of the recipe")
    parser.add_argument("--batch", type=int, help="images a step: those of the recipe")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, help="that of the recipe")
    arguments = parser.parse_args()
    cpu = arguments.device == "cpu"
    print("| network | images/s | waiting for images |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        chosen = {network: settings_for(network, arguments) for network in arguments.network or FILES}
        samples, labels = photos(Path(folder), 2 * max(settings.batch for settings in chosen.values()))
        maps = label_maps(Path(folder), samples, labels)
        for network, settings in chosen.items():
            out = Path(folder) / network
            if isinstance(settings, Semantic):
                outcome = train_semantic(samples, maps, settings, out, progress=False, cpu=cpu)
            else:
                outcome = train_instances(samples, labels, settings, out, progress=False, cpu=cpu)
            print_speed(network, outcome.history)


if __name__ == "__main__":
    main()
