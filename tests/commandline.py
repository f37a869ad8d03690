"""The command line as tests call it, and its files as they read them."""

import json
from pathlib import Path
from typing import Any

from foundling import cli

NETWORK = ("--backbone", "scenes_odin", "--weights", "random", "--device", "cpu")


def foundling(*arguments: object) -> int:
    """Run the command with these arguments, and return its exit code."""
    return cli.main([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
