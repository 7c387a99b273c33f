"""Half an hour of everything: kills, restarts and corruption at random, until the time is over.

`TOKENSIEVE_SOAK_MINUTES` (30) and `TOKENSIEVE_SOAK_SEED` (0) may be set. The counts are printed as one line of JSON,
also written to `TOKENSIEVE_SOAK_RESULT` if that names a file.
"""

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from .damage import Stores, corrupt
from .tokenizing import Tokenizing, kill_tokenizing
from .training import Training, kill_training
from .world import Scoring, kill_at_random

MINUTES = float(os.environ.get("TOKENSIEVE_SOAK_MINUTES", "30"))


@pytest.mark.soak
def test_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("TOKENSIEVE_SOAK_SEED", "0"))
    draw = random.Random(seed)
    started = time.monotonic()
    deadline = started + 60 * MINUTES
    scoring, tokenizing = Scoring(tmp_path / "s"), Tokenizing(tmp_path / "t")
    (tmp_path / "m").mkdir()
    training, stores = Training(tmp_path / "m"), Stores(tmp_path / "d")
    counts: Counter[str] = Counter()

    def add(what: str, found: dict[str, int]) -> None:
        counts.update({f"{what}_{key}": value for key, value in found.items()})

    def score(workers: int) -> None:
        add(f"scoring_{workers}", kill_at_random(scoring, tmp_path / "r", 25, workers, draw, deadline))

    def tokenize(workers: int) -> None:
        kills = 25 if workers == 1 else 5  # two processes take seconds to start
        add(f"tokenizing_{workers}", kill_tokenizing(tokenizing, tmp_path / "r", kills, workers, draw, deadline))

    def train() -> None:
        add("training", kill_training(training, f"r{counts['training_kills']}", 5, draw, deadline))

    def damage() -> None:
        for _ in range(250):
            corrupt(stores, draw)
        counts["corruptions"] += 250

    works: list[Callable[[], None]] = [
        lambda: score(1),
        lambda: score(2),
        lambda: score(3),
        lambda: tokenize(1),
        lambda: tokenize(2),
        train,
        damage,
    ]
    while time.monotonic() < deadline:
        counts["rounds"] += 1
        for work in works:
            if time.monotonic() < deadline:
                work()
                shutil.rmtree(tmp_path / "r", ignore_errors=True)
    assert stores.damage() == []
    result = {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "seed": seed,
        "processor_cores": os.cpu_count(),
        **dict(sorted(counts.items())),
    }
    line = json.dumps(result)
    if target := os.environ.get("TOKENSIEVE_SOAK_RESULT"):
        Path(target).write_text(line + "\n")
    with capsys.disabled():
        print(f"\n{line}")
