"""Fixtures of the backbone tests: no network, and small entries in the registry that are quick to build."""

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundling.backbones import BACKBONES, Backbone, Entry, load_backbone

LOCAL = ("127.0.0.1", "localhost", "::1")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Connections to this machine only; the weights folder is an empty one."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] in LOCAL, f"a test tried to reach {address}"
        connect(self, address)

    def resolve(host: str, *args: object, **kwargs: object) -> object:
        if host in LOCAL:
            return lookup(host, *args, **kwargs)
        raise socket.gaierror(-2, "Name or service not known")

    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))


SMALL = {"embed_dim": 48, "depth": 3}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """``small(name)`` puts a three-block, 48-channel version of a registry entry in its place and returns it."""

    def shrink(name: str, **changes: object) -> Entry:
        entry = BACKBONES[name]
        heads = {"num_heads": 4 if name == "mocov3_vits16" else 2}
        options = {**entry.options, **SMALL, **heads, **changes}
        monkeypatch.setitem(BACKBONES, name, dataclasses.replace(entry, options=options))
        return BACKBONES[name]

    return shrink


@pytest.fixture
def tiny(small: Callable[..., Entry]) -> Backbone:
    """A small ViT with 16-pixel patches and random weights."""
    small("dino_vits16")
    return load_backbone("dino_vits16", weights="random", device="cpu", seed=3)


@pytest.fixture
def photo(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """``photo(name, height, width)`` writes a noisy picture and returns its path."""

    def write(name: str, height: int, width: int) -> Path:
        path = tmp_path / name
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    return write
