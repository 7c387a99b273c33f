"""What a run came to: `summary.json` for programs, `report.json` and `report.html` for people.

Everything here is read from the manifests and metrics that the stages wrote, except the passages, which need
one look at the corpus through the finished student.
"""

import time
from pathlib import Path
from typing import Any

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer, vocabulary_size
from tokensieve.evaluation.passages import sample_passages
from tokensieve.recipe import ModelSection, Recipe
from tokensieve.report.page import write_report
from tokensieve.selective import make_selective
from tokensieve.stage import read_json, write_json
from tokensieve.training.arms import ARM_MANIFEST, REFERENCE_MANIFEST, arm_policy, training_windows
from tokensieve.training.loop import read_metrics
from tokensieve.training.models import load_model

_MANIFESTS = (
    "corpus/corpus.json",
    "clean/corpus.json",
    "targets/*/corpus.json",
    "reference/reference.json",
    "scores/*/scores.json",
    "models/*/run.json",
)


def finished_seconds(recipe: Recipe) -> float:
    """Wall seconds of the stages that are finished already."""
    paths = [path for pattern in _MANIFESTS for path in recipe.folder.glob(pattern)]
    return sum(read_json(path).get("seconds", 0.0) for path in paths)


def write_results(recipe: Recipe, earlier_seconds: float, started: float) -> dict[str, Any]:
    """Write summary.json, report.json and report.html; return the summary.

    Args:
        recipe: whose stages are all finished.
        earlier_seconds: wall seconds of stages that earlier commands finished.
        started: `time.monotonic()` when this command began.
    """
    out = recipe.folder
    arms = {arm: read_json(out / "models" / arm / ARM_MANIFEST)["outputs"] for arm in recipe.train.arms}
    metrics = {arm: read_metrics(out / "models" / arm) for arm in arms}
    reference_path = out / "reference" / REFERENCE_MANIFEST
    reference = read_json(reference_path)["outputs"] if reference_path.exists() else None
    passages = _passages(recipe) if "slm" in arms else []
    seconds = round(earlier_seconds + time.monotonic() - started, 1)
    summary: dict[str, Any] = {
        "seconds": seconds,
        "ratio": recipe.train.selection.ratio,
        "reference": None if reference is None else {"target_loss": reference.get("target_loss")},
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
        "warnings": read_json(out / "warnings.json"),
        "targets": [target.label for target in recipe.evaluation.targets],
        "reference": reference and {key: reference.get(key) for key in ("target_loss", "tokens", "seconds")},
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


def target_curve(lines: list[dict[str, Any]]) -> list[list[float]]:
    """[[tokens seen, target loss], ...] of a run's metrics."""
    return [[line["tokens_seen"], line["target_loss"]] for line in lines if "target_loss" in line]


def tokens_to_loss(curve: list[list[float]], loss: float | None) -> int | None:
    """Tokens at which a curve first reaches a loss, by linear interpolation between evaluations; None if never."""
    if loss is None:
        return None
    before = None
    for tokens, value in curve:
        if value <= loss:
            if before is None or value == before[1]:
                return round(tokens)
            share = (before[1] - loss) / (before[1] - value)
            return round(before[0] + share * (tokens - before[0]))
        before = (tokens, value)
    return None


def _train_curve(lines: list[dict[str, Any]]) -> list[list[float | None]]:
    return [
        [line["tokens_seen"], line["loss_all"], line.get("loss_selected"), line.get("loss_unselected")]
        for line in lines
        if "loss_all" in line
    ]


def _regions(arms: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Share of each region's candidates that each selecting arm kept over the whole run."""
    selecting = {arm: numbers["regions"] for arm, numbers in arms.items() if arm != "clm" and numbers["regions"]}
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
        if row["tokens"]
    ]


def _passages(recipe: Recipe) -> list[dict[str, Any]]:
    tokenizer = open_tokenizer(recipe.folder / "tokenizer", trust_remote_code=recipe.tokenizer_code_trusted)
    model = load_model(
        ModelSection(name=str(recipe.folder / "models" / "slm")),
        vocab_size=vocabulary_size(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        length=recipe.context.length,
        seed=recipe.seed,
    )
    windows = training_windows(recipe, TokenStore(recipe.folder / "corpus"))
    policy = arm_policy(recipe, "slm")
    handle = make_selective(model, policy)
    return sample_passages(handle, policy, windows, tokenizer, recipe.evaluation.batch_size)
