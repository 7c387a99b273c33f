"""The finished runs of one arm, read back: final losses, curves, what it took to reach plain training's loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokensieve.compare.accounting import reference_flops, run_flops, scoring_flops
from tokensieve.compare.arms import Arm
from tokensieve.compare.cells import TASKS_MANIFEST
from tokensieve.compare.statistics import DocumentSums, mean_interval
from tokensieve.corpus.run_stores import open_tokens
from tokensieve.errors import UserError
from tokensieve.evaluation.curves import to_reach
from tokensieve.planning.memory import recomputes
from tokensieve.planning.shape import model_shape
from tokensieve.recipe import ModelSection, Recipe
from tokensieve.stage import read_json, read_manifest
from tokensieve.training.arms import ARM_MANIFEST
from tokensieve.training.loop import read_metrics
from tokensieve.training.metrics import DOCUMENTS
from tokensieve.training.reference import reference_steps
from tokensieve.training.setup import arm_steps


@dataclass(frozen=True)
class Run:
    """One finished run."""

    seed: int
    inputs: dict[str, Any]
    """What run.json says it was made from."""
    numbers: dict[str, Any]
    """What run.json says it came to."""
    evaluations: list[dict[str, Any]]
    """Lines of metrics.jsonl with a target loss, step 0 first."""
    flops: np.ndarray
    """Of training alone, after each step, float64 [steps + 1]."""
    documents: dict[str, DocumentSums]
    """Held-out text -> sums by document."""
    tasks: dict[str, DocumentSums]
    """Task -> correct items."""
    asked: dict[str, str]
    """Task -> digest of its prompts and answers."""


@dataclass(frozen=True)
class ArmRuns:
    """An arm with all its runs, in the order of the seeds."""

    arm: Arm
    runs: list[Run]
    reference_flops: float
    """Of training its reference; 0 where it has none, or one that was there."""
    scoring_flops: float
    shared_seconds: float
    """Wall seconds of training and measuring its reference and of scoring."""

    def losses(self) -> list[float]:
        """Final target loss of each run."""
        return [run.numbers["target_loss"] for run in self.runs]

    @property
    def before(self) -> float:
        """FLOPs spent before its first step."""
        return self.reference_flops + self.scoring_flops

    def curve(self, x: Callable[[Run, dict[str, Any]], float]) -> list[list[tuple[float, float]]]:
        """(x, target loss) at each evaluation of each run."""
        return [[(x(run, line), line["target_loss"]) for line in run.evaluations] for run in self.runs]

    def tokens(self, run: Run, line: dict[str, Any]) -> float:
        """Tokens seen."""
        return float(line["tokens_seen"])

    def selected(self, run: Run, line: dict[str, Any]) -> float:
        """Tokens back-propagated."""
        return float(line["tokens_selected"])

    def flops(self, run: Run, line: dict[str, Any]) -> float:
        """FLOPs, the reference's training and the scoring included."""
        return self.before + float(run.flops[line["step"]])

    def seconds(self, run: Run, line: dict[str, Any]) -> float:
        """Wall seconds, reference and scoring included."""
        return self.shared_seconds + float(line.get("seconds", 0.0))


def read_runs(arm: Arm, seeds: Sequence[int]) -> ArmRuns:
    """Read an arm's finished runs."""
    recipe = arm.recipe
    steps, per_step = arm_steps(recipe)
    shape, trainer = model_shape(recipe.model, recipe), recipe.train.trainer
    accumulation = trainer.get("gradient_accumulation_steps", 1)
    runs = []
    for seed in seeds:
        folder = arm.folder(seed)
        manifest = read_manifest(folder / ARM_MANIFEST)
        lines = [line for line in read_metrics(folder) if "target_loss" in line]
        if not all(math.isfinite(line["target_loss"]) for line in lines):
            raise UserError(
                f"{folder}: a target loss is not finite; lower train.trainer.learning_rate and choose another `out`, "
                f"or leave the arm out of compare.arms"
            )
        sums = {
            name: DocumentSums(np.array(found["nats"]), np.array(found["tokens"], dtype=np.int64))
            for name, found in read_json(folder / DOCUMENTS).items()
        }
        tasks: dict[str, DocumentSums] = {}
        asked: dict[str, str] = {}
        if recipe.tasks:
            for name, found in read_manifest(folder / "tasks" / TASKS_MANIFEST)["outputs"]["tasks"].items():
                items = np.array(found["items"], dtype=np.float64)
                tasks[name] = DocumentSums(items, np.ones(len(items), dtype=np.int64))
                asked[name] = found["digest"]
        policy = replace(arm.policy, seed=seed)
        flops = run_flops(
            shape, policy, recipe.context.length, per_step, steps, recomputes(trainer), per_step // accumulation
        )
        runs.append(Run(seed, manifest["inputs"], manifest["outputs"], lines, flops, sums, tasks, asked))
    return ArmRuns(arm, runs, *_before(arm, seeds))


