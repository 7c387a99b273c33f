"""What a run came to: `summary.json` for programs, `report.json` and `report.html` for people.

Everything here is read from the manifests and metrics that the stages wrote, except the passages, which need
one look at the corpus through the finished student.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokensieve.evaluation.curves import to_reach
from tokensieve.evaluation.passages import sample_passages
from tokensieve.recipe import Recipe
from tokensieve.report.page import write_report
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.stage import read_manifest, write_json
from tokensieve.training.arms import ARM_MANIFEST, arm_policy, needs_reference, reference_autocast, training_windows
from tokensieve.training.loop import read_metrics
from tokensieve.training.reference import load_reference, reference_numbers, reference_warnings
from tokensieve.training.setup import load, on_device, run_tokenizer


def finished_seconds(recipe: Recipe) -> float:
    """Wall seconds of the stages that are finished already."""
    stages = ["corpus/corpus.json", "clean/corpus.json", f"{recipe.reference.name}/reference.json"]
    stages += [f"targets/{target.label}/corpus.json" for target in recipe.evaluation.targets]
    stages += [f"scores/{recipe.score.name}/scores.json", *(f"models/{arm}/run.json" for arm in recipe.train.arms)]
    paths = [recipe.folder / stage for stage in stages]
    return sum(read_manifest(path).get("seconds", 0.0) for path in paths if path.exists())


def run_warnings(recipe: Recipe) -> list[str]:
    """What the reader of a run's numbers must know."""
    warnings = reference_warnings(recipe) if needs_reference(recipe) else []
    if recipe.model.dtype != "float32":
        warnings.append(f"the master weights are {recipe.model.dtype}: small updates are lost; use model.dtype=float32")
    return warnings


def unmatched_control(recipe: Recipe, arms: dict[str, Any]) -> list[str]:
    """A policy that keeps another share than its ratio (a threshold, an intersection, documents) has no control."""
    policy = recipe.train.selection
    if "slm" not in arms or policy.follows_steps or abs(arms["slm"]["ratio_kept"] - policy.ratio) <= 0.1 * policy.ratio:
        return []
    kept = arms["slm"]["ratio_kept"]
    return [
        f"slm kept {kept:.2f} of the candidates, and its loss was divided by ratio {policy.ratio:g}, which is also "
        f"what random kept: the two are not of one size; set train.selection.ratio={kept:.2f}"
    ]


def write_results(recipe: Recipe, earlier_seconds: float, started: float) -> dict[str, Any]:
    """Write summary.json, report.json and report.html; return the summary.

    Args:
        recipe: whose stages are all finished.
        earlier_seconds: wall seconds of stages that earlier commands finished.
        started: `time.monotonic()` when this command began.
    """
    out = recipe.folder
    arms = {arm: read_manifest(out / "models" / arm / ARM_MANIFEST)["outputs"] for arm in recipe.train.arms}
    warnings = run_warnings(recipe) + unmatched_control(recipe, arms)
    metrics = {arm: read_metrics(out / "models" / arm) for arm in arms}
    reference = _reference(recipe)
    passages = _passages(recipe) if "slm" in arms else []
    seconds = round(earlier_seconds + time.monotonic() - started, 1)
    summary: dict[str, Any] = {
        "seconds": seconds,
        "ratio": recipe.train.selection.ratio,
        "reference": reference and {key: reference[key] for key in ("target_loss", "gate")},
        "arms": {
            arm: {
                "target_loss": numbers.get("target_loss"),
                "tokens_seen": numbers["tokens_seen"],
                "tokens_selected": numbers["tokens_selected"],
                "seconds": numbers["seconds"],
            }
            for arm, numbers in arms.items()
        },
        "tokens_to_clm": tokens_to_loss(target_curve(metrics["slm"]), arms["clm"].get("target_loss"))
        if {"slm", "clm"} <= set(arms)
        else None,
    }
    first = next(iter(arms.values()))
    report = {
        **summary,
        "title": f"Selective training: {Path(recipe.out).name}",
        "scope": recipe.train.selection.scope,
        "score": recipe.train.selection.score,
        "tokens": first["tokens_seen"],
        "context": recipe.context.length,
        "seed": recipe.seed,
        "model": first["model"],
        "warnings": warnings,
        "targets": [target.label for target in recipe.evaluation.targets],
        "reference": reference,
        "arms": {
            arm: {
                **summary["arms"][arm],
                "bits_per_byte": numbers.get("target_bits_per_byte"),
                "targets": numbers["targets"],
                "target_curve": target_curve(metrics[arm]),
                "train_curve": _train_curve(metrics[arm]),
            }
            for arm, numbers in arms.items()
        },
        "regions": _regions(arms),
        "passages": passages,
    }
    write_json(out / "report.json", report)
    write_report(report, out / "report.html")
    write_json(out / "summary.json", summary)
    return summary


def _reference(recipe: Recipe) -> dict[str, Any] | None:
    """What is told of the reference; None if the run's scores need none, even if one lies there."""
    if not needs_reference(recipe):
        return None
    numbers = reference_numbers(recipe)
    return {"target_loss": numbers.get("target_loss")} | {key: numbers[key] for key in ("tokens", "seconds", "gate")}


def target_curve(lines: list[dict[str, Any]]) -> list[list[float]]:
    """[[tokens seen, target loss], ...] of a run's metrics."""
    return [[line["tokens_seen"], line["target_loss"]] for line in lines if "target_loss" in line]


def tokens_to_loss(curve: list[list[float]], loss: float | None) -> int | None:
    """Tokens at which a curve first reaches a loss, by linear interpolation between evaluations; None if never."""
    found = None if loss is None else to_reach([(tokens, value) for tokens, value in curve], loss)
    return None if found is None else round(found)


def _train_curve(lines: list[dict[str, Any]]) -> list[list[float | None]]:
    return [
        [line["tokens_seen"], line["loss_all"], line.get("loss_selected"), line.get("loss_unselected")]
        for line in lines
        if "loss_all" in line
    ]


def _regions(arms: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Share of each region's candidates that each selecting arm kept over the whole run."""
    kept = {arm: (numbers["keep_rates"] or {}).get("region") for arm, numbers in arms.items() if arm != "clm"}
    selecting = {arm: regions for arm, regions in kept.items() if regions}
    if not selecting:
        return None
    rows = next(iter(selecting.values()))
    return [
        {
            "name": row["name"],
            "tokens": row["tokens"],
            "kept": {arm: regions[i]["kept"] / regions[i]["tokens"] for arm, regions in selecting.items()},
        }
        for i, row in enumerate(rows)
    ]


def _passages(recipe: Recipe) -> list[dict[str, Any]]:
    # What it selected at the end of training.
    policy = replace(arm_policy(recipe, "slm"), warmup_steps=0, ratio_schedule=())
    section = replace(recipe.model, name=str(recipe.folder / "models" / "slm"), fresh=None, revision="main")
    handle = make_selective(on_device(load(recipe, section)), policy)
    reference = None
    if recipe.score.online and needs_reference(recipe):
        reference = make_selective(on_device(load_reference(recipe)), SelectionPolicy(ratio=1))
    return sample_passages(
        handle,
        policy,
        training_windows(recipe),
        run_tokenizer(recipe),
        recipe.evaluation.batch_size,
        reference,
        reference_autocast(recipe),
    )
