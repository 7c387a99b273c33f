"""What a person sees while a corpus is scored: all workers together."""

import os
import sys
import time

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import PreTrainedModel

from tokensieve.causal_head import linear_head
from tokensieve.corpus.store import TokenStore
from tokensieve.planning.hardware import HARDWARE
from tokensieve.reference.workers import Workers, is_committed

_EVERY = 1.0
"""Seconds between two looks at the other workers."""


class ScoringProgress:
    """A bar over the tokens of the corpus, with tokens a second, the share of peak, and the workers.

    The share of peak counts products with weights alone (2 operations a weight and token; attention is left out),
    over what the devices at work could do: of the maker's data sheet for a GPU that `plan` knows, of a short product
    measured here for a CPU.

    Args:
        workers: of the store.
        corpus: the tokens.
        model: the reference; None if no model runs.
        dtype: `float32` or `bfloat16`.
        title: what is going on.
    """

    def __init__(
        self, workers: Workers, corpus: TokenStore, model: PreTrainedModel | None, dtype: str, title: str = "scoring"
    ) -> None:
        self._workers = workers
        self._pending = list(corpus.shards)
        self._committed = 0
        self._total = corpus.tokens
        self._flops = 0.0 if model is None else flops_per_token(model)
        self._peak = None if model is None else device_peak(model.device, dtype)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=int(os.environ.get("RANK", "0")) != 0,
        )
        self._task = self._bar.add_task(title, total=corpus.tokens, note="")

    def __enter__(self) -> "ScoringProgress":
        self._bar.start()
        self._begin, _ = self._look()
        self._started = self._looked = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.show(now=True)
        finally:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line where nobody sees a bar: in a log. A job of days must not be silent there."""
        if not self._bar.console.is_terminal and not self._bar.disable:
            print(text, file=sys.stderr, flush=True)

    def shard_done(self, name: str, tokens: int, seconds: float) -> None:
        """Say what this worker has done."""
        done, _ = self._look()
        rate, share = tokens / max(seconds, 1e-9), done / self._total
        self.say(f"shard {name}: {tokens:,} tokens, {rate:,.0f} tokens/s; all workers: {share:.1%} of the corpus")

    def show(self, *, now: bool = False) -> None:
        """Look at all workers and draw, at most once a second."""
        moment = time.monotonic()
        if not now and moment - self._looked < _EVERY:
            return
        self._looked = moment
        done, at_work = self._look()
        rate = (done - self._begin) / max(moment - self._started, 1e-9)
        self._bar.update(self._task, completed=done, note=self._note(rate, at_work))

    def _note(self, rate: float, at_work: int) -> str:
        note = f"{rate:,.0f} tokens/s"
        if self._peak and at_work:
            note += f", {rate * self._flops / (self._peak * at_work):.0%} of peak"
        return note + (f", {at_work} workers" if at_work > 1 else "")

    def _look(self) -> tuple[int, int]:
        """Tokens done and workers at work."""
        pending, done, at_work = [], 0, 0
        for shard in self._pending:
            if is_committed(self._workers.folder, shard.name):
                self._committed += shard.tokens
            else:
                pending.append(shard)
                tokens = self._workers.under_way(shard.name)
                done += tokens or 0
                at_work += tokens is not None
        self._pending = pending
        return self._committed + done, at_work


def flops_per_token(model: PreTrainedModel) -> float:
    """Operations of the products with weights, for one token: 2 a weight; a table of embeddings is no product."""
    embedding = model.get_input_embeddings().weight
    head = linear_head(model).weight
    backbone = sum(p.numel() for p in model.base_model.parameters() if p.dim() > 1 and p is not embedding)
    return 2.0 * (backbone + head.numel())


def device_peak(device: torch.device, dtype: str) -> float | None:
    """Operations a second that a device can do at most, or None if nothing is known of it."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device).lower().replace(" ", "")
        known = [item for key, item in HARDWARE.items() if key in name]
        return known[0].teraflops * 1e12 if known else None
    if device.type != "cpu":
        return None
    matrix = torch.ones(1024, 1024, dtype=getattr(torch, dtype))
    return 2 * 1024**3 / min(_seconds(matrix) for _ in range(5))


def _seconds(matrix: Tensor) -> float:
    started = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - started
