"""Every notebook through papermill, as a batch would run it, on tiny settings; and the rules all notebooks keep."""

import json
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest

from foundling import paths
from foundling.datasets import open_dataset
from foundling.execution import run_notebook
from foundling.parameters import NOTEBOOKS
from strange_images import make_strange_images

ALL = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
TINY = {"dataset": "scenes", "size": 96, "limit": 6, "device": "cpu", "batch_size": 4}
TINY_RUN = {"settings": "odin_short", "images": 24, "batch": 8, "steps": 4, "warmup": 1, "hidden": 32, "probes": 4}
TINY_LEARNING = {
    "training": {"tiny": {**TINY_RUN, "export_at": [2], "monitor_every": 2}}, "choose_limit": 4, "lost_ks": [1, 5],
    "lost_facets": ["keys"], "taus": [0.2], "overlap_ks": [1, 4, 16], "overlap_limit": 4, "video_limit": 1,
}  # fmt: skip
TINY_ABLATIONS = {
    "grids": {
        "lost": {"method": "lost", "k": [1, 20], "facet": ["keys", "tokens"]},
        "tokencut": {"method": "tokencut", "tau": [0.4, 0.2]},
        "dino_seg": {"method": "dino_seg", "head": 0},
    },
    "proposal_ks": [[2], [2, 3]], "saliency_backbones": ["none", "scenes_odin:random"], "proposal_limit": 4,
}  # fmt: skip
TINY_INSTANCES = {"compare_backbones": ["scenes_odin:random"]}
TINY_CLUSTERS = {"compare_backbones": [], "limit": 14, "min_area": 100, "seeds": [0, 1], "over_clusters": [13]}
TINY_DETECTOR = {
    "steps": 6, "batch": 4, "warmup": 1, "channels": 16, "hidden": 32, "pool": 3, "roi_samples": 8, "rpn_proposals": 32,
    "test_proposals": 32, "rpn_candidates": 64, "workers": 0, "min_sizes": [96], "test_size": 96, "detections": 20,
    "score_threshold": 0.0,
}  # fmt: skip
TINY_DETECTORS = {
    "compare_backbones": [], "limit": 12, "train_on": ["scenes:multi_train"], "train_limit": 24, "cad": TINY_DETECTOR,
    "od": TINY_DETECTOR, "gallery": 4,
}  # fmt: skip
TINY_SEMANTIC = {
    "settings": "scenes_semantic", "steps": 30, "batch": 4, "warmup": 1, "channels": 16, "side": 96, "test_side": 96,
}  # fmt: skip
TINY_SOLO = {
    "steps": 6, "batch": 4, "warmup": 1, "channels": 16, "width": 16, "depth": 1, "mask_width": 16, "kernel": 16,
    "min_sizes": [96], "test_size": 96, "workers": 0, "detections": 20, "score_threshold": 0.0,
}  # fmt: skip
TINY_SEGMENTERS = {
    "compare_backbones": [], "limit": 12, "train_on": ["scenes:single_train"], "train_limit": 24, "min_area": 100,
    "semantic": [TINY_SEMANTIC, {**TINY_SEMANTIC, "keep_empty": True}], "instances": TINY_SOLO, "gallery": 3,
    "instance_part": "", "instance_train_on": ["scenes:multi_train"], "instance_train_limit": 12, "score": 0.0,
}  # fmt: skip
TINY_REFINEMENT = {
    "layout": "grid", "phases": [{"h": 4}, {"f": 4}], "batch": 4, "side": 64, "held_out": 4, "look_every": 2,
    "export_at": [4, 6], "log_every": 2, "network": "resnet18", "network_options": {"channels": [8, 8, 8, 8]},
    "workers": 0,
}  # fmt: skip
TINY_REFINEMENTS = {
    "compare_backbones": [], "limit": 12, "train_on": ["scenes:single_train"], "train_limit": 24, "gallery": 3,
    "refinement": TINY_REFINEMENT, "cad": TINY_DETECTOR,
}  # fmt: skip
FURTHER = {
    "03_instanceness": TINY_INSTANCES,
    "04_clustering": TINY_CLUSTERS,
    "05_detector_training": TINY_DETECTORS,
    "06_segmenter_training": TINY_SEGMENTERS,
    "07_box_refinement": TINY_REFINEMENTS,
    "10_ablations": TINY_ABLATIONS,
    "08_representation_learning": TINY_LEARNING,
}  # what makes a notebook small beside TINY
MAX_BYTES = 6_000_000  # of an executed notebook
LONGEST_CELL = 30  # lines of code


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDLING_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def run(name: str, folder: Path, **values: object) -> tuple[dict[str, float], dict[str, object]]:
    """Metrics and provenance of the notebook ``name``, executed into ``folder``."""
    run_notebook(
        paths.NOTEBOOKS / f"{name}.ipynb", {**TINY, **FURTHER.get(name, {}), **values, "out": str(folder)}, "test"
    )
    return tuple(json.loads((folder / f"{part}.json").read_text()) for part in ("metrics", "provenance"))


