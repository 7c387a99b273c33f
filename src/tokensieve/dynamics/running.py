"""`tokensieve dynamics RECIPE`: measure what is not measured yet, classify, write numbers, figures and the page.

Measuring takes the time and is kept; the analysis is made anew each time, so that thresholds can be tried.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.compare.comparing import COMPARISON
from tokensieve.dynamics.analysis import analyse
from tokensieve.dynamics.checkpoints import GIVEN
from tokensieve.dynamics.measuring import measure
from tokensieve.dynamics.trajectories import Measured
from tokensieve.errors import UserError
from tokensieve.pipeline import begin, warn
from tokensieve.recipe import Recipe
from tokensieve.report.dynamics import write_dynamics, write_figures
from tokensieve.report.words import ARM_NAMES
from tokensieve.results import target_curve
from tokensieve.stage import read_json, write_json
from tokensieve.training.loop import METRICS, read_metrics
from tokensieve.training.setup import check_recipe, run_tokenizer

DYNAMICS = "dynamics.json"
PAGE = "dynamics.html"
FIGURES = "figures"
CATEGORIES_FILE = "categories.u8"
"""The category of every token of the text, [N], in the order of the losses' files; 255: no candidate."""


def dynamics(recipe: Recipe) -> dict[str, Any]:
    """Token training dynamics of a run's checkpoints, or of the folders under `dynamics.checkpoints`.

    Returns:
        What dynamics.json holds (docs/dynamics.md).

    Raises:
        UserError: no checkpoints, no held-out text, or anything that measuring raises.
    """
    begin(recipe, "dynamics", several_processes=False)
    check_recipe(recipe)
    with _alone(recipe.folder / recipe.dynamics.name):
        return _measure_and_write(recipe)


def _measure_and_write(recipe: Recipe) -> dict[str, Any]:
    measured, text, accuracies, warnings = measure(recipe)
    warn(warnings)
    section, folder = recipe.dynamics, recipe.folder / recipe.dynamics.name
    found, categories = analyse(
        measured,
        recipe,
        policy_arm="slm" if "slm" in measured.runs else None,
        target_curves=_target_curves(recipe, measured),
        sweep=_sweep(recipe),
        accuracies=accuracies or None,
        tasks=[task.label for task in recipe.tasks],
        labels={arm: ARM_NAMES.get(arm, "The checkpoints") for arm in measured.runs},
        warnings=warnings,
        description=text.description,
        tokenizer=run_tokenizer(recipe),
        change=section.change,
        level=section.level,
        examples=section.examples,
    )
    _write_categories(folder / CATEGORIES_FILE, categories)
    _replace_figures(found, folder / FIGURES)
    write_dynamics(found, folder / PAGE)
    write_json(folder / DYNAMICS, found)
    return found


def written(recipe: Recipe) -> tuple[Path, Path]:
    """Where the numbers and the page lie."""
    folder = recipe.folder / recipe.dynamics.name
    return folder / DYNAMICS, folder / PAGE


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder.

    Raises:
        UserError: another process measures here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another `tokensieve dynamics` is at work here; wait for it") from error
        yield


def _target_curves(recipe: Recipe, measured: Measured) -> dict[str, list[list[float]]]:
    """Arm -> [[tokens seen, target loss], ...], where the run has target text."""
    folders = {arm: recipe.folder / "models" / arm for arm in measured.runs if arm != GIVEN}
    curves = {arm: target_curve(read_metrics(folder)) for arm, folder in folders.items() if (folder / METRICS).exists()}
    return {arm: curve for arm, curve in curves.items() if curve}


def _sweep(recipe: Recipe) -> dict[str, Any] | None:
    """Losses over ratios, if the run's folder also holds a comparison of several."""
    path = recipe.folder / COMPARISON
    rows = read_json(path)["sweep"] if path.exists() else []
    return next((row for row in rows if row["score"] == recipe.train.selection.score), None)


def _replace_figures(found: dict[str, Any], folder: Path) -> None:
    """Write the figures into an empty folder: those of an earlier analysis may show text that this one leaves out."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        write_figures(found, temporary)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_categories(path: Path, categories: np.ndarray) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(categories.astype(np.uint8).tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
