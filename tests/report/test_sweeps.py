"""Sweeps gathered from run folders written by hand: table, figures, missing points, and what the page says of them."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from html_page import Page

from foundling.combinations import combinations, point_name
from foundling.evaluation import CorLoc
from foundling.report.figures_sweeps import gaps_and_scores, score_panels, variants_by_gap
from foundling.report.gather import gather_sweep
from foundling.report.page import write_report
from foundling.report.sweeps import measured_family, read_points, scores_of, sweep_rows, write_sweep

TEN = "10_ablations"
AXES = {"backbone": ["scenes_odin", "scenes_mae"], "block": [-1, -2]}
STUDY = f"title: Swept\nnotebooks:\n  {TEN}: {{limit: 3}}\nsweep:\n  {TEN}: {json.dumps(AXES)}\n"
FAILED = {
    "cells": [
        {"outputs": [{"output_type": "stream"}]},
        {
            "outputs": [
                {"output_type": "error", "ename": "ParameterError", "evalue": "\x1b[31mblock=-2\x1b[0m: no\nmore"}
            ]
        },
        {"source": "markdown"},
    ]
}


def metrics(corloc: float, gap: float) -> dict[str, float]:
    return {
        "images": 3.0,
        "corloc.lost": corloc, "corloc.lost.low": corloc - 5, "corloc.lost.high": corloc + 5,
        "corloc.lost.published": 61.9,
        "corloc.tokencut": corloc / 2, "corloc.tokencut.low": 1.0, "corloc.tokencut.high": 60.0,
        "corloc.tokencut.tau-0.2": corloc / 4, "corloc.tokencut.tau-0.2.low": 0.0, "corloc.tokencut.tau-0.2.high": 30.0,
        "gap.tokencut": gap, "undefined_cuts.tokencut": 2.0, "gap.tokencut.tau-0.2": gap / 10,
        "undefined_cuts.tokencut.tau-0.2": 0.0, "difference.tokencut.tau-0.2": -3.0,
    }  # fmt: skip


def point_folder(study: Path, backbone: str, block: int) -> Path:
    return study / TEN / point_name({"backbone": backbone, "block": block})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two points that finished, one that failed, one that was never started."""
    folder = tmp_path / "swept"
    for backbone, corloc in (("scenes_odin", 60.0), ("scenes_mae", 20.0)):
        run = point_folder(folder, backbone, -1)
        run.mkdir(parents=True)
        (run / "metrics.json").write_text(json.dumps(metrics(corloc, corloc / 100)))
        (run / "notebook.html").write_text("<p>executed</p>")
        weights = {backbone: {"weights": "x", "checksum": f"sum-of-{backbone}"}}
        provenance = {"study": "swept", "commit": "0123456789abcdef", "device": "cpu", "weights": weights}
        (run / "provenance.json").write_text(json.dumps(provenance))
    failed = point_folder(folder, "scenes_odin", -2)
    failed.mkdir()
    (failed / "notebook.failed.ipynb").write_text(json.dumps(FAILED))
    (tmp_path / "swept.yaml").write_text(STUDY)
    return folder


def test_points_are_read_in_the_order_of_the_file_with_why_one_is_missing(study):
    points = read_points(study / TEN, AXES)
    assert [point.axes for point in points] == combinations(AXES, "x")
    assert [point.problem for point in points] == ["", "failed: ParameterError: block=-2: no", "", "not run"]
    assert [bool(point.metrics) for point in points] == [point.page for point in points] == [True, False, True, False]
    (point_folder(study, "scenes_odin", -1) / "metrics.json").write_text("{")
    point_folder(study, "scenes_mae", -2).mkdir()
    damaged, _, _, empty = read_points(study / TEN, AXES)
    assert damaged.problem.startswith("metrics.json cannot be read") and empty.problem == "did not finish"