def check_results(folder: Path) -> None:
    """Every figure and table has a caption, every caption a file; nothing failed; the notebook stays small."""
    for part, suffix in (("figures", ".png"), ("tables", ".csv")):
        captions = json.loads((folder / part / "captions.json").read_text())
        assert {p.stem for p in (folder / part).glob(f"*{suffix}")} == set(captions)
        assert all(len(caption) > 20 for caption in captions.values())
    assert (folder / "notebook.ipynb").stat().st_size < MAX_BYTES
    assert "<html" in (folder / "notebook.html").read_text(encoding="utf-8")


@pytest.mark.notebook
def test_features(tmp_path):  # 15 s
    metrics, provenance = run("01_features", tmp_path, blocks=[0, -1])
    check_results(tmp_path)
    assert metrics["auc.scenes_odin.keys"] > 60  # 50 is chance: the patches of an object do resemble each other
    for name in ("scenes_odin:random.keys", "colour.keys", "scenes_odin.keys.block0", "scenes_odin.tokens"):
        assert 0 <= metrics[f"auc.{name}.low"] <= metrics[f"auc.{name}"] <= metrics[f"auc.{name}.high"] <= 100
    assert provenance["weights"]["scenes_odin:random"]["checksum"] != provenance["weights"]["scenes_odin"]["checksum"]


@pytest.mark.notebook
def test_single_object_discovery(tmp_path):  # 20 s
    metrics, _ = run("02_single_object_discovery", tmp_path, lost_ks=[1, 20])
    check_results(tmp_path)
    for label in ("lost", "tokencut", "dino_seg", "centre_box", "whole_image", "selective_search"):
        assert metrics[f"corloc.{label}"] * 6 / 100 == pytest.approx(round(metrics[f"corloc.{label}"] * 6 / 100))
    assert metrics["corloc.whole_image"] == whole_image_corloc()
    assert {"corloc.lost_k1", "corloc.lost_k20", "corloc.lost@scenes_odin:random"} <= metrics.keys()
    assert metrics["images"] == 6
    assert metrics["failures"] == 0


def whole_image_corloc() -> float:
    """The share of images with an object that fills at least half of them, from the annotations alone."""
    hits = []
    for sample in open_dataset("scenes", "single_val", size=96).subset(limit=6):
        sides = sample.target.boxes[:, 2:] - sample.target.boxes[:, :2]
        hits.append((sides.prod(axis=1) / 96**2).max() >= 0.5)
    return 100 * float(np.mean(hits))


