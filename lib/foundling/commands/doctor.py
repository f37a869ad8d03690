"""check this installation line by line

Says of each thing that foundling needs whether it is there and works: Python, each dependency, the devices PyTorch
can use, the weights in the package, the notebooks' kernel; and which datasets and weights are in the data folder
([none]: not there, and only needed by what uses it).
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: the command has no options."""


def run(args: argparse.Namespace) -> int:
    from foundling.doctor import examine

    worst = "ok"
    for check in examine():
        print(f"[{check.level:<4}] {check.name}: {check.text}", flush=True)
        worst = max(worst, check.level, key=("none", "ok", "warn", "fail").index)
    print({"ok": "\nAll is well.", "warn": "\nUsable; see the warnings.", "fail": "\nSee the failures above."}[worst])
    return 1 if worst == "fail" else 0