def test_the_table_has_a_row_for_every_point_and_label(study):
    write_sweep(study, TEN, AXES)
    with (study / "tables" / f"{TEN}.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["backbone", "block", "setting", "CorLoc", "median gap", "undefined cuts", "published"],
        ["scenes_odin", "-1", "lost", "60.0 [55.0, 65.0]", "n/a", "n/a", "61.9"],
        ["scenes_odin", "-1", "tokencut", "30.0 [1.0, 60.0]", "0.6", "2", "n/a"],
        ["scenes_odin", "-1", "tokencut.tau-0.2", "15.0 [0.0, 30.0]", "0.06", "0", "n/a"],
        ["scenes_odin", "-2", "missing (failed)", "n/a", "n/a", "n/a", "n/a"],
        ["scenes_mae", "-1", "lost", "20.0 [15.0, 25.0]", "n/a", "n/a", "61.9"],
        ["scenes_mae", "-1", "tokencut", "10.0 [1.0, 60.0]", "0.2", "2", "n/a"],
        ["scenes_mae", "-1", "tokencut.tau-0.2", "5.0 [0.0, 30.0]", "0.02", "0", "n/a"],
        ["scenes_mae", "-2", "missing (not run)", "n/a", "n/a", "n/a", "n/a"],
    ]


def test_the_same_runs_give_the_same_bytes_and_old_figures_go(study):
    (study / "figures").mkdir()
    (study / "figures" / f"{TEN}_old.png").write_bytes(b"old")

    def written():
        return {p.name: p.read_bytes() for part in ("tables", "figures") for p in sorted((study / part).glob("*.*"))}

    write_sweep(study, TEN, AXES)
    first = written()
    assert sorted(first) == [f"{TEN}.csv", f"{TEN}.png", f"{TEN}_gaps.png", "captions.json"]
    write_sweep(study, TEN, AXES)
    assert written() == first


def test_the_figure_has_a_row_a_point_a_panel_a_method_and_the_gaps_beside(study):
    points = read_points(study / TEN, AXES)
    scores = scores_of(points, "corloc")
    fig = score_panels(points, scores, AXES, "CorLoc (%)")
    lost, tokencut, gap = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["lost", "tokencut", "spectral gap"]
    dots = [line.get_xydata().tolist() for line in lost.lines if line.get_marker() == "o"]
    assert dots == [[[60.0, 0.0]], [[20.0, 2.0]]]  # rows: the order of the points
    printed = [line.get_xydata().tolist() for line in lost.lines if line.get_marker() == "D"]
    assert printed == [[[61.9, 0.0]], [[61.9, 2.0]]]
    strokes = [line.get_xydata().tolist() for line in tokencut.lines if line.get_marker() == "|"]
    assert strokes == [[[15.0, 0.0], [5.0, 2.0]]]
    dots = [line.get_xydata().tolist() for line in gap.lines if line.get_marker() == "o"]
    assert dots == [[[0.6, 0.0], [0.2, 2.0]]] and gap.get_xscale() == "log"
    said = [text.get_text() for text in lost.texts]
    assert said.count("missing") == 2 and said.count("scenes_odin") == 1 and {"backbone", "block"} <= set(said)
    plt.close(fig)


def test_gap_and_score_share_a_picture_and_their_rank_correlation_is_told(study):
    scores = scores_of(read_points(study / TEN, AXES), "corloc")
    fig, rank = gaps_and_scores(scores, AXES, "CorLoc (%)")
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == AXES["backbone"]
    drawn = sorted(tuple(at) for line in ax.lines for at in line.get_xydata().tolist())
    assert drawn == [(0.02, 5.0), (0.06, 15.0), (0.2, 10.0), (0.6, 30.0)]
    assert rank == "0.80 (scenes_odin 1.00, scenes_mae 1.00)"  # ranks 1 3 2 4 against 1 2 3 4: 1 - 6 * 2 / 60
    plt.close(fig)
    same = [score for score in scores if score.gap == 0.2] * 3
    assert gaps_and_scores(same, AXES, "x")[1].startswith("not defined (")


def drawn_by_look(ax):
    return {(line.get_marker(), line.get_color()): line for line in ax.lines if line.get_marker() in list("os^D")}


def test_more_values_than_colours_are_all_drawn_and_told_apart(study):
    (known, *_) = [score for score in scores_of(read_points(study / TEN, AXES), "corloc") if score.gap]
    blocks = list(range(9))
    scores = [
        replace(known, point=replace(known.point, axes={"block": block}), gap=0.1 + block, value=float(block))
        for block in blocks
    ]
    fig, _ = gaps_and_scores(scores, {"block": blocks}, "CorLoc (%)")
    looks = drawn_by_look(fig.axes[0])
    assert sorted(x for line in looks.values() for x in line.get_xdata()) == [0.1 + block for block in blocks]
    assert len(looks) == 9
    plt.close(fig)