@pytest.mark.notebook
def test_instanceness(tmp_path):  # 20 s
    metrics, provenance = run("03_instanceness", tmp_path, proposal_backbone="scenes_odin:random")
    check_results(tmp_path)
    targets = [sample.target for sample in open_dataset("scenes", "multi_val", size=96).subset(limit=6)]
    alone = sum((np.bincount(target.labels) == 1).sum() for target in targets)
    for name in ("scenes_odin", "scenes_odin:random", "whole_parts", "colour", "grid"):
        for group in ("1", "2", "2+", "all"):  # a single image has three of a kind: no interval
            value = metrics[f"recall.{name}.{group}"]
            assert metrics[f"recall.{name}.{group}.low"] <= value <= metrics[f"recall.{name}.{group}.high"]
        tenths = metrics[f"recall.{name}.1"] / 100 * alone * 10  # each object passes 0 to 10 thresholds
        assert tenths == pytest.approx(round(tenths))
        assert 0 <= metrics[f"merges.{name}"] <= 100 and 0 <= metrics[f"splits.{name}"] <= 100
    gain = metrics["recall.colour.1"] - metrics["recall.scenes_odin.1"]
    assert metrics["difference.colour.1"] == pytest.approx(gain)
    assert metrics["proposals.split.ar100"] >= metrics["proposals.saliency.ar100"]  # a filter finds nothing new
    assert 0 <= metrics["proposals.ap50"] <= 100
    entries = json.loads((tmp_path / "proposals.json").read_text())
    assert len(entries) == pytest.approx(6 * metrics["proposals.per_image"])
    assert {entry["level"] for entry in entries} <= {2, 3, 4, 5}
    assert set(provenance["weights"]) == {"scenes_odin", "scenes_odin:random"}


@pytest.mark.notebook
def test_clustering(tmp_path):  # 25 s
    metrics, provenance = run("04_clustering", tmp_path)
    check_results(tmp_path)
    assert metrics["images"] == 14 and metrics["objects"] <= 14
    for label in ("pseudo_masks", "pseudo_masks_kmeans", "pseudo_masks_random", "one_cluster", "true_category"):
        assert 0 <= metrics[f"miou.{label}.low"] <= metrics[f"miou.{label}"] <= metrics[f"miou.{label}.high"] <= 100
    assert metrics["miou.true_category"] > metrics["miou.pseudo_masks"] > metrics["miou.one_cluster"]
    for label in ("spectral", "kmeans", "random"):
        assert 0 < metrics[f"accuracy.{label}"] <= 100
        assert -100 <= metrics[f"ari.{label}"] <= 100
    assert 0 <= metrics["corret.low"] <= metrics["corret"] <= metrics["corret.high"] <= 100
    assert 0 < metrics["classes.iou20"] <= metrics["classes.iou0"] <= 13
    gain = metrics["miou.pseudo_masks.seeds"] - metrics["miou.pseudo_masks_random.seeds"]
    assert metrics["difference.random"] == pytest.approx(gain)
    for name in ("spectral", "dino_seg", "lost", "tokencut", "centre_box", "network"):
        assert 0 <= metrics[f"saliency.{name}"] <= 100
    maps = sorted((tmp_path / "pseudo_masks").glob("*.png"))
    assert len(maps) == 14
    assert set(provenance["weights"]) == {"scenes_odin", "scenes_objects", "scenes_objects:random"}
    notebook = (tmp_path / "notebook.html").read_text(encoding="utf-8")
    assert "fl-map" in notebook and notebook.count("data:image/jpeg;base64,") == metrics["objects"]


