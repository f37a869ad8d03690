"""Where saliency comes from: unsupervised methods on a backbone's features, or a saliency network, all alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundling.backbones import Backbone
from foundling.discovery.methods import METHODS
from foundling.discovery.stream import Found, discover_images
from foundling.errors import ParameterError
from foundling.saliency.masks import SaliencyMasks, union_mask, without_small
from foundling.saliency.network import SaliencyNetwork
from foundling.saliency.predict import predict_masks
from foundling.types import Sample

NETWORK = "network"
SALIENCY: dict[str, str] = {  # source -> method of discovery, or the saliency network
    "spectral": "saliency",
    "dino_seg": "dino_seg",
    "lost": "lost",
    "tokencut": "tokencut",
    NETWORK: NETWORK,
}


def saliency_masks(
    sources: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Sample],
    backbone: Backbone | None = None,
    network: SaliencyNetwork | None = None,
    *,
    out: Path | None = None,
    above: int = 0,
    progress: bool = True,
    **options: Any,
) -> dict[str, SaliencyMasks]:
    """One mask an image from each of ``sources``, in the order in which they are given.

    ``sources`` maps a label to settings, with the name of the source under ``"source"`` (the label itself if absent):
    one of :data:`SALIENCY`, or as a control any method of :data:`foundling.discovery.METHODS`. Those of methods are the
    method's, and all methods share one pass of ``backbone``; those of ``"network"`` are ``scale`` and ``batch_size`` of
    :func:`foundling.saliency.predict_masks`. Masks of ``above`` pixels or fewer count as none (COMUS: 400).

    With ``out``, results are kept in folders of it, and used again. ``options`` are those of
    :func:`foundling.discovery.discover_images`. Raises :class:`ParameterError`, before any image is read, for a source
    or setting that there is not, or without the backbone or the network that a source needs.
    """
    plan = {label: _resolve(label, settings) for label, settings in sources.items()}
    if not plan:
        raise ParameterError(f"no source of saliency given: choose one or more of {', '.join(SALIENCY)}")
    methods = {label: settings for label, settings in plan.items() if settings["method"] != NETWORK}
    looks = {label: settings for label, settings in plan.items() if settings["method"] == NETWORK}
    for kind, needing, given in (("backbone", methods, backbone), ("network", looks, network)):
        if needing and given is None:
            raise ParameterError(f"the source {next(iter(needing))!r} needs a {kind}: pass {kind}=")
    found: dict[str, SaliencyMasks] = {}
    if methods and backbone is not None:
        folder = None if out is None else out / "discovery"
        discovered = discover_images(backbone, samples, methods, out=folder, progress=progress, **options)
        found |= {label: masks_of(discovered, label) for label in methods}
    if looks and network is not None:
        for label, settings in looks.items():
            chosen = {name: value for name, value in settings.items() if name != "method"}
            folder = None if out is None else out / label
            found[label] = predict_masks(network, samples, out=folder, progress=progress, **chosen)
    return {label: without_small(found[label], above) if above else found[label] for label in plan}


def masks_of(found: Found, label: str) -> SaliencyMasks:
    """What the method ``label`` of a run of ``discover_images`` found, one mask an image: the union of its objects.

    Raises :class:`ParameterError` for a label that was not run.
    """
    if label not in found.boxes:
        raise ParameterError(f"no results under {label!r}: choose one of {', '.join(found.boxes)}")
    masks: list[dict[str, Any] | None] = [None] * len(found.names)
    for record in found.records:
        masks[record["index"]] = union_mask(record, label)
    return SaliencyMasks(label, found.names, found.sizes, tuple(masks), tuple(found.failures))


def _resolve(label: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a source with the name of its method (or the network) under ``"method"``."""
    rest = dict(settings)
    name = rest.pop("source", label)
    if name not in SALIENCY and name not in METHODS:
        raise ParameterError(
            f"unknown source of saliency {name!r} (for {label!r}): choose one of {', '.join(SALIENCY)}; "
            f"or, as a control, a method such as centre_box"
        )
    if name == NETWORK and (unknown := sorted(rest.keys() - {"scale", "batch_size"})):
        raise ParameterError(
            f"{label}: the saliency network has no setting {unknown[0]!r}: legal are scale, batch_size"
        )
    return {"method": SALIENCY.get(name, name), **rest}
