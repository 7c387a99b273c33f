"""One run of a comparison: an arm with a seed. Trained once, measured once, in a folder of its own."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from tokensieve.compare.arms import COMPARE_FOLDER, Arm
from tokensieve.evaluation.tasks import evaluate_tasks
from tokensieve.recipe import Recipe, dump
from tokensieve.stage import Stage, read_manifest
from tokensieve.training.arms import ARM_MANIFEST, train_arm
from tokensieve.training.reference import load_reference, reference_numbers
from tokensieve.training.setup import load, on_device, run_tokenizer

TASKS_MANIFEST = "tasks.json"


@dataclass(frozen=True)
class Cell:
    """One arm with one seed. Picklable: another process may do it."""

    arm: Arm
    seed: int
    probe: np.ndarray | None
    """Numbers of the corpus windows that are held out."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.arm.folder(self.seed)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do; a folder of another recipe is found out later, by `train_cell`."""
        wanted = [self.folder / ARM_MANIFEST]
        if self.arm.recipe.tasks:
            wanted.append(self.folder / "tasks" / TASKS_MANIFEST)
        return all(path.exists() and read_manifest(path)["finished"] for path in wanted)


def all_cells(recipe: Recipe, arms: Sequence[Arm], probe: np.ndarray | None) -> list[Cell]:
    """Every run of the comparison: all arms with the first seed, then with the next."""
    return [Cell(arm, seed, probe) for seed in recipe.compare.seeds for arm in arms]


def train_cell(cell: Cell) -> dict[str, Any]:
    """Train and measure a cell, or return what it came to before.

    Raises:
        UserError: anything `train_arm` or a task raises.
    """
    arm, folder = cell.arm, cell.folder
    recipe = arm.run(cell.seed)
    with _one_process(folder):
        policy = replace(arm.policy, seed=cell.seed)
        name = f"{arm.key}, seed {cell.seed}"
        numbers = train_arm(
            recipe, arm.trained_as, policy, folder, name=name, text=arm.text, probe=cell.probe, by_frequency=True
        )
        if recipe.tasks:
            _measure_tasks(recipe, folder, _trained(recipe, folder), numbers["model"])
    return numbers


def measure_untrained(recipe: Recipe, reference: bool) -> None:
    """The tasks' accuracies of the untouched start, and of the reference."""
    if not recipe.tasks:
        return
    base = recipe.folder / COMPARE_FOLDER
    _measure_tasks(recipe, base / "start", lambda: load(recipe, recipe.model), dump(recipe.model))
    if reference:
        digest = reference_numbers(recipe)["digest"]
        _measure_tasks(recipe, base / "reference", lambda: load_reference(recipe), digest)


def _trained(recipe: Recipe, folder: Path) -> Any:
    section = replace(recipe.model, name=str(folder), fresh=None, revision="main")
    return lambda: load(recipe, section)


def _measure_tasks(recipe: Recipe, folder: Path, open_model: Any, what: Any) -> dict[str, Any]:
    # A folder inside the run's: the stage that trained the model holds that one.
    inputs = {"tasks": [dump(task) for task in recipe.tasks], "model": what, "seed": recipe.seed}
    stage = Stage(folder / "tasks", TASKS_MANIFEST, inputs)
    if not stage.finished:
        with stage.running():
            model: PreTrainedModel = on_device(open_model())
            size = recipe.evaluation.batch_size
            stage.finish(tasks=evaluate_tasks(recipe.tasks, model, run_tokenizer(recipe), batch_size=size))
    return stage.outputs


@contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Nobody else trains this cell meanwhile: a process whose parent was killed may still be ending."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
