"""What networks that stand on a backbone share once they are trained: their files, and the way of images into them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foundling.backbones.prepare import Limits, Prepared, read_ahead
from foundling.backbones.transfer import HEADER
from foundling.datasets.images import MAX_PIXELS
from foundling.errors import ParameterError, WeightsError
from foundling.files import checksum
from foundling.training.detection.bodies import Body, empty_body
from foundling.types import Failure, Sample

NEEDED = ("architecture", "arguments", "classes", "mean", "settings", "std")  # to make a network again
_LIMITS = Limits(patch_size=1, max_side=None, max_patches=MAX_PIXELS, keep_images=False)


class Rebuilt(NamedTuple):
    """A network from its file, and what that says."""

    network: Any
    settings: Any
    body: Body
    classes: tuple[str, ...]
    weights: str
    checksum: str
    device: torch.device


_DAMAGED = "{file} is no safetensors file, or damaged ({error}): name one that {writer} wrote, RUN.safetensors"


def read_header(file: Path, writer: str) -> Any:
    """What a network's file says of itself, ``None`` if nothing; ``writer`` is the function that writes such files.

    Raises WeightsError if there is no such file, or it is damaged.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file; name one that {writer} wrote, RUN.safetensors")
    try:
        with safe_open(file, framework="pt") as content:
            return json.loads((content.metadata() or {}).get(HEADER, "null"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(_DAMAGED.format(file=file, error=error, writer=writer)) from error


def read_network(
    file: Path, method: str, kind: str, writer: str, needed: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in a network's file, in float32, and what it says of itself.

    ``method`` is what it must say that it is, ``kind`` a name for that, ``writer`` the function that writes such files,
    ``needed`` what else it must say. Raises WeightsError if there is no such file, it is damaged, holds something else,
    or does not say what is needed.
    """
    told = read_header(file, writer)
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(_DAMAGED.format(file=file, error=error, writer=writer)) from error
    if not isinstance(told, dict) or told.get("method") != method:
        other = told.get("method") if isinstance(told, dict) else None
        raise WeightsError(
            f"{file} holds no {kind}{f' but a network of the kind {other!r}' if other else ''}: name a file that "
            f"{writer} wrote"
        )
    if missing := [key for key in needed if key not in told]:
        raise WeightsError(
            f"{file} does not say how to make its network ({', '.join(missing)} missing): train it again"
        )
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, told


def rebuild(
    file: Path,
    device: str | torch.device,
    method: str,
    kind: str,
    writer: str,
    make: Callable[[dict[str, Any], Body], tuple[Any, Any]],
) -> Rebuilt:
    """The network in ``file``, in evaluation mode on ``device``; ``method``, ``kind``, ``writer``: see above.

    ``make`` gives settings and an untrained network from what the file says and a body of the kind that it names.
    Raises WeightsError as :func:`read_network`, and if the file does not hold what it says.
    """
    tensors, told = read_network(file, method, kind, writer, NEEDED)
    try:
        body = empty_body(told["architecture"], told["arguments"], told["mean"], told["std"])
        with torch.random.fork_rng(devices=[]):
            settings, network = make(told, body)
        network.load_state_dict(tensors)
    except (ValidationError, RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{file} does not hold what its header says ({reason}): use the version of foundling that wrote it, or "
            "train it again"
        ) from error
    where = torch.device(device)
    network.eval().requires_grad_(False).to(where)
    return Rebuilt(network, settings, body, tuple(told["classes"]), str(file), checksum(file)[:12], where)


def in_batches(
    samples: Sequence[Sample], batch_size: int, workers: int, failures: list[Failure] | None
) -> Iterator[list[Prepared]]:
    """The decoded images of ``samples`` in their order, up to ``batch_size`` at a time, read ahead by ``workers``.

    Images of a batch have one size: none is padded to that of another. One that cannot be used raises ImageError, or
    with ``failures`` is appended to it and left out. Raises ParameterError, at once, for a ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ParameterError(f"batch_size={batch_size}: must be at least 1")
    return _in_batches(samples, batch_size, max(workers, 1), failures)


def _in_batches(
    samples: Sequence[Sample], batch_size: int, workers: int, failures: list[Failure] | None
) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    for item in read_ahead(samples, _LIMITS, workers, 2 * batch_size, failures):
        if batch and (len(batch) == batch_size or item.original != batch[0].original):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
