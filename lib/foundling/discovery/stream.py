"""Photos in, boxes out: one pass of the network over the images feeds every method, chunk by chunk."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from foundling.backbones import Backbone, extract
from foundling.discovery.chunks import Record, chunk_path, code_digest, files_of, read_chunk, remove_others, write_chunk
from foundling.discovery.export import encode_mask, encode_memberships
from foundling.discovery.methods import METHODS, Method, resolve_method
from foundling.discovery.progress import progress as show_progress
from foundling.types import Discovery, Failure, ParameterError, PatchFeatures, Sample

Jobs = dict[str, tuple[Method, dict[str, Any]]]  # label -> method, all of its settings


@dataclass(frozen=True)
class Found:
    """What the methods found in each image.

    ``boxes`` holds each label's best box an image, in pixels of the original image (nan where the image failed);
    ``sizes`` the original height and width (0 where it failed). ``records`` has a dict for every image that did
    not fail: ``name``, ``index``, ``size`` and ``seen`` (height and width, of the file and as the network saw it),
    ``grid``, ``patch_size``, and ``methods``: label -> ``boxes`` (original pixels), ``scores``, ``masks`` (COCO RLE, on
    the patch grid), ``seed`` (row, column), ``values``, ``flags``, and where the method gives them ``levels`` and
    ``memberships`` (encoded, see :func:`foundling.discovery.export.decode_memberships`). ``seconds`` holds ``images``,
    the number computed in this run and not taken from disk, and, if there were any, their mean seconds an image:
    ``network`` (with what of the decoding it does not overlap) and one entry a label. On a GPU the network works on the
    next batch while the methods work on this one: there the seconds overlap, and their sum is more than the time that
    passed.
    """

    names: tuple[str, ...]
    sizes: Int[np.ndarray, "image 2"]
    boxes: dict[str, Float[np.ndarray, "image 4"]]
    records: list[Record]
    failures: list[Failure]
    seconds: dict[str, float]


def discover_images(
    backbone: Backbone,
    samples: Sequence[Sample],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    out: Path | None = None,
    block: int = -1,
    bias: bool = True,
    norm: str = "last",
    batch_size: int = 16,
    max_side: int | None = None,
    precision: str = "fp32",
    chunk: int = 64,
    progress: bool = True,
) -> Found:
    """Run ``methods`` over ``samples`` in one pass of the network.

    ``methods`` maps a label to settings, with the name of the method under ``"method"`` (the label itself if absent).
    ``block``, ``bias``, ``norm``, ``batch_size``, ``max_side`` (pixels) and ``precision`` are those of
    :func:`foundling.backbones.extract`. With
    ``out``, the results of every ``chunk`` images are written there and used again by a later call with the same
    settings, network, code and files; images that failed are tried again. Batches do not cross chunks: a run that was
    interrupted and resumed gives the same bytes as an undisturbed one.

    Returns a :class:`Found`, with images that cannot be used among its failures; so are those that one of the methods
    cannot serve, such as an image of fewer patches than the parts it is to be cut into. Raises :class:`ParameterError`,
    before any image is read, for an unknown method, setting or value, or one that this network cannot serve.
    """
    if chunk < 1:
        raise ParameterError(f"chunk={chunk}: must be at least 1 image")
    options: dict[str, Any] = {"block": block, "bias": bias, "norm": norm}
    options |= {"batch_size": batch_size, "max_side": max_side, "precision": precision}
    plan = _Plan(backbone, check_jobs(methods, backbone), options, code_digest())
    extract(backbone, (), plan.facets, **plan.options)  # checks them: it reads nothing before it is iterated over
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    samples, spent = list(samples), defaultdict[str, float](float)
    starts = range(0, len(samples), chunk)
    records, failures = list[Record](), list[Failure]()
    with show_progress(len(samples), "discovering", progress and bool(samples)) as advance:
        for start in starts:
            done, failed = _chunk(plan, samples[start : start + chunk], start, out, spent, advance)
            records += done
            failures += failed
    if out is not None:
        remove_others(out, {chunk_path(out, start) for start in starts})
    return gathered(samples, list(plan.jobs), records, failures, spent)


def check_jobs(methods: Mapping[str, Mapping[str, Any]], backbone: Backbone) -> Jobs:
    """Each label's method and complete settings; raises :class:`ParameterError` for one that cannot be run."""
    if not methods:
        raise ParameterError(f"no method given: choose one or more of {', '.join(METHODS)}")
    jobs = {label: resolve_method(label, settings) for label, settings in methods.items()}
    for label, (_, settings) in jobs.items():
        head = settings.get("head")
        if isinstance(head, int) and "attention" in backbone.facets and head >= backbone.heads:
            raise ParameterError(f"{label}: head is {head}, but {backbone.name} has heads 0 to {backbone.heads - 1}")
    return jobs


