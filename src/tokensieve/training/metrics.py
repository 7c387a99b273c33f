"""The numbers of a training run: one callback, one `metrics.jsonl`, and the same numbers in every tracker.

Losses on all tokens, on selected and on unselected ones and on target text are kept apart, because the mean
over selected tokens is higher by construction. Counters survive a resume: they are saved inside each
checkpoint, in a file that also marks the checkpoint as complete.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import TrainerCallback

from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.evaluation.target_loss import Targets, pooled
from tokensieve.evaluation.window_losses import window_losses
from tokensieve.selective import SelectiveHandle
from tokensieve.stage import read_json, write_json
from tokensieve.stats import log_entries
from tokensieve.training.keep_rates import KeepRates

CHECKPOINT_STATE = "tokensieve.json"
DOCUMENTS = "documents.json"
"""Sum of losses and tokens of each held-out document, at the end of training."""
PROBE = "probe"
"""Folder of `STEP.npy`: the loss of each token of the probe after that step."""


class MetricsCallback(TrainerCallback):
    """Adds our numbers to the Trainer's logs and writes them to `metrics.jsonl`.

    Insert it *before* the trackers' callbacks, so that they see the same numbers.

    Args:
        handle: the patched model.
        targets: evaluation sets, or None.
        tokens_per_step: tokens seen by one optimizer step.
        evaluate_at: steps after which the targets are evaluated; 0 is before the first.
        path: the metrics file; `documents.json` and `probe/` go beside it.
        kept: counts what was kept of each kind of token.
        general: held-out text of other kinds, or None; evaluated along with the targets.
        probe: held-out windows of the corpus: the loss of each of their tokens is stored at each evaluation.
    """

    def __init__(
        self,
        handle: SelectiveHandle,
        targets: Targets | None,
        tokens_per_step: int,
        evaluate_at: frozenset[int],
        path: Path,
        kept: KeepRates | None = None,
        general: Targets | None = None,
        probe: Windows | None = None,
    ) -> None:
        self.handle = handle
        self.targets = targets
        self.tokens_per_step = tokens_per_step
        self.evaluate_at = evaluate_at if targets is not None else frozenset()
        self.path = path
        self.tokens_selected = 0
        self.candidates = 0
        self.seconds = 0.0
        self.kept = kept
        self.general = general
        self.probe = probe
        handle.keep_selection = kept is not None
        self.last: dict[str, Any] | None = None
        """The last line of metrics.jsonl, on every rank; None if this process logged none."""
        self._evaluated: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Fresh: measure the model before its first step. Resumed: take the counters up where they were saved."""
        if state.global_step:
            saved = read_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / CHECKPOINT_STATE)
            self.tokens_selected, self.seconds = saved["tokens_selected"], saved["seconds"]
            self.candidates = saved["candidates"]
            if state.is_world_process_zero:  # they are sums over ranks: one rank carries them on
                if saved["sums"] is not None:
                    sums = torch.tensor(saved["sums"], dtype=torch.float64)
                    self.handle.stats.sums = sums.to(self.handle.model.device)
                if self.kept is not None:
                    self.kept.counts = np.array(saved["kept"], dtype=np.int64)
                _drop_lines_after(self.path, state.global_step)
            self._started = time.monotonic() - self.seconds
            return
        self._started = time.monotonic()
        if 0 in self.evaluate_at:
            self._evaluate(state)
            self._write(state, {"step": 0, "tokens_seen": 0, "tokens_selected": 0, **self._evaluated})
            self._evaluated = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the policy its step; scores that need no live loss skip it, except on steps that are logged."""
        self.handle.step = state.global_step
        step = state.global_step + 1
        first = args.logging_first_step and step == 1
        last = step == state.max_steps
        self.handle.measure = first or last or step % state.logging_steps == 0 or step in self.evaluate_at

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each micro-step but the last of a step."""
        self._count_kept()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate when it is time; the numbers go out with the log line of the same step."""
        self._count_kept()
        if state.global_step in self.evaluate_at:
            self._evaluate(state)
            control.should_log = True
        if state.global_step == state.max_steps:
            control.should_log = True  # the last sums must be counted too

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add our numbers to `logs` in place, and write the line."""
        logs: dict[str, Any] = kwargs["logs"]
        if "loss" not in logs:
            return  # the Trainer's closing summary
        sums = self.handle.stats.take(self.handle.model.device)
        self.tokens_selected += int(sums["selected"])
        self.candidates += int(sums["valid"])
        if sums["selected"] == 0:
            raise UserError(
                f"{self.path.parent.name}: no token was selected up to step {state.global_step} ({sums['valid']:.0f} "
                f"candidates since the last log); raise the ratio, or score the corpus again"
            )
        logs["tokens_seen"] = state.global_step * self.tokens_per_step
        logs["tokens_selected"] = self.tokens_selected
        logs.update(log_entries(sums))
        logs["seconds"] = round(time.monotonic() - self._started, 3)
        logs.update(self._evaluated)
        self._evaluated = {}
        # The Trainer's own "loss" is a running mean that starts anew after a resume; loss_selected is exact.
        self._write(state, {"step": state.global_step, **{key: logs[key] for key in logs if key != "loss"}})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the counters inside the checkpoint, last: a checkpoint with this file is a complete one."""
        stats = self.handle.stats.sums
        sums = None if stats is None else self._summed(stats).tolist()
        kept = None if self.kept is None else self._summed(torch.from_numpy(self.kept.counts)).tolist()
        if state.is_world_process_zero:
            write_json(
                Path(args.output_dir) / f"checkpoint-{state.global_step}" / CHECKPOINT_STATE,
                {
                    "tokens_selected": self.tokens_selected,
                    "candidates": self.candidates,
                    "seconds": time.monotonic() - self._started,
                    "sums": sums,
                    "kept": kept,
                },
            )

    def keep_rates(self) -> dict[str, list[dict[str, Any]]] | None:
        """Candidates seen and kept so far, by grouping and group (see `KeepRates.plain`). Every rank must call."""
        if self.kept is None:
            return None
        return self.kept.plain(self._summed(torch.from_numpy(self.kept.counts)).tolist())

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        return _summed_over_ranks(values, self.handle.model.device)

    def _evaluate(self, state: Any) -> None:
        assert self.targets is not None
        documents: dict[str, Any] = {}
        self._evaluated = {}
        for kind, texts in (("target", self.targets), ("general", self.general)):
            if texts is None:
                continue
            losses = texts.evaluate(self.handle)
            whole = pooled(losses)
            self._evaluated |= {f"{kind}_loss/{name}": item.loss for name, item in losses.items()}
            self._evaluated |= {f"{kind}_bits_per_byte/{name}": item.bits_per_byte for name, item in losses.items()}
            self._evaluated |= {f"{kind}_loss": whole.loss, f"{kind}_bits_per_byte": whole.bits_per_byte}
            documents |= {name: item.by_document for name, item in losses.items()}
        probe = None if self.probe is None else self._probe_losses()
        if not state.is_world_process_zero:
            return
        if state.global_step == state.max_steps:
            found = {name: {"nats": sums[0].tolist(), "tokens": sums[1].tolist()} for name, sums in documents.items()}
            write_json(self.path.with_name(DOCUMENTS), found)
        if probe is not None:
            folder = self.path.parent / PROBE
            folder.mkdir(exist_ok=True)
            temporary = folder / f"{state.global_step}.tmp"
            with temporary.open("wb") as file:
                np.save(file, probe)
            os.replace(temporary, folder / f"{state.global_step}.npy")

    def _probe_losses(self) -> np.ndarray:
        """The loss of each token of the probe, float32 [windows, T]; NaN where there is no label."""
        assert self.probe is not None and self.targets is not None
        return window_losses(self.handle, self.probe, self.targets.batch_size)[0]

    def _count_kept(self) -> None:
        if self.kept is not None and self.handle.last_selection is not None:
            self.kept.add(*self.handle.last_selection)

    def _write(self, state: Any, line: dict[str, Any]) -> None:
        self.last = line
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _summed_over_ranks(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = values.to(device, copy=True)
        dist.all_reduce(values)
    return values


def _drop_lines_after(path: Path, step: int) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror}); remove {path.parent} and train again") from error
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)
