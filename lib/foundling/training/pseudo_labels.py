"""Found boxes as the labels that a detector is trained on (LOST, Sec. 3.3), whatever the engine.

Class-agnostic detection has one class, "object"; class-aware detection one for each cluster of objects.
:mod:`foundling.training.label_files` writes them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foundling.categories.crops import Objects, as_bytes, objects_of_found, objects_of_targets
from foundling.datasets.base import Problems, describe, tidy_boxes
from foundling.datasets.semantic import size_of
from foundling.discovery.stream import Found
from foundling.errors import ImageError, ParameterError
from foundling.types import Failure, Sample

OBJECT = ("object",)  # the one class of class-agnostic detection
STEP = 1 / 1024  # of a pixel, which corners are rounded to: x + (x1 - x) is then exactly x1

RLE = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class ImageLabels:
    """The boxes that one image is labelled with, in its pixels; ``labels`` are classes from 0.

    ``size`` is (height, width). ``masks`` are COCO run lengths of that size, ``None`` unless every box has one.
    """

    name: str
    image_id: int
    size: Size
    boxes: Float[np.ndarray, "object 4"]
    labels: Int[np.ndarray, " object"]
    masks: tuple[RLE, ...] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class PseudoLabels:
    """What a detector is trained on: the boxes of many images, and the names of their ``classes``.

    ``images`` are in the order of the samples, those without a box among them: :meth:`usable` leaves them out.
    ``failures`` are images that could not be used. ``problems`` says, one line a kind, what was dropped or mended.
    """

    images: tuple[ImageLabels, ...]
    classes: tuple[str, ...] = OBJECT
    failures: tuple[Failure, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def without(self) -> tuple[str, ...]:
        """The names of the images without any box."""
        return tuple(image.name for image in self.images if not len(image))

    @property
    def counts(self) -> Int[np.ndarray, " class"]:
        """The number of boxes of each class."""
        labels = [image.labels for image in self.images]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(self.classes))

    @property
    def empty(self) -> tuple[str, ...]:
        """The names of the classes without any box: a detector learns nothing of them."""
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if not count)

    @cached_property
    def identity(self) -> str:
        """A digest of all that training depends on: equal for equal labels, whatever they were made from."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for image in self.images:
            digest.update(repr((image.name, image.image_id, image.size, image.masks)).encode())
            digest.update(image.boxes.tobytes() + image.labels.tobytes())
        return digest.hexdigest()[:16]

    def usable(self, samples: Sequence[Sample]) -> list[tuple[Sample, ImageLabels]]:
        """The labelled images that have a box, each with its sample, in the order of the labels.

        Raises :class:`ParameterError` if no image has one, or a labelled image is not among ``samples``.
        """
        by_id = {sample.image_id: sample for sample in samples}
        known = [
            image for image in self.images if (s := by_id.get(image.image_id)) is not None and s.name == image.name
        ]
        if len(known) < len(self.images):
            found = set(map(id, known))
            missing = next(image for image in self.images if id(image) not in found)
            raise ParameterError(
                f"{len(self.images) - len(known)} labelled images are not among the {len(samples)} samples, the first "
                f"{missing.name} (id {missing.image_id}): open the dataset that the labels were made from"
            )
        pairs = [(by_id[image.image_id], image) for image in self.images if len(image)]
        if not pairs:
            raise ParameterError(
                f"none of the {len(self.images)} images has a box: there is nothing to train on; discover boxes first, "
                "or look into why none were found"
            )
        return pairs

    def summary(self) -> str:
        """A line on what there is, and one for each thing that is left out."""
        numbers = int(self.counts.sum()), len(self.classes), len(self.images) - len(self.without)
        boxes, classes, used = (
            f"{n} {word}{plural * (n != 1)}"
            for n, (word, plural) in zip(numbers, (("box", "es"), ("class", "es"), ("image", "s")), strict=True)
        )
        lines = [f"{boxes} of {classes} in {used}"]
        kinds: Problems = defaultdict(list)
        kinds["image without a box (left out)"] += self.without
        kinds["class without a box"] += self.empty if len(self.classes) > 1 else ()
        kinds["image that failed (left out)"] += [failure.name for failure in self.failures]
        return "\n".join([*lines, *describe(kinds), *self.problems])


# Making them


