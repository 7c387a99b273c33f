"""The streaming passes: every checkpoint over the same held-out tokens, one after the other.

One float16 file a model, written whole or not at all: an interrupted measurement goes on with the next model.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel

from tokensieve.corpus.windows import IGNORED
from tokensieve.dynamics.checkpoints import Found, find_checkpoints
from tokensieve.dynamics.text import Text, held_out_text, overlap_of
from tokensieve.dynamics.trajectories import Checkpoint, Measured, Trajectory
from tokensieve.errors import UserError
from tokensieve.evaluation.tasks import evaluate_tasks
from tokensieve.evaluation.window_losses import as_stored, window_losses
from tokensieve.recipe import Recipe, dump
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.stage import Stage, first_difference, read_json, read_manifest, write_json
from tokensieve.training.arms import needs_reference, open_reference
from tokensieve.training.reference import REFERENCE_MANIFEST, reference_numbers
from tokensieve.training.setup import load, on_device, run_tokenizer

LOSSES_MANIFEST = "losses.json"
LOSS_SUFFIX = ".loss.f16"
TASKS_SUFFIX = ".tasks.json"
START, REFERENCE = "start", "reference"
"""Files of the models that are no checkpoints of an arm; an arm's lie in a folder of its name."""
_RESUMABLE = f"**/*{LOSS_SUFFIX}"
_ROWS = 256
"""Windows that are looked at together."""


@dataclass(frozen=True)
class _Job:
    """One model to measure."""

    file: str
    """Where its numbers go, without suffix."""
    what: str
    """What progress and messages call it."""
    digest: str
    open: Callable[[], PreTrainedModel]
    tasks: bool


def measure(recipe: Recipe) -> tuple[Measured, Text, dict[str, list[float]], list[str]]:
    """Measure what is not measured yet, and open all of it.

    Returns:
        The losses; their text; arm -> mean accuracy over the recipe's tasks at each checkpoint (empty without tasks);
        and warnings.

    Raises:
        UserError: no checkpoints, no text, a model that does not fit, or losses of another text or other models.
    """
    found = find_checkpoints(recipe)
    text = held_out_text(recipe, found)
    jobs = _jobs(recipe, found.arms)
    folder = recipe.folder / recipe.dynamics.name / "losses"
    inputs = {
        **text.identity(recipe),
        "dtype": [recipe.model.dtype, recipe.score.dtype],
        "models": {job.file: job.digest for job in jobs},
        "tasks": [dump(task) for task in recipe.tasks],
        "seed": recipe.seed,
    }
    _refuse_others(folder, inputs)
    stage = Stage(folder, LOSSES_MANIFEST, inputs)
    if not stage.finished:
        with stage.running(resumable=_RESUMABLE):
            _measure_all(recipe, jobs, text, folder)
            digests = {job.file: _digest(_column(folder, job.file, text)) for job in jobs}
            stage.finish(digests=digests, warnings=overlap_of(recipe, text))
    columns = {job.file: _column(folder, job.file, text) for job in jobs}
    for file, column in columns.items():
        if _digest(column) != stage.outputs["digests"][file]:
            raise UserError(
                f"{folder / file}{LOSS_SUFFIX}: damaged (its bytes differ from their checksum); remove {folder} and "
                f"run `tokensieve dynamics` again"
            )
    runs = {
        arm: Trajectory(
            tuple(item.checkpoint for item in items), tuple(columns[_file(arm, i)] for i in range(len(items)))
        )
        for arm, items in found.arms.items()
    }
    with_tasks = found.arms if recipe.tasks else {}
    accuracies = {arm: _accuracies(folder, arm, len(items)) for arm, items in with_tasks.items()}
    warnings = [*found.warnings, *text.warnings, *stage.outputs["warnings"]]
    measured = Measured(text.windows, runs, columns.get(START), columns.get(REFERENCE))
    return measured, text, accuracies, warnings


