"""Fixtures shared by all tests: where real data lies, and small folders in COCO format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs named by DISTILPOSE_DATA (holds coco-mini and lspet)."""
    place = os.environ.get("DISTILPOSE_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("DISTILPOSE_DATA names no folder of real photographs")
    return Path(place).resolve()


@pytest.fixture(scope="session")
def release_fixtures(shared_data: Path) -> Path:
    """The folder of the release's numbers, beside the real data."""
    place = shared_data.parent / "fixtures"
    if not place.is_dir():
        pytest.skip("no fixtures of the release beside DISTILPOSE_DATA")
    return place
