"""find the main object of each photo

Reads photos (files, and folders with all folders below), finds one object in each and writes to the output folder:

  index.html       a contact sheet of all photos with their boxes
  results.json     the boxes in COCO results format (results.METHOD.json where several methods are asked for)
  images.json      the photos in COCO format: image_id of a result -> file name, width, height
  overlays/        each photo with its boxes
  categories.json  the photos of each category (with --categories)
  summary.json     settings, versions, seconds, and the photos that could not be read

An interrupted run goes on where it stopped when the same command is given again.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundling.errors import ParameterError

if TYPE_CHECKING:
    from foundling.backbones import Backbone
    from foundling.commands.categories import Sorting
    from foundling.discovery.stream import Found
    from foundling.types import Failure, Sample

# not read from the registry: --help would load torch
METHODS = ("lost", "dino_seg", "tokencut", "maskcut", "saliency", "spectral")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeat for several (default: lost)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[METHOD.]KEY=VALUE",
        help="a method's setting, such as k=50 (lost), tau=0.3 (tokencut) or head=bcc (dino_seg)",
    )
    add_network_arguments(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos")
    parser.add_argument(
        "--categories",
        type=int,
        metavar="K",
        help="sort the photos into K groups by what was found in each (by the first method)",
    )


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the network and of how photos go through it."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--backbone",
        default="dino_vits16",
        metavar="NAME",
        help="`foundling weights` lists them (default: %(default)s)",
    )
    network.add_argument(
        "--weights", default="pretrained", metavar="W", help="pretrained (default), random, or a checkpoint file"
    )
    network.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    network.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="default: fp32")
    network.add_argument("--batch-size", type=int, default=16, metavar="N", help="photos of equal size at a time (16)")
    network.add_argument(
        "--max-side", type=int, default=1024, metavar="PIXELS", help="shrink longer sides to this; 0 = never (1024)"
    )


def run(args: argparse.Namespace) -> int:
    from foundling.backbones import load_backbone
    from foundling.commands import categories, outputs
    from foundling.discovery.stream import discover_images

    start = time.monotonic()
    categories.check_categories(args.categories)
    methods = method_settings(args.method or ["lost"], args.set)
    check_options(args)
    samples, failures = open_photos(args.paths, args.out, args.limit)
    backbone = load_backbone(args.backbone, weights=args.weights, device=args.device)
    print(f"{len(samples)} photos; {backbone.name} ({backbone.checksum}) on {backbone.device}", flush=True)
    try:
        found = discover_images(
            backbone,
            samples,
            methods,
            out=args.out / ".cache",
            batch_size=args.batch_size,
            max_side=args.max_side or None,
            precision=args.precision,
        )
        failures += found.failures
        sorting, refused = sort(args, backbone, samples, found, next(iter(methods)))
        outputs.write_coco(args.out, samples, found, sorting)
        outputs.write_categories(args.out, samples, found, sorting)
        outputs.write_pictures(args.out, samples, found, sheet_notes(backbone, methods), failures, sorting)
    except KeyboardInterrupt:
        print(f"\nWhat was finished is kept in {args.out}: the same command goes on from there.", file=sys.stderr)
        raise
    written = summary(args, backbone, methods, found, failures, time.monotonic() - start)
    outputs.write_json(args.out / "summary.json", written | {"categories": sorting and sorting.described})
    if sorting is not None:
        print(categories.told(sorting))
    code = tell(args.out, found, failures)
    if refused:
        print(f"foundling discover: {refused}", file=sys.stderr)
    return 1 if refused else code


def sort(
    args: argparse.Namespace, backbone: "Backbone", samples: Sequence["Sample"], found: "Found", label: str
) -> tuple["Sorting | None", str]:
    """The groups that ``--categories`` asks for, or none and why there are too few objects for them."""
    from foundling.commands.categories import sort_photos

    if args.categories is None:
        return None, ""
    options = {"precision": args.precision, "batch_size": args.batch_size}
    try:
        return sort_photos(backbone, samples, found, label, args.categories, **options), ""
    except ParameterError as error:
        return None, str(error)


def open_photos(paths: Sequence[Path], out: Path, limit: int | None) -> tuple[list["Sample"], list["Failure"]]:
    """The photos below ``paths``, numbered from 1, and the paths that could not be listed.

    What lies in ``out`` is left out: an earlier run's overlays are not photos to be read.
    """
    from foundling.datasets import open_dataset
    from foundling.errors import DataMissing
    from foundling.types import Failure

    dataset = open_dataset("folder", root=paths)
    inside = out.resolve()
    names = [sample.name for sample in dataset if not sample.path.resolve().is_relative_to(inside)]
    if not names:
        raise DataMissing(f"all images of {', '.join(map(str, paths))} lie in the output folder {out}: name another")
    samples = [replace(sample, image_id=i) for i, sample in enumerate(dataset.subset(limit=limit, names=names), 1)]
    return samples, [Failure(problem.partition(": ")[0], -1, problem) for problem in dataset.problems]


def method_settings(names: Sequence[str], given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each method is run with: ``names`` and the ``[METHOD.]KEY=VALUE`` texts of ``--set``.

    A key without a method goes to every method that knows it. Values are read as YAML, so ``50`` is a number.
    Returns all settings of each method, defaults included.
    Raises :class:`ParameterError` for a text of another form, a key no method knows, or a value of the wrong type.
    """
    import yaml

    from foundling.discovery import METHODS as registry
    from foundling.discovery import resolve_method
    from foundling.parameters import check_methods

    methods: dict[str, dict[str, Any]] = {name: {"method": name} for name in names}
    for text in given:
        key, equals, value = text.partition("=")
        method, dot, key = key.rpartition(".")
        if not (key and equals and value) or (dot and method not in methods):
            raise ParameterError(
                f"--set {text}: write KEY=VALUE or METHOD.KEY=VALUE, METHOD among {', '.join(methods)}"
            )
        takers = [method] if dot else [name for name in methods if key in registry[name].defaults]
        for taker in takers or methods:
            methods[taker][key] = yaml.safe_load(value)
    check_methods(methods, "--set")
    return {name: {"method": name, **resolve_method(name, settings)[1]} for name, settings in methods.items()}