def to_plain(ours: ArmRuns, plain: ArmRuns, x: str) -> dict[str, Any]:
    """What it took to reach plain training's final target loss of the same seed.

    Args:
        ours: the arm.
        plain: plain training.
        x: `tokens`, `selected`, `flops` or `seconds`.

    Returns:
        The schema's `to_plain.X`: `share` is the mean over seeds of used over plain training's whole, None unless
        every seed reached it.
    """
    used: list[float | None] = []
    shares = []
    for run, line, end in zip(ours.runs, ours.curve(getattr(ours, x)), plain.runs, strict=True):
        found = to_reach(line, end.numbers["target_loss"])
        used.append(found)
        if found is not None:
            shares.append(found / getattr(plain, x)(end, end.evaluations[-1]))
        assert run.seed == end.seed
    reached = len(shares)
    return {
        "share": float(np.mean(shares)) if reached == len(used) else None,
        "reached": reached,
        "seeds": len(used),
        "per_seed": [None if value is None else round(value) if x != "seconds" else round(value, 1) for value in used],
    }


def curve_of(arm: ArmRuns) -> list[dict[str, Any]]:
    """The schema's `curve`: means over the seeds at each evaluation."""
    points = []
    for lines in zip(*(run.evaluations for run in arm.runs), strict=True):
        general = [line["general_loss"] for line in lines if "general_loss" in line]
        points.append(
            {
                "step": lines[0]["step"],
                "tokens_seen": lines[0]["tokens_seen"],
                "tokens_selected": float(np.mean([line["tokens_selected"] for line in lines])),
                "flops": float(np.mean([arm.flops(run, line) for run, line in zip(arm.runs, lines, strict=True)])),
                "target_loss": mean_interval([line["target_loss"] for line in lines]),
                "general_loss": mean_interval(general) if general else None,
            }
        )
    return points


def seconds_of(arm: ArmRuns) -> list[float]:
    """Mean wall seconds at each evaluation, reference and scoring included."""
    rows = zip(*([value for value, _ in line] for line in arm.curve(arm.seconds)), strict=True)
    return [round(float(np.mean(row)), 1) for row in rows]


def reference_cost(recipe: Recipe) -> float:
    """FLOPs of training a recipe's reference; 0 for one that was there."""
    if recipe.reference.existing is not None:
        return 0.0
    steps, per_step = reference_steps(recipe)
    shape = model_shape(recipe.reference.model or recipe.model, recipe)
    return reference_flops(shape, recipe.context.length, steps * per_step, recomputes(recipe.reference.trainer))


def _before(arm: Arm, seeds: Sequence[int]) -> tuple[float, float, float]:
    """FLOPs of the reference and of scoring, and seconds of both."""
    if not arm.scored:
        return 0.0, 0.0, 0.0
    recipe = arm.run(seeds[0])
    section = recipe.reference.model or recipe.model
    if recipe.reference.existing is not None:
        section = ModelSection(name=recipe.reference.existing, trust_remote_code=section.trust_remote_code)
    shape = model_shape(section, recipe)
    scoring = scoring_flops(shape, recipe.context.length, open_tokens(recipe).tokens)
    paths = (
        recipe.reference_folder / "reference.json",
        recipe.folder / "scores" / recipe.score.name / "scores.json",
    )
    seconds = sum(float(read_manifest(path).get("seconds", 0.0)) for path in paths)
    return reference_cost(recipe), scoring, seconds