def pseudo_labels(
    samples: Sequence[Sample],
    objects: Objects,
    labels: Int[np.ndarray, " object"] | None = None,
    classes: int | Sequence[str] | None = None,
    *,
    sizes: Int[np.ndarray, "image 2"] | None = None,
    failures: Sequence[Failure] = (),
) -> PseudoLabels:
    """``objects`` of ``samples`` as labels, of an image several or none.

    ``labels`` are their classes from 0, or -1 for an object to leave out (one that has no cluster, or is in doubt);
    without them all are "object". ``classes`` are the names of the classes, or how many clusters there are (default:
    those that occur). ``sizes`` (height, width; 0 where unknown) spares reading them from the files. Images among
    ``failures`` are left out.

    Boxes are clipped to their image; one without area inside it, or not finite, is dropped and counted. An image that
    cannot be read is a failure. Raises :class:`ParameterError` where labels do not fit objects or classes, objects are
    of other samples, or two samples have one id; :class:`ImageError` for a mask of another size than its image.
    """
    names = _classes(objects, labels, classes)
    _check_samples(samples, objects)
    rows: list[list[int]] = [[] for _ in samples]
    for row, image in enumerate(objects.images.tolist()):
        rows[image].append(row)
    failed = {failure.index: failure for failure in failures}
    problems: Problems = defaultdict(list)
    images = []
    for index, sample in enumerate(samples):
        if index in failed:
            continue
        try:
            given = (0, 0) if sizes is None else (int(sizes[index, 0]), int(sizes[index, 1]))
            size = given if min(given) > 0 else size_of(sample)
        except ImageError as error:
            failed[index] = Failure(sample.name, index, str(error))
            continue
        chosen = objects[rows[index]]
        images.append(image_labels(sample, size, chosen, None if labels is None else labels[rows[index]], problems))
    ordered = tuple(failed[index] for index in sorted(failed))
    return PseudoLabels(tuple(images), names, ordered, describe(problems))


def labels_of_found(
    found: Found, samples: Sequence[Sample], label: str, *, best: bool = True, masks: bool = False
) -> PseudoLabels:
    """Class-agnostic labels from what the method ``label`` found: the best box of each image, as LOST has it, or all.

    ``samples`` are those that ``found`` was made from. Raises as :func:`pseudo_labels`, and for a label not run.
    """
    objects = objects_of_found(found, label, masks=masks, best=best)
    return pseudo_labels(samples, objects, sizes=found.sizes, failures=found.failures)


def labels_of_targets(samples: Sequence[Sample], classes: Sequence[str] | None = None) -> PseudoLabels:
    """The true boxes but crowds as labels, of one class, or of ``classes`` (the dataset's categories).

    What a detector can learn at best: a check of the training itself, not a method. Images that are not annotated are
    left out.
    """
    objects = objects_of_targets(samples)
    if classes is None:
        return pseudo_labels(samples, objects)
    pairs = zip(objects.images.tolist(), objects.parts.tolist(), strict=True)
    true = [samples[image].target.labels[part] for image, part in pairs]
    return pseudo_labels(samples, objects, np.array(true, dtype=np.int64), classes)


def _classes(
    objects: Objects, labels: Int[np.ndarray, " object"] | None, classes: int | Sequence[str] | None
) -> tuple[str, ...]:
    if labels is None:
        if classes is not None:
            raise ParameterError("classes without labels: give each object its class, or neither")
        return OBJECT
    if len(labels) != len(objects):
        raise ParameterError(f"{len(labels)} labels for {len(objects)} objects: give each its class, or -1")
    present = int(labels.max(initial=-1)) + 1
    named = [f"cluster {i}" for i in range(classes or present)] if isinstance(classes, int | None) else list(classes)
    if labels.min(initial=0) < -1 or present > len(named) or not named:
        raise ParameterError(
            f"labels of {labels.min(initial=0)} to {present - 1} with {len(named)} classes: legal are -1 (left out) to "
            f"{len(named) - 1}"
        )
    return tuple(named)


def _check_samples(samples: Sequence[Sample], objects: Objects) -> None:
    if len({sample.image_id for sample in samples}) < len(samples):
        raise ParameterError("two samples have one image id: labels could not be told apart")
    for image, name in zip(objects.images.tolist(), objects.names, strict=True):
        if not 0 <= image < len(samples) or samples[image].name != name:
            raise ParameterError(
                f"an object is of image {image}, {name}, which is not that sample: use the same samples"
            )


def image_labels(
    sample: Sample, size: Size, objects: Objects, labels: Int[np.ndarray, " object"] | None, problems: Problems
) -> ImageLabels:
    """The labels of one image of ``size`` (height, width) from its ``objects``; adds what was wrong to ``problems``."""
    wanted = np.flatnonzero(np.ones(len(objects), bool) if labels is None else labels >= 0)
    problems["object without a class (left out)"] += [sample.name] * (len(objects) - len(wanted))
    boxes = np.round(objects.boxes[wanted] / STEP) * STEP
    boxes[~np.isfinite(boxes).all(axis=1)] = np.nan  # an infinite corner would be clipped to the border
    clipped, inside, cut = tidy_boxes(boxes, size)
    problems["box reaching outside its image (clipped)"] += [sample.name] * int(cut.sum())
    problems["box without area inside its image, or not finite (dropped)"] += [sample.name] * int((~inside).sum())
    kept = wanted[inside]
    masks = [_mask(objects.masks[row], size, sample.name) for row in kept]
    return ImageLabels(
        sample.name,
        sample.image_id,
        size,
        clipped[inside],
        np.zeros(len(kept), np.int64) if labels is None else labels[kept].astype(np.int64),
        tuple(mask for mask in masks if mask is not None) if masks and None not in masks else None,
    )


def _mask(mask: RLE | None, size: Size, name: str) -> RLE | None:
    if mask is None:
        return None
    if tuple(mask["size"]) != size:
        raise ImageError(
            f"{name}: a mask of {mask['size'][1]}×{mask['size'][0]} pixels in an image of {size[1]}×{size[0]}: make "
            "masks at the original size"
        )
    return {"size": list(size), "counts": as_bytes(mask)["counts"].decode("ascii")}
