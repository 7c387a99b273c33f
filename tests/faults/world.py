"""What faults are injected into: a small corpus, a tiny reference, and processes that can be killed for real.

Processes are forked from this one, where everything is imported already, so that twenty-five kills take seconds.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import ScoreStore
from tokensieve.stage import write_manifest
from tokensieve.storage.checksums import seal_shard

VOCABULARY = 61
CONTEXT = ContextSection(length=16)
SECTION = ScoreSection(entropy=True, correct=True, batch_size=2)


def make_corpus(
    folder: Path,
    shards: int = 24,
    documents: int = 8,
    seed: int = 0,
    *,
    dtype: str = "<u2",
    vocabulary: int = VOCABULARY,
    ids: Sequence[Sequence[int]] | None = None,
) -> TokenStore:
    """A token store of random documents with regions, each ending with 0.

    Args:
        folder: is made.
        shards: how many.
        documents: of each shard.
        seed: of the documents.
        dtype: of the stored ids.
        vocabulary: ids below this.
        ids: the tokens of each shard, one document each, instead of random ones.
    """
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    described = []
    for i in range(shards if ids is None else len(ids)):
        if ids is None:
            lengths = draw.integers(2, 40, documents)
            tokens = draw.integers(1, vocabulary, int(lengths.sum()))
            ends = np.cumsum(lengths)
        else:
            tokens, ends = np.array(ids[i]), np.array([len(ids[i])])
        tokens[ends - 1] = 0
        tokens.astype(dtype).tofile(folder / f"{i:05d}.ds")
        ends.astype("<u8").tofile(folder / f"{i:05d}.ds.index")
        (np.arange(len(tokens)) % 3).astype("u1").tofile(folder / f"{i:05d}.region.u8")
        digest = seal_shard(folder, f"{i:05d}", [".ds", ".ds.index", ".region.u8"])
        shard = {"name": f"{i:05d}", "source": 0, "tokens": len(tokens), "documents": len(ends), "digest": digest}
        described.append(shard)
    size = {key: sum(int(shard[key]) for shard in described) for key in ("tokens", "documents")}
    size["bytes"] = 4 * size["tokens"]
    outputs = {
        "token_size": np.dtype(dtype).itemsize,
        **size,
        "eos_token_id": 0,
        "vocab_size": vocabulary,
        "tokenizer": "made by hand",
        "regions": ["other", "one", "two"],
        "sources": [{"name": "made", "weight": None, **size}],
        "shards": described,
    }
    write_manifest(folder / "corpus.json", {"inputs": {}, "finished": True, "outputs": outputs})
    return TokenStore(folder)


def make_reference(seed: int = 0, vocabulary: int = VOCABULARY, scale: float = 5.0) -> PreTrainedModel:
    """A tiny Llama whose losses differ from token to token."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.02 * scale,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything that lies in a folder, by name: a file's bytes, None for a folder; manifests without their times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = None
        elif path.name in ("scores.json", "corpus.json"):
            manifest = json.loads(path.read_text())
            found[name] = {key: value for key, value in manifest.items() if key not in ("seconds", "checksum")}
        else:
            found[name] = path.read_bytes()
    return found


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names that are in one snapshot only, or differ; short enough for a failed assertion."""
    return [
        f"{name}: {'extra' if name not in wanted else 'missing' if name not in found else 'differs'}"
        for name in sorted({*found, *wanted})
        if name not in found or name not in wanted or found[name] != wanted[name]
    ]


def fork(work: Callable[[], Any], log: Path) -> int:
    """Do `work` in a process of its own; what it raises goes to `log`. Returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc(file=file)
    finally:
        os._exit(code)  # nothing of pytest's own may run here


def finish(process: int, log: Path, seconds: float = 120) -> None:
    """Wait for a forked process, which must end well."""
    deadline = time.monotonic() + seconds
    while (code := exit_code(process)) is None:
        assert time.monotonic() < deadline, f"hangs: {log.read_text()[-2000:]}"
        time.sleep(0.005)
    assert code == 0, log.read_text()[-4000:]


def exit_code(process: int) -> int | None:
    """How a forked process ended (minus a signal), or None while it runs. Ask until it has ended, and no more."""
    ended, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def kill(process: int) -> bool:
    """SIGKILL; whether it was still running."""
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


_STEPS = ("fsync", "rename", "link", "replace", "mkdir", "unlink", "rmdir", "open")
"""Calls that change what lies on the disk, or are about to."""


def die_at(step: int) -> None:
    """SIGKILL this process at its so-many-th change of the disk."""
    left = step

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **more)

        return call

    for name in _STEPS:
        setattr(os, name, counted(getattr(os, name)))
    shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]


class Scoring:
    """One scoring run that can be killed and started again.

    Args:
        folder: for the stores.
        shards: of the corpus.
    """

    def __init__(self, folder: Path, shards: int = 24) -> None:
        self.corpus = make_corpus(folder / "corpus", shards)
        self.model = make_reference()
        self.log = folder / "log"
        started = time.monotonic()
        self.undisturbed = snapshot(self.score(folder / "undisturbed").folder)
        self.seconds = time.monotonic() - started

    def score(self, folder: Path, worker: tuple[int, int] = (0, 1)) -> ScoreStore:
        """Here and now."""
        return score_corpus(SECTION, CONTEXT, self.corpus, self.model, folder, worker)

    def start(self, folder: Path, worker: tuple[int, int] = (0, 1), before: Callable[[], Any] | None = None) -> int:
        """In a process of its own; `before` is done first in it. Returns its id."""

        def work() -> None:
            if before is not None:
                before()
            self.score(folder, worker)

        return fork(work, self.log)

    def check(self, folder: Path) -> None:
        """The store is byte for byte the undisturbed one, and nothing is left over."""
        assert difference(snapshot(folder), self.undisturbed) == []


def kill_at_random(
    scoring: Scoring, folder: Path, kills: int, workers: int, draw: random.Random, deadline: float = float("inf")
) -> dict[str, int]:
    """Kill workers at random moments and start them again, until so many were killed; then let them finish.

    A store that is finished before that is checked, and another one begun.

    Args:
        scoring: what is run.
        folder: for the stores.
        kills: how many.
        workers: at once.
        draw: the moments.
        deadline: of `time.monotonic()`: stop killing then.

    Returns:
        Counts: `kills`, `stores`.
    """
    killed = stores = 0
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        store = folder / f"{stores}"
        processes: dict[int, int] = {}
        while killed < kills and time.monotonic() < deadline:
            for number in range(workers):
                if number not in processes:
                    processes[number] = scoring.start(store, (number, workers))
            time.sleep(draw.uniform(0, scoring.seconds / 2))
            victim = draw.choice(sorted(processes))
            code = exit_code(processes[victim])
            if code is None:
                killed += kill(processes.pop(victim))
            else:
                assert code == 0, scoring.log.read_text()[-4000:]
                del processes[victim]
                break
        for process in processes.values():
            finish(process, scoring.log)
        for number in range(workers):
            finish(scoring.start(store, (number, workers)), scoring.log)
        scoring.check(store)
        stores += 1
        if killed >= kills or time.monotonic() >= deadline:
            return {"kills": killed, "stores": stores}
