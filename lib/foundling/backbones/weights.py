"""Where the weights of a backbone lie: in the package, put by hand into the weights folder, or downloaded into it."""

import tempfile
from pathlib import Path

import pooch
import requests
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError

from foundling import paths
from foundling.backbones.checkpoint import checksum
from foundling.backbones.registry import BACKBONES, Entry
from foundling.errors import WeightsError

TIMEOUT = 20  # seconds without an answer after which a host counts as unreachable


def expected_weights() -> list[dict[str, str | bool]]:
    """One row a backbone: its name, licence, whether it is gated, where its file is expected, whether it is there and
    the command that brings it."""
    return [
        {
            "name": entry.name,
            "licence": entry.licence,
            "gated": entry.gated,
            "where": str(_candidates(entry)[0]),
            "present": any(p.is_file() for p in _candidates(entry)),
            "command": _how(entry),
        }
        for entry in BACKBONES.values()
    ]


def find_weights(entry: Entry) -> Path | None:
    """The file with the weights of ``entry`` if it is on this machine, else None."""
    return next((p for p in _candidates(entry) if p.is_file()), None)


def fetch_weights(entry: Entry) -> Path:
    """The file with the weights of ``entry``, downloaded once if it is not on this machine.

    Raises :class:`WeightsError` naming the file, the folder and the command when it cannot be had.
    """
    if (found := find_weights(entry)) is not None:
        return found
    if entry.embedded:
        raise WeightsError(f"{entry.name}: {_candidates(entry)[0]} is missing from the package: install it again")
    reasons = []
    if entry.url is not None:
        try:
            return _from_url(entry)
        except (requests.RequestException, OSError, ValueError) as error:
            reasons.append(f"{entry.url}: {_short(error)}")
    if entry.timm is not None:
        try:
            return _from_hub(entry)
        except GatedRepoError:
            reasons.append(f"huggingface.co/timm/{entry.timm}: gated, and this machine is not allowed in")
        except (requests.RequestException, OSError, RuntimeError, ValueError) as error:
            reasons.append(f"huggingface.co/timm/{entry.timm}: {_short(error)}")
    why = "; ".join(reasons) or "no address from which it could be downloaded is known"
    raise WeightsError(
        f"{entry.name}: the weights are not at {_candidates(entry)[0]} and could not be downloaded ({why}). "
        f"{_how(entry)}. Without network, weights='random' or the embedded backbone 'scenes_odin' "
        "(trained on synthetic scenes) can be used"
    )


def _candidates(entry: Entry) -> list[Path]:
    if entry.embedded:
        return [paths.EMBEDDED_WEIGHTS / entry.file]
    names = [entry.file, *([f"{entry.timm}.safetensors"] if entry.timm else [])]
    return [paths.weights_dir() / name for name in names]


def _how(entry: Entry) -> str:
    """What a person types or does to bring the file."""
    target = _candidates(entry)[0]
    if entry.embedded:
        return "comes with the package"
    if entry.url is not None:
        return f"To put it there by hand: curl -L --create-dirs -o '{target}' {entry.url}"
    if entry.gated:
        return (
            f"Gated: accept the licence at https://huggingface.co/timm/{entry.timm}, run `hf auth login` and try again, "
            f"or ask Meta for {entry.file} (https://ai.meta.com/dinov3) and put it at {target}"
        )
    return f"{entry.notes} Put it at {target}"


def _from_url(entry: Entry) -> Path:
    assert entry.url is not None
    folder = paths.weights_dir()
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
    path = Path(pooch.retrieve(entry.url, known_hash=None, fname=entry.file, path=folder, downloader=downloader))
    if entry.sha256 is not None and not checksum(path).startswith(entry.sha256):
        path.unlink()
        raise ValueError(f"the download's SHA-256 does not start with {entry.sha256}; it was removed")
    return path


def _from_hub(entry: Entry) -> Path:
    target = paths.weights_dir() / f"{entry.timm}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        file = hf_hub_download(f"timm/{entry.timm}", "model.safetensors", local_dir=folder, etag_timeout=TIMEOUT)
        Path(file).replace(target)
    return target


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"
