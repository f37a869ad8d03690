"""propose masks of all objects of each photo

Cuts each photo into parts by spectral clustering for several k, keeps the connected parts that lie mostly in the
salient region, without duplicates, and writes to the output folder:

  index.html       a contact sheet of all photos with their masks
  proposals.json   the masks in COCO results format (run lengths), best first in each photo
  images.json      the photos in COCO format: image_id of a result -> file name, width, height
  overlays/        each photo with its masks
  summary.json     settings, versions, seconds, the photos without any mask and those that could not be read

An interrupted run goes on where it stopped when the same command is given again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundling.commands import discover
from foundling.errors import ParameterError

if TYPE_CHECKING:
    from foundling.backbones import Backbone
    from foundling.discovery.stream import Found
    from foundling.proposals import ProposalSet
    from foundling.types import Failure, Sample

NO_SALIENCY = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    masks = parser.add_argument_group("masks")
    masks.add_argument("--ks", type=int, nargs="+", default=[2, 3, 4, 5], metavar="K", help="default: 2 3 4 5")
    masks.add_argument("--facet", default="keys", metavar="F", help="keys (default), queries, values or tokens")
    masks.add_argument("--upsample", default="nearest", choices=("nearest", "bilinear"), help="default: nearest")
    masks.add_argument("--refine", default="none", choices=("none", "edges"), help="move masks to edges (none)")
    filters = parser.add_argument_group("filters")
    filters.add_argument(
        "--saliency",
        metavar="NAME",
        help=f"the network of the salient region (default: that of --backbone; a checkpoint given as --weights is not "
        f"for it), or {NO_SALIENCY} for no such filter",
    )
    filters.add_argument("--no-split", action="store_true", help="keep masks whole that are not connected")
    filters.add_argument(
        "--intersection", type=float, default=0.5, metavar="SHARE", help="least salient share of a mask (0.5)"
    )
    filters.add_argument("--nms", type=float, default=0.8, metavar="IOU", help="above this, masks are duplicates (0.8)")
    discover.add_network_arguments(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos")


def run(args: argparse.Namespace) -> int:
    from foundling.backbones import load_backbone
    from foundling.commands import outputs
    from foundling.proposals import proposals_from_records, write_proposals

    start = time.monotonic()
    discover.check_options(args)
    for option in ("intersection", "nms"):
        if not 0 <= getattr(args, option) <= 1:
            raise ParameterError(f"--{option} {getattr(args, option)}: give a share from 0 to 1")
    samples, failures = discover.open_photos(args.paths, args.out, args.limit)
    backbone = load_backbone(args.backbone, weights=args.weights, device=args.device)
    other = args.saliency not in (None, NO_SALIENCY, args.backbone)
    # a checkpoint file is that of --backbone: in the other network it might even fit
    weights = "random" if args.weights == "random" else "pretrained"
    salient = load_backbone(args.saliency, weights=weights, device=args.device) if other else backbone
    print(f"{len(samples)} photos; {backbone.name} ({backbone.checksum}) on {backbone.device}", flush=True)
    try:
        found, saliency = find(args, samples, backbone, salient)
        proposals = proposals_from_records(
            found,
            samples,
            "spectral",
            saliency,
            upsample=args.upsample,
            refine=args.refine,
            split=not args.no_split,
            intersection=args.intersection,
            nms=args.nms,
        )
        failures += proposals.failures
        write_proposals(args.out / "proposals.json", proposals)
        outputs.write_images(args.out, samples, found)
        outputs.write_mask_pictures(args.out, samples, proposals, notes(args, backbone, salient), failures)
    except KeyboardInterrupt:
        print(f"\nWhat was finished is kept in {args.out}: the same command goes on from there.", file=sys.stderr)
        raise
    seconds = time.monotonic() - start
    outputs.write_json(args.out / "summary.json", summary(args, backbone, salient, found, proposals, failures, seconds))
    return tell(args.out, len(samples), proposals, failures)


def find(
    args: argparse.Namespace, samples: Sequence["Sample"], backbone: "Backbone", salient: "Backbone"
) -> tuple["Found", tuple["Found", str] | None]:
    """The parts of each photo for every k, and where its salient region is; in one pass if one network finds both."""
    from foundling.discovery.stream import discover_images

    parts = {"spectral": {"ks": args.ks, "facet": args.facet, "soft": args.upsample == "bilinear"}}
    region = {} if args.saliency == NO_SALIENCY else {"saliency": {"facet": args.facet}}
    options: dict[str, Any] = {
        "batch_size": args.batch_size,
        "max_side": args.max_side or None,
        "precision": args.precision,
    }
    cache = args.out / ".cache"
    if salient is backbone:
        found = discover_images(backbone, samples, parts | region, out=cache / "masks", **options)
        return found, (found, "saliency") if region else None
    found = discover_images(backbone, samples, parts, out=cache / "masks", **options)
    return found, (discover_images(salient, samples, region, out=cache / "saliency", **options), "saliency")


def notes(args: argparse.Namespace, backbone: "Backbone", salient: "Backbone") -> list[str]:
    """The lines above the contact sheet: what made the masks."""
    ks = ", ".join(map(str, args.ks))
    region = f"salient region: {salient.name}, weights {salient.checksum}, at least {args.intersection} of a mask"
    return [
        f"spectral clustering: k = {ks}; {args.facet}; upsampling {args.upsample}; refinement {args.refine}",
        "no saliency filter" if args.saliency == NO_SALIENCY else region,
        f"{'masks kept whole' if args.no_split else 'one mask a component'}; duplicates above an IoU of {args.nms}",
        f"network: {backbone.name}, weights {backbone.checksum}",
    ]


def summary(
    args: argparse.Namespace,
    backbone: "Backbone",
    salient: "Backbone",
    found: "Found",
    proposals: "ProposalSet",
    failures: Sequence["Failure"],
    seconds: float,
) -> dict[str, Any]:
    """What ``summary.json`` says."""
    from foundling.provenance import versions

    settings = ("ks", "facet", "upsample", "refine", "intersection", "nms", "max_side", "precision")
    networks = {"backbone": backbone} | ({} if args.saliency == NO_SALIENCY else {"saliency": salient})
    return {
        "photos": len(found.names),
        "masks": sum(len(image.masks) for image in proposals.images),
        "without": proposals.without,
        "failures": [{"name": failure.name, "error": failure.error} for failure in failures],
        **{
            use: {"name": network.name, "weights": network.weights, "checksum": network.checksum}
            for use, network in networks.items()
        },
        "settings": {name: getattr(args, name) for name in settings}
        | {"split": not args.no_split, "device": str(backbone.device)},
        "versions": versions(),
        "seconds": round(seconds, 1),
    }


def tell(out: Path, photos: int, proposals: "ProposalSet", failures: Sequence["Failure"]) -> int:
    """Print how it went and where to look; returns the exit code."""
    masks = sum(len(image.masks) for image in proposals.images)
    print(f"{masks} masks in {len(proposals.images) - len(proposals.without)} of {photos} photos")
    if proposals.without:
        print(f"no mask passed the filters in: {', '.join(proposals.without)}")
    print(f"contact sheet: {out / 'index.html'}")
    return discover.tell_failures(failures)
