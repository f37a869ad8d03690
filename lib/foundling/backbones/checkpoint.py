"""A checkpoint file as its authors published it → the state dict of one of our networks, or an error that says why not.

Files are read as data only (``weights_only=True`` or safetensors): nothing in them is executed.
"""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from foundling.backbones.registry import Entry
from foundling.backbones.remap import REMAPS
from foundling.errors import WeightsError

_WRAPPERS = ("teacher", "target_encoder", "student", "model_ema", "state_dict", "model", "encoder", "backbone")
_PREFIXES = ("module.", "_orig_mod.", "teacher.", "student.", "base_encoder.", "backbone.", "encoder.", "model.")


def read_checkpoint(path: Path) -> Any:
    """What a ``.safetensors`` or PyTorch file holds. Raises :class:`WeightsError` if it cannot be read safely."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training checkpoints of the DINO family carry their arguments in a Namespace, which holds data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))  # PyTorch's own advice here is to load the file unsafely
        reason = f"holds objects other than tensors ({foreign[1]})" if foreign else "is not a checkpoint"
        raise WeightsError(
            f"{path}: the file {reason}. Only tensors are read: get it again, "
            "or re-save its parameters with safetensors.torch.save_file"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: not a readable checkpoint ({_first_line(error)}); it may be damaged or cut short: get it again"
        ) from error


def fit_state(entry: Entry, network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The parameters in ``path`` under the names and with the shapes of ``network``, in float32.

    Raises :class:`WeightsError` that lists what is missing, left over or of another shape.
    """
    return fitted(entry, network, read_state(entry, path), path)


def read_state(entry: Entry, path: Path) -> dict[str, Tensor]:
    """The parameters in ``path`` by their bare names.

    Nesting (teacher, student, model, state_dict, …), prefixes (module., backbone., base_encoder., …) and heads are
    removed. Raises :class:`WeightsError` if there are none.
    """
    state = _strip_prefixes(_unwrap(read_checkpoint(path), entry, path))
    state = {k: v for k, v in state.items() if not k.startswith(entry.dropped)}
    return state if entry.remap is None else REMAPS[entry.remap](state)


def fitted(entry: Entry, network: nn.Module, given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The parameters ``given``, which ``path`` holds, as ``network`` takes them; see :func:`fit_state`."""
    state = dict(given)
    expected = {k: v.shape for k, v in network.state_dict().items()}
    for key in expected.keys() - state.keys():  # files from before PyTorch 0.4.1 have no such counters
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
    _check(entry, path, state, expected)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _unwrap(content: Any, entry: Entry, path: Path) -> Mapping[str, Tensor]:
    """The innermost mapping from names to tensors; where several networks are stored, the entry's preferred one."""
    while isinstance(content, Mapping):
        inner = [content[k] for k in (*entry.wrappers, *_WRAPPERS) if isinstance(content.get(k), Mapping)]
        if not inner:
            break
        content = inner[0]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        keys = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path}: no network parameters found in it (it holds: {keys or 'nothing'})")
    return tensors


def _strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without wrapper prefixes; where some names have one, the others belong to heads and are left out."""
    stripped = dict(state)
    while found := next((p for p in _PREFIXES if any(k.startswith(p) for k in stripped)), None):
        stripped = {k.removeprefix(found): v for k, v in stripped.items() if k.startswith(found)}
    return stripped


def _check(entry: Entry, path: Path, state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    missing = sorted(expected.keys() - state.keys())
    surplus = sorted(state.keys() - expected.keys())
    shapes = [
        f"{k} is {list(state[k].shape)}, expected {list(expected[k])}"
        for k in sorted(expected.keys() & state.keys())
        if state[k].shape != expected[k]
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:3])}{', …' if len(found) > 3 else ''}"
        for what, found in (("missing", missing), ("unexpected", surplus), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise WeightsError(
            f"{path}: does not fit {entry.name} ({entry.architecture}, patch size {entry.patch_size}, "
            f"{len(expected)} parameters): {'; '.join(problems)}. Expected the file {entry.file}"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