@pytest.mark.notebook
def test_detector_training(tmp_path):  # 45 s
    metrics, provenance = run("05_detector_training", tmp_path, seeds=[0, 1], true_boxes=True)
    check_results(tmp_path)
    assert metrics["images"] == 12 and metrics["labels"] <= 24 and metrics["clusters"] == 12
    for who in ("lost", "lost_cad", "lost_true_boxes"):
        value = metrics[f"corloc.{who}"]
        assert metrics[f"corloc.{who}.low"] <= value <= metrics[f"corloc.{who}.high"]
        assert value * 12 / 100 * 2 == pytest.approx(round(value * 12 / 100 * 2))  # the mean of two seeds
    for name in ("ap50", "ap", "odap50", "odap", "ar10", "voc_ap50"):
        for who in ("lost", "cad", "true_boxes"):
            assert 0 <= metrics[f"{name}.{who}.low"] <= metrics[f"{name}.{who}"] <= metrics[f"{name}.{who}.high"] <= 100
        gain = metrics[f"{name}.cad"] - metrics[f"{name}.lost"]
        assert metrics[f"difference.{name}.cad"] == pytest.approx(gain)
        assert metrics[f"difference.{name}.cad.seeds"] == pytest.approx(gain)
    for who in ("od", "pseudo_boxes"):
        assert 0 <= metrics[f"ap50.{who}.low"] <= metrics[f"ap50.{who}"] <= metrics[f"ap50.{who}.high"] <= 100
    assert metrics["difference.ap50.od"] == pytest.approx(metrics["ap50.od"] - metrics["ap50.pseudo_boxes"])
    assert metrics["ap50.od.std"] >= 0
    runs = {f"{kind}_seed{s}" for kind in ("cad", "true_boxes", "od") for s in (0, 1)}
    assert {path.stem for path in (tmp_path / "results").glob("*.json")} == runs
    assert len(list((tmp_path / "training").glob("*_seed?-????????.safetensors"))) == 6
    assert json.loads((tmp_path / "labels" / "boxes.json").read_text())["annotations"]
    assert set(provenance["weights"]) == {"scenes_odin", *runs}


@pytest.mark.notebook
def test_detector_training_on_what_is_measured_without_kinds(tmp_path):  # 15 s
    metrics, _ = run("05_detector_training", tmp_path, train_on=[], od={}, teacher={"method": "tokencut", "tau": 0.4})
    check_results(tmp_path)
    assert {"corloc.tokencut", "corloc.tokencut_cad", "ap50.tokencut", "ap50.cad", "ratio.ap50.cad"} <= metrics.keys()
    assert metrics["labels.right"] == metrics["corloc.tokencut"]  # the same images
    assert not any({"od", "pseudo_boxes", "clusters"} & set(name.split(".")) for name in metrics)


@pytest.mark.notebook
def test_segmenter_training(tmp_path):  # 60 s
    metrics, provenance = run(
        "06_segmenter_training", tmp_path, seeds=[0, 1], later_on=["scenes:multi_train"], later_limit=8,
        instance_part="multi_val", instance_limit=6, further=["scenes:single_train"],
    )  # fmt: skip
    check_results(tmp_path)
    assert metrics["images"] == 12 and metrics["clusters"] == 12 and metrics["label_maps"] < 24
    maps = ("pseudo_masks", "pseudo_masks_kmeans", "assigned", "iteration1_unfiltered", "iteration1", "iteration2")
    for name in maps:
        for metric in (f"miou.{name}", f"miou.{name}.majority", f"accuracy.{name}"):
            assert 0 <= metrics[metric] <= 100 and metrics[f"{metric}.low"] <= metrics[f"{metric}.high"]
    for name, other in (("iteration1", "pseudo_masks"), ("iteration2", "iteration1"), ("iteration2", "assigned")):
        gain = metrics[f"miou.{name}"] - metrics[f"miou.{other}"]
        assert metrics[f"difference.miou.{name}.{other}"] == pytest.approx(gain)
        assert metrics[f"difference.miou.{name}.{other}.seeds"] == pytest.approx(gain)
    assert metrics["miou.iteration2.seeds"] == pytest.approx(metrics["miou.iteration2"])
    assert 0 <= metrics["miou.iteration2.scenes_single_train"] <= 100
    for name in ("ap50", "ap", "ar1", "ar100"):
        for who in ("proposals", "instance", "instance_all", "instance_all.scenes_single_train"):
            assert 0 <= metrics[f"{name}.{who}.low"] <= metrics[f"{name}.{who}"] <= metrics[f"{name}.{who}.high"] <= 100
        gain = metrics[f"{name}.instance"] - metrics[f"{name}.proposals"]
        assert metrics[f"difference.{name}.instance"] == pytest.approx(gain)
        assert metrics[f"difference.{name}.instance.seeds"] == pytest.approx(gain)
    runs = {
        f"{kind}_seed{s}" for kind in ("iteration1", "iteration2", "iteration1_unfiltered", "instances") for s in (0, 1)
    }
    assert set(provenance["weights"]) == {"scenes_odin", "scenes_objects", "scenes_mae", *runs}
    assert len(list((tmp_path / "label_maps" / "iteration2_seed1").glob("*.png"))) == 12
    assert json.loads((tmp_path / "results" / "proposals.json").read_text())
    assert {path.stem for path in (tmp_path / "results").glob("instances_seed?.json")} == {
        "instances_seed0",
        "instances_seed1",
    }


