"""The command line, ``foundling``. What a command needs is imported when it runs, so that ``--help`` is instant."""

import argparse
import os
import sys
from collections.abc import Sequence

from foundling import __version__
from foundling.commands import data, detect, discover, doctor, propose, published, segment, studies, train, weights
from foundling.errors import FoundlingError

COMMANDS = {
    "discover": discover,
    "propose": propose,
    "detect": detect,
    "segment": segment,
    "train": train,
    "data": data,
    "weights": weights,
    "studies": studies,
    "published": published,
    "doctor": doctor,
}
EXIT_CODES = "exit codes: 0 done; 1 done, but something failed (it is listed); 2 could not start; 130 interrupted"


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``foundling`` and its commands: ``command`` names the one chosen."""
    parser = argparse.ArgumentParser(
        prog="foundling",
        description="Unsupervised object discovery: find objects in photos without labels.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"foundling {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in COMMANDS.items():
        about = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (``sys.argv`` if ``argv`` is ``None``) and return the exit code."""
    args = make_parser().parse_args(argv)
    try:
        return COMMANDS[args.command].run(args)
    except FoundlingError as error:
        print(f"foundling {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
