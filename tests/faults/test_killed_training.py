"""SIGKILL while a model is trained: resumed, it ends bit for bit like an undisturbed one."""

import random
from pathlib import Path

import pytest

from .training import Training, kill_training


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(tmp_path_factory.mktemp("training"))


def test_killed_at_random_moments(run: Training) -> None:
    assert kill_training(run, "few", 3, random.Random(2))["kills"] == 3


@pytest.mark.soak
def test_killed_at_25_random_moments(run: Training, tmp_path: Path) -> None:
    assert kill_training(run, "many", 25, random.Random(1))["kills"] == 25
