"""list the networks and their weights, download one, or write a trained one for Detectron2

Without a name, lists every network that --backbone takes, the saliency networks of notebook 04 and the segmenters of
notebook 07: licence, whether its host wants a login, and where its weights are expected. A file put there by hand is
used without network. With a name, downloads those weights.

With the path of a ResNet that `foundling train` wrote and --detectron2 OUT.pkl, writes the file for MODEL.WEIGHTS, and
beside it OUT.yaml, the part of Detectron2's config that goes with it.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="network whose weights to download; without it, the list")
    parser.add_argument(
        "--detectron2", type=Path, metavar="OUT.pkl", help="write RUN.safetensors, given as name, for Detectron2"
    )


def run(args: argparse.Namespace) -> int:
    from foundling.errors import ParameterError

    if args.detectron2 is not None:
        if args.name is None:
            raise ParameterError(f"--detectron2 {args.detectron2}: name the file to write it from, RUN.safetensors")
        return write_detectron2(Path(args.name), args.detectron2)

    from foundling.backbones.registry import BACKBONES
    from foundling.backbones.weights import expected_weights, fetch_weights
    from foundling.parameters import suggest
    from foundling.saliency import NETWORKS, SEGMENTERS

    known = {**BACKBONES, **NETWORKS, **SEGMENTERS}
    if args.name is None:
        print_list(expected_weights(known.values()))
        return 0
    if args.name not in known:
        raise ParameterError(f"unknown network {args.name!r}{suggest(args.name, known)}")
    print(f"{args.name}: {fetch_weights(known[args.name])}")
    return 0


def write_detectron2(file: Path, out: Path) -> int:
    """Write ``file`` for Detectron2 and print what was written, the config in full."""
    from foundling.backbones.transfer import to_detectron2

    to_detectron2(file, out)
    config = out.expanduser().with_suffix(".yaml")
    print(f"{out}: weights for Detectron2\n{config}: what its config must say with them:\n")
    print(config.read_text(encoding="utf-8"), end="")
    return 0


def print_list(rows: list[dict[str, str | bool]]) -> None:
    """One line a network, and a second one with what to do where its weights are missing."""
    for row in rows:
        state = "here" if row["present"] else "gated" if row["gated"] else "missing"
        print(f"{row['name']:<20} {state:<8} {row['licence']:<16} {row['where']}")
        if not row["present"]:
            print(f"{'':<20} {row['command']}")
