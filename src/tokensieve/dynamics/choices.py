"""What a policy keeps of the measured text at each checkpoint of a run: figures 8 and 14, and kept by category.

The whole text counts as one batch. A checkpoint's own losses decide, as they did in training; what training itself
kept was decided micro-step by micro-step, on other text.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.categories import CATEGORIES
from tokensieve.dynamics.curves import axis
from tokensieve.dynamics.trajectories import Measured, Trajectory
from tokensieve.evaluation.selected_over_time import followed, spread
from tokensieve.selection import SelectionPolicy, TokenColumns, apply_policy, compute_score

_MEASURED = ("reference_loss", "token_index", "document_ids")
_FOLLOWS = ("excess_loss", "current_loss")
"""Scores that change with the model and can be computed from losses alone."""
LEVELS = 5
_MOMENTS = 4
"""Of figure 14: 0, 33, 66 and 100 % of training."""
_ROWS = 256


@dataclass(frozen=True)
class Chooser:
    """A policy that can be applied to the measured text."""

    policy: SelectionPolicy
    """Without warm-up and schedule: as it was at the end of training."""
    live: np.ndarray
    """The candidates, bool [W, T]."""
    reference: torch.Tensor | None
    token_index: torch.Tensor | None
    document_ids: torch.Tensor | None
    """[W, T] each; None where the policy does not read it."""

    def kept(self, losses: np.ndarray) -> np.ndarray:
        """What the policy keeps at a checkpoint with these losses [N], bool [N]."""
        valid = torch.from_numpy(self.live)
        return apply_policy(self.policy, self._columns(losses), valid).selected.numpy().reshape(-1)

    def score(self, losses: np.ndarray) -> np.ndarray:
        """The policy's score at a checkpoint with these losses [N], [N]; higher = kept."""
        columns = self._columns(losses)
        found = compute_score(self.policy.score, columns, self.policy.seed, self.policy.reference_loss_cap)
        return found.numpy().reshape(-1)

    def _columns(self, losses: np.ndarray) -> TokenColumns:
        return TokenColumns(
            loss=_batch(losses, self.live.shape),
            reference_loss=self.reference,
            token_index=self.token_index,
            document_ids=self.document_ids,
        )


def chooser(policy: SelectionPolicy, measured: Measured) -> Chooser | str:
    """The policy made ready, or in one sentence why it cannot be applied."""
    policy = replace(policy, warmup_steps=0, ratio_schedule=())
    if policy.selects_everything:
        return "the policy keeps every token"
    missing = [name for name in policy.columns if name not in _MEASURED]
    missing += ["entropy"] * ("current_entropy" in policy.scores)
    if missing:
        return f"the score {policy.score} reads {' and '.join(missing)}, and only losses are measured"
    if "reference_loss" in policy.columns and measured.reference is None:
        return f"the score {policy.score} reads the reference's losses, and there is no reference"
    shape = len(measured.windows), measured.windows.length
    read = _read(measured.windows, [name for name in ("token_index", "document_ids") if name in policy.columns])
    reference = measured.reference if "reference_loss" in policy.columns else None
    return Chooser(
        policy=policy,
        live=measured.candidates.reshape(shape),
        reference=None if reference is None else _batch(reference, shape),
        token_index=read.get("token_index"),
        document_ids=read.get("document_ids"),
    )


@dataclass(frozen=True)
class Choices:
    """What was kept along a run."""

    kept: dict[str, list[float] | None]
    """Of each category, the share kept at each checkpoint; None where it is empty."""
    last: np.ndarray
    """What is kept at the last checkpoint, bool [N]."""
    over_time: list[dict[str, Any]]
    """Figure 8: `at`, where the checkpoint stands whose tokens they are, and `curve`, [[x, perplexity], ...]."""


def choices(made: Chooser, run: Trajectory, categories: np.ndarray, most: int = 5) -> Choices:
    """Apply the policy at every checkpoint of a run.

    Args:
        made: the policy on the measured text.
        run: whose losses decide.
        categories: uint8 [N], from `classify`.
        most: sets of tokens to follow through the run, spread evenly over its checkpoints.
    """
    live = categories < len(CATEGORIES)
    counts = np.bincount(categories[live], minlength=len(CATEGORIES))
    shares, sets = [], {}
    wanted = spread(0, len(run.losses) - 1, most)
    last = np.zeros(len(categories), dtype=bool)
    for i, losses in enumerate(run.losses):
        last = made.kept(losses)
        shares.append(np.bincount(categories[last], minlength=len(CATEGORIES)) / np.maximum(counts, 1))
        if i in wanted and last.any():
            sets[i] = last[live]
    x = axis(run)
    perplexities = np.exp(followed((column[live] for column in run.losses), list(sets.values()))) if sets else ()
    return Choices(
        kept={key: [float(share[c]) for share in shares] if counts[c] else None for c, key in enumerate(CATEGORIES)},
        last=last,
        over_time=[
            {"at": x[i], "curve": [[at, float(value)] for at, value in zip(x, row, strict=True)]}
            for i, row in zip(sets, perplexities, strict=True)
        ],
    )


def follows_the_model(policy: SelectionPolicy) -> bool:
    """Whether what is kept can change while the model learns, and is computed from losses."""
    return any(score in _FOLLOWS for score in policy.scores)


def tendencies(made: Chooser, run: Trajectory, start: np.ndarray | None) -> np.ndarray | None:
    """Figure 14: how likely each token is to be kept at 0, 33, 66 and 100 % of training.

    Args:
        made: the policy on the measured text.
        run: whose losses decide.
        start: the untouched start's losses [N]; without them the first checkpoint stands for it.

    Returns:
        uint8 [4, N]: the fifth of all candidates that the token's score is in, from 0 (lowest) to 4 (most likely
        kept), 255 where it is no candidate. Of checkpoints the one nearest to the moment counts. None for a policy
        that has no one score that follows the model.
    """
    if made.policy.score not in _FOLLOWS:
        return None
    x = np.array(axis(run), dtype=np.float64)
    moments = np.arange(_MOMENTS) / (_MOMENTS - 1)
    columns = [run.losses[int(np.abs(x / x[-1] - moment).argmin())] for moment in moments]
    columns[0] = run.losses[0] if start is None else start
    live = made.live.reshape(-1)
    found = np.full((_MOMENTS, len(live)), 255, dtype=np.uint8)
    for row, losses in zip(found, columns, strict=True):
        score = made.score(losses)[live]
        borders = np.quantile(score, np.arange(1, LEVELS) / LEVELS)
        row[live] = np.searchsorted(borders, score)
    return found


def batches(windows: Windows, rows: int = _ROWS) -> Iterator[dict[str, torch.Tensor]]:
    """All windows in order, some at a time."""
    for begin in range(0, len(windows), rows):
        yield windows.__getitems__(list(range(begin, min(begin + rows, len(windows)))))


def _read(windows: Windows, names: list[str]) -> dict[str, torch.Tensor]:
    """Columns of all windows, [W, T] each."""
    if not names:
        return {}
    asked = copy.copy(windows)
    asked.document_ids = "document_ids" in names
    parts = [{name: batch[name] for name in names} for batch in batches(asked)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _batch(losses: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Losses [N] as float32 [W, T]."""
    return torch.from_numpy(losses.astype(np.float32).reshape(shape))
