"""Pictures and tables under a notebook's cells; nothing happens where no notebook is running."""

import os
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from foundling.report.style import figure_png
from foundling.report.tables import read_table

BATCH = "FOUNDLING_BATCH"  # set by the batch runner: the name under which finish() leaves the metrics
CAPTION = '<p style="color:#6b6b6b;max-width:60em;margin:0.2em 0 1em">{}</p>'


def show(fig: Figure) -> None:
    """Show a figure below the cell, once, and close it; for figures that are not results of the run (widgets)."""
    png = figure_png(fig)
    plt.close(fig)
    _display("Image", png)


def show_html(html: str) -> None:
    """Show a piece of HTML below the cell, such as a map that answers the mouse; it is no result of the run."""
    _display("HTML", html)


def sliders(**ranges: tuple[int, int, int]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a reader call the decorated function with sliders: ``sliders(k=(lowest, highest, first))``.

    In a batch run nothing is drawn: no one is there to move a slider, and the cell after it holds the same as a figure.
    """

    def explore(function: Callable[..., None]) -> Callable[..., None]:
        if os.environ.get(BATCH):
            print("The sliders of this cell work in JupyterLab.")
            return function
        from ipywidgets import IntSlider, interact

        bars = {name: IntSlider(min=low, max=high, value=first) for name, (low, high, first) in ranges.items()}
        interact(function, **bars)
        return function

    return explore


def show_saved(path: Path, caption: str) -> None:
    """Show a saved figure (PNG) or table (CSV) below the cell, with its caption."""
    if path.suffix == ".png":
        _display("Image", path.read_bytes())
        _display("HTML", CAPTION.format(escape(caption)))
    else:
        _display("HTML", table_html(*read_table(path), caption))


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table as HTML, every cell escaped; the first column to the left, the others to the right."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{"right" if i else "left"}">{escape(cell)}</td>' for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    caption = CAPTION.format(escape(caption))
    return f"{caption}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _display(kind: str, content: bytes | str) -> None:
    """Hand ``content`` to the notebook that is running, if one is: it has IPython loaded already."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(getattr(ipython.display, kind)(content))
