"""What appears below a notebook's cells, through a stand-in for the running IPython."""

import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from foundling.report.display import BATCH, show, show_saved, sliders, table_html
from foundling.report.style import save_figure
from foundling.report.tables import write_table


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (kind, content) pairs."""
    seen = []

    def note(kind):
        return lambda content: (kind, content)

    display = SimpleNamespace(Image=note("Image"), HTML=note("HTML"), display=seen.append)
    ipython = SimpleNamespace(get_ipython=object, display=display)
    monkeypatch.setattr("foundling.report.display.sys", SimpleNamespace(modules={"IPython": ipython}))
    return seen


def test_a_saved_figure_is_shown_as_it_was_saved(shown, tmp_path):
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    path = save_figure(fig, tmp_path / "line.png")
    show_saved(path, "A <line>.")
    assert shown[0] == ("Image", path.read_bytes())
    assert "A &lt;line&gt;." in shown[1][1]


def test_a_table_is_shown_with_every_cell_escaped(shown, tmp_path):
    path = write_table(tmp_path / "t", [{"image": "<b>.jpg", "CorLoc": 50.0}], "Names & numbers.")
    show_saved(path, "Names & numbers.")
    ((kind, html),) = shown
    assert kind == "HTML"
    assert "&lt;b&gt;.jpg" in html
    assert "Names &amp; numbers." in html
    assert html == table_html(["image", "CorLoc"], [["<b>.jpg", "50.0"]], "Names & numbers.")


def test_a_widgets_figure_is_shown_once_and_closed(shown):
    fig, _ = plt.subplots()
    show(fig)
    ((kind, data),) = shown
    assert (kind, data[:4]) == ("Image", b"\x89PNG")
    assert not plt.fignum_exists(fig.number)


def test_nothing_happens_outside_a_notebook(monkeypatch, capsys):
    monkeypatch.setattr("foundling.report.display.sys", SimpleNamespace(modules={}))
    fig, _ = plt.subplots()
    show(fig)
    assert capsys.readouterr().out == ""


def test_sliders_call_the_function_with_their_first_values(monkeypatch):
    monkeypatch.delenv(BATCH, raising=False)
    seen = []
    sliders(k=(1, 9, 4), row=(0, 3, 0))(lambda k, row: seen.append((k, row)))
    assert seen == [(4, 0)]


def test_a_batch_run_draws_no_widget(monkeypatch, capsys):
    monkeypatch.setenv(BATCH, "metrics.json")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # importing it would raise
    assert sliders(k=(1, 9, 4))(len) is len
    assert "JupyterLab" in capsys.readouterr().out