def test_every_variant_has_its_dot_in_the_figure_of_gaps():
    labels = [f"cut.facet-{i}" for i in range(8)]
    none = np.zeros(0, dtype=bool)
    results = {label: CorLoc(50.0 + i, None, None, none, none, np.zeros(0)) for i, label in enumerate(labels)}
    fig, ax = plt.subplots()
    gaps = {label: 0.1 * (i + 1) for i, label in enumerate(labels)}
    variants_by_gap(ax, gaps, results, {label: label for label in labels})
    assert len(drawn_by_look(ax)) == 8
    assert sorted(float(line.get_ydata()[0]) for line in ax.lines) == [50.0 + i for i in range(8)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == labels
    plt.close(fig)


def test_a_figure_that_is_no_longer_drawn_leaves_no_caption(study):
    write_sweep(study, TEN, AXES)
    for folder in (study / TEN).glob("*block--1"):
        (folder / "metrics.json").write_text('{"corloc.lost": 50.0, "corloc.lost.low": 40.0, "corloc.lost.high": 60.0}')
    sweep = gather_sweep(study, TEN, AXES)
    assert [figure["name"] for figure in sweep["figures"]] == [TEN]
    assert sweep["problems"] == ["2 of 4 points are missing: `make study STUDY=swept` tries them again."]


def test_another_notebook_is_gathered_by_the_metrics_it_has(study):
    for corloc, folder in enumerate(sorted((study / TEN).glob("*block--1"))):
        numbers = {"auc.keys": 70.0 + corloc, "auc.keys.low": 60.0, "auc.keys.high": 80.0, "images": 3.0}
        (folder / "metrics.json").write_text(json.dumps(numbers))
    points = read_points(study / TEN, AXES)
    assert measured_family(points) == "auc"
    assert sweep_rows(points, "auc")[0] == {
        "backbone": "scenes_odin", "block": "-1", "setting": "keys", "auc": (71.0, 60.0, 80.0)
    }  # fmt: skip


def test_recall_comes_before_what_else_notebook_03_measures(study):
    names = ("difference.colour.1", "merges.colour", "recall.colour.1")
    numbers = {name + end: 1.0 for name in names for end in ("", ".low", ".high")}
    (point_folder(study, "scenes_odin", -1) / "metrics.json").write_text(json.dumps(numbers))
    point, *_ = read_points(study / TEN, AXES)
    assert measured_family([point]) == "recall"
    only = replace(point, metrics={name: 1.0 for name in numbers if name.startswith("difference")})
    assert measured_family([only]) is None


def test_the_page_shows_the_sweep_first_links_each_run_and_says_what_is_missing(study):
    other = study / "01_features"
    other.mkdir()
    (other / "metrics.json").write_text('{"auc.keys": 70.0}')
    (study.parent / "swept.yaml").write_text(STUDY.replace("notebooks:\n", "notebooks:\n  01_features:\n"))
    path = write_report(study, study.parent / "swept.yaml")
    page, text = Page(path.read_text(encoding="utf-8")), path.read_text(encoding="utf-8")
    assert text.index(f'<section id="{TEN}">') < text.index('<h2 id="summary">')
    assert "2 of 4 points are missing: `make study STUDY=swept` tries them again." in page.texts
    links = [link for link in page.attributes("a", "href") if not link.startswith("#")]
    assert sorted(links) == [f"{TEN}/{point_name(AXES | {'backbone': b, 'block': -1})}/notebook.html" for b in (
        "scenes_mae", "scenes_odin")]  # fmt: skip
    assert all((study / link).is_file() for link in links)
    assert ": missing, failed: ParameterError: block=-2: no" in text and ": missing, not run" in text
    assert ["scenes_mae", "-2", "missing (not run)", "n/a", "n/a", "n/a", "n/a"] in page.cells
    assert (
        "study swept · commit 0123456789 · scenes_odin sum-of-scenes_odin · scenes_mae sum-of-scenes_mae" in page.texts
    )
    assert len(page.attributes("img", "src")) == 2
    assert "4 points of a sweep" in text
    assert write_report(study, study.parent / "swept.yaml").read_text() == text


def test_a_sweep_of_which_nothing_ran_is_all_missing(tmp_path):
    study = tmp_path / "swept"
    point_folder(study, "scenes_mae", -2).mkdir(parents=True)
    (tmp_path / "swept.yaml").write_text(STUDY)
    page = Page(write_report(study, tmp_path / "swept.yaml").read_text(encoding="utf-8"))
    assert any(text.startswith("4 of 4 points are missing") for text in page.texts)
    assert page.attributes("img", "src") == []
