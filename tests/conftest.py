"""Shared fixtures: a seeded generator, the folder of real photos where present, no open figures between tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Shapes in signatures are checked in every test run (jaxtyping with beartype), and only there.
install_import_hook("foundling", "beartype.beartype")
matplotlib.use("Agg")

SHARED = Path(os.environ.get("FOUNDLING_SHARED") or Path(__file__).resolve().parents[2] / "shared")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(sum(map(ord, "foundling")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder with real photos and reference outputs; the test is skipped where it is absent."""
    if not (SHARED / "photos" / "images").is_dir():
        pytest.skip(f"no real photos at {SHARED}: set FOUNDLING_SHARED (CONTRIBUTING.md says what it must hold)")
    return SHARED


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