@dataclass(frozen=True)
class _Plan:
    """What is the same for every chunk."""

    backbone: Backbone
    jobs: Jobs
    options: dict[str, Any]
    code: str

    @property
    def facets(self) -> tuple[str, ...]:
        read = [facet for method, settings in self.jobs.values() for facet in method.facets(**settings)]
        return tuple(dict.fromkeys(read)) or ("images",)  # a baseline that reads nothing still needs the sizes

    def header(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """All that the results of ``samples`` depend on."""
        return {
            "code": self.code,
            "backbone": [self.backbone.name, self.backbone.checksum, self.backbone.device.type],
            "methods": {label: {"method": m.name, **settings} for label, (m, settings) in self.jobs.items()},
            **self.options,
            "block": self.options["block"] % self.backbone.blocks,
            "files": files_of(samples),
        }


def _chunk(
    plan: _Plan,
    samples: Sequence[Sample],
    start: int,
    out: Path | None,
    spent: dict[str, float],
    advance: Callable[[int], None],
) -> tuple[list[Record], list[Failure]]:
    """Records and failures of one chunk, as far as possible from its file in ``out``."""
    header = {} if out is None else plan.header(samples)
    known = {} if out is None else {record["index"]: record for record in read_chunk(chunk_path(out, start), header)}
    missing = [i for i in range(start, start + len(samples)) if i not in known]
    advance(len(known))
    failures: list[Failure] = []
    if missing:
        for made in _discover(plan, [samples[i - start] for i in missing], missing, failures, spent):
            known |= {record["index"]: record for record in made}
            advance(len(made))
        advance(len(failures))
    records = [known[i] for i in sorted(known)]
    if missing and out is not None:
        write_chunk(chunk_path(out, start), header, records)
    return records, sorted(failures, key=lambda failure: failure.index)


def _discover(
    plan: _Plan, samples: Sequence[Sample], positions: Sequence[int], failures: list[Failure], spent: dict[str, float]
) -> Iterator[list[Record]]:
    """One pass over ``samples``, which have these ``positions`` among all: the records of each batch."""
    failed: list[Failure] = []
    device = plan.backbone.device
    batches = _timed(extract(plan.backbone, samples, plan.facets, failures=failed, **plan.options), device, spent)
    for features in batches if device.type == "cpu" else _ahead(batches):
        try:
            found = _run(plan, features, spent)
        except ParameterError as error:  # all settings are legal: it is these images that are too small, or too large
            failed += [
                Failure(name, i, f"{name}: {error}") for name, i in zip(features.names, features.indices, strict=True)
            ]
            continue
        spent["images"] += len(features)
        yield [
            _record(features, i, positions[position], {label: results[i] for label, results in found.items()})
            for i, position in enumerate(features.indices)
        ]
    failures += [Failure(failure.name, positions[failure.index], failure.error) for failure in failed]


def _run(plan: _Plan, features: PatchFeatures, spent: dict[str, float]) -> dict[str, list[Discovery]]:
    """What each label finds in a batch, with the seconds added to ``spent``."""
    found = {}
    for label, (method, settings) in plan.jobs.items():
        begin = time.perf_counter()
        found[label] = method.run(features, **settings)
        spent[label] += time.perf_counter() - begin
    return found


def _timed(batches: Iterator[PatchFeatures], device: torch.device, spent: dict[str, float]) -> Iterator[PatchFeatures]:
    """The same batches, with the seconds it takes to get them from ``device`` added to ``spent["network"]``."""
    while True:
        begin = time.perf_counter()
        features = next(batches, None)
        if features is not None and device.type == "cuda":
            torch.cuda.synchronize(device)  # kernels run on after the call that started them
        spent["network"] += time.perf_counter() - begin
        if features is None:
            return
        yield features


def _ahead(batches: Iterator[PatchFeatures]) -> Iterator[PatchFeatures]:
    """The same batches, each made by another thread while the one before is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="network") as pool:
        coming = pool.submit(next, batches, None)
        while (features := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield features


def _record(features: PatchFeatures, i: int, index: int, results: Mapping[str, Discovery]) -> Record:
    size, seen = features.original_sizes[i].tolist(), features.image_sizes[i].tolist()
    return {
        "name": features.names[i],
        "index": index,
        "size": size,
        "seen": seen,
        "grid": list(features.grid),
        "patch_size": features.patch_size,
        "methods": {label: _result(discovery, size, seen) for label, discovery in results.items()},
    }


def _result(discovery: Discovery, size: Sequence[int], seen: Sequence[int]) -> dict[str, Any]:
    original, network = np.array([*size[::-1]] * 2, dtype=np.float64), np.array([*seen[::-1]] * 2, dtype=np.float64)
    masks = [] if discovery.masks is None else [encode_mask(mask) for mask in discovery.masks]
    parts: dict[str, Any] = {} if discovery.levels is None else {"levels": discovery.levels.tolist()}
    if discovery.memberships is not None:
        parts["memberships"] = encode_memberships(discovery.memberships)
    return {
        "boxes": (discovery.boxes * original / network).tolist(),  # in this order the image's edge stays exact
        "scores": discovery.scores.tolist(),
        "masks": masks,
        "seed": None if discovery.seed is None else list(discovery.seed),
        "values": dict(discovery.values),
        "flags": list(discovery.flags),
        **parts,
    }


def gathered(
    samples: Sequence[Sample],
    labels: Sequence[str],
    records: list[Record],
    failures: list[Failure],
    spent: dict[str, float],
) -> Found:
    """The records of images, in any order, as what was found in ``samples``; ``spent`` is of the images made anew."""
    sizes = np.zeros((len(samples), 2), dtype=np.int64)
    boxes = {label: np.full((len(samples), 4), np.nan) for label in labels}
    for record in records:
        sizes[record["index"]] = record["size"]
        for label, result in record["methods"].items():
            if result["boxes"]:
                boxes[label][record["index"]] = result["boxes"][int(np.argmax(result["scores"]))]
    images = spent.pop("images", 0.0)
    seconds = {name: total / images for name, total in spent.items()} if images else {}
    names = tuple(sample.name for sample in samples)
    return Found(names, sizes, boxes, records, failures, {"images": images, **seconds})
