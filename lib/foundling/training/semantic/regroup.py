"""Between two rounds: the objects of a segmenter's label maps get sharper borders, and new clusters.

This is ours, not COMUS', whose second round takes predictions as they are (Alg. 2). A first round on masks many of
which hold background learns what objects are better than what they are called: its clusters were made of those masks.
Clusters of the objects that it finds are better ones. On scenes, masks of LOST that get sharper borders and new
clusters without any training come as far (notebook 06).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from foundling.backbones.load import Backbone
from foundling.categories import Objects, cluster_objects, core, describe_objects
from foundling.categories.fitting import fitted
from foundling.categories.pseudo_masks import PseudoMasks, file_names, kept_maps, map_of_rows
from foundling.datasets.images import read_image
from foundling.datasets.index_masks import write_labels
from foundling.discovery.chunks import code_digest
from foundling.discovery.export import encode_mask
from foundling.errors import ImageError
from foundling.files import writing
from foundling.types import VOID, Failure, Sample

SOURCES = ("datasets/images.py", "categories/*.py", "backbones/*.py", "training/semantic/regroup.py")
REACH = 12  # pixels on both sides of a border within which it may move
ROUNDS = 2  # of GrabCut

Regrouping = Callable[[PseudoMasks, Sequence[Sample], Path], PseudoMasks]


@dataclass(frozen=True)
class Regroup:
    """Makes label maps of label maps; see :meth:`__call__`.

    Objects of more than ``min_area`` pixels are described by ``network`` as ``description`` says (arguments of
    :func:`foundling.categories.describe_objects`), and put into clusters by spectral clustering over ``neighbours``,
    drawn with ``seed``; the nearest ``share`` of each cluster is beyond doubt. Borders move by up to ``reach`` pixels.
    """

    network: Backbone
    seed: int = 0
    min_area: int = 400
    reach: int = REACH
    neighbours: int = 30
    share: float = 0.8
    description: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, masks: PseudoMasks, samples: Sequence[Sample], folder: Path) -> PseudoMasks:
        """Label maps in ``folder`` from ``masks``, label maps of ``samples``; used again if they are there.

        An object is a connected region of one or more clusters; what is smaller, or has no descriptor, is background,
        and an object in doubt void (255). There are as many clusters as before, but they are others. Images without a
        label map have none; those that cannot be read are failures.

        Raises :class:`ParameterError` where ``masks`` are not of ``samples``, fewer than three objects are left, or
        ``folder`` holds files that were not made here, and as :func:`foundling.categories.describe_objects`.
        """
        masks.check(samples)
        names = file_names([sample.name for sample in samples])
        files = [folder / name if there else None for name, there in zip(names, masks.files, strict=True)]
        wanted = [file for file in files if file is not None]
        kept = kept_maps(folder, wanted, self._digest(masks, samples))
        failures: list[Failure] = []
        if len(kept) < len(wanted):
            failures = self._write(masks, samples, files)
        failed = {failure.index for failure in failures}
        made = tuple(None if i in failed else file for i, file in enumerate(files))
        return PseudoMasks(made, masks.clusters, (), (*masks.failures, *failures))

    def _write(self, masks: PseudoMasks, samples: Sequence[Sample], files: Sequence[Path | None]) -> list[Failure]:
        failures: list[Failure] = []
        sizes, objects = self._objects(masks, samples, failures)
        found = describe_objects(self.network, samples, objects, **self.description, failures=[])
        fine = np.isfinite(found).all(axis=1)
        objects, found = objects[fine], found[fine]
        clusters, neighbours = fitted(found, masks.clusters, self.neighbours)
        groups = cluster_objects(found, clusters, "spectral", self.seed, neighbours)
        labels = groups.kept(core(groups, self.share))
        for i, size in sizes.items():
            file, rows = files[i], np.flatnonzero(objects.images == i).tolist()
            assert file is not None
            with writing(file) as part:
                write_labels(part, map_of_rows(objects, labels, rows, size))
        return failures

    def _objects(
        self, masks: PseudoMasks, samples: Sequence[Sample], failures: list[Failure]
    ) -> tuple[dict[int, tuple[int, int]], Objects]:
        """The size of each image that has a label map, and the objects in all of them."""
        sizes: dict[int, tuple[int, int]] = {}
        rows: list[tuple[int, int, list[int], Mapping[str, Any]]] = []
        for i, sample in enumerate(samples):
            labels = masks.read(i)
            if labels is None:
                continue
            try:
                image = np.array(read_image(sample.path, orient=sample.orient))
            except ImageError as error:
                failures.append(Failure(sample.name, i, str(error)))
                continue
            sizes[i] = (labels.shape[0], labels.shape[1])
            inside = sharpened((labels > 0) & (labels != VOID), image, self.reach)
            count, parts, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
            for part in range(1, count):
                x, y, width, height, area = stats[part].tolist()
                if area > self.min_area:
                    rows.append((i, part - 1, [x, y, x + width, y + height], encode_mask(parts == part)))
        return sizes, Objects(
            np.array([row[0] for row in rows], dtype=np.int64),
            tuple(samples[row[0]].name for row in rows),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
            np.ones(len(rows)),
            tuple(dict(row[3]) for row in rows),
        )

    def _digest(self, masks: PseudoMasks, samples: Sequence[Sample]) -> str:
        told = [self.seed, self.min_area, self.reach, self.neighbours, self.share, dict(self.description)]
        text = [*told, masks.clusters, self.network.checksum, [sample.name for sample in samples], code_digest(SOURCES)]
        return hashlib.sha256(json.dumps(text, sort_keys=True).encode() + masks.contents()).hexdigest()


def sharpened(
    mask: Bool[np.ndarray, "height width"], image: UInt8[np.ndarray, "height width 3"], reach: int = REACH
) -> Bool[np.ndarray, "height width"]:
    """A mask whose border moved, by up to ``reach`` pixels, to where the colours of ``image`` change (GrabCut; Rother,
    Kolmogorov and Blake, 2004, by OpenCV).

    A mask that covers nothing, everything, or would vanish stays as it is, and so does any mask with ``reach`` 0. Equal
    masks and images give equal results.
    """
    if not reach or not mask.any() or mask.all():
        return mask
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    small = mask.astype(np.uint8)
    parts = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    parts[cv2.dilate(small, around) == 0] = cv2.GC_BGD
    parts[cv2.erode(small, around, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its mixtures of colours begin with k-means
    unused = np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image), parts, (0, 0, 1, 1), unused, unused.copy(), ROUNDS, cv2.GC_INIT_WITH_MASK)
    moved: Bool[np.ndarray, "height width"] = (parts == cv2.GC_FGD) | (parts == cv2.GC_PR_FGD)
    return moved if moved.any() else mask
