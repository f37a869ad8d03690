"""find all objects of each photo with a detector trained on found boxes

Takes a detector that was trained here (notebook 05) and writes to the output folder:

  index.html       a contact sheet of all photos with the boxes that are sure enough
  results.json     all boxes in COCO results format, also those that are less sure; category_id is the class
  images.json      the photos in COCO format: image_id of a result -> file name, width, height; the classes
  overlays/        each photo with its boxes and their scores
  summary.json     settings, versions, seconds, and the photos that could not be read

An interrupted run goes on where it stopped when the same command is given again.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundling.commands import discover
from foundling.errors import ParameterError

if TYPE_CHECKING:
    from foundling.training.detected import DetectedSet
    from foundling.training.detection.predict import TrainedDetector
    from foundling.types import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, "the detector, RUN.safetensors")
    parser.add_argument(
        "--score", type=float, default=0.3, metavar="S", help="least score of the boxes in pictures, 0 to 1 (0.3)"
    )


def add_shared_arguments(parser: argparse.ArgumentParser, checkpoint: str) -> None:
    """The options of commands that take photos and a trained network; ``checkpoint`` says what file that is."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help=checkpoint)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos of equal size at a time (8)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos")


def run(args: argparse.Namespace) -> int:
    from foundling.backbones.load import choose_device
    from foundling.commands import outputs
    from foundling.training.detected import detect_images
    from foundling.training.detection.predict import load_detector

    start = time.monotonic()
    check_options(args)
    detector = load_detector(args.checkpoint, choose_device(args.device))
    samples, failures = discover.open_photos(args.paths, args.out, args.limit)
    classes = f"{len(detector.classes)} class{'es' * (len(detector.classes) != 1)}"
    told = f"{args.checkpoint.name} ({detector.checksum}), {classes}, on {detector.device}"
    print(f"{len(samples)} photos; {told}", flush=True)
    try:
        found = detect_images(detector, samples, out=args.out / ".cache", batch_size=args.batch_size)
        failures += found.failures
        outputs.write_detections(args.out, samples, found)
        outputs.write_detection_pictures(args.out, samples, found, args.score, notes(args, detector), failures)
    except KeyboardInterrupt:
        print(f"\nWhat was finished is kept in {args.out}: the same command goes on from there.", file=sys.stderr)
        raise
    write_summary(args, told_of(args, detector, found), failures, time.monotonic() - start)
    sure = sum(score >= args.score for record in found.records for score in record["scores"])
    print(f"{sure} objects with a score of {args.score:g} or more in {len(found.records)} photos (--score: others)")
    print(f"contact sheet: {args.out / 'index.html'}")
    return discover.tell_failures(failures)


def check_options(args: argparse.Namespace) -> None:
    """Raise :class:`ParameterError` for numbers out of range and an output folder that cannot be one."""
    if args.score is not None and not 0 <= args.score <= 1:
        raise ParameterError(f"--score {args.score:g}: give a score from 0 to 1")
    if args.batch_size < 1:
        raise ParameterError(f"--batch-size {args.batch_size}: give 1 or more")
    if args.out.exists() and not args.out.is_dir():
        raise ParameterError(f"--out {args.out}: is a file; name a folder")


def notes(args: argparse.Namespace, detector: "TrainedDetector") -> list[str]:
    """The lines above the contact sheet: what found the boxes."""
    settings = detector.settings
    return [
        f"boxes with a score of {args.score:g} or more; results.json has all from {settings.score_threshold:g}",
        f"detector: {settings.network} ({settings.engine}), trained for {steps_done(args.checkpoint)} on boxes of "
        f"{len(detector.classes)} class{'es' * (len(detector.classes) != 1)}",
        f"checkpoint: {args.checkpoint.name}, {detector.checksum}",
    ]


def steps_done(file: Path) -> str:
    """For how many steps the network in ``file`` was trained, in words: of a run that was stopped, those it did."""
    from foundling.training.trained import read_header

    steps = read_header(file.expanduser(), "`foundling train`").get("steps", "an unknown number of")
    return f"{steps} step{'s' * (steps != 1)}"


def told_of(args: argparse.Namespace, detector: "TrainedDetector", found: "DetectedSet") -> dict[str, Any]:
    """What ``summary.json`` says of a detector and of what it found."""
    scores = [score for record in found.records for score in record["scores"]]
    return {
        "photos": len(found.records),
        "objects": len(scores),
        "sure": sum(score >= args.score for score in scores),
        "score": args.score,
        "detector": {"file": str(args.checkpoint), "checksum": detector.checksum, "classes": list(detector.classes)},
        "device": str(detector.device),
    }


def write_summary(
    args: argparse.Namespace, told: Mapping[str, Any], failures: Sequence["Failure"], seconds: float
) -> None:
    """Write ``summary.json``: what is ``told``, of which score and device are settings, and what any command adds."""
    from foundling.commands.outputs import write_json
    from foundling.provenance import versions

    settings = {name: told[name] for name in ("score", "device") if name in told}
    content = {
        **{name: value for name, value in told.items() if name not in settings},
        "failures": [{"name": failure.name, "error": failure.error} for failure in failures],
        "settings": {**settings, "batch_size": args.batch_size},
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    write_json(args.out / "summary.json", content)
