"""Norms' statistics over many batches: against a mean written out, and the network itself left alone."""

from pathlib import Path

import pytest
import torch
from boxed import boxed_images, small
from safetensors.torch import load_file
from torch import Tensor, nn

from foundling.training.detection.norms import with_precise_norms
from foundling.training.detection.task import train_detector


def test_statistics_are_means_over_the_batches() -> None:
    torch.manual_seed(0)
    first, second = nn.BatchNorm2d(3), nn.BatchNorm2d(4)
    network = nn.Sequential(first, nn.Conv2d(3, 4, 1), second, nn.SyncBatchNorm(4))
    first.running_mean = torch.full((3,), 9.0)
    batches = [torch.randn(5, 3, 4, 4) * (1 + i) + i for i in range(3)]
    seen = []

    def run(copy: nn.Module, batch: Tensor) -> None:
        seen.append(copy)
        copy(batch)

    settled = with_precise_norms(network, batches, run)
    assert len(set(map(id, seen))) == 1 and seen[0] is settled and settled is not network
    torch.testing.assert_close(settled[0].running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(settled[0].running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0))
    normed = [
        (b - b.mean((0, 2, 3), keepdim=True)) / (b.var((0, 2, 3), correction=0, keepdim=True) + 1e-5) ** 0.5
        for b in batches
    ]
    inside = torch.stack([network[1](b).var((0, 2, 3)) for b in normed]).mean(0)
    torch.testing.assert_close(settled[2].running_var, inside, rtol=1e-4, atol=1e-6)
    assert settled[0].momentum == 0.1 and not isinstance(settled[3], nn.SyncBatchNorm)
    assert first.running_mean.tolist() == [9.0] * 3 and isinstance(network[3], nn.SyncBatchNorm)


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
