"""Corpora and runs that the faults share."""

import os
from pathlib import Path

import pytest

from .world import Scoring

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork


@pytest.fixture(scope="session")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> Scoring:
    """Two dozen small shards and a tiny reference."""
    return Scoring(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Scoring:
    """Three shards."""
    return Scoring(tmp_path_factory.mktemp("small"), shards=3)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "scores" / "reference"
