"""The Detectron2 engine on scenes: training, resuming, what it finds, its files, and what stops a run."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from foundling.datasets import open_dataset
from foundling.errors import ParameterError, TrainingError, WeightsError
from foundling.evaluation.detection import from_results, to_results
from foundling.evaluation.precision import class_agnostic
from foundling.training.detection import detectron2_engine
from foundling.training.detection.bodies import load_body
from foundling.training.detection.detectron2_config import preset
from foundling.training.detection.detectron2_engine import Detectron2Network
from foundling.training.detection.detectron2_files import import_checkpoint, write_checkpoint, write_for_detectron2
from foundling.training.detection.predict import detect, load_detector
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import train_detector
from foundling.training.label_files import read_pseudo_labels, write_pseudo_labels
from foundling.training.loop import Outcome
from foundling.training.pseudo_labels import PseudoLabels, labels_of_targets
from foundling.types import Detections, Sample

SMALL = preset("small")


def changed(**changes: Any) -> Detector:
    return Detector.model_validate(SMALL.model_dump() | changes)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return open_dataset("scenes", "multi_train", tmp_path_factory.mktemp("scenes"), size=96, count=4).samples


@pytest.fixture(scope="module")
def labels(samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory) -> PseudoLabels:
    """From the file that any engine reads."""
    return read_pseudo_labels(
        write_pseudo_labels(tmp_path_factory.mktemp("a") / "labels.json", labels_of_targets(samples))
    )


def train(samples: Any, labels: Any, settings: Detector, out: Path, minutes: float = 60.0) -> Outcome:
    return train_detector(samples, labels, settings, out, minutes=minutes, progress=False, cpu=True)


def test_without_detectron2(samples: Any, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither training nor a trained detector, but a clear error, and nothing is written."""
    monkeypatch.setitem(sys.modules, "detectron2", None)
    detectron2_engine.register.cache_clear()
    with pytest.raises(ParameterError, match="engine = 'detectron2' needs Detectron2, which cannot be imported here"):
        train(samples, labels, SMALL, tmp_path / "a")
    assert not list(tmp_path.iterdir())
    told = {
        "architecture": "resnet50", "arguments": {}, "classes": ["object"], "engine": "detectron2", "mean": [0.5] * 3,
        "method": "detector", "settings": SMALL.model_dump(), "std": [0.5] * 3,
    }  # fmt: skip
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"foundling": json.dumps(told)})
    with pytest.raises(ParameterError, match=r"needs Detectron2, .* environment\.yml"):
        load_detector(tmp_path / "a.safetensors")


# With Detectron2


@pytest.fixture(scope="module")
def trained(samples: Any, labels: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    pytest.importorskip("detectron2")
    return train(samples, labels, SMALL, tmp_path_factory.mktemp("runs") / "whole")


@pytest.mark.detectron2
@pytest.mark.slow  # 20 s, with the run that the next tests look at, too
def test_a_run(trained: Outcome, labels: PseudoLabels) -> None:
    assert trained.finished and trained.steps == SMALL.steps == len(trained.history)
    for row in trained.history:
        parts = [row[name] for name in detectron2_engine.LOSSES.values()]
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-5) and np.isfinite(row["gradient_norm"])
    header = load_detector(trained.file)
    assert header.settings == SMALL and header.classes == ("object",)
    state = load_file(trained.file)
    torch.manual_seed(SMALL.seed)
    before = Detectron2Network(SMALL, load_body(SMALL)).half().state_dict()
    moved = {name for name, tensor in state.items() if not torch.equal(before[name], tensor)}
    assert "model.backbone.res3.0.conv1.weight" in moved and "model.roi_heads.box_predictor.cls_score.weight" in moved
    assert not [name for name in moved if ".stem." in name or ".res2." in name]


@pytest.mark.detectron2
@pytest.mark.slow  # 25 s
def test_a_run_that_was_stopped_goes_on_to_the_same_file(
    trained: Outcome, samples: Any, labels: Any, tmp_path: Path
) -> None:
    part = train(samples, labels, SMALL, tmp_path / "parts", minutes=0.0)
    assert (part.finished, part.steps) == (False, 1)
    whole = train(samples, labels, SMALL, tmp_path / "parts")
    assert whole.finished and whole.file.read_bytes() == trained.file.read_bytes()
    assert [row["loss"] for row in whole.history] == [row["loss"] for row in trained.history]
    with pytest.raises(ParameterError, match="engine = 'detectron2', not 'torchvision'"):
        train(samples, labels, changed(engine="torchvision"), tmp_path / "parts")
    with pytest.raises(ParameterError, match=r"learning_rate = 0\.005, not 0\.01"):
        train(samples, labels, changed(learning_rate=0.01), tmp_path / "parts")


