"""What became of each kind of token along a run: mean losses, fluctuation, and the paper's figures 6 and 7.

A token's kind is decided once, by the first run; every run is then measured on the same tokens. Only a block of
tokens, or one checkpoint of the candidates, is in memory as float64 at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensieve.dynamics.categories import BLOCK, CATEGORIES, blocks
from tokensieve.dynamics.trajectories import Trajectory
from tokensieve.evaluation.selected_over_time import followed, highest

STRONG = 1.0
"""Nats between a token's highest and lowest loss, beyond which it fluctuates strongly."""
LEAST_FOR_A_LINE = 3
"""Checkpoints from which a token can lie beside its own line at all."""


@dataclass(frozen=True)
class Course:
    """Means of one run over tokens."""

    loss: list[float]
    """At each checkpoint, over all candidates, nats."""
    by_category: dict[str, list[float] | None]
    """The same over each category; None where it is empty."""
    fluctuation: dict[str, dict[str, float] | None]
    """Of each category: `around_line` (root mean square distance of a token's losses from their own line, nats),
    `range` (highest less lowest, nats) and `strong` (share of tokens whose range is above STRONG). None where it is
    empty or the run has fewer than LEAST_FOR_A_LINE checkpoints."""


def course(trajectory: Trajectory, categories: np.ndarray, block: int = BLOCK) -> Course:
    """Mean losses and fluctuation of a run, by category.

    Args:
        trajectory: the run, on the tokens that were classified.
        categories: uint8 [N], from `classify`.
        block: tokens that are read together.
    """
    C, K = len(trajectory.losses), len(CATEGORIES)
    sums, wander = np.zeros((K, C)), np.zeros((K, 3))
    counts = np.zeros(K, dtype=np.int64)
    for of, losses in _blocks(trajectory, categories, block):
        spans = losses.max(axis=0) - losses.min(axis=0)
        told = np.stack([distance_from_line(losses), spans, spans > STRONG])
        # One row a category: the products below are sums over its tokens.
        member = (of[None] == np.arange(K)[:, None]).astype(np.float64)
        sums += member @ losses.T
        wander += member @ told.T
        counts += np.bincount(of, minlength=K)
    names = ("around_line", "range", "strong")
    return Course(
        loss=(sums.sum(axis=0) / counts.sum()).tolist(),
        by_category={key: (sums[i] / counts[i]).tolist() if counts[i] else None for i, key in enumerate(CATEGORIES)},
        fluctuation={
            key: dict(zip(names, (wander[i] / counts[i]).tolist(), strict=True))
            if counts[i] and C >= LEAST_FOR_A_LINE
            else None
            for i, key in enumerate(CATEGORIES)
        },
    )


def around_lines(trajectory: Trajectory, categories: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Each token's root mean square distance from its own line, float32 [N], nats; NaN where it is no candidate."""
    found = np.full(len(categories), np.nan, dtype=np.float32)
    live = categories < len(CATEGORIES)
    distances = [distance_from_line(losses) for _, losses in _blocks(trajectory, categories, block)]
    found[live] = np.concatenate(distances)
    return found


def distance_from_line(losses: np.ndarray) -> np.ndarray:
    """Root mean square distance of the losses [C, n] from their own least-squares lines, [n]."""
    C = len(losses)
    x = np.arange(C) - (C - 1) / 2
    rest = losses - losses.mean(axis=0)
    if C > 1:
        rest -= x[:, None] * (x @ rest / (x @ x))
    return np.sqrt(np.square(rest, out=rest).mean(axis=0))


def _blocks(trajectory: Trajectory, categories: np.ndarray, block: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Categories [n] and losses, float64 [C, n], of the candidates in each block."""
    for begin, end in blocks(len(categories), block):
        of = categories[begin:end]
        live = of < len(CATEGORIES)
        losses = np.array([column[begin:end][live] for column in trajectory.losses], dtype=np.float64)
        yield of[live], losses


def axis(trajectory: Trajectory) -> list[int]:
    """Where the checkpoints stand: tokens seen if all of them are known, else their numbers from 1."""
    seen = [checkpoint.tokens for checkpoint in trajectory.checkpoints]
    known = [tokens for tokens in seen if tokens is not None]
    return known if len(known) == len(seen) else list(range(1, len(seen) + 1))


def split(
    runs: Mapping[str, Trajectory], start: np.ndarray, reference: np.ndarray, live: np.ndarray, ratio: float
) -> dict[str, Any] | None:
    """Figure 6: losses of selected and of unselected tokens along every run.

    Which tokens count as selected is decided once, before training: the ratio with the highest excess of the start
    over the reference.

    Args:
        runs: all on the same tokens.
        start: losses of the untouched start (or of a checkpoint that stands for it), float16 [N].
        reference: the reference's, float16 [N].
        live: the candidates, bool [N].
        ratio: the share that counts as selected.

    Returns:
        {"tokens", "selected_share", "arms": {arm: {"selected": [[x, loss]], "unselected": [[x, loss]]}}}; None if all
        tokens are on one side.
    """
    chosen = highest(start[live].astype(np.float64) - reference[live], ratio)
    if chosen.all() or not chosen.any():
        return None
    arms = {}
    for arm, run in runs.items():
        means = followed((column[live] for column in run.losses), [chosen, ~chosen])
        arms[arm] = {
            name: [[x, float(loss)] for x, loss in zip(axis(run), values, strict=True)]
            for name, values in zip(("selected", "unselected"), means, strict=True)
        }
    return {"tokens": len(chosen), "selected_share": ratio, "arms": arms}


def fit_accuracy(losses: Sequence[float], accuracies: Sequence[float]) -> dict[str, float] | None:
    """Figure 7: accuracy as log(a * loss + c), by least squares in the accuracy.

    Gauss-Newton from the straight line through exp(accuracy), each step halved until it brings the curve closer to
    the points.

    Args:
        losses: of selected or of unselected tokens, nats.
        accuracies: shares from 0 to 1, one a loss.

    Returns:
        {"a", "c"}; None for fewer than three points or points at one loss alone.
    """
    x, y = np.asarray(losses, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    # Around the mean loss the two parameters are almost independent.
    middle = x.mean()
    design = np.stack([x - middle, np.ones_like(x)], axis=1)
    found = np.linalg.lstsq(design, np.exp(y), rcond=None)[0]
    if (design @ found <= 0).any():
        found = np.array([0.0, np.exp(y.mean())])
    for _ in range(100):
        inner = design @ found
        error = y - np.log(inner)
        step = np.linalg.lstsq(design / inner[:, None], error, rcond=None)[0]
        before = error @ error
        while np.abs(step).max() > 1e-14:
            after = design @ (found + step)
            if (after > 0).all() and np.square(y - np.log(after)).sum() < before:
                break
            step /= 2
        else:
            break
        found = found + step
    slope, at_middle = found.tolist()
    return {"a": slope, "c": at_middle - slope * float(middle)}
