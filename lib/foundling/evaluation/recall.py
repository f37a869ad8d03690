"""Mean average recall of masks by the number of instances, and what goes wrong: merges and splits.

Understanding self-supervised features for instance segmentation, Sec. 3 and Table 1: for each image and category with n
instances, these n instances belong to bucket n (6 and more to ``6+``). The recall of a bucket at an IoU t is the share
of its instances that some proposal overlaps with an IoU of at least t; the mean over t = .50, .55, …, .95 is its mean
average recall. Proposals have no scores and their number has no limit. Each instance takes its best proposal: where
instances share no pixel, this is the same as one-to-one matching, for no mask overlaps two of them with an IoU above
0.5. (At exactly 0.5 the two may differ: a mask over two instances of equal size counts for both.)

What becomes of an instance (a truth G among the masks P), one of :data:`FATES`, the first that holds:

* ``merged``: the proposal with the best IoU covers at least half of G and at least half of another instance of the same
  category, and at least half of its pixels lie in the instances of that category that it so covers. (A mask of the
  background that swallows two small objects is no merge.) Of proposals with equal IoU, all must be of this kind.
* ``found``: the best IoU is at least 0.5.
* ``split``: of the proposals with at least half of their pixels in G, two share no pixel, and together these proposals
  cover at least half of G.
* ``missed``: all others.

Merges and splits are under- and over-segmentation as Hoover et al. (PAMI 1996) define them, with a tolerance of 1/2,
for proposals that may overlap one another. Crowds are left out everywhere, also where n is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval, percent, ratio_intervals
from foundling.types import Target

THRESHOLDS = np.arange(50, 100, 5) / 100  # IoU; as quotients, so that 11 of 20 pixels reach 0.55
BUCKETS = ("1", "2", "3", "4", "5", "6+")
GROUPS = (*BUCKETS, "2+", "3+", "all")
FATES = ("found", "merged", "split", "missed")
MEASURES = ("recall", "at_50", *FATES)
HALF = 0.5  # the tolerance of merges and splits

RLE = dict[str, Any]


class Instances(NamedTuple):
    """The annotated instances that count, image by image: what every figure of :class:`MeanRecall` is made from.

    ``image`` and ``object`` say which they are (positions among the images, and in the image's target), ``label`` their
    category, ``n`` the number of instances of that category in the image. ``overlap`` is the best IoU with any
    proposal (0 without one), ``fate`` a position in :data:`FATES`.
    """

    image: Int[np.ndarray, " instance"]
    object: Int[np.ndarray, " instance"]
    label: Int[np.ndarray, " instance"]
    n: Int[np.ndarray, " instance"]
    overlap: Float[np.ndarray, " instance"]
    fate: Int[np.ndarray, " instance"]

    def measure(self, name: str) -> Float[np.ndarray, " instance"]:
        """One of :data:`MEASURES` for each instance, in 0..1; raises :class:`ParameterError` for another name."""
        if name == "recall":
            return (self.overlap[:, None] >= THRESHOLDS).mean(axis=1)
        if name == "at_50":
            return (self.overlap >= THRESHOLDS[0]).astype(np.float64)
        if name not in FATES:
            raise ParameterError(f"unknown measure {name!r}: choose one of {', '.join(MEASURES)}")
        return (self.fate == FATES.index(name)).astype(np.float64)

    def in_group(self, group: str) -> Bool[np.ndarray, " instance"]:
        """Which instances belong to one of :data:`GROUPS`; raises :class:`ParameterError` for another name."""
        if group not in GROUPS:
            raise ParameterError(f"unknown group {group!r}: choose one of {', '.join(GROUPS)}")
        least = 1 if group == "all" else int(group.removesuffix("+"))
        return self.n >= least if group == "all" or group.endswith("+") else self.n == least


@dataclass(frozen=True)
class GroupRecall:
    """Figures of one group of instances, in percent (0..100), with intervals over images.

    ``recall`` is the mean average recall over all instances (micro), ``macro`` the mean over images of each image's
    own; ``at_50`` the recall at IoU 0.5; ``fates`` the share of each of :data:`FATES`, which add up to 100. All are
    ``None`` where the group has no instance; ``merged`` is 0 by definition in bucket 1.
    """

    recall: Interval
    macro: Interval
    at_50: Interval
    fates: dict[str, Interval]
    instances: int
    images: int


@dataclass(frozen=True)
class MeanRecall:
    """The figures of each of :data:`GROUPS`, and the instances they were counted from.

    ``images`` is how many images were given, ``empty`` how many of them have no instance that counts.
    """

    groups: dict[str, GroupRecall]
    instances: Instances
    images: int
    empty: int


def instance_recall(
    proposals: Sequence[Sequence[RLE]],
    targets: Sequence[Target | None],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MeanRecall:
    """Mean average recall of ``proposals`` by number of instances (Sec. 3), and the shares of merges and splits.

    ``proposals`` are each image's masks as COCO RLE dicts of the annotated image's size; an image without any counts
    with a recall of 0. ``targets`` holds each image's ground truth, in the same order; ``None``, or a target without
    any object that is not a crowd, leaves the image out and counts as empty. Intervals draw images, not instances.

    Raises :class:`ParameterError` where the numbers of images differ, for a target with objects but without masks, and
    for masks of another size than the truth's.
    """
    if len(proposals) != len(targets):
        raise ParameterError(
            f"{len(proposals)} lists of proposals for {len(targets)} targets: give one list an image, empty where none"
        )
    found = [
        image_instances(masks, target, i) for i, (masks, target) in enumerate(zip(proposals, targets, strict=True))
    ]
    return summarise_instances(found, confidence=confidence, resamples=resamples, seed=seed)


def image_instances(proposals: Sequence[RLE], target: Target | None, image: int = 0) -> Instances:
    """The instances of one image, with their best overlaps and fates; ``image`` is its position, for the record."""
    kept = np.flatnonzero(~target.crowd) if target is not None else np.zeros(0, dtype=np.int64)
    if target is None or not len(kept):
        none = np.zeros(0, dtype=np.int64)
        return Instances(none, none, none, none, np.zeros(0), none)
    if target.masks is None:
        raise ParameterError(
            f"image {image}: its objects have boxes but no masks: open the dataset with masks=True, or use another"
        )
    truths = [target.masks[i] for i in kept]
    sizes = {tuple(mask["size"]) for mask in (*truths, *proposals)}
    if len(sizes) > 1:
        listed = ", ".join(f"{height}×{width}" for height, width in sorted(sizes))
        raise ParameterError(f"image {image}: masks of several sizes ({listed}): give proposals in annotated pixels")
    labels = target.labels[kept]
    counts = (labels[:, None] == labels).sum(axis=1)
    overlap, fate = _match(list(proposals), truths, labels)
    return Instances(np.full(len(kept), image), kept, labels, counts, overlap, fate)


def summarise_instances(
    found: Sequence[Instances], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> MeanRecall:
    """The figures of all groups from one :class:`Instances` an image, in the order of the images."""
    empty = sum(not len(one.image) for one in found)
    table = Instances(*map(np.concatenate, zip(*found, strict=True))) if found else image_instances([], None)
    members = [table.in_group(group) for group in GROUPS]
    sums, counts = list[np.ndarray](), list[np.ndarray]()
    for inside in members:
        size = _per_image(table, inside)
        shares = [_per_image(table, inside * table.measure(name)) for name in MEASURES]
        own = np.divide(shares[0], size, out=np.zeros_like(size), where=size > 0)  # each image's own recall
        sums += [own, *shares]
        counts += [(size > 0).astype(np.float64), *[size] * len(shares)]
    results = map(percent, ratio_intervals(
        np.stack(sums, axis=1), np.stack(counts, axis=1), confidence=confidence, resamples=resamples, seed=seed
    ))  # fmt: skip
    groups = {}
    for group, inside in zip(GROUPS, members, strict=True):
        macro, recall, at_50, *fates = (next(results) for _ in range(1 + len(MEASURES)))
        named = dict(zip(FATES, fates, strict=True))
        groups[group] = GroupRecall(recall, macro, at_50, named, int(inside.sum()), len(np.unique(table.image[inside])))
    return MeanRecall(groups, table, len(found), empty)


def recall_difference(
    a: MeanRecall,
    b: MeanRecall,
    measure: str = "recall",
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """How many points A lies above B on the same instances, by group, with its interval over images.

    ``measure`` is one of :data:`MEASURES`. Images are drawn for both at once: an interval that contains 0 does not tell
    the two apart. Raises :class:`ParameterError` where A and B were not measured on the same instances.
    """
    same = [np.array_equal(x, y) for x, y in zip(a.instances[:4], b.instances[:4], strict=True)]
    if not all(same):
        raise ParameterError(
            f"a difference needs the same instances: A has {len(a.instances.image)} in {a.images} images, "
            f"B {len(b.instances.image)} in {b.images}; measure both on the same images"
        )
    gains = a.instances.measure(measure) - b.instances.measure(measure)
    members = [a.instances.in_group(group) for group in GROUPS]
    sums = np.stack([_per_image(a.instances, inside * gains) for inside in members], axis=1)
    counts = np.stack([_per_image(a.instances, inside) for inside in members], axis=1)
    intervals = ratio_intervals(sums, counts, confidence=confidence, resamples=resamples, seed=seed)
    return dict(zip(GROUPS, map(percent, intervals), strict=True))


def _per_image(table: Instances, values: np.ndarray) -> Float[np.ndarray, " image"]:
    """Sums of ``values`` (one an instance) over the instances of each image that has any."""
    images, rows = np.unique(table.image, return_inverse=True)
    return np.bincount(rows, values, len(images)).astype(np.float64)


def _match(
    proposals: list[RLE], truths: list[RLE], labels: Int[np.ndarray, " truth"]
) -> tuple[Float[np.ndarray, " truth"], Int[np.ndarray, " truth"]]:
    """The best IoU and the fate of each truth."""
    if not proposals:
        return np.zeros(len(truths)), np.full(len(truths), FATES.index("missed"))
    iou = np.asarray(coco_mask.iou(proposals, truths, [0] * len(truths)))  # [proposal, truth]
    inside = np.asarray(coco_mask.iou(proposals, truths, [1] * len(truths)))  # share of the proposal in the truth
    covered = np.asarray(coco_mask.iou(truths, proposals, [1] * len(proposals))).T  # share of the truth in the proposal
    overlap = iou.max(axis=0)
    merges = _merges(inside, covered, labels)
    best = (iou == overlap) & (overlap > 0)
    merged = best.any(axis=0) & (merges | ~best).all(axis=0)
    split = np.array([_is_split(proposals, truths[i], inside[:, i]) for i in range(len(truths))])
    rules = [merged, overlap >= THRESHOLDS[0], split]
    codes = [FATES.index(name) for name in ("merged", "found", "split")]
    return overlap, np.select(rules, codes, FATES.index("missed"))


def _merges(
    inside: Float[np.ndarray, "proposal truth"],
    covered: Float[np.ndarray, "proposal truth"],
    labels: Int[np.ndarray, " truth"],
) -> Bool[np.ndarray, "proposal truth"]:
    """Whether each proposal is a mask over each truth and others of its category."""
    same = (labels[:, None] == labels).astype(np.float64)  # [truth, truth]
    over = (covered >= HALF).astype(np.float64)
    several = over @ same >= 2
    pure = (inside * over) @ same >= HALF - 1e-12  # quotients added up
    return (over > 0) & several & pure


def _is_split(proposals: list[RLE], truth: RLE, inside: Float[np.ndarray, " proposal"]) -> bool:
    """Whether the proposals that lie mostly in the truth cover half of it, two of them without a common pixel."""
    parts = [proposals[i] for i in np.flatnonzero(inside >= HALF)]
    if len(parts) < 2 or (np.asarray(coco_mask.iou(parts, parts, [0] * len(parts))) > 0).all():
        return False
    union = [coco_mask.merge(parts)]
    return bool(coco_mask.iou([truth], union, [1])[0, 0] >= HALF)
