"""list the datasets, or download one

Without a name, lists what is expected where and whether it is there. With a name, downloads that dataset, checks it
against its published checksum and unpacks it. What is there already is not downloaded again.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="dataset to download; without it, the list")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the dataset (default: in the data folder)")


def run(args: argparse.Namespace) -> int:
    from foundling.datasets.download import download, expected
    from foundling.paths import data_dir

    if args.name is not None:
        print(f"{args.name} is in {download(args.name, root=args.root)}")
        return 0
    print(f"data folder: {data_dir()} (FOUNDLING_DATA chooses another)\n")
    for row in expected(args.root):
        print(row)
    return 0