def check_options(args: argparse.Namespace) -> None:
    """Raise :class:`ParameterError` for numbers out of range and an output folder that cannot be one."""
    for option, value, least in (("batch-size", args.batch_size, 1), ("max-side", args.max_side, 0)):
        if value < least:
            raise ParameterError(f"--{option} {value}: give {least} or more")
    if args.out.exists() and not args.out.is_dir():
        raise ParameterError(f"--out {args.out}: is a file; name a folder")


def sheet_notes(backbone: "Backbone", methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines above the contact sheet: what found the boxes."""
    notes = []
    for label, settings in methods.items():
        values = ", ".join(f"{key} = {value}" for key, value in settings.items() if key != "method")
        notes.append(f"{label}: {values}")
    return [*notes, f"network: {backbone.name}, weights {backbone.checksum}"]


def summary(
    args: argparse.Namespace,
    backbone: "Backbone",
    methods: Mapping[str, Mapping[str, Any]],
    found: "Found",
    failures: Sequence["Failure"],
    seconds: float,
) -> dict[str, Any]:
    """What ``summary.json`` says."""
    from foundling.provenance import versions

    per_image = dict(found.seconds)
    return {
        "photos": len(found.names),
        "boxed": boxed(found),
        "failures": [{"name": failure.name, "error": failure.error} for failure in failures],
        "methods": methods,
        "backbone": {"name": backbone.name, "weights": backbone.weights, "checksum": backbone.checksum},
        "settings": {"max_side": args.max_side, "precision": args.precision, "device": str(backbone.device)},
        "versions": versions(),
        "computed": int(per_image.pop("images")),  # the other photos' boxes were there from an earlier run
        "seconds": round(seconds, 1),
        "seconds_per_image": per_image,
    }


def boxed(found: "Found") -> dict[str, int]:
    """How many photos have a box, by method."""
    import numpy as np

    return {label: int(np.isfinite(boxes).all(axis=1).sum()) for label, boxes in found.boxes.items()}


def tell(out: Path, found: "Found", failures: Sequence["Failure"]) -> int:
    """Print how it went and where to look; returns the exit code."""
    for label, count in boxed(found).items():
        print(f"{label}: {count} of {len(found.names)} photos boxed")
    print(f"contact sheet: {out / 'index.html'}")
    return tell_failures(failures)


def tell_failures(failures: Sequence["Failure"]) -> int:
    """Print what failed, if anything; returns the exit code."""
    if not failures:
        return 0
    print(f"{len(failures)} failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.error}", file=sys.stderr)
    return 1
