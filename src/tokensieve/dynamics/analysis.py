"""dynamics.json: everything that the measured losses say, as plain data; the report computes nothing.

Losses are nats a token. Where something cannot be made (no reference, no selective run, one checkpoint), it is null
and `not_shown` says why and what to do.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerBase

from tokensieve import __version__
from tokensieve.corpus.pieces import token_pieces
from tokensieve.corpus.token_classes import token_classes
from tokensieve.dynamics.categories import CATEGORIES, Categories, check_columns, classify
from tokensieve.dynamics.choices import batches
from tokensieve.dynamics.curves import LEAST_FOR_A_LINE, around_lines, course
from tokensieve.dynamics.examples import example_passages, fluctuating
from tokensieve.dynamics.figures import accuracy_part, selected_part, split_part
from tokensieve.dynamics.trajectories import Measured
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, dump
from tokensieve.training.keep_rates import KeepRates

FORMAT = 1
PAPER_SHARES = {
    "TinyLlama-1.1B": dict(zip(CATEGORIES, (0.26, 0.51, 0.11, 0.12), strict=True)),
    "Mistral-7B": dict(zip(CATEGORIES, (0.28, 0.51, 0.08, 0.13), strict=True)),
}
"""Rho-1, figures 2a and 10."""
PAPER_TRAJECTORIES = {
    "high_to_low": [3.34, 2.50],
    "low_to_low": [0.22, 0.21],
    "high_to_high": [3.75, 3.74],
    "low_to_high": [3.30, 3.85],
}
"""First and last mean loss, TinyLlama-1.1B, read off figure 2a."""
_GROUPINGS = ("source", "region", "class")


def analyse(
    measured: Measured,
    recipe: Recipe,
    *,
    policy_arm: str | None,
    target_curves: Mapping[str, list[list[float]]],
    sweep: Mapping[str, Any] | None,
    accuracies: Mapping[str, Sequence[float]] | None,
    tasks: Sequence[str],
    labels: Mapping[str, str],
    warnings: Sequence[str],
    description: str,
    tokenizer: PreTrainedTokenizerBase,
    change: float,
    level: float | None,
    examples: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """Put the analysis together.

    Args:
        measured: the losses; the first run decides the categories.
        recipe: of the run: its policy is what is applied.
        policy_arm: whose checkpoints the policy is applied at; None where no run was trained selectively.
        target_curves: arm -> [[tokens seen, target loss], ...].
        sweep: a line of comparison.json's `sweep`; None where there is none.
        accuracies: arm -> mean accuracy at each of its checkpoints, from 0 to 1; None where none was measured.
        tasks: names of the tasks behind them.
        labels: arm -> what people call it.
        warnings: found before.
        description: what text was measured, for people.
        tokenizer: of the text.
        change: threshold in nats, see `classify`.
        level: threshold in nats, see `classify`.
        examples: passages of text; at 0 the result has no text of the corpus at all.

    Returns:
        dynamics.json, format 1, and the category of each token, uint8 [N].

    Raises:
        UserError: fewer than two checkpoints in the first run, no candidates, or columns that do not fit each other.
    """
    _check(measured)
    windows, runs = measured.windows, measured.runs
    first = next(iter(runs.values()))
    found = classify(first.losses, change=change, level=level)
    courses = {arm: course(run, found.of) for arm, run in runs.items()}
    not_shown = [
        f"fluctuation under {labels[arm]}: it has {len(run.losses)} checkpoint(s), and any two lie on one line; "
        f"measure at least {LEAST_FOR_A_LINE}"
        for arm, run in runs.items()
        if len(run.losses) < LEAST_FOR_A_LINE
    ]
    chosen = selected_part(measured, recipe, policy_arm, found, not_shown)
    sides = split_part(measured, recipe, target_curves, labels, not_shown)
    if examples == 0:
        not_shown.append("tokens in context (figures 2b, 2c, 11, 13 and 14): dynamics.examples is 0")
    if sweep is None:
        not_shown.append(
            "loss by ratio (figure 9): no finished comparison of several ratios lies in this `out`; run `tokensieve "
            "compare` with compare.ratios"
        )

    def pieces(ids: Sequence[int]) -> list[str]:
        return list(token_pieces(tokenizer, ids))

    result = {
        "format": FORMAT,
        "title": f"Training dynamics: {Path(recipe.out).name}",
        "versions": {
            "tokensieve": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "recipe": dump(recipe),
        "warnings": list(warnings),
        "text": {
            "description": description,
            "tokens": sum(found.counts),
            "windows": len(windows),
            "length": windows.length,
        },
        "thresholds": {"change": found.change, "level": found.level, "level_is_mean": found.level_is_mean},
        "runs": {
            arm: {
                "label": labels[arm],
                "checkpoints": [{"name": point.name, "tokens": point.tokens} for point in run.checkpoints],
                "loss": courses[arm].loss,
            }
            for arm, run in runs.items()
        },
        "categories": _shares(measured, found, tokenizer),
        "trajectories": {arm: one.by_category for arm, one in courses.items()},
        "paper_trajectories": PAPER_TRAJECTORIES,
        "fluctuation": {arm: one.fluctuation for arm, one in courses.items()},
        "fluctuating": _fluctuating(measured, found, pieces, examples),
        "selection": None if chosen is None else chosen.selection,
        "split": sides,
        "over_time": None if chosen is None else chosen.over_time,
        "sweep": None if sweep is None else dict(sweep),
        "accuracy": accuracy_part(sides, accuracies, tasks, not_shown),
        "examples": example_passages(
            windows,
            found.of,
            pieces,
            examples,
            None if chosen is None else chosen.last,
            None if chosen is None else chosen.tendency,
        ),
        "not_shown": not_shown,
    }
    return result, found.of


def _check(measured: Measured) -> None:
    wanted = len(measured.windows) * measured.windows.length
    columns = [column for run in measured.runs.values() for column in run.losses]
    for arm, run in measured.runs.items():
        if len(run.losses) != len(run.checkpoints):
            raise UserError(f"{arm}: {len(run.checkpoints)} checkpoints and {len(run.losses)} columns of losses")
        if not run.losses:
            raise UserError(f"{arm}: no checkpoint was measured; leave the arm out, or save some in training")
    columns += [column for column in (measured.start, measured.reference) if column is not None]
    for column in columns:
        if len(column) != wanted:
            raise UserError(
                f"a column of losses has {len(column)} tokens, and the measured text {wanted} ({len(measured.windows)} "
                f"windows of {measured.windows.length}); remove the measured columns and run `tokensieve dynamics` "
                f"again"
            )
    check_columns(columns)


def _shares(measured: Measured, found: Categories, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What is in each category, in all and of each source, region and class of token."""
    windows = measured.windows
    rows = found.of.reshape(-1, windows.length)
    groups = [KeepRates(windows.store, windows.length, {"class": token_classes(tokenizer)}) for _ in CATEGORIES]
    begin = 0
    for batch in batches(windows):
        # A token is counted under what it is itself, and the first one of a window is none that was predicted.
        of = torch.from_numpy(rows[begin : begin + len(batch["input_ids"]), 1:])
        for number, group in enumerate(groups):
            group.add(batch["token_index"][:, 1:], of < len(CATEGORIES), of == number)
        begin += len(of)
    total = sum(found.counts)
    return {
        key: {
            "tokens": found.counts[i],
            "share": found.counts[i] / total,
            "paper": {model: shares[key] for model, shares in PAPER_SHARES.items()},
            "by": {
                name: [
                    {"name": group["name"], "tokens": group["tokens"], "share": group["kept"] / group["tokens"]}
                    for group in counted
                ]
                for name, counted in groups[i].plain(groups[i].counts).items()
                if name in _GROUPINGS
            },
        }
        for i, key in enumerate(CATEGORIES)
    }


def _fluctuating(
    measured: Measured, found: Categories, pieces: Callable[[Sequence[int]], list[str]], count: int
) -> dict[str, list[dict[str, Any]]]:
    """Figures 2b and 2c."""
    first = next(iter(measured.runs.values()))
    if count == 0 or len(first.losses) < LEAST_FOR_A_LINE:
        return {"low_to_low": [], "high_to_high": []}
    return fluctuating(measured.windows, first, found.of, around_lines(first, found.of), pieces)
