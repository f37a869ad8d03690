"""UVO-Sparse (``FrameSet`` of UVO 1.0): single frames of videos in which every object is annotated, whatever it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from foundling import paths
from foundling.datasets.base import Dataset
from foundling.datasets.coco import open_coco
from foundling.datasets.images import AnyPath
from foundling.errors import DataMissing

ANNOTATIONS, FRAMES = "FrameSet/UVO_frame_{}.json", "uvo_videos_sparse_frames"
SPLITS = ("val", "train")


def open_uvo(split: str = "val", root: AnyPath | None = None, masks: bool = True) -> Dataset:
    """The annotated frames of a split of UVO-Sparse, with one category, ``object``.

    ``root`` is the folder that holds ``FrameSet`` and ``uvo_videos_sparse_frames`` (``UVOv1.0``), or the one above it;
    by default ``uvo`` in the data folder. Frames lie there as the kit's ``video2frames.py`` writes them,
    ``<video>/<number>.png``; only those that the annotations name are needed. ``masks`` also reads the masks.

    UVO-Sparse names no categories (labels that a file may hold all the same are taken for one), so all objects of a
    frame are of one kind: recall by the number of instances of a category counts by the number of objects in the frame,
    and few frames have only one. Its figures are not comparable with those of COCO or VOC, bucket by bucket.

    The kit describes 7,356 frames of 2,452 videos in ``val``; the paper `instanceness` evaluates on 8,124 frames of
    2,708 videos, that is on another release.

    Raises :class:`DataMissing` if the dataset or every frame is missing, and as :func:`open_coco` for damaged files.
    """
    home = find_uvo(paths.data_dir() / "uvo" if root is None else Path(root), split)
    dataset = open_coco(home / FRAMES, home / ANNOTATIONS.format(split), name="uvo", split=split, masks=masks)
    samples = tuple(
        replace(sample, target=replace(sample.target, labels=np.zeros_like(sample.target.labels)))
        for sample in dataset
        if sample.target is not None
    )
    return replace(dataset, samples=samples, categories=("object",), category_ids=(1,))


def find_uvo(root: Path, split: str) -> Path:
    """The folder at ``root``, or ``UVOv1.0`` in it, with the frames and the annotations of ``split``.

    Raises :class:`DataMissing`, saying where it was looked for.
    """
    tried = [root, root / "UVOv1.0"]
    for folder in tried:
        if (folder / ANNOTATIONS.format(split)).is_file() and (folder / FRAMES).is_dir():
            return folder
    listed = "".join(f"\n  {folder}" for folder in tried)
    raise DataMissing(
        f"UVO-Sparse not found; looked for {ANNOTATIONS.format(split)} and {FRAMES} in:{listed}\n"
        "get it by hand (how: foundling data uvo), or give root=, the folder that holds both"
    )