@pytest.mark.notebook
def test_segmenter_training_of_one_kind_on_what_is_measured(tmp_path):  # 40 s
    alone = {"compare_backbones": [], "ablation": False}
    metrics, _ = run(
        "06_segmenter_training", tmp_path / "a", instances={}, train_on=[], semantic=[TINY_SEMANTIC], **alone
    )
    check_results(tmp_path / "a")
    assert metrics["labels.all_objects"] == metrics["miou.pseudo_masks"]  # the same images
    assert "miou.iteration1" in metrics and not any("iteration2" in name or "instance" in name for name in metrics)
    mask_rcnn = {"objective": "mask_rcnn", **TINY_DETECTOR, "mask_pool": 7, "mask_width": 16, "mask_depth": 1}
    metrics, _ = run(
        "06_segmenter_training", tmp_path / "b", semantic=[], instances=mask_rcnn, split="multi_val",
        instance_train_on=[], saliency_backbone="none", **alone,
    )  # fmt: skip
    check_results(tmp_path / "b")
    assert {"ar100.proposals", "ar100.instance", "ap50.instance"} <= metrics.keys()
    assert not any("miou" in name for name in metrics)


@pytest.mark.notebook
def test_box_refinement(tmp_path):  # 50 s
    without = {"without_l_f": {"regulariser": 0.0}}
    metrics, provenance = run("07_box_refinement", tmp_path, seeds=[0, 1], ablation=without)
    check_results(tmp_path)
    assert metrics["images"] == 12 and metrics["failures"] == 0
    for who in ("f", "h", "refined", "f_cad", "refined_cad", "without_l_f"):
        value = metrics[f"corloc.{who}"]
        assert metrics[f"corloc.{who}.low"] <= value <= metrics[f"corloc.{who}.high"]
        assert value * 24 / 100 == pytest.approx(round(value * 24 / 100))  # the mean of two seeds on 12 images
        if who != "f":
            assert metrics[f"difference.{who}"] == pytest.approx(value - metrics["corloc.f"])
            assert metrics[f"difference.{who}.seeds"] == pytest.approx(metrics[f"difference.{who}"])
    gain = metrics["corloc.refined_cad"] - metrics["corloc.f_cad"]
    assert metrics["difference.refined_cad.f_cad"] == pytest.approx(gain)
    assert metrics["corloc.best"] >= metrics["corloc.chosen"]
    assert metrics["drift.refined"] > 0 and 0 < metrics["discovery_share.seed0"] < 100
    assert {"steps.refined_seed1", "hours.h_seed0", "hours.refined_seed0", "boxes.moved"} <= metrics.keys()
    runs = {f"{who}_seed{s}" for who in ("f_cad", "refined_cad") for s in (0, 1)}
    assert set(provenance["weights"]) == {"scenes_odin", *runs} and provenance["preset"] == "neither"
    left = {path.name.rpartition("-")[0] for path in (tmp_path / "training").glob("*_h.safetensors")}
    assert left == {f"{label}_seed{s}" for label in ("refined", "without_l_f") for s in (0, 1)}


