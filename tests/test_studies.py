"""Study files: what is wrong in one is named; what it needs is listed at once; what it claims it really runs."""

import re
import sys
from pathlib import Path

import pytest

from foundling import paths
from foundling.errors import ParameterError
from foundling.needs import Need, describe_missing, embedded_weights, missing
from foundling.parameters import split_backbone
from foundling.report.published import published
from foundling.studies import load_study, published_selectors, study_names

TWO, TEN = "02_single_object_discovery", "10_ablations"
SWEEP = "title: A study\nnotebooks:\n  10_ablations: {limit: 3}\nsweep:\n  10_ablations:\n"
GOOD = "title: A study\nnotebooks:\n  01_features: {limit: 3}\n"


@pytest.fixture
def study_file(tmp_path):
    def write(text: str, name: str = "mine") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", study_names())
def test_every_study_is_legal_down_to_the_names_in_registries(name):
    from foundling.parameters import check_names

    study = load_study(name)
    assert study.title
    for run in study.runs:
        check_names(run.parameters, f"{name}, {run.name}")


def test_shared_parameters_reach_every_notebook_and_its_own_win(study_file):
    study = load_study(
        study_file("title: T\nshared: {limit: 5, seed: 7}\nnotebooks:\n  01_features: {limit: 3}\n  " + TWO + ":\n")
    )
    one, two = (study.run(notebook).parameters for notebook in ("01_features", TWO))
    assert (one.limit, one.seed, two.limit, two.seed) == (3, 7, 5, 7)
    assert (one.study, study.name) == ("mine", "mine")
    assert [run.given for run in study.runs] == [{"limit": 3, "seed": 7}, {"limit": 5, "seed": 7}]
    assert [run.name for run in study.runs] == ["01_features", TWO]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "pubished: []\n", "unknown parameter 'pubished' (value []): did you mean 'published'?"),
        ("notebooks:\n  01_features:\n", "title is missing"),
        ("title: T\n", "notebooks is missing"),
        ("title: T\nnotebooks: {}\n", "notebooks = {}, of type dict, is not legal"),
        ("title: T\nnotebooks: [01_features]\n", "notebooks = ['01_features'], of type list, is not legal"),
        ("title: T\nnotebooks:\n  01_feature:\n", "unknown notebook '01_feature': did you mean '01_features'?"),
        (GOOD + "shared: {limt: 3}\n", "shared: unknown parameter 'limt': did you mean 'limit'?"),
        (GOOD + "shared: {gallery: 3}\n", "shared: unknown parameter 'gallery'"),
        (GOOD + "shared: {out: /data}\n", "'out' is set by the run, not by the study file"),
        (
            "title: T\nnotebooks:\n  01_features: {limit: 3, blokcs: [1]}\n",
            "unknown parameter 'blokcs' (value [1])",
        ),
        (SWEEP + "    {}\n", "sweep: 10_ablations: no axis: name one or more parameters, each with a list of values"),
        (SWEEP + "    blokc: [-1]\n", "sweep: 10_ablations: unknown parameter 'blokc': did you mean 'block'?"),
        (SWEEP + "    out: [a]\n", "sweep: 10_ablations: unknown parameter 'out'"),
        (
            SWEEP + "    block: -1\n",
            "sweep.10_ablations.block = -1, of type int, is not legal: it should be a valid list",
        ),
        (SWEEP + "    block: []\n", "sweep: 10_ablations: block has no values: give it a list of one or more"),
        (SWEEP + "    block: [-1, -2, -1]\n", "sweep: 10_ablations: block has -1 twice"),
        (SWEEP + "    limit: [1, 2]\n", "sweep: 10_ablations: 'limit' has a value under notebooks, too: remove one"),
        (
            SWEEP + "    block: [-1]\n    bias: [true, no way]\n",
            ", notebook 10_ablations: bias = 'no way', of type str, is not legal: it should be a valid boolean",
        ),
        (GOOD + "sweep:\n  10_ablations:\n    block: [-1]\n", "sweep: '10_ablations' is not among the notebooks"),
        ("title: T\nnotebooks:\n  01_features: {limit: yes}\n", "limit = True, of type bool, is not legal"),
        ("title: T\nnotebooks:\n  01_features: {limit: 1e2}\n", "limit = '1e2', of type str, is not legal"),
        ("title: T\nnotebooks:\n  01_features: {split: no}\n", "split = False, of type bool, is not legal"),
        ("title: T\nnotebooks:\n  01_features: {root: 2024-05-01}\n", "root = datetime.date(2024, 5, 1), of type date"),
        ("title: T\nnotebooks:\n  01_features: {limit: 3\n", "is not a readable YAML file"),
        (GOOD + "title: Again\n", "the key 'title' is there twice"),
        ("title: T\nnotebooks:\n  01_features: {limit: 3, limit: 4}\n", "the key 'limit' is there twice"),
        ("- title\n", "is not a study file: it needs keys such as title"),
        ("", "is not a study file"),
        (GOOD + "published: [{paper: lost, tabel: Table 1}]\n", "published results have no column 'tabel'"),
        (GOOD + "published: [{paper: lost, table: Table 99}]\n", "no published number matches"),
        (GOOD + "published: [{}]\n", "no published number matches {}"),
        (GOOD + "resources: {gpus: 1}\n", "unknown parameter 'resources.gpus' (value 1)"),
        (GOOD + "resources: {threads: 0}\n", "resources.threads = 0, of type int, is not legal"),
    ],
)
def test_what_is_wrong_in_a_study_file_is_named_with_the_file(study_file, text, message):
    path = study_file(text)
    with pytest.raises(ParameterError) as caught:
        load_study(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_merge_keys_of_yaml_work(study_file):
    study = load_study(
        study_file("title: T\nshared: &s {limit: 5}\nnotebooks:\n  01_features:\n    <<: *s\n    seed: 2\n")
    )
    assert study.run("01_features").given == {"limit": 5, "seed": 2}


def test_an_unknown_study_suggests_the_nearest():
    with pytest.raises(ParameterError, match=r"no study 'voc7' .*: did you mean 'voc07'\?"):
        load_study("voc7")


def test_a_notebook_that_the_study_does_not_run_is_refused():
    with pytest.raises(ParameterError, match="the study 'voc07_noh' does not run '01_features'"):
        load_study("voc07_noh").run("01_features")


def test_a_sweep_is_one_run_for_every_combination_under_a_name_that_stays(study_file):
    text = (
        "title: T\nshared: {backbone: scenes_mae, seed: 7}\nnotebooks:\n  01_features:\n  10_ablations: {limit: 3}\n"
        "sweep:\n  10_ablations: {backbone: [scenes_odin, scenes_mae], block: [-1, 2], bias: [true, false]}\n"
    )
    study = load_study(study_file(text))
    assert study.run("01_features").name == "01_features"
    runs = [run for run in study.runs if run.notebook == TEN]
    assert [(r.parameters.backbone, r.parameters.block, r.parameters.bias) for r in runs] == [
        (backbone, block, bias)
        for backbone in ("scenes_odin", "scenes_mae")
        for block in (-1, 2)
        for bias in (True, False)
    ]
    assert all((r.parameters.seed, r.parameters.limit, r.parameters.study) == (7, 3, "mine") for r in runs)
    assert runs[1].name == f"{TEN}/backbone-scenes_odin__block--1__bias-false"
    assert runs[1].axes == {"backbone": "scenes_odin", "block": -1, "bias": False}
    assert runs[1].given == {"seed": 7, "limit": 3, **runs[1].axes}
    assert study.run(TEN, runs[1].point) is runs[1]
    assert len(study.swept()[TEN]) == 8 and study.swept()["01_features"] == []
    more = load_study(study_file(text.replace("[-1, 2]", "[-3, -1, 2]")))
    assert {r.name for r in runs} < {r.name for r in more.runs}
    with pytest.raises(ParameterError, match=r"'mine' runs '10_ablations' at 8 points, and none was named \(--point\)"):
        study.run(TEN)
    with pytest.raises(ParameterError, match="at 8 points, 'block-7' is none of them"):
        study.run(TEN, "block-7")
    with pytest.raises(ParameterError, match="runs '01_features' once: leave out the point 'block--1'"):
        study.run("01_features", "block--1")


def test_the_list_of_studies_counts_their_runs(monkeypatch, tmp_path, capsys):
    from foundling import cli

    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    first = load_study("settings_scenes").runs[0]
    (tmp_path / "settings_scenes" / first.name).mkdir(parents=True)
    for name in ("metrics.json", "notebook.html"):
        (tmp_path / "settings_scenes" / first.name / name).write_text("{}")
    shown = tmp_path / "demo" / "01_features" / "metrics.json"  # as the demo's comes with the project
    shown.parent.mkdir(parents=True)
    shown.write_text("{}")
    assert cli.main(["studies"]) == 0
    lines = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines()}
    assert lines["settings_scenes"][:2] == ["16", "1"] and lines["voc07_noh"][:2] == ["1", "0"]
    assert lines["demo"][1] == "0"
    assert set(lines) == {"study", *study_names()}
    assert cli.main(["studies", "settings_scenes"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2].split() == [first.name, "done"] and said[3].endswith("to do") and len(said) == 18


def test_a_run_names_the_embedded_weights_that_it_depends_on(study_file):
    study = load_study(study_file("title: T\nnotebooks:\n  01_features: {compare_backbones: ['scenes_odin:random']}\n"))
    ours = embedded_weights(study.run("01_features").parameters)
    assert set(ours) == {"scenes_odin"} and len(ours["scenes_odin"]) == 64
    voc = load_study("voc07").run("01_features").parameters
    assert embedded_weights(voc) == {}
    untrained = load_study(study_file("title: T\nnotebooks:\n  10_ablations: {weights: random, proposal_ks: []}\n"))
    assert embedded_weights(untrained.run(TEN).parameters) == {}


def test_resources_are_those_of_the_file_and_no_others(study_file):
    study = load_study(study_file(GOOD + "resources: {threads: 3, gpu: 1}\n"))
    assert (study.threads, study.resources) == (3, {"gpu": 1})
    assert load_study(study_file(GOOD)).resources == {}


def test_everything_missing_is_listed_at_once_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    needs = missing(load_study("voc07_backbones"))
    text = describe_missing({"voc07_backbones": needs, "demo": []})
    assert "foundling data voc07" in text
    for name in ("dino_vits16", "dino_vits8_300ep", "dino_vitb16", "dino_resnet50", "supervised_vgg16", "deit_vits16"):
        assert f"the weights of {name} at {tmp_path}" in text
    assert "dino_deitsmall16_pretrain.pth" in text
    assert "demo" not in text
    assert len(needs) == len(set(needs)) == 8  # one dataset and seven networks


def test_missing_checkpoint_and_photos_are_named(study_file, tmp_path):
    text = (
        f"title: T\nnotebooks:\n  01_features:\n    dataset: folder\n    root: {tmp_path / 'none'}\n"
        f"    weights: {tmp_path}/w.pth\n    compare_backbones: []\n"
    )
    first, second = missing(load_study(study_file(text)))
    assert "'folder'" in first.what and str(tmp_path / "none") in first.what
    assert second == Need(f"the checkpoint {tmp_path}/w.pth", "put it there, or change the parameter weights")


def test_missing_videos_and_training_images_are_named(study_file, tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    text = (
        f"title: T\nnotebooks:\n  {EIGHT}:\n    videos: davis\n    size: 96\n    training:\n"
        f"      a: {{dataset: folder, root: {tmp_path / 'none'}, images: 0}}\n      b: {{settings: odin_short}}\n"
    )
    videos, images = missing(load_study(study_file(text)))
    assert "the videos 'davis'" in videos.what and videos.remedy == "foundling data davis"
    assert images.what.startswith("the training images of a: ") and str(tmp_path / "none") in images.what


def test_opencv_without_its_contributed_modules_is_reported_with_the_rest(study_file, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    text = f"title: T\nnotebooks:\n  {TWO}: {{dataset: voc07, weights: random, compare_backbones: []}}\n"
    opencv, data = missing(load_study(study_file(text)))
    assert "opencv-contrib-python-headless" in opencv.what and "selective_search" in opencv.what
    assert data.remedy == "foundling data voc07"


def test_names_that_no_registry_holds_are_reported_with_the_rest(study_file, monkeypatch, tmp_path):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    values = "{backbone: dino_vits61, dataset: voc07, compare_backbones: [dino_vitb8]}"
    text = f"title: T\nnotebooks:\n  01_features: {values}\n"
    name, data, weights = missing(load_study(study_file(text)))
    assert "unknown backbone 'dino_vits61': did you mean 'dino_vits16'" in name.what
    assert name.remedy.startswith("correct mine.yaml")
    assert "'voc07'" in data.what
    assert "dino_vitb8" in weights.what
    assert weights.remedy.startswith("foundling weights dino_vitb8; or by hand: curl ")


def test_nothing_missing_gives_no_message():
    assert describe_missing({"demo": []}) == ""


# --- what the studies claim, against what they run -------------------------------------------------------------------

TABLES = ("Table 1", "Table 2", "Table 5", "Table 6", "Table 8", "Table 11", "Text B.5")
IMAGES = {
    "VOC07_trainval": ("voc07", "trainval"),
    "VOC12_trainval": ("voc12", "trainval"),
    "COCO20k": ("coco20k", "train"),
    "VOC07_noh": ("voc07", "trainval_noh"),
    "VOC12_noh": ("voc12", "trainval_noh"),
    "not_stated": ("voc07", "trainval"),  # appendix B.5 does not say; VOC07 is what the other ablations use
}
NETWORKS = {
    ("ViT-S/16", "DINO"): "dino_vits16",
    ("ViT-S/8", "DINO"): "dino_vits8_300ep",
    ("ViT-B/16", "DINO"): "dino_vitb16",
    ("ResNet50", "DINO"): "dino_resnet50",
    ("ResNet50", "supervised"): "supervised_resnet50",
    ("VGG16", "supervised"): "supervised_vgg16",
    ("VGG16", ""): "supervised_vgg16",  # Table 11 repeats Table 2
    ("", "DINO"): "dino_vits16",  # Table 11 repeats Table 1
    ("DeiT", "supervised"): "deit_vits16",
}
FACETS = {"q": "queries", "k": "keys", "v": "values"}


def expected_settings(row):
    """The method and all of its settings that a printed row stands for, read from the row's own words."""
    setting = row["setting"]
    if row["method"].startswith("DINO-seg"):
        number = re.search(r"head=(\d)", setting)
        if "best head over dataset" in setting:
            head = 4  # appendix A.3: "in the main paper we report DINO-seg using head 4"
        else:
            head = int(number[1]) if number else re.search("BCC|HAIoU", row["method"])[0].lower()
        return {"method": "dino_seg", "head": head, "rule": "reference"}
    k = re.search(r"k=(\d+)", setting)
    found = {
        "method": "lost",
        "k": int(k[1]) if k else 100,
        "facet": "keys",
        "seed_similarity": "facet",
        "expansion": "facet",
        "centre": False,
    }
    if seed := re.search("seed: a_pq with f=(.)", setting):
        found["facet"] = FACETS[seed[1]]
    if "a~_pq" in setting:
        box = re.search("expansion and box: f=(.)", setting)
        found |= {"seed_similarity": "qk", "expansion": FACETS[box[1]] if box else "qk"}
    return found


def expected_run(row):
    return (
        *IMAGES[row["eval_set"]],
        NETWORKS[row["backbone"], row["pretraining"]],
        frozenset(expected_settings(row).items()),
    )


def runs(study):
    """Everything the study's notebooks on single objects measure on whole datasets with published weights."""
    return {one for run in study.runs for one in measured(run.notebook, run.parameters)}


def measured(notebook, p):
    from foundling.discovery import METHODS

    if notebook not in (TWO, TEN) or (p.limit, p.max_side, p.precision, p.weights) != (0, 0, "fp32", "pretrained"):
        return set()

    def complete(settings):
        given = dict(settings)
        name = given.pop("method")
        return frozenset({"method": name, **METHODS[name].defaults, **given}.items())

    if notebook == TEN:
        usual = (p.block, p.bias) == (-1, True)  # the final norm reaches tokens only
        return {(p.dataset, p.split, p.backbone, complete(settings)) for settings in p.served()[0].values() if usual}
    labels = {**p.methods, **p.sweep()}
    found = {(p.dataset, p.split, p.backbone, complete(settings)) for settings in labels.values()}
    further = [split_backbone(entry) for entry in p.compare_backbones]
    return found | {(p.dataset, p.split, name, complete(p.methods["lost"])) for name, w in further if w == "pretrained"}


def row_key(row):
    return tuple(sorted((key, str(value)) for key, value in row.items()))


def wanted_rows():
    rows = [row for table in TABLES for row in published(paper="lost", table=table)]
    return [row for row in rows if row["method"] == "LOST" or row["method"].startswith("DINO-seg")]


def odin_rows():
    """Odin's rows on discovery and video, but for DetCon, a supervised ViT, and videos with the feature pyramid."""
    rows = [
        row for table in ("Table 4", "Table 5", "Table 6", "Table A.1") for row in published(paper="odin", table=table)
    ]
    return [
        row
        for row in rows
        if row["metric"] != "AP"
        and row["method"] != "DetConB"
        and (row["method"], row["backbone"]) != ("Supervised", "ViT-B/8")
        and (row["table"], row["method"]) != ("Table 5", "Odin†")
    ]


def test_the_rows_that_concern_lost_and_dino_seg_are_those_of_the_paper():
    from collections import Counter

    assert Counter(row["table"] for row in wanted_rows()) == {
        "Table 1": 6, "Table 2": 18, "Table 5": 11, "Table 6": 27, "Table 8": 2, "Table 11": 6, "Text B.5": 1
    }  # fmt: skip


def test_each_row_is_declared_by_a_study_that_runs_exactly_that():
    claims = {
        name: [row_key(r) for s in selectors for r in published(**s)]
        for name, selectors in published_selectors().items()
    }
    done = {name: runs(load_study(name)) for name in claims}
    for row in wanted_rows():
        declared = [name for name, keys in claims.items() if row_key(row) in keys]
        assert declared, f"no study declares {row}"
        for name in declared:
            assert expected_run(row) in done[name], f"{name} declares {row} but does not run it"


EIGHT = "08_representation_learning"


def odin_numbers(study):
    """(table, metric, value) of every printed number that the study's notebook shows beside its own."""
    from foundling.report.beside_training import ablation_beside, overlap_beside, video_beside

    p = next((run.parameters for run in study.runs if run.notebook == EIGHT), None)
    if p is None:
        return set()
    runs = p.runs()
    names = dict.fromkeys((p.backbone, f"{p.backbone}:random", *p.compared())) | runs
    found = set()
    for name, run in names.items():
        shown = [("Table 5", video_beside(p, name, run))]
        for grid in ((32, 32), (56, 56), (256, 256)) if p.overlap_ks else ():
            shown += [(t, overlap_beside(p, name, grid, t == "Table A.1", run)) for t in ("Table 4", "Table A.1")]
        shown += [("Table 6", ablation_beside(p, run))] if run and p.overlap_ks else []
        found |= {(table, metric, value) for table, row in shown if row for metric, value in row.items()}
    return found


def test_each_row_of_odin_is_declared_by_a_study_that_shows_it():
    claims = {
        name: [row_key(r) for s in selectors for r in published(**s)]
        for name, selectors in published_selectors().items()
    }
    shown = {name: odin_numbers(load_study(name)) for name in claims}
    for row in odin_rows():
        declared = [name for name, keys in claims.items() if row_key(row) in keys]
        assert declared, f"no study declares {row}"
        for name in declared:
            assert (row["table"], row["metric"].lower(), row["value"]) in shown[name], f"{name} does not show {row}"


def step_rows():
    """Tables 4 to 6 of instance-ness: steps of making proposals, set beside our proposals themselves."""
    return [row for table in ("Table 4", "Table 5", "Table 6") for row in published(paper="instanceness", table=table)]


def test_each_step_of_proposals_is_taken_by_the_study_that_shows_them():
    """What is printed of them is another quantity, which test_studies_segmenters holds against the studies."""
    p = load_study("instanceness_ablations").run(TEN).parameters
    assert (p.dataset, p.split, p.backbone, p.proposal_limit) == ("coco", "val2017", "mae_vitb16", 0)
    named = {"none": "none", "MAE": "mae_vitb16", "DINO": "dino_vitb16"}
    for row in step_rows():
        about, _, value = row["setting"].rpartition("; ")[2].partition("=")
        default = {"ks": [2, 3, 4, 5], "saliency": "dino_vitb16", "split": True}
        if about == "k":
            default["ks"] = [2, 3, 4, 5] if value == "2-5" else [int(value)]
        else:
            default |= {"saliency": named[value]} if about == "saliency" else {"split": value == "yes"}
        assert default in p.proposal_variants().values(), row


def test_no_study_declares_a_row_of_another_kind():
    recall = published(paper="instanceness", table="Table 1")  # test_studies_instances holds them against the studies
    segmenters = [row for n in (2, 3, 7) for row in published(paper="instanceness", table=f"Table {n}")]  # and these
    clusters = [*published(paper="comus"), *published(paper="lost", table="Table 10")]  # test_beside_clusters likewise
    tables = ("Table 1", "Table 3", "Table 4", "Table 7", "Table 9", "Text A.5")  # test_studies_detectors likewise
    detectors = [row for table in tables for row in published(paper="lost", table=table) if "train" in row["train_set"]]
    boxes = published(paper="lost", table="Table 3", method="LOST pseudo-boxes")
    refined = [row for n in (4, 6, 7) for row in published(paper="box_refinement", table=f"Table {n}")]  # likewise
    known = [*wanted_rows(), *odin_rows(), *step_rows(), *recall, *segmenters, *clusters, *detectors, *boxes, *refined]
    coco = published(paper="lost", method="LOST + CAD", eval_set="COCO20k")
    wanted = {row_key(row) for row in [*known, *coco]}
    for name, selectors in published_selectors().items():
        for selector in selectors:
            assert {row_key(row) for row in published(**selector)} <= wanted, f"{name}: {selector}"


def test_a_study_with_a_limit_or_another_k_would_not_count(study_file):
    row = published(paper="lost", table="Table 8", method="LOST", eval_set="VOC07_noh")[0]
    text = (paths.STUDIES / "voc07_noh.yaml").read_text(encoding="utf-8")
    assert expected_run(row) in runs(load_study(study_file(text)))
    assert expected_run(row) not in runs(load_study(study_file(text.replace("limit: 0", "limit: 100"))))
    assert expected_run(row) not in runs(load_study(study_file(text.replace("k: 100", "k: 50"))))
    assert expected_run(row) not in runs(load_study(study_file(text.replace("trainval_noh", "trainval"))))
