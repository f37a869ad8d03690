"""Seconds that `import foundling` and `foundling --help` take in a fresh interpreter: the best and the median of ten.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import foundling": ["-c", "import foundling"],
    "foundling --help": ["-m", "foundling.cli", "--help"],
    "foundling discover --help": ["-m", "foundling.cli", "discover", "--help"],
}
REPEATS = 10


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one run of this Python with ``arguments``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    for name, arguments in COMMANDS.items():
        times = [seconds(arguments) for _ in range(REPEATS)]
        print(f"{name:<26} best {min(times):.2f} s, median {statistics.median(times):.2f} s")
