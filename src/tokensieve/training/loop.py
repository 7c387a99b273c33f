"""One training run: the stock transformers Trainer over our windows, patched loss, metrics, exact resume.

The reference and all arms go through this one function; they differ in policy, text and name alone. An
interrupted run continues from its last complete checkpoint: on one process the weights come out bit for bit
as if it had never stopped, because order, random selection and evaluation are pure functions of seed and step.
"""

import contextlib
import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, Trainer

from tokensieve.corpus.windows import Windows, identity
from tokensieve.errors import UserError
from tokensieve.evaluation.target_loss import Targets
from tokensieve.online import attach_reference
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import NonFiniteLossError, NonFiniteReferenceError, OwnReferenceError, make_selective
from tokensieve.stage import is_main_process, read_json
from tokensieve.training.arguments import keeps_checkpoints, training_arguments
from tokensieve.training.keep_rates import KeepRates
from tokensieve.training.metrics import CHECKPOINT_STATE, MetricsCallback
from tokensieve.training.progress import ProgressLines
from tokensieve.training.saving import SaveModels

METRICS = "metrics.jsonl"
RESUMABLE = f"checkpoint-*/{CHECKPOINT_STATE}"


@dataclass(frozen=True)
class Run:
    """What one training run is made of."""

    folder: Path
    """Receives the model, metrics.jsonl and, while running, checkpoint-*/."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    windows: Windows
    """One sample for each row of each step, in training order."""
    steps: int
    tokens_per_step: int
    policy: SelectionPolicy
    options: Mapping[str, Any]
    """The recipe's `trainer:`."""
    place: str
    """Where the options stand in the recipe, for messages."""
    targets: Targets | None
    evaluations: int
    seed: int
    classes: Mapping[str, tuple[Sequence[str], np.ndarray]] | None = None
    """Groupings of token ids (name -> names of the classes, class of each id), to count what is kept of each; None:
    nothing is counted."""
    general: Targets | None = None
    """Held-out text of other kinds."""
    probe: Windows | None = None
    """Held-out windows of the corpus, whose token losses are stored at each evaluation."""
    reference: PreTrainedModel | None = None
    """Online mode: computes the policy's reference columns; the windows bring none."""
    reference_autocast: torch.dtype | None = None
    """Autocast type of the reference's forward."""
    name: str | None = None
    """What messages call it; default: the folder's name."""
    save_at: Mapping[int, int] = field(default_factory=dict)
    """Optimizer step -> tokens seen then: where the model is saved along the way."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or self.folder.name


def train(run: Run) -> dict[str, Any]:
    """Train, save the model, return the final numbers.

    Returns:
        `tokens_seen`, `tokens_selected`, `ratio_kept`, `seconds`, `targets` (name -> loss, bits_per_byte) and
        `keep_rates` (or None); with general text `general` in the form of `targets`.

    Raises:
        UserError: options that cannot be, a NaN or infinite loss (with the step and the documents), or a reference
            that is the model itself, cannot run beside it, or gives no finite loss.
    """
    args = training_arguments(run.options, place=run.place, output=run.folder, steps=run.steps, seed=run.seed)
    try:
        handle = make_selective(run.model, run.policy)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{run.place}: this model cannot be trained selectively: {error}") from error
    if run.reference is not None:
        try:
            vocabulary = run.windows.store.vocab_size
            attach_reference(handle, run.reference, autocast=run.reference_autocast, vocabulary=vocabulary)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{run.label}: the reference cannot run beside the student: {error}") from error
    evaluate_at = frozenset(round(run.steps * i / run.evaluations) for i in range(run.evaluations + 1))
    kept = None if run.classes is None else KeepRates(run.windows.store, run.windows.length, run.classes)
    metrics = MetricsCallback(
        handle, run.targets, run.tokens_per_step, evaluate_at, run.folder / METRICS, kept, run.general, run.probe
    )
    try:
        trainer = Trainer(
            model=run.model,
            args=args,
            train_dataset=run.windows,
            data_collator=identity,  # type: ignore[arg-type]
        )
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{run.place}: {' '.join(str(error).split())}") from error
    # The patched forward takes num_items_in_batch, whatever the class says of its own (Gemma 4's says no).
    trainer.model_accepts_loss_kwargs = True
    # First, so that the trackers' callbacks find our numbers in the logs.
    trainer.callback_handler.callbacks.insert(0, metrics)
    trainer.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
    trainer.add_callback(SaveModels(trainer, run.tokenizer, run.folder, run.save_at))
    progress = ProgressLines(run.label)
    if not args.disable_tqdm:
        trainer.add_callback(progress)
    resume = _last_complete(run.folder)
    if resume is None and is_main_process():
        (run.folder / METRICS).unlink(missing_ok=True)
    try:
        with _full_disk_is_the_users(run.folder):
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
            handle.remove()
            _save(run, trainer)
    except NonFiniteLossError as error:
        where = _documents(run.windows, error)
        raise UserError(
            f"{run.label}: the loss became NaN or infinite in step {trainer.state.global_step + 1} of "
            f"{run.steps}, at {where}; lower the learning rate, or look at these documents"
        ) from error
    except (OwnReferenceError, NonFiniteReferenceError) as error:
        raise UserError(f"{run.label}: {error}") from error
    finally:
        progress.progress.stop()
    numbers = _final_numbers(run, metrics)
    if not math.isfinite(numbers.get("target_loss", 0.0)):
        # The last update diverged: no training step came after it to notice.
        raise UserError(
            f"{run.label}: the last target loss is {numbers['target_loss']}; lower {run.place}.learning_rate"
        )
    return numbers


def _save(run: Run, trainer: Trainer) -> None:
    run.model.config.use_cache = True  # the Trainer turns it off; generation wants it
    trainer.save_model(str(run.folder))
    if trainer.is_world_process_zero():
        # A pickle, and of no use outside this run.
        (run.folder / "training_args.bin").unlink(missing_ok=True)
        run.tokenizer.save_pretrained(run.folder)


def remove_checkpoints(folder: Path, options: Mapping[str, Any]) -> None:
    """Remove checkpoints that were made for resuming only; those the user asked for stay."""
    if is_main_process() and not keeps_checkpoints(options):
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


@contextlib.contextmanager
def _full_disk_is_the_users(folder: Path) -> Iterator[None]:
    """A full disk is one line, and no half-written checkpoint stays.

    Saving goes through three libraries, each of which reports it in its own way.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_full(error, folder):
            raise
        _last_complete(folder)
        raise UserError(f"{folder}: No space left on device; free space or choose another `out`") from error


