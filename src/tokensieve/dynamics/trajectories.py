"""Losses of the same held-out tokens under many checkpoints, opened for analysis.

Every column is one memory-mapped float16 file, [N], nats, aligned with the windows that were measured: entry i is the
loss of predicting token i, NaN (0x7E00) where token i is no candidate. So the analysis streams over tokens of all
checkpoints at once and never holds them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tokensieve.corpus.windows import Windows


@dataclass(frozen=True)
class Checkpoint:
    """One model of a run."""

    name: str
    """Its folder's name, or the folder as the user gave it."""
    tokens: int | None
    """Tokens seen until then, None where nobody knows."""


@dataclass(frozen=True)
class Trajectory:
    """A run's losses over its checkpoints."""

    checkpoints: tuple[Checkpoint, ...]
    losses: tuple[np.ndarray, ...]
    """One float16 [N] a checkpoint."""


@dataclass(frozen=True)
class Measured:
    """Everything that was measured on the text."""

    windows: Windows
    """The text: window i covers positions [i * length, (i + 1) * length) of every column."""
    runs: Mapping[str, Trajectory]
    """Arm -> its run; the first one decides the categories."""
    start: np.ndarray | None
    """The untouched start's losses, float16 [N]; None where there is none."""
    reference: np.ndarray | None
    """The reference's losses, float16 [N]; None where there is none."""

    @property
    def candidates(self) -> np.ndarray:
        """Which positions have a loss, bool [N]: the same in every column."""
        first = next(iter(self.runs.values())).losses[0]
        return ~np.isnan(first)
