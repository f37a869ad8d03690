"""ImageNet as it is passed around: a folder of images for each class, one class an image."""

from pathlib import Path

import numpy as np

from foundling import paths
from foundling.datasets.base import Dataset, Problems, describe
from foundling.datasets.images import AnyPath, image_size, list_images
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.types import Sample, Target

SPLITS = ("val", "train")


def open_imagenet(split: str = "val", root: AnyPath | None = None, classes: int = 0, seed: int = 0) -> Dataset:
    """The images of the folders in ``<root>/<split>``, each of the category that its folder is named after.

    ``root`` is by default ``imagenet`` in the data folder; any folder of such folders will do. ``classes`` takes so
    many of the categories, drawn with ``seed`` (part of any larger choice with the same seed), 0 all. What is annotated
    of an image is its category and, as its box, the whole of it.

    Raises :class:`DataMissing` if there is no folder of images, :class:`ParameterError` for more ``classes`` than there
    are.
    """
    home = (paths.data_dir() / "imagenet" if root is None else Path(root)) / split
    found = sorted(folder.name for folder in home.iterdir() if folder.is_dir()) if home.is_dir() else []
    if not found:
        raise DataMissing(
            f"{home}: no folder with a folder of images for each class; get it by hand (how: foundling data imagenet), "
            f"or give root=, the folder that holds {split}/"
        )
    if not 0 <= classes <= len(found):
        raise ParameterError(f"classes={classes}: {home} has {len(found)}; choose at most so many, or 0 for all")
    drawn = np.random.default_rng(seed).permutation(len(found))[: classes or len(found)]
    categories = tuple(found[i] for i in sorted(drawn))
    problems, samples = Problems(list), list[Sample]()
    for label, category in enumerate(categories):
        for file in _images(home / category, problems):
            name = f"{category}/{file.relative_to(home / category).as_posix()}"
            try:
                samples.append(Sample(name, file, len(samples) + 1, _target(file, label)))
            except ImageError as error:
                problems["image that cannot be read (dropped)"].append(str(error))
    if not samples:
        raise DataMissing(f"{home}: no image in the folders of {len(categories)} classes")
    ids = tuple(range(1, len(categories) + 1))
    return Dataset("imagenet", split, tuple(samples), categories, True, describe(problems), ids)


def _images(folder: Path, problems: Problems) -> list[Path]:
    try:
        files, failures = list_images([folder])
    except DataMissing:
        problems["class without an image"].append(folder.name)
        return []
    problems["file in a format that cannot be read (dropped)"] += [failure.name for failure in failures]
    return files


def _target(file: Path, label: int) -> Target:
    height, width = image_size(file)
    no = np.zeros(1, dtype=bool)
    return Target(np.array([[0.0, 0.0, width, height]]), np.array([label]), no, no, no)
