"""Losses of chosen tokens along a run, on tokens that every model was measured on (figures 6 and 8 of the paper).

What `compare` does with its probe and `dynamics` with its held-out text. A choice by an arm's own later losses would
favour that arm, so a set of tokens is chosen once and then followed through every checkpoint.
"""

from collections.abc import Iterable, Sequence

import numpy as np


def highest(score: np.ndarray, ratio: float) -> np.ndarray:
    """The share of tokens with the highest score, bool [N]; ties go to the earlier token, as in training."""
    count = int(np.floor(ratio * len(score) + 0.5))
    chosen = np.zeros(len(score), dtype=bool)
    chosen[np.argsort(-score, kind="stable")[:count]] = True
    return chosen


def followed(losses: Iterable[np.ndarray], sets: Sequence[np.ndarray]) -> np.ndarray:
    """Mean losses of sets of tokens at each checkpoint.

    Args:
        losses: [N] a checkpoint, nats, at least one; taken one at a time.
        sets: bool [N] each, none of them empty.

    Returns:
        float64 [sets, checkpoints], nats.
    """
    rows = [[row[chosen].mean(dtype=np.float64) for chosen in sets] for row in losses]
    return np.array(rows, dtype=np.float64).T


def spread(first: int, last: int, most: int) -> list[int]:
    """At most `most` whole numbers from `first` to `last`, both included, spread evenly."""
    return np.unique(np.linspace(first, last, min(most, last - first + 1)).round().astype(int)).tolist()
