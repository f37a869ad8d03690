"""Found masks as teachers: objects and their clusters, rounds of self-training, mask proposals, and their pupils.

This is what notebook 06 is made of; teachers of boxes are in :mod:`foundling.training.teaching`.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from pycocotools import mask as coco_mask

from foundling.backbones.load import Backbone
from foundling.categories import Clusters, Objects, cluster_objects, core, describe_objects, objects_of_masks
from foundling.categories.pseudo_masks import PseudoMasks, map_of_rows, write_pseudo_masks
from foundling.categories.scores import class_counts, cluster_confusions, with_labelled
from foundling.datasets import Dataset
from foundling.datasets.semantic import as_voc, boxes_as_masks
from foundling.discovery import Found, discover_images
from foundling.evaluation import to_results
from foundling.evaluation.segmentation import iou_table
from foundling.files import write_bytes
from foundling.parameters_segmentation import NO_SALIENCY, SegmenterTraining
from foundling.proposals import ProposalSet, proposals_from_records
from foundling.saliency import SaliencyMasks, saliency_masks
from foundling.training.detected import segment_images
from foundling.training.instance.predict import load_instances
from foundling.training.semantic.measure import confusions, maps_of
from foundling.training.semantic.rounds import Round, predict_masks, self_train
from foundling.training.semantic.settings import Semantic
from foundling.training.teaching import known_by, open_part, training_images
from foundling.types import Detections, Failure, Sample

OBJECTS = "objects"  # label of the one source of saliency
SPECTRAL, SALIENT = "spectral", "saliency"  # labels of the methods that make proposals


# Label maps: one object an image, and its cluster


class FoundObjects(NamedTuple):
    """One object an image at most, by the source of saliency, with its descriptor; ``masks`` are all salient masks."""

    masks: SaliencyMasks
    objects: Objects
    descriptors: Float[np.ndarray, "object channel"]


def found_objects(
    given: SegmenterTraining, networks: tuple[Backbone, Backbone], samples: Sequence[Sample], folder: Path,
    failures: list[Failure],
) -> FoundObjects:  # fmt: skip
    """The objects in ``samples`` that ``given`` wants: found by the first of ``networks`` once and kept in ``folder``,
    described by the second.

    What cannot be read or described is appended to ``failures``; raises as
    :func:`foundling.saliency.saliency_masks` and :func:`foundling.categories.describe_objects`.
    """
    finder, describer = networks
    options: dict[str, Any] = {"precision": given.precision, "batch_size": given.batch_size}
    sources = {OBJECTS: given.saliency_settings()}
    masks = saliency_masks(sources, samples, finder, out=folder, max_side=given.max_side or None, **options)[OBJECTS]
    objects = objects_of_masks(samples, masks.masks, given.min_area)
    missed: list[Failure] = []
    found = describe_objects(describer, samples, objects, **given.description, **options, failures=missed)
    failures += [*masks.failures, *missed]
    fine = np.isfinite(found).all(axis=1)
    return FoundObjects(masks, objects[fine], found[fine])


class Grouping(NamedTuple):
    """Objects in clusters, and the clusters of those that are beyond doubt (-1 for the others)."""

    clusters: Clusters
    sure: Int[np.ndarray, " object"]


def group(
    found: FoundObjects, clusters: int, seed: int, neighbours: int, share: float, method: str = "spectral"
) -> Grouping:
    """The clusters of objects (COMUS, Sec. 3.1); beyond doubt is the core of each, its nearest ``share`` (Sec. 3.3)."""
    groups = cluster_objects(found.descriptors, clusters, method, seed, neighbours)
    return Grouping(groups, groups.kept(core(groups, share)))


def map_of(
    found: FoundObjects, labels: Int[np.ndarray, " object"], image: int
) -> UInt8[np.ndarray, "height width"] | None:
    """The label map of one image, cluster + 1 inside its object; ``None`` for an image that could not be read."""
    height, width = found.masks.sizes[image].tolist()
    if not height:
        return None
    rows = np.flatnonzero(found.objects.images == image).tolist()
    return map_of_rows(found.objects, labels, rows, (height, width))


def write_maps(
    folder: Path, samples: Sequence[Sample], objects: Objects, labels: Int[np.ndarray, " object"], clusters: int
) -> PseudoMasks:
    """Label maps that round 1 is trained on: images whose object is in doubt (-1), or that have none, are left out."""
    maps = write_pseudo_masks(folder, samples, objects, labels, clusters, leave_out=True)
    with_object = set(objects.images.tolist())
    files = tuple(file if i in with_object else None for i, file in enumerate(maps.files))
    return replace(maps, files=files)


def own_tables(
    dataset: Dataset, found: FoundObjects, labelled: Mapping[str, Int[np.ndarray, " object"]], clusters: int,
    failures: list[Failure],
) -> dict[str, Int[np.ndarray, "image cluster class"]]:  # fmt: skip
    """The tables of pixels by label and class of the pseudo-masks of ``dataset`` itself: name -> its clusters' table.

    As COMUS measures them: all objects take part, and an image without one is background.
    """
    counts = class_counts(dataset, {OBJECTS: found.masks}, failures)[OBJECTS]
    return {name: cluster_confusions(counts, found.objects, labels, clusters) for name, labels in labelled.items()}


# Rounds


def later_images(given: SegmenterTraining, measured: Dataset, first: Dataset) -> Dataset:
    """The images of later rounds: of the parts that ``given`` names, or more of those of round 1, whose images are
    ``first``; where that is trained on the images ``measured``, later rounds are."""
    if len(given.semantic) < 2:
        return first
    where = "later_on" if given.later_on else "train_on"
    return training_images(given, measured, given.later_parts(), given.later_limit, where)


def train_rounds(
    images: Sequence[Sequence[Sample]],
    masks: PseudoMasks,
    settings: Sequence[Semantic],
    folder: Path,
    name: str,
    seed: int,
    *,
    minutes: float = 0.0,
    cpu: bool = False,
) -> list[Round]:
    """Rounds of self-training in ``folder``, or what an earlier call left of them; ``minutes`` (0: no limit) stop them.

    Other settings, label maps, images and encoders have other files. What is stopped is told. See
    :func:`foundling.training.semantic.rounds.self_train` for the rest.
    """
    seeded = [type(told).model_validate({**told.model_dump(), "seed": seed}) for told in settings]
    out = folder / f"{name}_seed{seed}-{_digest(seeded, masks, images)}"
    rounds = self_train(images, masks, seeded, out, minutes=minutes or math.inf, cpu=cpu)
    for number, (one, told) in enumerate(zip(rounds, seeded, strict=False), start=1):
        if not one.outcome.finished:
            where = f"{name}_seed{seed}, round {number}"
            print(f"{where}: stopped after {one.outcome.steps} of {told.steps} steps; run again to go on")
    return rounds


def _digest(settings: Sequence[Semantic], masks: PseudoMasks, images: Sequence[Sequence[Sample]]) -> str:
    told = [[known_by(one) for one in settings], masks.clusters, [[sample.name for sample in part] for part in images]]
    text = json.dumps(told, sort_keys=True)
    return hashlib.sha256(text.encode() + masks.contents()).hexdigest()[:8]


class Looked(NamedTuple):
    """What a segmenter says of images: its label maps, and the table of pixels of each by label and class."""

    maps: PseudoMasks
    tables: Int[np.ndarray, "image cluster class"] | None


def look(file: Path, dataset: Dataset, truth: bool, folder: Path, failures: list[Failure], cpu: bool = False) -> Looked:
    """The label maps that the segmenter in ``file`` makes of ``dataset``, in ``folder``; with ``truth``, tables.

    Images that cannot be used are appended to ``failures``.
    """
    maps = predict_masks(file, dataset.samples, folder, cpu=cpu)
    failures += maps.failures
    if not truth:
        return Looked(maps, None)
    return Looked(maps, confusions(maps_of(maps, dataset.samples), dataset, maps.clusters, failures))


def further_dataset(
    given: SegmenterTraining, dataset: str, split: str, voc: bool, instances: bool, failures: list[Failure]
) -> Dataset:
    """A dataset that trained segmenters are measured on as well, as ``given`` wants it.

    With ``voc``, only the objects of VOC's categories are left. For ``instances``, what has boxes alone has their
    rectangles as masks. Of COCO, images with few annotated pixels are left out where ``given`` says so.
    """
    options = {"masks": True} if dataset == "coco20k" else {}
    found = open_part(given, dataset, split, given.limit, **options)
    if dataset == "coco" and given.least_labelled and not instances:
        found = with_labelled(found, given.least_labelled, failures)
    found = as_voc(found) if voc else found
    return boxes_as_masks(found) if instances else found


def image_ious(
    tables: Int[np.ndarray, "image cluster class"], assignment: Int[np.ndarray, " cluster"]
) -> Float[np.ndarray, " image"]:
    """The mean IoU (0..1) of the classes that occur in each image, for a given matching; nan where none does.

    For finding images in which a segmenter fails; the mIoU of a dataset is not their mean.
    """
    images, _, classes = tables.shape
    named = np.zeros((images, classes + 1, classes), dtype=np.int64)  # the last row: clusters without a class
    for cluster, label in enumerate(assignment.tolist()):
        named[:, label] += tables[:, cluster]  # -1 is the last
    ious = np.diagonal(iou_table(named.astype(np.float64))[:, :classes], axis1=1, axis2=2)
    there = tables.sum(axis=1) > 0
    means: Float[np.ndarray, " image"] = np.full(images, np.nan)
    np.divide((ious * there).sum(axis=1), there.sum(axis=1), out=means, where=there.any(axis=1))
    return means


# Instances


def instance_images(given: SegmenterTraining, measured: Dataset) -> Dataset:
    """The images that instances are measured on: those that ``given`` names, or those ``measured`` otherwise."""
    part = given.measured_instances()
    if part is None:
        return measured
    options = {"masks": True} if part[0] == "coco20k" else {}
    return open_part(given, part[0], part[1], given.instance_limit, **options)


def proposal_networks(given: SegmenterTraining) -> list[str]:
    """The names of the networks that proposals are made with: of the parts, and of the salient region if any."""
    names = (given.proposal_backbone or given.backbone, given.saliency_backbone or given.backbone)
    return [name for name in dict.fromkeys(names) if name != NO_SALIENCY]


def mask_proposals(
    given: SegmenterTraining, networks: Mapping[str, Backbone], samples: Sequence[Sample], folder: Path
) -> tuple[Found, ProposalSet]:
    """The mask proposals that ``given`` describes (instanceness, Sec. 4), and what they are made of.

    ``networks`` are by the names that ``given`` has for them; what is found is kept in ``folder``.
    """
    source = given.proposal_backbone or given.backbone
    region = given.saliency_backbone or given.backbone
    options: dict[str, Any] = {
        "precision": given.precision, "batch_size": given.batch_size, "max_side": given.max_side or None,
    }  # fmt: skip
    soft = given.upsample == "bilinear"
    methods = {
        source: {SPECTRAL: {"method": SPECTRAL, "ks": tuple(given.proposal_ks), "facet": given.facet, "soft": soft}}
    }
    if region != NO_SALIENCY:
        methods.setdefault(region, {})[SALIENT] = {"method": SALIENT, "facet": given.facet}
    found = {
        name: discover_images(networks[name], samples, wanted, out=folder / name.replace(":", "_"), **options)
        for name, wanted in methods.items()
    }
    proposals = proposals_from_records(
        found[source],
        samples,
        SPECTRAL,
        None if region == NO_SALIENCY else (found[region], SALIENT),
        upsample=given.upsample,
        split=given.split_parts,
        intersection=given.intersection if region != NO_SALIENCY else None,
        nms=given.nms,
    )
    return found[source], proposals


def look_for_instances(
    file: Path, samples: Sequence[Sample], folder: Path, failures: dict[str, str], device: str
) -> dict[int, Detections]:
    """What the instance segmenter in ``file`` finds, by image id; kept in ``folder``, and as COCO results beside it."""
    found = segment_images(load_instances(file, device), samples, out=folder)
    failures |= {failure.name: failure.error for failure in found.failures}
    detected = found.detections(samples)
    write_bytes(folder.with_name(f"{folder.name}.json"), f"{json.dumps(to_results(detected))}\n".encode())
    return detected


def judged(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, those whose objects lack masks without a target: nobody can say what is right there."""
    return [
        replace(s, target=None) if s.target is not None and s.target.masks is None and len(s.target) else s
        for s in samples
    ]


def object_recalls(
    masks: Sequence[Sequence[Mapping[str, Any]]], samples: Sequence[Sample], threshold: float = 0.5
) -> Float[np.ndarray, " image"]:
    """The share of each image's objects (0..1) of which some mask has an IoU of ``threshold`` or more; nan without any.

    ``masks`` are run lengths, those of one image in each; crowds do not count.
    """
    shares: Float[np.ndarray, " image"] = np.full(len(samples), np.nan)
    for i, (found, sample) in enumerate(zip(masks, samples, strict=True)):
        target = sample.target
        if target is None or target.masks is None or target.crowd.all():
            continue
        true = [mask for mask, crowd in zip(target.masks, target.crowd, strict=True) if not crowd]
        overlaps = coco_mask.iou(list(found), true, [0] * len(true)) if len(found) else np.zeros((1, len(true)))
        shares[i] = float((overlaps.max(axis=0) >= threshold).mean())
    return shares
