"""Workers in each other's way: without locks, with unequal bytes, and with clocks that jump."""

import errno
import fcntl
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokensieve.reference.scorer import Scorer
from tokensieve.reference.store import ScoreStore

from .world import CONTEXT, Scoring, finish, kill, snapshot


def no_locks() -> None:
    """As a network file system may answer."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = refuse


def no_locks_nor_links() -> None:
    no_locks()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    os.link = refuse


def other_bytes() -> None:
    """Scores as of another machine: the last bit differs."""
    score = Scorer.score_shard

    def differs(self: Scorer, *arguments: Any) -> dict[str, np.ndarray]:
        values = score(self, *arguments)
        live = np.isfinite(values["loss"]) & (values["loss"] > 0.01)
        live[np.arange(len(live)) % 20 != 3] = False  # few enough for the gate
        values["loss"][live] = np.nextafter(values["loss"][live], np.float16(0))
        return values

    Scorer.score_shard = differs  # type: ignore[method-assign,assignment]


def both(*steps: Callable[[], None]) -> Callable[[], None]:
    return lambda: [step() for step in steps] and None  # type: ignore[func-returns-value]


def slow_to_look() -> None:
    """While one worker looks for files to clear away, the other may commit them."""
    glob, draw = Path.glob, random.Random(os.getpid())

    def late(self: Path, pattern: str) -> Any:
        time.sleep(draw.uniform(0, 0.02))
        return glob(self, pattern)

    Path.glob = late  # type: ignore[method-assign,assignment]


def without_locks_folder(folder: Path) -> dict[str, Any]:
    """Without locks nobody is sure to be the last: the folder of locks, and what was thrown away, may stay."""
    return {name: data for name, data in snapshot(folder).items() if not name.startswith(".")}


@pytest.mark.parametrize("broken", [no_locks, no_locks_nor_links])
@pytest.mark.parametrize("attempt", range(2))
def test_two_workers_do_every_shard_at_once_and_the_first_one_wins(
    scoring: Scoring, place: Path, broken: Callable[[], None], attempt: int
) -> None:
    """Both begin with the first shard and go on in step; one has other bytes."""
    processes = [
        scoring.start(place, before=both(broken, slow_to_look)),
        scoring.start(place, before=both(broken, slow_to_look, other_bytes)),
    ]
    for process in processes:
        finish(process, scoring.log)
    scores = ScoreStore(place, scoring.corpus, CONTEXT)
    assert list(scores.verify()) == []
    names = {name for name in without_locks_folder(place)}
    assert names == set(scoring.undisturbed)


def test_the_same_bytes_without_locks(scoring: Scoring, place: Path) -> None:
    processes = [scoring.start(place, (number, 3), before=no_locks) for number in range(3)]
    time.sleep(scoring.seconds / 3)
    kill(processes.pop())
    for process in processes:
        finish(process, scoring.log)
    assert without_locks_folder(place) == scoring.undisturbed


def jumping(seed: int) -> Callable[[], None]:
    """Clocks that jump by days, forwards and backwards."""

    def patch() -> None:
        draw = random.Random(seed)
        for name in ("time", "monotonic", "perf_counter"):
            original = getattr(time, name)
            setattr(time, name, lambda original=original: original() + draw.uniform(-1e6, 1e6))

    return patch


def test_clocks_that_jump_and_files_from_the_future(scoring: Scoring, place: Path) -> None:
    for attempt in range(3):
        process = scoring.start(place, before=jumping(attempt))
        time.sleep(scoring.seconds / 4)
        kill(process)
        for path in place.rglob("*") if place.exists() else ():
            os.utime(path, (4e9, 4e9) if attempt % 2 else (1, 1))
    processes = [scoring.start(place, (number, 2), before=jumping(9 + number)) for number in range(2)]
    for process in processes:
        finish(process, scoring.log)
    scoring.check(place)