@pytest.mark.detectron2
@pytest.mark.slow  # 15 s
def test_what_it_finds_is_what_torchvisions_engine_gives(
    trained: Outcome, samples: Any, labels: Any, tmp_path: Path
) -> None:
    """Both engines: the same types, boxes inside their image, the surest first; COCO results and back; figures."""
    other = train(samples, labels, changed(engine="torchvision", steps=1, warmup=0, decay_at=[]), tmp_path / "other")
    for file in (trained.file, other.file):
        detector = load_detector(file)
        found = list(detect(_keen(detector), samples, workers=1))
        assert [sample.name for sample, _ in found] == [sample.name for sample in samples]
        assert sum(len(each) for _, each in found) > 0
        for _, each in found:
            assert isinstance(each, Detections) and each.boxes.dtype == np.float64 and each.masks is None
            assert each.boxes.min(initial=0) >= 0 and each.boxes.max(initial=0) <= 96
            assert (np.diff(each.scores) <= 0).all() and not each.labels.any()
        by_id = {sample.image_id: each for sample, each in found}
        results = to_results(by_id)
        assert set(results[0]) >= {"image_id", "category_id", "bbox", "score"}
        again = from_results(results, samples)
        for i, each in by_id.items():
            if len(each):
                np.testing.assert_allclose(again[i].boxes, each.boxes, atol=1e-9)
        assert class_agnostic(results, samples, kind="bbox", resamples=0).values["AR100"].value is not None


def _keen(detector: Any) -> Any:
    """The detector, giving even what it is not at all sure of."""
    network = detector.network
    if detector.settings.engine == "detectron2":
        network.model.roi_heads.box_predictor.test_score_thresh = 0.0
    else:
        network.roi_heads.score_thresh = 0.0
    return detector


@pytest.mark.detectron2
@pytest.mark.slow  # 10 s
def test_a_loss_that_is_no_number_stops_the_run_and_the_last_state_stays(
    samples: Any, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detectron2 itself raises where boxes are no numbers; that, too, ends as everything here does."""
    pytest.importorskip("detectron2")
    settings = changed(save_every=1, precise_bn=0)
    train(samples, labels, settings, tmp_path / "a", minutes=0.0)
    before = (tmp_path / "a.state").read_bytes()
    forward = Detectron2Network.forward

    def broken(self: Any, images: Any, targets: Any = None) -> Any:
        return forward(self, [image * torch.nan for image in images], targets)

    monkeypatch.setattr(Detectron2Network, "forward", broken)
    with pytest.raises(TrainingError, match=r"step 2 of 4: the loss is nan .*a\.state still holds the last good state"):
        train(samples, labels, settings, tmp_path / "a")
    assert (tmp_path / "a.state").read_bytes() == before


@pytest.mark.detectron2
def test_detectron2s_own_predictor_loads_the_checkpoint(tmp_path: Path) -> None:
    """The written file and config, in Detectron2's DefaultPredictor: the same boxes in the same image."""
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    network = Detectron2Network(SMALL, load_body(SMALL))
    file = write_checkpoint(tmp_path / "detector.pkl", network, SMALL)
    config = get_cfg()
    config.merge_from_file(str(file.with_suffix(".yaml")))
    config.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0]
    )
    assert str(file) == config.MODEL.WEIGHTS
    pixels = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)  # the size it is used at
    found = DefaultPredictor(config)(pixels[..., ::-1])["instances"]
    network.eval()
    with torch.no_grad():
        ours = network([torch.from_numpy(pixels).permute(2, 0, 1).float() / 255])[0]
    torch.testing.assert_close(found.pred_boxes.tensor[: len(ours["boxes"])], ours["boxes"], rtol=0.0, atol=0.01)
    with pytest.raises(ParameterError, match=r"detector\.pth: Detectron2 tells its files by their ending"):
        write_checkpoint(tmp_path / "detector.pth", network, SMALL)


