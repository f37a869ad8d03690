"""States that a run goes on from, and networks that others read."""

import csv
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_objective import TinyObjective, tiny

from foundling.errors import FoundlingError, ParameterError, WeightsError
from foundling.training.checkpoints import (
    about_run,
    beside,
    centre_keys,
    export,
    exported,
    load_state,
    restore,
    save_state,
    write_history,
)
from foundling.training.monitor import prepare
from foundling.training.networks import make_network
from foundling.training.optimiser import make_optimiser

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def noise(count: int = 7, side: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_names_of_a_runs_files() -> None:
    assert beside(Path("runs/a.b"), ".state") == Path("runs/a.b.state")
    assert beside(Path("runs/a.safetensors"), "_dense.safetensors") == Path("runs/a_dense.safetensors")


# The state


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    settings, file = tiny(tmp_path), tmp_path / "a.state"
    objective = TinyObjective(settings, 10)
    optimiser = make_optimiser(objective, settings)
    objective(objective.make_views(_batch(), torch.Generator()))["loss"].backward()
    optimiser.step()
    tensors = {"task": objective.state_dict(), "optimiser": optimiser.state_dict()}
    progress = {"done": 3, "seconds": 2.5, "history": [{"loss": 0.5}], "pending": []}
    save_state(file, {**tensors, **progress}, settings, "ten images")
    state = load_state(file, settings, "ten images")
    assert state is not None and state["done"] == 3 and state["history"] == [{"loss": 0.5}]
    other = TinyObjective(tiny(tmp_path, seed=5), 10)
    other_optimiser = make_optimiser(other, settings)
    assert restore(file, state, other, other_optimiser) == progress
    assert all(torch.equal(v, objective.state_dict()[n]) for n, v in other.state_dict().items())
    moments = [o.state_dict()["state"] for o in (optimiser, other_optimiser)]
    assert moments[0].keys() == moments[1].keys() and len(moments[0]) > 5
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])


def _batch():  # type: ignore[no-untyped-def]
    from foundling.training.batches import Batch

    return Batch(noise(4, 16), torch.arange(4))


def test_there_may_be_no_state_yet(tmp_path: Path) -> None:
    assert load_state(tmp_path / "a.state", tiny(tmp_path), "x") is None


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.state"
    save_state(file, {"done": 3}, tiny(tmp_path), "ten images")
    with pytest.raises(
        ParameterError, match=r"a\.state belongs to .* other settings \(steps = 7, not 9\): use the same"
    ):
        load_state(file, tiny(tmp_path, steps=9), "ten images")
    with pytest.raises(ParameterError, match=r"other settings \(ten images, not nine images\)"):
        load_state(file, tiny(tmp_path), "nine images")
    with pytest.raises(
        WeightsError, match=r"a\.state holds another network \(architecture = 'vit_tiny_patch16_224', not "
    ):
        load_state(file, tiny(tmp_path, architecture="resnet18", options={}), "ten images")
    with pytest.raises(ParameterError, match=r"objective = 'mae', not 'odin', .*masks = None, not 6"):
        values = {
            **tiny(tmp_path).model_dump(include=set(type(tiny(tmp_path)).__base__.model_fields)),
            "objective": "odin",
        }
        from foundling.training.settings import settings_from

        load_state(file, settings_from(values, "x"), "ten images")
    assert load_state(file, tiny(tmp_path / "moved", workers=3, save_every=9), "ten images") == {"done": 3}


DAMAGED = r"a\.state is no state of a training run, or damaged .*: delete it to start anew"


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 a broken archive"])
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.state").write_bytes(content)
    with pytest.raises(WeightsError, match=DAMAGED):
        load_state(tmp_path / "a.state", tiny(tmp_path), "x")