def _refuse_others(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Losses of other models or another text: nothing has to be trained again, another name is enough."""
    path = folder / LOSSES_MANIFEST
    different = path.exists() and first_difference(read_manifest(path)["inputs"], json.loads(json.dumps(inputs)))
    if different:
        key, there, here = different
        raise UserError(
            f"{path}: measured with another {key} ({there!r:.60} there, {here!r:.60} here); set dynamics.name=ANOTHER "
            f"to keep both, or remove {folder}"
        )


def _jobs(recipe: Recipe, found: Mapping[str, list[Found]]) -> list[_Job]:
    jobs = [
        _Job(
            _file(arm, i),
            f"{arm}, {item.checkpoint.name}",
            item.digest,
            lambda item=item: item.open(recipe),  # type: ignore[misc]
            bool(recipe.tasks),
        )
        for arm, items in found.items()
        for i, item in enumerate(items)
    ]
    if not recipe.dynamics.checkpoints:
        name = recipe.model.name
        start = str(dump(recipe.model)) if name is None else Found(Checkpoint(name, 0), name).digest
        jobs.append(_Job(START, "the untouched start", start, lambda: load(recipe, recipe.model), False))
    if needs_reference(recipe) and not recipe.score.carry_over:
        there = (recipe.reference_folder / REFERENCE_MANIFEST).exists()
        if there or not recipe.dynamics.checkpoints:
            digest = reference_numbers(recipe)["digest"]
            jobs.append(_Job(REFERENCE, "the reference", digest, lambda: open_reference(recipe), False))
    return jobs


def _file(arm: str, i: int) -> str:
    return f"{arm}/{i:03d}"


def _measure_all(recipe: Recipe, jobs: list[_Job], text: Text, folder: Path) -> None:
    for left in folder.rglob("*.tmp"):  # of a process that was killed
        left.unlink()
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"))
    with Progress(*bar, TimeRemainingColumn()) as progress:
        row = progress.add_task("", total=len(jobs) * len(text.windows))
        for job in jobs:
            progress.update(row, description=job.what)
            losses, tasks = folder / f"{job.file}{LOSS_SUFFIX}", folder / f"{job.file}{TASKS_SUFFIX}"
            measured = losses.exists() and losses.stat().st_size == _size(text)
            if measured and (tasks.exists() or not job.tasks):
                progress.advance(row, len(text.windows))
                continue
            losses.parent.mkdir(parents=True, exist_ok=True)
            model = on_device(job.open())
            if job.tasks:
                size = recipe.evaluation.batch_size
                write_json(tasks, evaluate_tasks(recipe.tasks, model, run_tokenizer(recipe), batch_size=size))
            _write(losses, _losses(recipe, job, model, text, lambda count: progress.advance(row, count)))
        progress.update(row, description=f"{len(jobs)} models")


def _losses(
    recipe: Recipe, job: _Job, model: PreTrainedModel, text: Text, advance: Callable[[int], None]
) -> np.ndarray:
    autocast = torch.bfloat16 if recipe.score.dtype == "bfloat16" else None
    try:
        handle = make_selective(model, SelectionPolicy(ratio=1))
        found, _ = window_losses(handle, text.windows, recipe.score.batch_size, autocast=autocast, advance=advance)
        handle.remove()
        if np.isnan(found).sum() != _blank(text):
            raise ValueError("a loss is NaN")
        return as_stored(found)
    except (TypeError, ValueError) as error:
        raise UserError(f"{job.what}: cannot be measured: {error}") from error


def _blank(text: Text) -> int:
    """Positions of the text without a label."""
    windows, blank = text.windows, 0
    for start in range(0, len(windows), _ROWS):
        labels = windows.__getitems__(list(range(start, min(start + _ROWS, len(windows)))))["labels"]
        blank += int((labels == IGNORED).sum())
    return blank


def _write(path: Path, column: np.ndarray) -> None:
    with _whole(path) as temporary, temporary.open("wb") as file:
        file.write(column.tobytes())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _size(text: Text) -> int:
    """Bytes of a column."""
    return 2 * len(text.windows) * text.windows.length


def _digest(column: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(column.view(np.uint8).data)


def _column(folder: Path, file: str, text: Text) -> np.ndarray:
    """A model's losses, mapped, [N]."""
    path = folder / f"{file}{LOSS_SUFFIX}"
    wanted = _size(text)
    size = path.stat().st_size if path.exists() else -1
    if size != wanted:
        what = "is missing" if size < 0 else f"has {size} bytes, not {wanted}"
        raise UserError(f"{path}: {what}; remove {folder} and run `tokensieve dynamics` again")
    return np.memmap(path, dtype="<f2", mode="r")


def _accuracies(folder: Path, arm: str, count: int) -> list[float]:
    found: list[float] = []
    for i in range(count):
        tasks: dict[str, Any] = read_json(folder / f"{_file(arm, i)}{TASKS_SUFFIX}")
        found.append(float(np.mean([task["value"] for task in tasks.values()])))
    return found
