"""Images and their annotations: ``open_dataset("voc07", split="trainval")``, whatever the dataset, gives a Dataset."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundling import paths
from foundling.datasets.base import AnnotationError as AnnotationError
from foundling.datasets.base import Dataset as Dataset
from foundling.datasets.base import VideoSet as VideoSet
from foundling.datasets.base import open_entry
from foundling.datasets.coco import coco20k_ids, open_coco, open_coco_images
from foundling.datasets.folder import open_folder
from foundling.datasets.imagenet import SPLITS as IMAGENET_SPLITS
from foundling.datasets.imagenet import open_imagenet
from foundling.datasets.images import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from foundling.datasets.images import first_readable as first_readable
from foundling.datasets.images import list_images as list_images
from foundling.datasets.images import read_image as read_image
from foundling.datasets.uvo import SPLITS as UVO_SPLITS
from foundling.datasets.uvo import open_uvo
from foundling.datasets.videos import VIDEOS as VIDEOS
from foundling.datasets.videos import open_videos as open_videos
from foundling.datasets.voc import open_voc
from foundling.errors import DataMissing, ParameterError

Root = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None


@dataclass(frozen=True)
class Entry:
    """One line of the registry: what a dataset is, its splits (the first is the default), and what opens it."""

    description: str
    splits: tuple[str, ...]
    open: Callable[..., Dataset]


def open_dataset(name: str, split: str | None = None, root: Root = None, **options: Any) -> Dataset:
    """Open the dataset ``name`` (a key of ``DATASETS``): list its images and read its annotations, but no pixels.

    ``split`` defaults to the dataset's first. ``root`` is where the dataset lies, by default below the data folder
    (``foundling data`` prints where); for ``folder`` it is a path or several, for ``coco`` the image folder. Options:
    ``size`` and ``count`` for ``scenes``; ``annotations`` (a COCO instances JSON) for ``coco``; ``masks`` (also read
    instance masks, default yes except in ``coco20k``) for ``scenes``, ``coco``, ``coco20k`` and ``uvo``; ``classes``
    (how many, drawn with ``seed``) for ``imagenet``.

    Raises :class:`ParameterError` for an unknown name, split or option, :class:`foundling.errors.DataMissing` if the
    files are not there, :class:`AnnotationError` if an annotation file cannot be read at all.
    """
    if name in VIDEOS:
        raise ParameterError(f"dataset {name!r} holds videos, not single images: open it with open_videos({name!r})")
    if name not in DATASETS:
        raise ParameterError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return open_entry(DATASETS, name, split, root, options)


def _scenes(
    split: str, root: Path | str | None, size: int = 224, count: int | None = None, masks: bool = True
) -> Dataset:
    from foundling.datasets.scenes import ANNOTATIONS, make_scenes

    folder = make_scenes(split, size=size, count=count, root=root)
    return open_coco(folder, folder / ANNOTATIONS, name="scenes", split=split, masks=masks)


def _folder(split: str, root: Root) -> Dataset:
    if root is None:
        raise ParameterError("dataset 'folder' needs root=, a folder or image file, or a list of them")
    return open_folder(root)


def _voc07(split: str, root: Path | str | None) -> Dataset:
    return open_voc(2007, split, root)


def _voc12(split: str, root: Path | str | None) -> Dataset:
    return open_voc(2012, split, root)


def _coco20k(split: str, root: Path | str | None, masks: bool = False) -> Dataset:
    home = _coco_home(root, "train2014", "coco20k")
    return open_coco(
        home / "train2014",
        home / "annotations" / "instances_train2014.json",
        name="coco20k",
        split=split,
        image_ids=coco20k_ids(),
        masks=masks,
        round_boxes=True,
    )


def _coco(split: str, root: Path | str | None, annotations: Path | str | None = None, masks: bool = True) -> Dataset:
    if annotations is not None:
        if root is None:
            raise ParameterError("dataset 'coco' with annotations= also needs root=, the folder of the images")
        return open_coco(root, annotations, split=split, masks=masks)
    if split == "custom":
        raise ParameterError("dataset 'coco' needs annotations= and root=, or an official split such as 'val2017'")
    home = _coco_home(root, split, "coco")
    if split == UNLABELED:
        return open_coco_images(home / split, home / "annotations" / f"image_info_{split}.json", split=split)
    return open_coco(home / split, home / "annotations" / f"instances_{split}.json", split=split, masks=masks)


def _coco_home(root: Path | str | None, split: str, name: str) -> Path:
    """The folder that holds the images of ``split`` and ``annotations/``: ``root``, or above it, or the default."""
    given = paths.data_dir() / "coco" if root is None else Path(root)
    file = f"{'image_info' if split == UNLABELED else 'instances'}_{split}.json"
    for home in (given, given.parent) if given.name == split else (given,):
        if (home / split).is_dir() and (home / "annotations" / file).is_file():
            return home
    raise DataMissing(
        f"{given}: no folder {split}/ beside annotations/{file}; get them with: foundling data {name}, "
        "or give root=, the folder that holds both"
    )


VOC_SPLITS = ("trainval", "train", "val")
VOC_SEGMENTATION = ("seg_val", "seg_train", "seg_trainval")
UNLABELED = "unlabeled2017"  # of COCO: images that nobody annotated
COCO_SPLITS = ("val2017", "train2017", "val2014", "train2014", UNLABELED)

DATASETS: dict[str, Entry] = {
    "scenes": Entry(
        "procedural pictures with known instances, made on first use",
        ("single_val", "single_train", "multi_val", "multi_train"),
        _scenes,
    ),
    "folder": Entry("any photos, without annotations", ("all",), _folder),
    "voc07": Entry(
        "PASCAL VOC 2007; *_noh: without difficult and truncated objects; seg_*: segmentation, with instance masks",
        (*VOC_SPLITS, "test", *(f"{split}_noh" for split in (*VOC_SPLITS, "test")), *VOC_SEGMENTATION, "seg_test"),
        _voc07,
    ),
    "voc12": Entry(
        "PASCAL VOC 2012; *_noh: without difficult and truncated objects; seg_*: segmentation, with instance masks, "
        "but for seg_trainaug, which has label maps alone",
        (*VOC_SPLITS, *(f"{split}_noh" for split in VOC_SPLITS), *VOC_SEGMENTATION, "seg_trainaug"),
        _voc12,
    ),
    "coco20k": Entry("19,817 images of COCO train2014, the list of LOST", ("train",), _coco20k),
    "coco": Entry(
        "any image folder with a COCO instances JSON; unlabeled2017: images alone", ("custom", *COCO_SPLITS), _coco
    ),
    "uvo": Entry("UVO-Sparse: frames of videos, every object annotated, no categories", UVO_SPLITS, open_uvo),
    "imagenet": Entry("ImageNet, or any folders of images, one for each class", IMAGENET_SPLITS, open_imagenet),
}