def test_a_state_that_is_cut_off_or_overwritten_is_named(tmp_path: Path) -> None:
    """Cut off anywhere; zeros in place of a tensor, or of one bit; bytes at random, after beginnings that are right."""
    file, rng = tmp_path / "a.state", np.random.default_rng(0)
    save_state(file, {"done": 3, "task": {"w": torch.ones(500)}}, tiny(tmp_path), "x")
    whole = file.read_bytes()
    broken = [whole[: len(whole) * i // 20] for i in range(1, 20)]
    middle = whole.index(torch.ones(500).numpy().tobytes())
    broken += [whole[:middle] + bytes(2000) + whole[middle + 2000 :], whole[:middle] + b"\x01" + whole[middle + 1 :]]
    for start in (b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00", b"\x80\x02X", b"\x80\x02ctorch\n"):
        broken += [start + rng.integers(0, 256, 300, np.uint8).tobytes() for _ in range(20)]
    for content in broken:
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=DAMAGED):
            load_state(file, tiny(tmp_path), "x")


@pytest.mark.parametrize("content", [[1, 2], {"done": 3}, {"settings": 3, "images": "x"}])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.state")
    with pytest.raises(WeightsError, match=DAMAGED):
        load_state(tmp_path / "a.state", tiny(tmp_path), "x")


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.state").write_bytes(b"something")
    monkeypatch.setattr(Path, "read_bytes", refuses)
    with pytest.raises(WeightsError, match=r"a\.state cannot be read \(Permission denied\): see to it that it can"):
        load_state(tmp_path / "a.state", tiny(tmp_path), "x")


def test_a_state_that_does_not_fit_is_named(tmp_path: Path) -> None:
    settings = tiny(tmp_path)
    objective = TinyObjective(settings, 10)
    optimiser = make_optimiser(objective, settings)
    whole = {"task": objective.state_dict(), "optimiser": optimiser.state_dict(), "done": 1, "seconds": 1.0}
    whole |= {"history": [], "pending": []}
    assert restore(tmp_path / "a.state", whole, objective, optimiser)["done"] == 1
    states = [{**whole, "task": {"network.x": torch.zeros(1)}}, {**whole, "task": 3}]
    states += [{**whole, "optimiser": {"state": {}}}, {**whole, "optimiser": None}]
    states += [{name: value for name, value in whole.items() if name != missing} for missing in whole]
    for state in states:
        with pytest.raises(WeightsError, match=r"a\.state does not fit these networks \(.*another version; delete it"):
            restore(tmp_path / "a.state", state, objective, optimiser)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files: what a write meets is the error of a full disk, but for its number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_last_state_and_the_last_export(tmp_path: Path) -> None:
    settings, file, weights = tiny(tmp_path), tmp_path / "a.state", tmp_path / "a.safetensors"
    save_state(file, {"done": 3}, settings, "x")
    export(weights, {"a": torch.ones(3)}, {})
    with pytest.raises(FoundlingError, match=r"a\.state cannot be written .* that was there is unchanged"):
        save_state(file, {"done": 4, "task": torch.zeros(100_000)}, settings, "x")
    with pytest.raises(FoundlingError, match=r"a\.safetensors cannot be written .* that was there is unchanged"):
        export(weights, {"a": torch.ones(100_000)}, {})
    assert load_state(file, settings, "x") == {"done": 3}
    assert load_file(weights)["a"].tolist() == [1, 1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "a.state"]


def test_history_leaves_empty_what_a_row_does_not_have(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.5, "masks": 3.25, "seconds": 1.0, "by_image": 0.123456789}, {"step": 2, "loss": 1e-9}]
    write_history(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open() as file:
        read = list(csv.DictReader(file))
    assert list(read[0])[:3] == ["step", "loss", "masks"] and list(read[0])[-1] == "by_image"
    assert (read[0]["masks"], read[0]["by_image"], read[1]["loss"], read[1]["masks"]) == (
        "3.25",
        "0.123457",
        "1e-09",
        "",
    )


# The networks


def test_exports_are_halves_with_their_provenance(tmp_path: Path) -> None:
    settings, file = tiny(tmp_path / "somewhere"), tmp_path / "a.safetensors"
    network = make_network(settings.architecture, settings.options, 3)
    tensors = exported(network.backbone, settings, noise())
    export(file, tensors, about_run(settings, 5, "ten images"))
    read = load_file(file)
    assert {t.dtype for t in read.values()} == {torch.float16}
    assert file.stat().st_mode & 0o044 == 0o044  # others may read it
    fresh = make_network(settings.architecture, settings.options, 0).backbone
    fresh.load_state_dict({n: t.float() for n, t in read.items()}, strict=True)
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["foundling"])
    assert about["images_seen"] == 20 and about["steps"] == 5 and about["data"] == "ten images"
    assert about["settings"]["learning_rate"] == settings.learning_rate
    assert str(tmp_path) not in json.dumps(about)
    before = file.read_bytes()
    export(file, tensors, about_run(settings, 5, "ten images"))
    assert file.read_bytes() == before


def test_exporting_leaves_the_network_in_training_as_it_is(tmp_path: Path) -> None:
    settings = tiny(tmp_path, architecture="resnet18", options={})
    network = make_network("resnet18", {}, 0).train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    tensors = exported(network.backbone, settings, noise(2, 32))
    assert tensors.keys() == before.keys() and all(torch.equal(tensors[n], before[n]) for n in before)
    assert network.backbone.training


def test_exported_keys_are_centred_over_the_images_given(tmp_path: Path) -> None:
    """The mean key of every block, as a hook on the exported network sees it; the network in training keeps its own."""
    settings = tiny(tmp_path, options=SMALL)
    network = make_network(settings.architecture, SMALL, 3)
    for block in network.backbone.blocks:
        torch.nn.init.normal_(block.attn.qkv.bias)
    before = [block.attn.qkv.bias.clone() for block in network.backbone.blocks]
    fresh = make_network(settings.architecture, SMALL, 0).backbone.eval()
    fresh.load_state_dict(exported(network.backbone, settings, noise()))
    keys: list[torch.Tensor] = []
    for block in fresh.blocks:
        block.attn.qkv.register_forward_hook(lambda _, __, qkv: keys.append(qkv[:, 1:, 24:48].mean((0, 1))))
    with torch.no_grad():
        fresh.forward_features(prepare(noise(), 32))
    assert len(keys) == 2 and all(mean.abs().max() < 1e-4 for mean in keys)
    for block, bias in zip(network.backbone.blocks, before, strict=True):
        assert torch.equal(block.attn.qkv.bias, bias) and bias[24:48].abs().max() > 0.5


def test_centred_keys_have_mean_zero_in_every_block_and_change_no_output() -> None:
    vit = make_network("vit_tiny_patch16_224", SMALL, 0).backbone.eval()
    keys: list[torch.Tensor] = []
    for block in vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.bias)
        block.attn.qkv.register_forward_hook(lambda _, __, qkv: keys.append(qkv[:, 1:, 24:48]))
    images = noise(40)  # more than are shown at once
    shown = prepare(images, 32)
    with torch.no_grad():
        before = vit.forward_features(shown)
        raw = list(keys)
        centre_keys(vit, images)
        keys.clear()
        after = vit.forward_features(shown)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    for block in (0, 1):
        assert raw[block].mean((0, 1)).abs().max() > 0.5
        assert keys[block].mean((0, 1)).abs().max() < 1e-4 < 0.05 < keys[block].std()


def test_keys_that_are_normalised_are_left_alone() -> None:
    vit = make_network("vit_tiny_patch16_224", {**SMALL, "qk_norm": True}, 0).backbone.eval()
    before = vit.blocks[0].attn.qkv.bias.clone()
    centre_keys(vit, noise())
    assert torch.equal(vit.blocks[0].attn.qkv.bias, before)
