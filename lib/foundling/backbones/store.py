"""Patch features kept on disk, for work that visits them more than once.

A store is a folder of safetensors shards, one for every ``SHARD`` consecutive images. The header of a shard carries all
that its numbers depend on; a shard whose header says anything else than what is asked for is computed anew. Shards are
written beside their place and then moved, so an interrupted run leaves whole shards and the next run goes on from them.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from foundling.backbones.extraction import extract
from foundling.backbones.load import Backbone
from foundling.backbones.prepare import source_name
from foundling.errors import ImageError, ParameterError
from foundling.files import writing
from foundling.types import Failure, PatchFeatures, Sample

SHARD = 32  # images
_VERSION = 1  # raise it when the same settings give other numbers or another layout
_HEADER = "foundling"  # one entry: safetensors writes several in an order that changes from run to run

Stored = str | os.PathLike[str] | Sample


def stored_features(
    folder: str | os.PathLike[str],
    backbone: Backbone,
    images: Sequence[Stored],
    facets: tuple[str, ...] | list[str] = ("keys",),
    block: int = -1,
    bias: bool = True,
    norm: str = "last",
    batch_size: int = 16,
    precision: str = "fp32",
    max_side: int | None = None,
    max_patches: int = 16384,
    failures: list[Failure] | None = None,
    workers: int = 2,
) -> Iterator[PatchFeatures]:
    """What :func:`extract` yields for ``images`` (paths or samples), read from ``folder`` where it is there already.

    The parameters are those of :func:`extract`. Batches are formed within a shard, on the backbone's device. A shard is
    valid if backbone, weights' checksum, facets, block, bias, norm, precision, max_side, max_patches, batch_size and
    the images (names, sizes and times of change of their files) are the same; otherwise it is computed and replaced.

    Raises as :func:`extract` does; ``"images"`` is no facet of a store.
    """
    if "images" in facets:
        raise ParameterError("the facet 'images' cannot be stored: leave it out and read the images from their files")
    options: dict[str, Any] = {
        "facets": tuple(facets),
        "block": block,
        "bias": bias,
        "norm": norm,
        "batch_size": batch_size,
        "precision": precision,
        "max_side": max_side,
        "max_patches": max_patches,
        "workers": workers,
    }
    next(extract(backbone, [], **options), None)  # refuse impossible parameters now, not at the first shard
    return _shards(Path(folder), backbone, images, options, failures)


def _shards(
    folder: Path, backbone: Backbone, images: Sequence[Stored], options: dict[str, Any], failures: list[Failure] | None
) -> Iterator[PatchFeatures]:
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(images), SHARD):
        chosen = images[start : start + SHARD]
        path = folder / f"features_{start:07d}.safetensors"
        settings = _settings(backbone, start, chosen, options)
        if not _valid(path, settings):
            _write(path, settings, *_compute(backbone, start, chosen, options, collect=failures is not None))
        yield from _read(path, backbone.device, failures)


def _settings(backbone: Backbone, start: int, images: Sequence[Stored], options: dict[str, Any]) -> dict[str, Any]:
    """Everything the numbers of a shard depend on, as JSON would give it back."""
    about = {k: v for k, v in options.items() if k != "workers"}
    about |= {"block": options["block"] % backbone.blocks, "facets": sorted(options["facets"])}
    about |= {"version": _VERSION, "backbone": backbone.name, "checksum": backbone.checksum, "start": start}
    about["images"] = [_identity(image, start + i) for i, image in enumerate(images)]
    return json.loads(json.dumps(about))


def _identity(image: Stored, index: int) -> list[Any]:
    path = image.path if isinstance(image, Sample) else Path(image)
    orient = isinstance(image, Sample) and image.orient
    stat = path.stat() if path.exists() else None
    return [source_name(image, index), orient, *((stat.st_size, stat.st_mtime_ns) if stat else (None, None))]


def _compute(
    backbone: Backbone, start: int, images: Sequence[Stored], options: dict[str, Any], collect: bool
) -> tuple[list[PatchFeatures], list[Failure]]:
    failed: list[Failure] | None = [] if collect else None
    batches = list(extract(backbone, images, failures=failed, **options))
    return batches, [Failure(f.name, f.index + start, f.error) for f in failed or []]


def _write(path: Path, settings: dict[str, Any], batches: list[PatchFeatures], failed: list[Failure]) -> None:
    tensors = {
        f"{i}.{name}": value.cpu()
        for i, batch in enumerate(batches)
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor)
    }
    header = {
        "settings": settings,
        "batches": [
            {
                "grid": b.grid,
                "patch_size": b.patch_size,
                "names": b.names,
                "indices": [settings["start"] + i for i in b.indices],
            }
            for b in batches
        ],
        "failures": [asdict(failure) for failure in failed],
    }
    with writing(path) as part:
        save_file(tensors, part, metadata={_HEADER: json.dumps(header, sort_keys=True)})


def _valid(path: Path, settings: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as shard:
            return json.loads((shard.metadata() or {}).get(_HEADER, "{}")).get("settings") == settings
    except SafetensorError:  # cut short or no shard at all: compute it again
        return False


def _read(path: Path, device: torch.device, failures: list[Failure] | None) -> Iterator[PatchFeatures]:
    with safe_open(path, "pt") as shard:
        content = json.loads(shard.metadata()[_HEADER])
        names = list(shard.keys())
        if failures is not None:
            failures.extend(Failure(**failure) for failure in content["failures"])
        elif content["failures"]:
            raise ImageError(content["failures"][0]["error"])
        for i, about in enumerate(content["batches"]):
            # Copies: the tensors of an open shard are views of the file.
            tensors = {n.partition(".")[2]: shard.get_tensor(n).clone() for n in names if n.startswith(f"{i}.")}
            yield PatchFeatures(
                grid=(about["grid"][0], about["grid"][1]),
                patch_size=about["patch_size"],
                names=tuple(about["names"]),
                indices=tuple(about["indices"]),
                **tensors,
            ).to(device)
