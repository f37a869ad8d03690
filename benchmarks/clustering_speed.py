"""Many objects into clusters: seconds and memory of spectral clustering (COMUS) and of k-means.

Descriptors are drawn as those of a network look: their variation lies mostly in a few directions (here 64 of 384), in
100 groups that overlap. Required: 100,000 × 384 into 100 clusters in under 3 minutes and 4 GB on two cores. Above
30,000 objects neighbours are approximate; ``--recall`` says what share of an object's true neighbours they hold, on a
part of the objects. The table has seconds by the clock and of processor time, the one to trust on a busy machine.

python benchmarks/clustering_speed.py [--objects N] [--clusters K] [--methods spectral kmeans] [--recall]
"""

import argparse
import resource
import sys
import time

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from foundling.categories import cluster_objects
from foundling.categories.graph import neighbour_graph

CHANNELS, DIRECTIONS = 384, 64
SECONDS, GIGABYTES = 180, 4


def drawn(objects: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors [object, 384] in float32 and the group of each."""
    random = np.random.default_rng(0)
    centres = 0.3 * random.normal(size=(groups, DIRECTIONS))
    turn = random.normal(size=(DIRECTIONS, CHANNELS)) / np.sqrt(DIRECTIONS)
    group = random.integers(groups, size=objects)
    scale = 1 / np.sqrt(1 + np.arange(DIRECTIONS) / 8)  # variances fall as those of a network's channels do
    out = np.empty((objects, CHANNELS), np.float32)
    for start in range(0, objects, 10_000):
        of = group[start : start + 10_000]
        inner = (centres[of] + 0.5 * random.normal(size=(len(of), DIRECTIONS))) * scale
        out[start : start + 10_000] = inner @ turn + 0.1 * random.normal(size=(len(of), CHANNELS))
    return out, group


def recall(descriptors: np.ndarray, neighbours: int, part: int = 1000) -> float:
    """The share of the true nearest neighbours of the first ``part`` objects that the approximate graph holds."""
    graph = neighbour_graph(descriptors, neighbours)[:part]
    true = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(descriptors)
    wanted = true.kneighbors(descriptors[:part], return_distance=False)
    held = [np.isin(row, graph[i].indices).mean() for i, row in enumerate(wanted)]
    return float(np.mean(held))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--methods", nargs="+", default=["spectral", "kmeans"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recall", action="store_true")
    arguments = parser.parse_args()
    descriptors, group = drawn(arguments.objects, arguments.clusters)
    print(f"{arguments.objects:,} × {CHANNELS} into {arguments.clusters}: at most {SECONDS} s and {GIGABYTES} GB")
    print(f"{'':<12} {'seconds':>8} {'processor s':>12} {'peak GB':>8} {'ARI with groups':>16}  flags")
    with threadpool_limits(arguments.threads):
        for method in arguments.methods:
            start = time.perf_counter(), time.process_time()
            found = cluster_objects(descriptors, arguments.clusters, method)
            clock, processor = time.perf_counter() - start[0], time.process_time() - start[1]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
            agreement = adjusted_rand_score(group, found.labels)
            print(
                f"{method:<12} {clock:8.1f} {processor:12.1f} {peak:8.2f} {agreement:16.3f}  {', '.join(found.flags)}",
                flush=True,
            )
        if arguments.recall:
            print(f"recall of 30 neighbours: {recall(descriptors, 30):.3f}")
