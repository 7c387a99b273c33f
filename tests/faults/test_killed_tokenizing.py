"""SIGKILL while a corpus is tokenized: the finished store is the undisturbed one, and no process stays behind."""

import random
import signal
import time
from pathlib import Path

import pytest

from .tokenizing import Tokenizing, kill_tokenizing, running
from .world import die_at, exit_code, finish


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Tokenizing:
    return Tokenizing(tmp_path_factory.mktemp("tokenizing"))


def gone(orphans: list[int]) -> None:
    """Processes whose master was killed end by themselves: they must not write into the next run's files."""
    deadline = time.monotonic() + 10
    while any(running(process) for process in orphans):
        assert time.monotonic() < deadline, f"{orphans} outlive the run that started them"
        time.sleep(0.05)


def test_killed_at_random_moments(run: Tokenizing, tmp_path: Path) -> None:
    assert kill_tokenizing(run, tmp_path / "stores", 4, 1, random.Random(0))["kills"] == 4


def test_killed_with_two_workers(run: Tokenizing, tmp_path: Path) -> None:
    assert kill_tokenizing(run, tmp_path / "stores", 1, 2, random.Random(1), after=gone)["kills"] == 1


def killed_at_step(run: Tokenizing, folder: Path, step: int) -> bool:
    """Whether the run was long enough for that step; the store is checked in either case."""
    process = run.start(folder, before=lambda: die_at(step))
    while (code := exit_code(process)) is None:
        time.sleep(0.002)
    assert code in (0, -signal.SIGKILL), run.log.read_text()[-4000:]
    finish(run.start(folder), run.log)
    run.check(folder)
    return code != 0


@pytest.mark.parametrize("step", [0, 1, 2, 3, 8, 15, 65, 90])
def test_killed_at_a_step(run: Tokenizing, tmp_path: Path, step: int) -> None:
    """Also before the first manifest has its name: what lies there then is no hindrance, and goes."""
    assert killed_at_step(run, tmp_path / "store", step)


@pytest.mark.soak
def test_killed_at_each_step(run: Tokenizing, tmp_path: Path) -> None:
    step = 0
    while killed_at_step(run, tmp_path / f"{step}", step):
        step += 1
    assert step > 90


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_25_random_moments(run: Tokenizing, tmp_path: Path, workers: int) -> None:
    counts = kill_tokenizing(run, tmp_path / "stores", 25, workers, random.Random(workers), after=gone)
    assert counts["kills"] == 25
