"""Progress on stderr: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

LINE_EVERY = 10.0  # seconds between two lines in a log


@contextmanager
def progress(total: int, what: str, shown: bool = True, unit: str = "image") -> Iterator[Callable[[int], None]]:
    """A function to call with the number of items just finished; shows how many of ``total`` are done, and the rate."""
    if not shown:
        yield lambda finished: None
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit, file=sys.stderr) as bar:
            yield bar.update
    else:
        yield _lines(total, what, unit)


def _lines(total: int, what: str, unit: str) -> Callable[[int], None]:
    start = last = time.monotonic()
    done = 0

    def advance(finished: int) -> None:
        nonlocal done, last
        done += finished
        now = time.monotonic()
        if not finished or (done < total and now - last < LINE_EVERY):
            return
        last = now
        pace = (now - start) / max(done, 1)
        left = f", about {pace * (total - done):.0f} s left" if done < total else ""
        print(f"{what}: {done} of {total} {unit}s, {pace:.2f} s each{left}", file=sys.stderr, flush=True)

    return advance
