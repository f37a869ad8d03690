"""The study's page: everything a run wrote is on it, escaped and self-contained; what is missing is said."""

import base64
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from html_page import Page

from foundling.errors import FoundlingError
from foundling.report.gather import metric_records, metric_table
from foundling.report.page import main, write_report
from foundling.report.style import save_figure
from foundling.report.tables import write_caption, write_table

METRICS = {
    "corloc.lost": 61.94,
    "corloc.lost.low": 60.5,
    "corloc.lost.high": 63.2,
    "corloc.lost.published": 61.9,
    "corloc.whole_image": 11.0,
    "images": 5011.0,
}
PROVENANCE = {
    "study": "voc07",
    "notebook": "02_single_object_discovery",
    "commit": "0123456789abcdef",
    "modified": True,
    "device": "cpu (x86_64, 2 threads)",
    "weights": {"dino_vits16": {"weights": "pretrained", "checksum": "0a1b2c3d4e5f"}},
    "seeds": {"numpy": 7},
    "versions": {"torch": "2.11.0"},
    "parameters": {"split": "", "methods": {"lost": {"k": 100}}, "lost_ks": []},
    "seconds_per_image": {"lost": 0.0312},
    "not_available": {"corloc.selective_search": "no <contrib> modules"},
}


@pytest.fixture
def study(tmp_path) -> Path:
    """A study of one finished run with a figure and a table."""
    folder = tmp_path / "voc07"
    fill(folder / "02_single_object_discovery")
    return folder


@pytest.fixture
def study_file(tmp_path) -> Path:
    path = tmp_path / "voc07.yaml"
    path.write_text("title: LOST & <friends>\ndescription: What is asked.\nnotebooks:\n  02_single_object_discovery:\n")
    return path


def fill(run: Path) -> None:
    (run / "figures").mkdir(parents=True)
    fig, ax = plt.subplots(figsize=(1, 1))
    ax.plot([0, 1])
    write_caption(save_figure(fig, run / "figures" / "line.png"), "A line <b>rising</b>.")
    write_table(run / "tables" / "corloc", [{"method": "<i>LOST</i>", "CorLoc": (61.9, 60.5, 63.2)}], "Of all & each.")
    (run / "metrics.json").write_text(json.dumps(METRICS))
    (run / "provenance.json").write_text(json.dumps(PROVENANCE))
    (run / "notebook.html").write_text("<p>executed</p>")


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_everything_is_there(study, study_file):
    path = write_report(study, study_file)
    assert path == study / "index.html"
    page, text = read(path), path.read_text()
    assert page.cells[:3] == [
        ["notebook", "metric", "ours [95 % interval]", "published"],
        ["02 Single object discovery", "corloc.lost", "61.9 [60.5, 63.2]", "61.9"],
        ["method", "CorLoc"],  # corloc.whole_image has neither interval nor published value: not in the summary
    ]
    assert ["<i>LOST</i>", "61.9 [60.5, 63.2]"] in page.cells
    assert ["corloc.whole_image", "11", "n/a"] in page.cells and ["images", "5011", "n/a"] in page.cells
    assert "LOST & <friends>" in page.texts and "A line <b>rising</b>." in page.texts and "Of all & each." in page.texts
    assert "02_single_object_discovery/notebook.html" in page.attributes("a", "href")
    for fact in ("0123456789 with changes", "cpu (x86_64, 2 threads)", "0a1b2c3d4e5f", "torch 2.11.0", "numpy 7"):
        assert fact in text
    assert ["parameters", 'split "", methods (lost (k 100)), lost_ks ()'] in page.cells
    assert "lost 0.0312" in text and "no <contrib> modules" in "".join(page.texts)
    assert "study voc07 · commit 0123456789 with changes · dino_vits16 0a1b2c3d4e5f" in page.texts
    assert study_file.read_text() in page.texts
    assert 'class="problem"' not in text


def test_the_page_asks_nothing_of_the_network_and_escapes_names(study, study_file):
    page = read(write_report(study, study_file))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "b", "i", "friends", "contrib"})
    sources = page.attributes("img", "src")
    assert len(sources) == 1
    kind, _, content = sources[0].partition(",")
    assert kind == "data:image/png;base64"
    figure = study / "02_single_object_discovery" / "figures" / "line.png"
    assert base64.b64decode(content) == figure.read_bytes()
    assert page.attributes("img", "alt") == ["A line <b>rising</b>."]
    assert not re.search(r"https?://|@import|url\(", (study / "index.html").read_text())
    links = [link for link in page.attributes("a", "href") if not link.startswith("#")]
    assert all((study / link).is_file() for link in links)
    anchors = [link[1:] for link in page.attributes("a", "href") if link.startswith("#")]
    assert set(anchors) <= {attrs["id"] for _, attrs in page.tags if "id" in attrs}


