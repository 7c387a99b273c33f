"""A tokenizing run that can be killed: many small files, so that there are many units and moments."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokensieve.corpus import units
from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.recipe import Source

from .world import difference, exit_code, finish, fork, kill, snapshot

TEXT = "some words of text, again and again: naïve café, 日本語 🙂. "


@contextmanager
def small_units() -> Iterator[None]:
    """Units of one file each: what takes hours with real sizes must take seconds."""
    before = units.UNIT_BYTES
    units.UNIT_BYTES = 1
    try:
        yield
    finally:
        units.UNIT_BYTES = before


class Tokenizing:
    """One tokenizing run over a dozen files.

    Args:
        folder: for text and stores.
    """

    def __init__(self, folder: Path, files: int = 12) -> None:
        draw = random.Random(0)
        self.text = folder / "text"
        self.text.mkdir(parents=True)
        for i in range(files):
            lines = [{"text": TEXT * draw.randrange(1, 40) + str(i)} for _ in range(60)]
            (self.text / f"{i:02d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.tokenizer = folder / "tokenizer"
        train_bpe([TEXT], 300).save_pretrained(self.tokenizer)
        self.log = folder / "log"
        started = time.monotonic()
        # In a process of its own: what a tokenizer has used here does not survive a fork.
        finish(self.start(folder / "undisturbed"), self.log)
        self.seconds = time.monotonic() - started
        self.undisturbed = snapshot(folder / "undisturbed")

    def start(self, folder: Path, workers: int = 1, before: Callable[[], Any] | None = None) -> int:
        """In a process of its own; `before` is done first in it. Returns its id."""

        def work() -> None:
            if before is not None:
                before()
            with small_units():
                tokenize_sources(
                    [Source(path=str(self.text))],
                    folder,
                    self.tokenizer,
                    shard_tokens=20_000,
                    workers=workers,
                    max_document_mb=1,
                )

        return fork(work, self.log)

    def check(self, folder: Path) -> None:
        """Byte for byte the undisturbed one, and nothing is left over."""
        assert difference(snapshot(folder), self.undisturbed) == []


def children(process: int) -> list[int]:
    """Processes that a process started."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it has ended
            if int(fields[1]) == process:
                found.append(int(entry))
    return found


def running(process: int) -> bool:
    """Whether a process that is no child of ours runs."""
    try:
        return Path("/proc", str(process), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill_tokenizing(
    run: Tokenizing,
    folder: Path,
    kills: int,
    workers: int,
    draw: random.Random,
    deadline: float = float("inf"),
    after: Callable[[list[int]], None] = lambda orphans: None,
) -> dict[str, int]:
    """Kill at random moments and start again until so many were killed, then let it finish and check the store.

    Args:
        run: what is run.
        folder: for the stores.
        kills: how many.
        workers: tokenizing processes.
        draw: the moments.
        deadline: of `time.monotonic()`: stop killing then.
        after: called with the killed process's own processes.

    Returns:
        Counts: `kills`, `stores`.
    """
    killed = stores = 0
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        store = folder / f"{stores}"
        while killed < kills and time.monotonic() < deadline:
            process = run.start(store, workers)
            if workers > 1:
                _wait_for_workers(process, store)
            time.sleep(draw.uniform(0, run.seconds))
            code = exit_code(process)
            if code is not None:
                assert code == 0, run.log.read_text()[-4000:]
                break
            own = children(process)
            killed += kill(process)
            after(own)
        finish(run.start(store), run.log)  # with one worker, which starts at once and goes on all the same
        run.check(store)
        stores += 1
        if killed >= kills or time.monotonic() >= deadline:
            return {"kills": killed, "stores": stores}


def _wait_for_workers(process: int, store: Path) -> None:
    """Until its processes, which take seconds to start, have written something new."""

    def newest() -> int:
        try:
            return max((path.stat().st_mtime_ns for path in store.glob("units/*")), default=0)
        except FileNotFoundError:
            return -1  # the units are being removed: it is about to end

    before, deadline = newest(), time.monotonic() + 60
    while newest() == before and time.monotonic() < deadline and running(process):
        time.sleep(0.01)