@pytest.mark.notebook
def test_box_refinement_of_a_segmenter_on_what_is_measured(tmp_path):  # 30 s
    own = {"backbone": "scenes_odin", "weights": "random", "network_weights": "random"}
    metrics, _ = run(
        "07_box_refinement", tmp_path, train_on=[], cad={}, recipe="refine_segmenter_code",
        refinement={**TINY_REFINEMENT, **own},
    )  # fmt: skip
    check_results(tmp_path)
    assert {"corloc.f", "corloc.h", "corloc.refined", "drift.refined"} <= metrics.keys()
    assert not any("cad" in name or "seeds" in name for name in metrics)


CONTROLS = (
    "random",
    "random_centred",
    "colour_mean",
    "colour_mean_centred",
    "colour_deviation",
    "colour_deviation_centred",
    "colour_scaled",
)


@pytest.mark.notebook
def test_representation_learning(tmp_path):  # 40 s
    runs = {**TINY_LEARNING["training"], "mae": {"objective": "mae", "image_side": 96, "workers": 0, **TINY_RUN}}
    del runs["mae"]["settings"], runs["mae"]["hidden"]
    metrics, provenance = run("08_representation_learning", tmp_path, training=runs)
    check_results(tmp_path)
    for name in ("scenes_odin", "scenes_mae", "tiny", "mae", *CONTROLS):
        for method in ("corloc", "tokencut"):
            assert metrics[f"{method}.{name}"] * 6 / 100 == pytest.approx(round(metrics[f"{method}.{name}"] * 6 / 100))
    assert 0 <= metrics["corloc.centre_box"] <= 100
    for name in ("scenes_odin", "scenes_mae", "tiny", "mae", "random"):
        for metric in ("abo_i", "abo_c", "or", "jf"):
            assert 0 <= metrics[f"{metric}.{name}"] <= 100
        assert metrics[f"abo_i.{name}.low"] <= metrics[f"abo_i.{name}"] <= metrics[f"abo_i.{name}.high"]
    assert metrics["abo_i.tiny.step4"] == metrics["abo_i.tiny"] != metrics["abo_i.tiny.step2"]
    gain = metrics["abo_i.tiny"] - metrics["abo_i.tiny.step0"]
    assert metrics["difference.abo_i.tiny.training"] == pytest.approx(gain)
    assert {f"difference.{m}.scenes_odin.random" for m in ("corloc", "tokencut", "abo_i", "jf")} <= metrics.keys()
    best = max(metrics[f"corloc.{name}"] for name in (*CONTROLS, "centre_box"))
    assert metrics["difference.corloc.tiny.best_control"] == pytest.approx(metrics["corloc.tiny"] - best)
    assert len(list((tmp_path / "training").glob("tiny-????????.safetensors"))) == 1
    assert set(provenance["weights"]) == {"scenes_odin", "scenes_odin:random", "scenes_mae", "tiny", "mae"}


@pytest.mark.notebook
def test_representation_learning_without_training_videos_or_methods(tmp_path):  # 15 s
    nothing = {"training": {}, "videos": "", "lost_ks": [], "taus": []}
    metrics, provenance = run("08_representation_learning", tmp_path, **nothing)
    check_results(tmp_path)
    assert 0 < metrics["abo_i.scenes_odin"] < 100
    assert not any(name.startswith(("corloc", "tokencut", "jf")) for name in metrics)
    assert "jf.scenes_odin" in provenance["not_available"]