def test_the_same_folder_gives_the_same_bytes(study, study_file):
    first = write_report(study, study_file).read_bytes()
    assert write_report(study, study_file).read_bytes() == first
    assert sorted(p.name for p in study.iterdir()) == ["02_single_object_discovery", "index.html"]


def test_figures_and_tables_follow_the_order_of_their_captions(study, study_file):
    run = study / "02_single_object_discovery"
    image = (run / "figures" / "line.png").read_bytes()
    for name in ("aardvark", "zebra"):
        (run / "figures" / f"{name}.png").write_bytes(image)
    write_caption(run / "figures" / "zebra.png", "Zebra.")
    assert read(write_report(study, study_file)).attributes("img", "alt") == [
        "A line <b>rising</b>.",
        "Zebra.",
        "aardvark",  # without a caption: by its name, last
    ]


def test_a_long_table_is_folded(study, study_file):
    rows = [{"category": f"c{i}", "CorLoc": None if i else 5.0} for i in range(80)]
    write_table(study / "02_single_object_discovery" / "tables" / "classes", rows, "By category.")
    page = read(write_report(study, study_file))
    assert "By category. (80 rows)" in page.texts
    assert ["c79", "n/a"] in page.cells


def test_a_study_without_a_file_has_a_name(study):
    page = read(write_report(study, study.parent / "absent.yaml"))
    assert "Study voc07" in page.texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "metrics.json is missing: the run did not finish."),
        ("metrics.json", b'{"corloc', "metrics.json cannot be read"),
        ("metrics.json", b"[1, 2]", "metrics.json holds no names and values"),
        ("provenance.json", b"\xff\xfe", "provenance.json cannot be read"),
        ("notebook.html", None, "notebook.html is missing"),
        ("figures/line.png", b"no picture", "figures/line.png is not a picture."),
        ("figures/line.png", None, "figures/line has a caption but no file."),
        ("figures/captions.json", b"{", "captions.json cannot be read"),
        ("tables/corloc.csv", b"", "tables/corloc.csv cannot be read"),
        ("tables/corloc.csv", b"a,b\n1\n", "tables/corloc.csv has rows that are longer or shorter than its header."),
    ],
)
def test_what_a_run_lacks_is_said_and_the_rest_is_shown(study, study_file, name, content, message):
    fill(study / "01_features")
    broken = study / "02_single_object_discovery" / name
    broken.unlink() if content is None else broken.write_bytes(content)
    page = read(write_report(study, study_file))
    assert any(text.startswith(message) for text in page.texts)
    assert ["01 Features", "corloc.lost", "61.9 [60.5, 63.2]", "61.9"] in page.cells
    assert any(": incomplete" in text for text in page.texts)


def test_a_notebook_that_has_not_run_is_said(study, study_file):
    study_file.write_text("notebooks:\n  02_single_object_discovery:\n  03_saliency:\n")
    page = read(write_report(study, study_file))
    assert "03_saliency has not been run: `make study STUDY=voc07` runs it." in page.texts


def test_nothing_to_report_is_an_error(tmp_path, study_file, capsys):
    (tmp_path / "voc07" / "notes").mkdir(parents=True)
    for folder in (tmp_path / "voc07", tmp_path / "absent"):
        with pytest.raises(
            FoundlingError, match=f"{folder.name} holds no notebook run.*make study STUDY={folder.name}"
        ):
            write_report(folder, study_file)
    assert main([str(tmp_path / "absent")]) == 1
    assert "holds no notebook run" in capsys.readouterr().err


def test_an_unreadable_study_file_is_an_error(study, study_file):
    study_file.write_text("title: [")
    with pytest.raises(FoundlingError, match=r"voc07\.yaml is not a readable YAML file"):
        write_report(study, study_file)


def test_the_command_prints_where_the_page_is(study, study_file, capsys):
    assert main([str(study), "--study", str(study_file)]) == 0
    assert capsys.readouterr().out.strip() == str(study / "index.html")


def test_intervals_belong_to_their_metric():
    records = metric_records({"a": 1.0, "a.low": 0.5, "a.high": 2.0, "b.low": 3.0})
    assert [(r["name"], r["low"], r["high"]) for r in records] == [("a", 0.5, 2.0), ("b.low", None, None)]


def test_small_numbers_keep_their_figures_and_empty_columns_go():
    table = metric_table(metric_records({"auc": 0.87313, "auc.low": 0.85, "auc.high": 0.9, "gap": 0.00002, "n": 3.0}))
    assert table["header"] == ["metric", "ours [95 % interval]"]
    assert [row[1] for row in table["rows"]] == ["0.873 [0.850, 0.900]", "2e-05", "3"]
    assert table["numeric"] == [False, True]
    family = metric_table(
        metric_records({"corloc.a": 61.9, "corloc.b": 0.0, "corloc.b.low": 0.0, "corloc.b.high": 0.0})
    )
    assert [row[1] for row in family["rows"]] == ["61.9", "0.0 [0.0, 0.0]"]
