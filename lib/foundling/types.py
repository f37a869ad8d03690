"""The nouns of the project: what passes between datasets, backbones, discovery methods and metrics.

Conventions, everywhere inside the library:

* Boxes are ``(x0, y0, x1, y1)`` in float pixels; ``x1`` and ``y1`` are exclusive.
* A patch grid is ``(rows, columns)``; patches are listed row by row (``patch = row * columns + column``).
* Sizes are ``(height, width)`` in pixels.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from foundling.errors import DataMissing as DataMissing
from foundling.errors import FoundlingError as FoundlingError
from foundling.errors import ImageError as ImageError
from foundling.errors import ParameterError as ParameterError
from foundling.errors import WeightsError as WeightsError

FACETS = ("keys", "queries", "values", "tokens", "cls", "attention", "images")
VOID = 255  # in a mask of object numbers: nobody can tell what is there


@dataclass(frozen=True)
class PatchFeatures:
    """Patch-level output of one backbone for a batch of images that share one patch grid.

    A facet that was not asked for is ``None``; ask for it through :meth:`facet` to get a clear error.
    ``attention`` is that of the CLS query to all patches, after the softmax, one map a head.
    ``image_sizes`` are the sizes the network saw, before padding; ``original_sizes`` those of the files
    (they differ only where resizing was asked for). ``keys`` and ``queries`` of models with rotary position
    embeddings are taken before the rotation.
    """

    grid: tuple[int, int]
    patch_size: int
    image_sizes: Int[Tensor, "image 2"]
    original_sizes: Int[Tensor, "image 2"]
    names: tuple[str, ...]
    indices: tuple[int, ...]
    keys: Float[Tensor, "image patch channel"] | None = None
    queries: Float[Tensor, "image patch channel"] | None = None
    values: Float[Tensor, "image patch channel"] | None = None
    tokens: Float[Tensor, "image patch channel"] | None = None
    cls: Float[Tensor, "image channel"] | None = None
    attention: Float[Tensor, "image head patch"] | None = None
    images: tuple[Image.Image, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def facet(self, name: str) -> Any:
        """The facet called ``name``; raises :class:`ParameterError` if it is unknown or was not extracted."""
        if name not in FACETS:
            raise ParameterError(f"unknown facet {name!r}: choose one of {', '.join(FACETS)}")
        value = getattr(self, name)
        if value is None:
            present = [f for f in FACETS if getattr(self, f) is not None]
            raise ParameterError(
                f"facet {name!r} was not extracted (present: {', '.join(present) or 'none'}): "
                f"add it to extract(..., facets=({', '.join(repr(f) for f in [*present, name])},))"
            )
        return value

    def to(self, device: torch.device | str) -> "PatchFeatures":
        """The same features with every tensor on ``device``."""
        moved: dict[str, Any] = {
            f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def __getitem__(self, i: int) -> "PatchFeatures":
        """The features of image ``i`` as a batch of one."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of a batch of {len(self)}")
        rows = slice(i % len(self), i % len(self) + 1)
        one: dict[str, Any] = {f.name: v[rows] for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        one |= {"names": self.names[rows], "indices": self.indices[rows]}
        if self.images is not None:
            one["images"] = self.images[rows]
        return replace(self, **one)


@dataclass(frozen=True)
class Discovery:
    """What one method found in one image.

    ``boxes`` are in pixels of the image the network saw; ``masks`` lie on the patch grid; ``maps`` are patch maps
    worth drawing (``degree``, ``eigenvector``, …); ``values`` are named numbers (``gap``, ``seed_ties``, …);
    ``flags`` name what was degenerate (``undefined_cut``, …). Where the masks are the parts of several partitions of
    the image, ``levels`` holds for each mask the number k of parts of its partition, and ``memberships``, if there, how
    much each patch belongs to it (0 to 1; those of a partition add up to 1).
    """

    boxes: Float[np.ndarray, "object 4"]
    scores: Float[np.ndarray, " object"]
    masks: Bool[np.ndarray, "object rows columns"] | None = None
    seed: tuple[int, int] | None = None
    maps: dict[str, Float[np.ndarray, "rows columns"]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    levels: Int[np.ndarray, " object"] | None = None
    memberships: Float[np.ndarray, "object rows columns"] | None = None


@dataclass(frozen=True)
class Target:
    """Ground truth of one image; ``labels`` index the dataset's ``categories``; ``masks`` are COCO RLE dicts."""

    boxes: Float[np.ndarray, "object 4"]
    labels: Int[np.ndarray, " object"]
    difficult: Bool[np.ndarray, " object"]
    truncated: Bool[np.ndarray, " object"]
    crowd: Bool[np.ndarray, " object"]
    masks: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Detections:
    """What a trained detector or segmenter found in one image, the surest first.

    ``boxes`` are in pixels of the original image; ``labels`` are numbers of categories or clusters, from 0, all 0 where
    the network knows objects only; ``masks``, where it gives any, are COCO RLE dicts of the original image's size.
    """

    boxes: Float[np.ndarray, "object 4"]
    scores: Float[np.ndarray, " object"]
    labels: Int[np.ndarray, " object"]
    masks: tuple[dict[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Sample:
    """One image of a dataset: a file and, where the dataset is annotated, its ground truth.

    ``name`` is unique in the dataset. ``orient`` says that the file's EXIF orientation is to be applied (photos);
    annotated datasets are read as stored, because their boxes refer to the stored pixels.
    """

    name: str
    path: Path
    image_id: int
    target: Target | None = None
    orient: bool = False


@dataclass(frozen=True)
class Video:
    """One annotated video: the files of its frames in order, and as many index masks.

    A mask holds 0 for the background, 1 to ``objects`` for the objects, and :data:`VOID` where nobody can tell.
    ``name`` is unique in its dataset.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: tuple[Path, ...]
    objects: int

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Failure:
    """One image or video that could not be processed: the others go on, and this is reported at the end."""

    name: str
    index: int
    error: str
