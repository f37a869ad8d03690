"""segment each photo with a network trained on found masks

Takes a segmenter that was trained here (notebook 06) and writes to the output folder, by what the file holds,

  of instances (every object with its mask):
    results.json   all objects in COCO results format, masks as run lengths, also those that are less sure
    images.json    the photos in COCO format: image_id of a result -> file name, width, height; the classes
  semantic (every pixel with its cluster):
    masks/         a label map of each photo: an indexed PNG of its size, 0 is background, 1 is cluster 1
    segments.json  the photos, their label maps, and how many pixels of each label these have

and of both:
  index.html       a contact sheet of all photos with what was found
  overlays/        each photo with it, larger
  summary.json     settings, versions, seconds, and the photos that could not be read

An interrupted run goes on where it stopped when the same command is given again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundling.commands import detect, discover
from foundling.errors import ParameterError, WeightsError

if TYPE_CHECKING:
    from foundling.types import Failure, Sample

SEMANTIC, INSTANCES = "semantic", "instances"  # what the file of a segmenter says it is
SCORE = 0.3
MAPS = "masks"  # folder of label maps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    detect.add_shared_arguments(parser, "the segmenter, RUN.safetensors")
    kind = parser.add_mutually_exclusive_group()
    for name, about in ((SEMANTIC, "a cluster for every pixel"), (INSTANCES, "a mask for every object")):
        kind.add_argument(
            f"--{name}", action="store_const", const=name, dest="kind", help=f"the file is to hold one of this: {about}"
        )
    parser.add_argument(
        "--score", type=float, metavar="S", help=f"instances: least score of masks in pictures, 0 to 1 ({SCORE})"
    )


def run(args: argparse.Namespace) -> int:
    from foundling.backbones.load import choose_device

    start = time.monotonic()
    detect.check_options(args)
    kind = segmenter_kind(args.checkpoint, args.kind)
    if kind == SEMANTIC and args.score is not None:
        raise ParameterError(
            f"--score {args.score:g}: goes with instances; {args.checkpoint} holds a semantic segmenter"
        )
    args.score = SCORE if args.score is None else args.score
    device = choose_device(args.device)
    look = _label if kind == SEMANTIC else _mask
    try:
        told, failures = look(args, device)
    except KeyboardInterrupt:
        print(f"\nWhat was finished is kept in {args.out}: the same command goes on from there.", file=sys.stderr)
        raise
    detect.write_summary(args, told, failures, time.monotonic() - start)
    print(f"contact sheet: {args.out / 'index.html'}")
    return discover.tell_failures(failures)


def segmenter_kind(file: Path, wanted: str | None) -> str:
    """What kind of segmenter a file holds, ``semantic`` or ``instances``, by what it says of itself.

    Raises WeightsError if there is no such file, it is damaged or holds no segmenter, and :class:`ParameterError` if it
    is not of the kind that is ``wanted``.
    """
    from foundling.training.detection.task import METHOD as DETECTOR
    from foundling.training.trained import read_header

    file = file.expanduser()
    told = read_header(file, "`foundling train`")
    kind = told.get("method") if isinstance(told, dict) else None
    if kind == DETECTOR:
        raise WeightsError(f"{file} holds a detector, which knows boxes and no masks: use `foundling detect`")
    if kind not in (SEMANTIC, INSTANCES):
        other = f" but a network of the kind {kind!r}" if kind else ""
        raise WeightsError(f"{file} holds no segmenter{other}: name a file that a segmenter's training wrote")
    if wanted and kind != wanted:
        raise ParameterError(f"--{wanted}: {file} holds a segmenter of the kind {kind!r}; leave the option out")
    return str(kind)


def _mask(args: argparse.Namespace, device: Any) -> tuple[dict[str, Any], list["Failure"]]:
    """Instances of all photos, written; what the summary says of them."""
    from foundling.commands import mask_outputs, outputs
    from foundling.training.detected import segment_images
    from foundling.training.instance.predict import load_instances

    segmenter = load_instances(args.checkpoint, device)
    classes = len(segmenter.classes)
    samples, failures = _photos(args, segmenter, f"{classes} class{'es' * (classes != 1)}")
    found = segment_images(segmenter, samples, out=args.out / ".cache", batch_size=args.batch_size)
    failures += found.failures
    notes = [
        f"masks with a score of {args.score:g} or more; results.json has all that were kept",
        _about(args.checkpoint, segmenter.settings, "masks of objects"),
        f"checkpoint: {args.checkpoint.name}, {segmenter.checksum}",
    ]
    outputs.write_detections(args.out, samples, found)
    mask_outputs.write_instance_pictures(args.out, samples, found, args.score, notes, failures)
    scores = [score for record in found.records for score in record["scores"]]
    sure = sum(score >= args.score for score in scores)
    print(f"{sure} objects with a score of {args.score:g} or more in {len(found.records)} photos (--score: others)")
    told = {"photos": len(found.records), "objects": len(scores), "sure": sure, "score": args.score}
    return {**told, **_described(segmenter, INSTANCES, segmenter.classes)}, failures


def _label(args: argparse.Namespace, device: Any) -> tuple[dict[str, Any], list["Failure"]]:
    """Label maps of all photos, written; what the summary says of them."""
    from foundling.commands import mask_outputs
    from foundling.training.semantic.predict import load_segmenter, segment_to_files

    segmenter = load_segmenter(args.checkpoint, device)
    classes = mask_outputs.class_names(segmenter.clusters)
    samples, failures = _photos(args, segmenter, f"{segmenter.clusters} clusters")
    maps = segment_to_files(segmenter, samples, args.out / MAPS, batch_size=args.batch_size)
    failures += maps.failures
    notes = [
        f"label maps: {MAPS}/, indexed PNG files, 0 is background; segments.json counts their pixels",
        _about(args.checkpoint, segmenter.settings, f"label maps of {segmenter.clusters} clusters"),
        f"checkpoint: {args.checkpoint.name}, {segmenter.checksum}",
    ]
    images = mask_outputs.write_label_maps(args.out, samples, maps)
    mask_outputs.write_label_pictures(args.out, samples, maps, notes, failures)
    found = sum(any(label != "0" for label in image["pixels"]) for image in images)
    print(f"{found} of {len(images)} photos have something that is not background")
    told = {"photos": len(images), "with_objects": found}
    return {**told, **_described(segmenter, SEMANTIC, classes[1:])}, failures


def _photos(args: argparse.Namespace, segmenter: Any, what: str) -> tuple[list["Sample"], list["Failure"]]:
    samples, failures = discover.open_photos(args.paths, args.out, args.limit)
    told = f"{args.checkpoint.name} ({segmenter.checksum}), {what}, on {segmenter.device}"
    print(f"{len(samples)} photos; {told}", flush=True)
    return samples, failures


def _about(file: Path, settings: Any, labels: str) -> str:
    """A line on how the segmenter was trained."""
    return f"segmenter: {settings.objective} ({settings.network}), trained for {detect.steps_done(file)} on {labels}"


def _described(segmenter: Any, kind: str, classes: Sequence[str]) -> dict[str, Any]:
    """What the summary says of the segmenter."""
    about = {"file": segmenter.weights, "checksum": segmenter.checksum, "classes": list(classes)}
    return {"segmenter": {"kind": kind, **about}, "device": str(segmenter.device)}
