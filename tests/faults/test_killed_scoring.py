"""SIGKILL while a corpus is scored: whoever dies, whenever, the finished store is the undisturbed one."""

import random
import signal
import time
from pathlib import Path

import pytest

from .world import Scoring, die_at, exit_code, finish, kill, kill_at_random


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(scoring: Scoring, tmp_path: Path, workers: int) -> None:
    counts = kill_at_random(scoring, tmp_path, 3, workers, random.Random(workers))
    assert counts["kills"] == 3


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_25_random_moments(scoring: Scoring, tmp_path: Path, workers: int, seed: int) -> None:
    counts = kill_at_random(scoring, tmp_path, 25, workers, random.Random(seed))
    assert counts["kills"] == 25


def killed_at_step(small: Scoring, folder: Path, step: int, twice: bool) -> bool:
    """Whether the run was long enough for that step; the store is checked in either case."""
    for _ in range(1 + twice):
        process = small.start(folder, before=lambda: die_at(step))
        while (code := exit_code(process)) is None:
            time.sleep(0.002)
        assert code in (0, -signal.SIGKILL), small.log.read_text()[-4000:]
    finish(small.start(folder), small.log)
    small.check(folder)
    return code != 0


@pytest.mark.parametrize("step", [0, 3, 7, 13, 18, 20, 22, 27, 61])
def test_killed_at_a_step(small: Scoring, place: Path, step: int) -> None:
    assert killed_at_step(small, place, step, twice=False)


@pytest.mark.soak
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_killed_at_each_step(small: Scoring, place: Path, twice: bool) -> None:
    step = 0
    while killed_at_step(small, place.with_name(f"{step}"), step, twice):
        step += 1
    assert step > 60


def test_a_worker_takes_over_the_shards_of_a_killed_one(scoring: Scoring, place: Path) -> None:
    """Nobody starts the killed one again."""
    first = scoring.start(place, (0, 2))
    second = scoring.start(place, (1, 2))
    time.sleep(scoring.seconds / 3)
    kill(first)
    finish(second, scoring.log)
    scoring.check(place)


def test_workers_that_begin_at_once(scoring: Scoring, place: Path) -> None:
    processes = [scoring.start(place, (number, 4)) for number in range(4)]
    for process in processes:
        finish(process, scoring.log)
    scoring.check(place)


def test_neither_order_nor_number_of_workers_changes_a_byte(scoring: Scoring, tmp_path: Path) -> None:
    for name, worker in (("other order", (2, 3)), ("yet another", (23, 24))):
        scoring.score(tmp_path / name, worker)
        scoring.check(tmp_path / name)
