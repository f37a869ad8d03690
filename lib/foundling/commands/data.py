"""list the datasets, or download one

Without a name, lists what is expected where and whether it is there. With a name, downloads that dataset, checks it
against its published checksum and unpacks it. What is there already is not downloaded again.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="dataset to download; without it, the list")
    parser.add_argument("--root", type=Path, metavar="DIR", help="data folder (default: FOUNDLING_DATA, or data/)")


def run(args: argparse.Namespace) -> int:
    from foundling.datasets.download import download, expected
    from foundling.paths import data_dir

    if args.name is not None:
        for place in download(args.name, root=args.root):
            print(f"{args.name}: {place}")
        return 0
    print(f"data folder: {args.root or data_dir()}\n")
    for row in expected(args.root):
        print(f"{row.name:<12} {'here' if row.present else 'missing':<8} {row.size:>8}  {row.where}")
        print(f"{'':<12} {row.command}; {row.licence}" + (f"; {row.page}" if row.page else ""))
        if row.note:
            print(f"{'':<12} {row.note}")
    return 0
