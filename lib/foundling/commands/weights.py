"""list the networks and their weights, or download one

Without a name, lists every network that --backbone takes: licence, whether its host wants a login, and where its
weights are expected. A file put there by hand is used without network. With a name, downloads those weights.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="network whose weights to download; without it, the list")


def run(args: argparse.Namespace) -> int:
    from foundling.backbones.registry import BACKBONES
    from foundling.backbones.weights import expected_weights, fetch_weights
    from foundling.errors import ParameterError
    from foundling.parameters import suggest

    if args.name is None:
        print_list(expected_weights())
        return 0
    if args.name not in BACKBONES:
        raise ParameterError(f"unknown backbone {args.name!r}{suggest(args.name, BACKBONES)}")
    print(f"{args.name}: {fetch_weights(BACKBONES[args.name])}")
    return 0


def print_list(rows: list[dict[str, str | bool]]) -> None:
    """One line a network, and a second one with what to do where its weights are missing."""
    for row in rows:
        state = "here" if row["present"] else "gated" if row["gated"] else "missing"
        print(f"{row['name']:<20} {state:<8} {row['licence']:<16} {row['where']}")
        if not row["present"]:
            print(f"{'':<20} {row['command']}")
