"""Small annotated images and detections in them, for tests of what judges detectors."""

from pathlib import Path

import numpy as np

from foundling.types import Detections, Sample, Target


def sample_of(image_id, boxes, labels=None, difficult=None, crowd=None) -> Sample:
    n = len(boxes)
    flags = [np.zeros(n, dtype=bool) if given is None else np.array(given, dtype=bool) for given in (difficult, crowd)]
    target = Target(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.zeros(n, dtype=np.int64) if labels is None else np.array(labels, dtype=np.int64),
        flags[0],
        np.zeros(n, dtype=bool),
        flags[1],
    )
    return Sample(f"{image_id}.png", Path(f"{image_id}.png"), image_id, target)


def found_of(boxes, scores=None, labels=None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.linspace(0.9, 0.1, n) if scores is None else np.array(scores, dtype=np.float64),
        np.zeros(n, dtype=np.int64) if labels is None else np.array(labels, dtype=np.int64),
    )


def random_boxes(rng, n) -> np.ndarray:
    corners = rng.integers(0, 90, (n, 2))
    return np.concatenate([corners, corners + rng.integers(4, 60, (n, 2))], axis=1).astype(np.float64)


def random_case(rng, images=12, classes=3, clusters=4, crowds=0.0, difficult=0.2):
    """Detections that often lie near an object, some twice, and often have the cluster that goes with its class."""
    samples, detected = [], {}
    for i in rng.permutation(60)[:images].tolist():
        n = int(rng.integers(0, 7))
        boxes, labels = random_boxes(rng, n), rng.integers(0, classes, n)
        samples.append(sample_of(i, boxes, labels, rng.random(n) < difficult, rng.random(n) < crowds))
        twice = np.concatenate([np.arange(n), rng.integers(0, n, n // 2) if n else np.zeros(0, dtype=np.int64)])
        near = boxes[twice] + rng.integers(-3, 4, (len(twice), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        other = random_boxes(rng, int(rng.integers(0, 4)))
        named = np.where(
            rng.random(len(near)) < 0.7, (labels[twice] + 1) % clusters, rng.integers(0, clusters, len(near))
        )
        named = np.concatenate([named, rng.integers(0, clusters, len(other))])
        if len(named) or rng.random() < 0.5:  # an image without detections may be missing
            detected[i] = found_of(np.concatenate([near, other]), rng.random(len(named)), named)
    return samples, detected


def drawn_copies(samples, detected, draw):
    """The images of one draw, by position among ascending ids, every copy as an image of its own."""
    ordered, copies, found = sorted(samples, key=lambda s: s.image_id), [], {}
    for n, i in enumerate(draw.tolist()):
        copies.append(Sample(f"{n}", Path(f"{n}"), n, ordered[i].target))
        if ordered[i].image_id in detected:
            found[n] = detected[ordered[i].image_id]
    return copies, found


def devkit_ap(samples, detected, cluster, label, threshold, eleven=False) -> float:
    """AP from the devkit's definition, one detection after the other: pixels from 1, the last included.

    ``cluster`` and ``label`` are of detections and objects; ``None`` takes all for one class.
    """
    objects, wanted, rows = {}, 0, []
    for sample in samples:
        target = sample.target
        objects[sample.image_id] = [
            {"box": (x0 + 1, y0 + 1, x1, y1), "difficult": bool(target.difficult[n]), "claimed": False}
            for n, (x0, y0, x1, y1) in enumerate(target.boxes.tolist())
            if label is None or target.labels[n] == label
        ]
        wanted += sum(not o["difficult"] for o in objects[sample.image_id])
        if sample.image_id in detected:
            found = detected[sample.image_id]
            for (x0, y0, x1, y1), score, named in zip(found.boxes, found.scores, found.labels, strict=True):
                if cluster is None or named == cluster:
                    rows.append((score, sample.image_id, (x0 + 1, y0 + 1, x1, y1)))
    if wanted == 0:
        return float("nan")
    right, wrong, points = 0, 0, []
    for _, image_id, (x0, y0, x1, y1) in sorted(rows, key=lambda row: -row[0]):
        best, most = None, -1.0
        for o in objects[image_id]:
            u0, v0, u1, v1 = o["box"]
            width, height = min(x1, u1) - max(x0, u0) + 1, min(y1, v1) - max(y0, v0) + 1
            shared = max(width, 0) * max(height, 0)
            union = (x1 - x0 + 1) * (y1 - y0 + 1) + (u1 - u0 + 1) * (v1 - v0 + 1) - shared
            if shared / union > most if union > 0 else False:
                best, most = o, shared / union
        if best is None or not most > threshold:
            wrong += 1
        elif not best["difficult"]:
            right, wrong = (right, wrong + 1) if best["claimed"] else (right + 1, wrong)
            best["claimed"] = True
        if right + wrong:
            points.append((right / wanted, right / (right + wrong)))
    if eleven:
        return sum(max((p for r, p in points if r >= level / 10), default=0.0) for level in range(11)) / 11
    area = 0.0
    for n, (recall, _) in enumerate(points):
        before = points[n - 1][0] if n else 0.0
        area += (recall - before) * max(p for _, p in points[n:])
    return area
