"""Label maps → mIoU: seconds for as many as VOC 2012 val has, of its size, with 21 classes.

Maps are drawn (blobs of classes, a tenth of the predicted ones wrong, void borders), written as index PNGs, and then
timed from the files to the intervals: reading both, counting (on one core), Hungarian matching and majority voting with
5,000 draws each. Required: under 60 s.

python benchmarks/segmentation_speed.py [--images N] [--classes C]
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from foundling.datasets.index_masks import write_labels
from foundling.datasets.semantic import read_semantic
from foundling.evaluation.segmentation import confusion, segmentation_scores

HEIGHT, WIDTH, VOID = 375, 500, 255
SECONDS = 60


def drawn(random: np.random.Generator, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A predicted and a true label map, each of background and a few ellipses; void around the true ones."""
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    found = truth.copy()
    for label in random.integers(1, classes, random.integers(1, 4)).tolist():
        centre = random.integers(0, (WIDTH, HEIGHT)).tolist()
        axes = random.integers(20, 150, 2).tolist()
        cv2.ellipse(truth, centre, axes, 0, 0, 360, label, -1)
        cv2.ellipse(truth, centre, axes, 0, 0, 360, VOID, 5)
        named = label if random.random() < 0.9 else int(random.integers(1, classes))
        cv2.ellipse(found, [c + 5 for c in centre], axes, 0, 0, 360, named, -1)
    return found, truth


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1449)
    parser.add_argument("--classes", type=int, default=21)
    arguments = parser.parse_args()
    random, classes = np.random.default_rng(0), arguments.classes
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder) / f"{i}_found.png", Path(folder) / f"{i}.png") for i in range(arguments.images)]
        for pair in files:
            for file, labels in zip(pair, drawn(random, classes), strict=True):
                write_labels(file, labels)
        start = time.perf_counter(), time.process_time()
        tables = [confusion(*(read_semantic(file, classes) for file in pair), classes, classes) for pair in files]
        counted = time.perf_counter(), time.process_time()
        results = {matching: segmentation_scores(np.stack(tables), matching) for matching in ("hungarian", "majority")}
        end = time.perf_counter(), time.process_time()
    print(f"{arguments.images:,} maps of {WIDTH}×{HEIGHT}, {classes} classes: at most {SECONDS} s")
    print(f"{'':<28} {'seconds':>8} {'processor s':>12}")
    for name, a, b in (("files to tables", start, counted), ("tables to scores", counted, end), ("both", start, end)):
        print(f"{name:<28} {b[0] - a[0]:8.1f} {b[1] - a[1]:12.1f}")
    for matching, result in results.items():
        print(f"mIoU, {matching}: " + ", ".join(f"{number:.2f}" for number in result.miou))
