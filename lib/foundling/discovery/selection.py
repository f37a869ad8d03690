"""Which settings a method runs with: tried on training images, for networks and controls alike, kept for the others.

A candidate is the settings of a method with its name under ``"method"``, as :func:`discover_images` takes them.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from foundling.backbones import Backbone
from foundling.datasets import Dataset, open_dataset
from foundling.discovery.stream import Found, discover_images
from foundling.errors import ParameterError
from foundling.evaluation.corloc import corloc
from foundling.types import Sample

Settings = dict[str, Any]
Candidates = dict[str, list[Settings]]  # label -> what to choose from

SIDES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the centred box
COLOURS: dict[str, Settings] = {  # control -> what it has of the colours of patches
    "colour_mean": {"deviation": False, "centre": False},
    "colour_mean_centred": {"deviation": False, "centre": True},
    "colour_deviation": {"deviation": True, "centre": False},
    "colour_deviation_centred": {"deviation": True, "centre": True},
    "colour_scaled": {"deviation": True, "centre": True, "space": "lab", "scale": True},
}
TRAINING_PART = {("scenes", "single_val"): "single_train", ("scenes", "multi_val"): "multi_train"}


class Choice(NamedTuple):
    """The settings chosen, their CorLoc on the images on which they were, and all that were tried with theirs.

    The numbers are ``None`` where nothing was tried, because there was nothing to choose from or on.
    """

    settings: Settings
    corloc: float | None
    tried: tuple[tuple[Settings, float | None], ...]


def grid(method: str, **values: Sequence[Any]) -> list[Settings]:
    """All combinations of ``values`` (setting -> values) as settings of ``method``; the last setting moves fastest."""
    return [{"method": method, **dict(zip(values, some, strict=True))} for some in product(*values.values())]


def network_candidates(
    name: str, ks: Sequence[int], facets: Sequence[str], taus: Sequence[float], centres: Sequence[bool] = (False, True)
) -> Candidates:
    """LOST (label ``corloc.<name>``) and TokenCut (``tokencut.<name>``) on a network's features.

    ``ks`` and ``facets`` are LOST's, ``taus`` TokenCut's, which reads the first facet; ``centres`` says whether
    features come as they are, less their mean over the image, or either. A method without values is left out.
    """
    found = {
        f"corloc.{name}": grid("lost", centre=centres, facet=facets, k=ks),
        f"tokencut.{name}": grid("tokencut", centre=centres, facet=facets[:1], tau=taus),
    }
    return {label: candidates for label, candidates in found.items() if candidates}


def untrained_candidates(ks: Sequence[int], facets: Sequence[str], taus: Sequence[float]) -> Candidates:
    """The control ``random``: the same on a network before training, raw and centred apart."""
    return network_candidates("random", ks, facets, taus, (False,)) | network_candidates(
        "random_centred", ks, facets, taus, (True,)
    )


def colour_candidates(ks: Sequence[int], taus: Sequence[float]) -> Candidates:
    """The controls that need no network: patch colours (:data:`COLOURS`), and a box in the middle."""
    found: Candidates = {}
    for label, colours in COLOURS.items():
        same = {name: (value,) for name, value in colours.items()}
        found[f"corloc.{label}"] = grid("colour_lost", **same, k=ks)
        found[f"tokencut.{label}"] = grid("colour_tokencut", **same, tau=taus)
    found = {label: candidates for label, candidates in found.items() if candidates}
    return found | ({"corloc.centre_box": grid("centre_box", side=SIDES)} if found else {})


def training_samples(dataset: Dataset, limit: int, **options: Any) -> tuple[Sample, ...]:
    """The first ``limit`` images of the part that belongs to ``dataset`` and is for training; none if there is none.

    ``options`` are those of :func:`open_dataset` (``root``, ``size``). Of the embedded datasets, ``scenes`` have one.
    """
    split = TRAINING_PART.get((dataset.name, dataset.split))
    return () if split is None else open_dataset(dataset.name, split=split, count=limit, **options).samples


def choose_settings(
    backbone: Backbone,
    samples: Sequence[Sample],
    candidates: Mapping[str, Sequence[Settings]],
    out: Path | None = None,
    **options: Any,
) -> dict[str, Choice]:
    """For every label the candidate with the highest CorLoc on ``samples``; the first of equals.

    ``out`` and ``options`` are those of :func:`discover_images`, which all candidates share one pass of. Without
    samples, and where there is only one candidate, it is the first, untried.

    Raises :class:`ParameterError` for a label without candidates, and for samples of which none is annotated.
    """
    if empty := [label for label, some in candidates.items() if not some]:
        raise ParameterError(f"there are no settings to choose from for {empty[0]!r}: give one or more")
    jobs = {
        f"{label}/{i}": settings
        for label, some in candidates.items()
        if len(some) > 1 and samples
        for i, settings in enumerate(some)
    }
    scores: dict[str, float] = {}
    if jobs:
        found = discover_images(backbone, samples, jobs, out=out, **options)
        for job, boxes in found.boxes.items():
            value = corloc(boxes, [sample.target for sample in samples], resamples=2).value
            if value is None:
                raise ParameterError(
                    "settings cannot be chosen on images without annotated objects: choose on others, or pass none"
                )
            scores[job] = value
    return {label: _best(label, some, scores) for label, some in candidates.items()}


def choose_and_discover(
    backbone: Backbone,
    training: Sequence[Sample],
    samples: Sequence[Sample],
    candidates: Mapping[str, Sequence[Settings]],
    out: Path,
    **options: Any,
) -> tuple[dict[str, Choice], Found]:
    """Settings chosen on ``training`` for every label (:func:`choose_settings`), then what they find in ``samples``.

    ``options`` are those of :func:`discover_images`; results are kept below the folder ``out``.
    """
    chosen = choose_settings(backbone, training, candidates, out=out / "choice", **options)
    methods = {label: choice.settings for label, choice in chosen.items()}
    return chosen, discover_images(backbone, samples, methods, out=out, **options)


def _best(label: str, some: Sequence[Settings], scores: Mapping[str, float]) -> Choice:
    values = [scores.get(f"{label}/{i}") for i in range(len(some))]
    known = [-1.0 if value is None else value for value in values]
    best = known.index(max(known))
    return Choice(some[best], values[best], tuple(zip(some, values, strict=True)))
