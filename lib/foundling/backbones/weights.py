"""Where the weights of a backbone lie: in the package, put by hand into the weights folder, or downloaded into it."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from huggingface_hub import get_token

from foundling import paths
from foundling.backbones.registry import BACKBONES, Entry
from foundling.errors import WeightsError
from foundling.files import checksum

TIMEOUT = 20  # seconds without an answer after which a host counts as unreachable
INSTEAD = (
    "the backbone scenes_odin comes with the package (it was trained on synthetic scenes, not on photos: expect "
    "coarser boxes); weights random needs no file"
)
INSTEAD_OF_SALIENCY = "take another source of saliency, or train such a network (foundling train, objective saliency)"
_HUB = "https://huggingface.co/timm"


def expected_weights(entries: Iterable[Entry] = tuple(BACKBONES.values())) -> list[dict[str, str | bool]]:
    """One row a network (default: every backbone): its name, licence, whether it is gated, where its file is expected,
    whether it is there and what brings it."""
    return [
        {
            "name": entry.name,
            "licence": entry.licence,
            "gated": entry.gated,
            "where": str(find_weights(entry) or _candidates(entry)[0]),
            "present": find_weights(entry) is not None,
            "command": how_to_get(entry),
        }
        for entry in entries
    ]


def find_weights(entry: Entry) -> Path | None:
    """The file with the weights of ``entry`` if it is on this machine, else None."""
    return next((path for path in _candidates(entry) if path.is_file()), None)


def fetch_weights(entry: Entry) -> Path:
    """The file with the weights of ``entry``, downloaded once (with a progress bar) if it is not on this machine.

    The authors' own file is held against the SHA-256 that the registry knows, if it knows one.
    Raises :class:`WeightsError` naming the file, the folder and what brings it when it cannot be had or is another.
    """
    if (found := find_weights(entry)) is not None:
        if found.name == entry.file and (other := _other_than(entry.sha256, found)):
            raise WeightsError(f"{entry.name}: {found}: {other}; remove it and get it again. {how_to_get(entry)}")
        return found
    place = _candidates(entry)[0]
    if entry.embedded:
        raise WeightsError(f"{entry.name}: {place} is missing from the package: install the package again")
    reasons = []
    for url, file in _addresses(entry):
        try:
            return _download(url, file, entry.sha256 if url == entry.url else None)
        except (requests.RequestException, OSError) as error:
            reasons.append(_reason(url, error))
    why = "; ".join(reasons) or "there is no address from which a program may download them"
    raise WeightsError(
        f"{entry.name}: the weights are not at {place} and could not be downloaded ({why}).\n"
        f"To get them: {how_to_get(entry)}\n"
        f"To go on without them: {INSTEAD_OF_SALIENCY if entry.family == 'saliency' else INSTEAD}"
    )


def how_to_get(entry: Entry) -> str:
    """What a person types or does to bring the weights of ``entry``."""
    place = _candidates(entry)[0]
    if entry.embedded:
        return "they come with the package: install it again"
    by_hand = f"download {entry.file} from {entry.page} and put it at {place}"
    if entry.url is not None:
        by_hand = f"curl -L --create-dirs -o '{place}' {entry.url}"
    if not _addresses(entry):
        return f"by hand: {by_hand}"
    licence = f" (first accept the licence at {_HUB}/{entry.timm} and run `hf auth login`)" if entry.gated else ""
    return f"foundling weights {entry.name}{licence}; or by hand: {by_hand}"


def _candidates(entry: Entry) -> list[Path]:
    if entry.embedded:
        return [paths.EMBEDDED_WEIGHTS / entry.file]
    return [paths.weights_dir() / file for file in (entry.file, _hub_file(entry)) if file]


def _hub_file(entry: Entry) -> str | None:
    return f"{entry.timm}.safetensors" if entry.timm is not None else None


def _addresses(entry: Entry) -> list[tuple[str, str]]:
    """Where to try, in order: the authors' own address, then the same weights on the hub."""
    addresses = [(entry.url, entry.file), (f"{_HUB}/{entry.timm}/resolve/main/model.safetensors", _hub_file(entry))]
    return [(url, file) for url, file in addresses if url is not None and file is not None]


def _download(url: str, file: str, sha256: str | None) -> Path:
    token = get_token() if url.startswith(_HUB) else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT, headers=headers)
    path = Path(pooch.retrieve(url, known_hash=None, fname=file, path=paths.weights_dir(), downloader=downloader))
    if other := _other_than(sha256, path):
        path.unlink()
        raise OSError(f"{other}; it was removed: try again")
    return path


def _other_than(sha256: str | None, path: Path) -> str:
    """How the file at ``path`` differs from what is expected, or nothing."""
    if sha256 is None or (found := checksum(path)).startswith(sha256):
        return ""
    return f"the file's SHA-256 should start with {sha256} and is {found}"


def _reason(url: str, error: Exception) -> str:
    host = urlsplit(url).netloc
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"{host} refuses without an accepted licence" if status in (401, 403) else f"{url}: HTTP {status}"
    if isinstance(error, requests.Timeout):
        return f"{host} did not answer within {TIMEOUT} s"
    if isinstance(error, requests.ConnectionError):
        return f"no connection to {host}"
    return f"{url}: {error}"