@pytest.mark.notebook
def test_ablations(tmp_path):  # 20 s
    metrics, provenance = run("10_ablations", tmp_path, compare_backbones=[])
    check_results(tmp_path)
    labels = ["lost", "lost.facet-tokens", "lost.k-20", "lost.k-20.facet-tokens", "tokencut", "tokencut.tau-0.2"]
    for label in (*labels, "dino_seg"):
        assert metrics[f"corloc.{label}"] * 6 / 100 == pytest.approx(round(metrics[f"corloc.{label}"] * 6 / 100))
        if (grid := label.partition(".")[0]) != label:
            change = metrics[f"corloc.{label}"] - metrics[f"corloc.{grid}"]
            assert metrics[f"difference.{label}"] == pytest.approx(change)
    assert metrics["gap.tokencut"] > 0 and metrics["undefined_cuts.tokencut"] == 0
    for label in ("default", "k2", "saliency_none", "not_split"):
        assert 0 <= metrics[f"proposals.{label}.ap"] <= metrics[f"proposals.{label}.ap50"] <= 100
    assert metrics["proposals.saliency_none.count"] >= metrics["proposals.default.count"]
    assert "proposals.default.ap.difference" not in metrics and "proposals.k2.ap.difference" in metrics
    assert set(provenance["weights"]) == {"scenes_odin", "scenes_odin:random"}


@pytest.mark.notebook
def test_ablations_of_another_block_on_a_network_that_lacks_a_facet(tmp_path):  # 15 s
    small = {"proposal_ks": [], "compare_backbones": [], "limit": 3}
    grids = {"lost": {"method": "lost", "facet": ["keys", "queries"]}, "dino_seg": {"method": "dino_seg"}}
    metrics, provenance = run(
        "10_ablations", tmp_path, backbone="dino_resnet50", weights="random", grids=grids, **small
    )
    check_results(tmp_path)
    assert "corloc.lost" in metrics and not any(name.startswith("corloc.dino_seg") for name in metrics)
    assert provenance["not_available"]["corloc.lost.facet-queries"] == "dino_resnet50 has no queries"
    assert not any(name.startswith(("gap", "proposals")) for name in metrics)


@pytest.mark.notebook
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_a_folder_of_strange_photos_without_annotations(name, tmp_path):  # 20 s
    photos = tmp_path / "photos, ours"
    broken = [file for file, expected in make_strange_images(photos, large=False).items() if expected.error]
    metrics, provenance = run(
        name, tmp_path / "out", dataset="folder", split="", root=str(photos), limit=0, compare_backbones=[], max_side=96
    )
    check_results(tmp_path / "out")
    measured = ("corloc", "auc", "recall", "miou")
    assert not any(key.startswith(measured) for key in metrics)
    assert any(key.startswith(measured) for key in provenance["not_available"])
    told = "\n".join(provenance["failures"])
    assert all(file in told for file in broken)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
class TestRules:
    """What every notebook in git looks like."""

    def test_it_is_stripped_and_its_cells_are_numbered(self, path):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code)
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)

    def test_it_opens_with_its_question_and_what_it_needs(self, path):
        opening = nbformat.read(path, as_version=4).cells[0].source
        assert opening.startswith(f"# {path.stem[:2]} · ")
        assert "?**" in opening
        for part in ("reads", "writes", "needs", "expect", "as a batch"):
            assert f"**{part}**" in opening

    def test_it_has_one_parameters_cell_and_ends_with_finish(self, path):
        cells = nbformat.read(path, as_version=4).cells
        assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
        assert cells[-1].source.strip() == "run.finish()"

    def test_cells_are_short_and_every_widget_has_a_static_twin(self, path):
        cells = nbformat.read(path, as_version=4).cells
        code = [
            cell for cell in cells if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
        ]
        assert max(len(cell.source.splitlines()) for cell in code) <= LONGEST_CELL
        for cell, following in pairwise(code):
            assert ("sliders(" in cell.source) == ("interactive" in cell.metadata.get("tags", []))
            assert "sliders(" not in cell.source or "run.figure(" in following.source
        assert sum("exercises.check" in cell.source for cell in code) >= 1
