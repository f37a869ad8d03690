"""Norms' statistics over many batches: against a mean written out, and the network itself left alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from boxed import boxed_images, small
from safetensors.torch import load_file
from torch import Tensor, nn

from foundling.training.detection.norms import with_precise_norms
from foundling.training.detection.task import train_detector


def test_statistics_are_those_of_all_batches_together() -> None:
    """Of different sizes: each value counts once, and variances are about the common mean."""
    torch.manual_seed(0)
    first, second, idle = nn.BatchNorm2d(3), nn.BatchNorm2d(4), nn.BatchNorm2d(2)
    network = nn.Sequential(first, nn.Conv2d(3, 4, 1), second, nn.SyncBatchNorm(4))
    network.idle = idle
    first.running_mean, idle.running_mean = torch.full((3,), 9.0), torch.full((2,), 5.0)
    batches = [torch.randn(5 - i, 3, 4, 4) * (1 + i) + i for i in range(3)]
    seen = []

    def run(copy: Any, batch: Tensor) -> None:
        seen.append(copy)
        for part in list(copy)[:4]:
            batch = part(batch)

    settled: Any = with_precise_norms(network, batches, run)
    assert len(set(map(id, seen))) == 1 and seen[0] is settled and settled is not network
    normed = [
        (b - b.mean((0, 2, 3), keepdim=True)) / (b.var((0, 2, 3), correction=0, keepdim=True) + 1e-5) ** 0.5
        for b in batches
    ]
    for norm, maps in ((settled[0], batches), (settled[2], [network[1](b) for b in normed])):
        everything = torch.cat([b.transpose(0, 1).flatten(1) for b in maps], 1)
        torch.testing.assert_close(norm.running_mean, everything.mean(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var, everything.var(1, correction=0), rtol=1e-4, atol=1e-6)
    assert settled[0].momentum == 0.1 and not isinstance(settled[3], nn.SyncBatchNorm)
    assert settled.idle.running_mean.tolist() == [5.0] * 2
    assert first.running_mean.tolist() == [9.0] * 3 and isinstance(network[3], nn.SyncBatchNorm)


@pytest.mark.detectron2
def test_and_those_of_detectron2s_precise_bn() -> None:
    update = pytest.importorskip("fvcore.nn.precise_bn").update_bn_stats
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    batches = [torch.randn(2 + i, 3, 4 + i, 4) * (1 + i) + i for i in range(4)]
    settled = with_precise_norms(network, batches, lambda copy, batch: copy(batch))
    update(network.train(), iter(batches), len(batches))
    for name, value in network.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(settled.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow  # 10 s: three ResNets
def test_an_export_has_them_and_the_run_goes_on_without(tmp_path: Path) -> None:
    data = boxed_images(tmp_path / "images", 4)
    runs = {}
    for count in (0, 2):
        settings = small(network="r50_c4", anchors=[[8, 16]], pool=2, batch=2, steps=2, precise_bn=count)
        out = tmp_path / str(count)
        train_detector(*data, settings, out, progress=False, cpu=True)
        state = torch.load(out.with_suffix(".state"), weights_only=True)["task"]
        runs[count] = state, load_file(out.with_suffix(".safetensors"))
    assert all(torch.equal(value, runs[2][0][name]) for name, value in runs[0][0].items())
    plain, precise = runs[0][1], runs[2][1]
    assert all(torch.equal(value, precise[name]) for name, value in plain.items() if "running" not in name)
    moved = {name for name, value in plain.items() if not torch.equal(value, precise[name])}
    assert "roi_heads.box_head.norm.running_var" in moved and not [
        name for name in moved if name.startswith("backbone")
    ]