def _is_disk_full(error: BaseException | None, folder: Path) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    # torch's zip writer and safetensors do not pass the number on; what they leave behind fills the disk.
    return shutil.disk_usage(folder).free < 2**20


def _final_numbers(run: Run, metrics: MetricsCallback) -> dict[str, Any]:
    last = metrics.last or read_metrics(run.folder)[-1]
    names = run.targets.stores if run.targets is not None else {}
    numbers = {
        "tokens_seen": last["tokens_seen"],
        "tokens_selected": last["tokens_selected"],
        "ratio_kept": last["tokens_selected"] / max(metrics.candidates, 1),
        "seconds": last["seconds"],
        "targets": {
            name: {"loss": last[f"target_loss/{name}"], "bits_per_byte": last[f"target_bits_per_byte/{name}"]}
            for name in names
        },
        "keep_rates": metrics.keep_rates(),
    }
    if run.general is not None:
        numbers["general"] = {
            name: {"loss": last[f"general_loss/{name}"], "bits_per_byte": last[f"general_bits_per_byte/{name}"]}
            for name in run.general.stores
        }
        numbers["general_loss"] = last["general_loss"]
    if run.targets is not None:
        numbers |= {"target_loss": last["target_loss"], "target_bits_per_byte": last["target_bits_per_byte"]}
    return numbers


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, oldest first.

    Raises:
        UserError: unreadable or damaged.
    """
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); remove its folder and train again") from error


def _last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / CHECKPOINT_STATE).exists():
            read_json(checkpoint / CHECKPOINT_STATE)
            complete.append((int(checkpoint.name.split("-")[1]), checkpoint))
        elif is_main_process():
            shutil.rmtree(checkpoint)
    return max(complete)[1] if complete else None


def _documents(windows: Windows, error: NonFiniteLossError) -> str:
    if error.token_index is None:
        return "an unknown place (the batch has no token_index)"
    places = []
    for row in error.token_index[:4].tolist():
        first, last = (windows.store.locate(position % windows.store.tokens) for position in (row[0], row[-1]))
        span = f"{first.document}" if first.document == last.document else f"{first.document}-{last.document}"
        places.append(f"{first.source} shard {first.shard} document {span}")
    return "; ".join(places)