@pytest.mark.detectron2
@pytest.mark.slow  # 5 s
def test_a_checkpoint_of_detectron2s_own_trainer(samples: Any, tmp_path: Path) -> None:
    """What its checkpointer saves becomes a file that finds the same boxes."""
    pytest.importorskip("detectron2")
    from detectron2.checkpoint import DetectionCheckpointer

    settings = changed(classes=2, score_threshold=0.0)
    network = Detectron2Network(settings, load_body(settings)).eval()
    DetectionCheckpointer(network.model, str(tmp_path)).save("model_final", iteration=99)
    file = import_checkpoint(tmp_path / "model_final.pth", settings, ("cat", "dog"), tmp_path / "own.safetensors")
    detector = load_detector(file)
    assert detector.classes == ("cat", "dog") and detector.settings == settings
    ((_, found),) = detect(detector, samples[:1], workers=1)
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(Image.open(samples[0].path).convert("RGB"))).permute(2, 0, 1) / 255
        halves = {name: (t.half() if t.is_floating_point() else t) for name, t in network.state_dict().items()}
        network.load_state_dict(halves)
        expected = network([pixels])[0]
    np.testing.assert_allclose(found.boxes, expected["boxes"].numpy(), atol=1e-3)
    assert (found.labels == expected["labels"].numpy() - 1).all() and len(found) > 0
    with pytest.raises(WeightsError, match=r"model_final\.pth does not hold the detector of these .*cls_score"):
        import_checkpoint(tmp_path / "model_final.pth", SMALL, ("object",), tmp_path / "other.safetensors")
    with pytest.raises(ParameterError, match="1 names of classes, but classes = 2 in the settings"):
        import_checkpoint(tmp_path / "model_final.pth", settings, ("cat",), tmp_path / "other.safetensors")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth is no checkpoint of Detectron2 .it has no 'model'."):
        import_checkpoint(tmp_path / "list.pth", settings, ("cat", "dog"), tmp_path / "other.safetensors")


def test_what_detectron2s_own_trainer_needs(samples: Any, labels: Any, tmp_path: Path) -> None:
    """Written without Detectron2: weights under its names, labels and config that know each other."""
    files = write_for_detectron2(tmp_path / "d2", samples, labels, SMALL, "scenes_CAD")
    assert [file.name for file in files.values()] == ["weights.pkl", "scenes_CAD.json", "config.yaml"]
    config = yaml.safe_load(files["config"].read_text())
    assert config["MODEL"]["WEIGHTS"] == str(files["weights"]) and config["DATASETS"]["TRAIN"] == ["scenes_CAD"]
    assert config["MODEL"]["PIXEL_MEAN"] == [123.675, 116.28, 103.53]
    assert config["MODEL"]["PIXEL_STD"] == [58.395, 57.12, 57.375]
    dataset = json.loads(files["dataset"].read_text())
    assert len(dataset["dataset"]) == len(samples) and dataset["meta_data"]["name"] == "scenes_CAD"
    content = pickle.loads(files["weights"].read_bytes())
    assert content["matching_heuristics"] and content["model"]["res5.0.shortcut.weight"].shape == (2048, 1024, 1, 1)
    for settings, message in ((changed(classes=2), "1 names of classes, but classes = 2"), (changed(clip=1.0), "clip")):
        with pytest.raises(ParameterError, match=message):
            write_for_detectron2(tmp_path / "no", samples, labels, settings, "a")
    assert not (tmp_path / "no").exists()


@pytest.mark.detectron2
@pytest.mark.slow  # 20 s
def test_detectron2s_own_trainer_on_the_same_labels(samples: Any, labels: Any, tmp_path: Path) -> None:
    """Its DefaultTrainer, loader and PreciseBN, from the written files; what it leaves finds boxes here."""
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.engine import DefaultTrainer

    settings = changed(steps=2, decay_at=[], warmup=1, score_threshold=0.0)
    files = write_for_detectron2(tmp_path, samples, labels, settings, "scenes_CAD")
    dataset = json.loads(files["dataset"].read_text())
    DatasetCatalog.register("scenes_CAD", lambda: dataset["dataset"])
    MetadataCatalog.get("scenes_CAD").set(thing_classes=dataset["meta_data"]["thing_classes"])
    try:
        detectron2_engine.register()
        config = get_cfg()
        config.merge_from_file(str(files["config"]))
        config.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "OUTPUT_DIR", str(tmp_path)])
        torch.manual_seed(settings.seed)
        trainer = DefaultTrainer(config)
        trainer.resume_or_load(resume=False)
        torch.manual_seed(settings.seed)
        state = trainer.model.state_dict()
        weights = pickle.loads(files["weights"].read_bytes())["model"]
        for name, prefix in (("stem.conv1.weight", "backbone."), ("res5.2.conv3.norm.bias", "roi_heads.")):
            np.testing.assert_array_equal(state[prefix + name].numpy(), weights[name])
        trainer.train()
    finally:
        DatasetCatalog.remove("scenes_CAD")
        MetadataCatalog.remove("scenes_CAD")
    file = import_checkpoint(tmp_path / "model_final.pth", settings, ("object",), tmp_path / "own.safetensors")
    found = list(detect(load_detector(file), samples, workers=1))
    assert len(found) == len(samples) and sum(len(each) for _, each in found) > 0
