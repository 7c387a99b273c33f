"""The four kinds of tokens: which ones training taught, which it need not, which it cannot (Rho-1, appendix D).

Each token's losses along the checkpoints get a straight line by least squares, x being the checkpoint's number. The
line's change from the first checkpoint to the last, L_end - L_start, decides:

- below -change: H->L, learned;
- above +change: L->H, got worse;
- otherwise by the last loss itself: L->L up to `level` (known already), H->H above it (never learned).

The names describe a direction, not a level: most L->H tokens are hard from the start.

The border is exact. With whole weights w_i = 2 i - (C - 1) the change is 6 * sum(w_i * loss_i) / (C * (C + 1)), and
float16 losses are multiples of 2**-24, so float64 holds the sum without rounding (for any loss below 2**27 / C**2
nats). The quotient is the nearest float64 to the true one: a change of exactly 1/5 equals the number 0.2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tokensieve.errors import UserError

CATEGORIES = ("high_to_low", "low_to_low", "high_to_high", "low_to_high")
"""Kinds of training dynamics by number."""
UNKNOWN = 255
"""In a column of categories: no candidate."""

BLOCK = 1 << 14
"""Tokens that are looked at together: a block's numbers stay in the processor's cache."""


@dataclass(frozen=True)
class Categories:
    """What each token is, and what decided it."""

    of: np.ndarray
    """uint8 [N]: the number of the token's category, UNKNOWN where it is no candidate."""
    change: float
    """Nats of fitted change beyond which a token counts as learned or as worse."""
    level: float
    """Last loss, in nats, up to which an unchanged token counts as low."""
    level_is_mean: bool
    """Whether that is the mean of the last checkpoint, as in the paper."""
    counts: tuple[int, ...]
    """Tokens in each of CATEGORIES."""


def classify(
    losses: Sequence[np.ndarray], *, change: float = 0.2, level: float | None = None, block: int = BLOCK
) -> Categories:
    """Put every token into one of the four categories.

    Args:
        losses: one float16 [N] a checkpoint, in the order of training, nats; NaN where a token is no candidate, the
            same in all of them. Read block by block, so memory maps stay on disk.
        change: nats, at least 0.
        level: nats; default: the mean of the last checkpoint over the candidates.
        block: tokens that are read together; decides speed alone.

    Raises:
        UserError: fewer than two checkpoints, columns that do not fit each other, or no candidate at all.
    """
    C = len(losses)
    if C < 2:
        raise UserError(f"{C} checkpoint(s): a token's line needs at least two; name more, or save more in training")
    check_columns(losses, block)
    mean = mean_loss(losses[-1], block)
    bound = mean if level is None else level
    of = np.empty(len(losses[0]), dtype=np.uint8)
    counts = np.zeros(len(CATEGORIES), dtype=np.int64)
    for begin, end in blocks(len(of), block):
        fitted = fitted_change([column[begin:end] for column in losses])
        last = losses[-1][begin:end].astype(np.float64)
        found = np.where(last <= bound, np.uint8(1), np.uint8(2))
        found[fitted < -change] = 0
        found[fitted > change] = 3
        found[np.isnan(last)] = UNKNOWN
        of[begin:end] = found
        counts += np.bincount(found, minlength=UNKNOWN + 1)[: len(CATEGORIES)]
    return Categories(of, change, bound, level is None, tuple(counts.tolist()))


def fitted_change(losses: Sequence[np.ndarray]) -> np.ndarray:
    """L_end - L_start of the least-squares lines, float64 [n]; C >= 2 columns of [n] losses, NaN stays NaN."""
    C = len(losses)
    total = np.zeros(len(losses[0]))
    term = np.empty_like(total)
    for i, column in enumerate(losses):
        np.copyto(term, column)
        term *= 2 * i - (C - 1)
        total += term
    total *= 6
    total /= C * (C + 1)
    return total


def mean_loss(losses: np.ndarray, block: int = BLOCK) -> float:
    """Mean over the candidates of one column, nats.

    Raises:
        UserError: there is no candidate.
    """
    total, count = 0.0, 0
    for begin, end in blocks(len(losses), block):
        part = losses[begin:end]
        live = part[~np.isnan(part)]
        # These sums do not round either (up to 2**29 nats), so the size of the blocks cannot matter.
        total += float(live.sum(dtype=np.float64))
        count += len(live)
    if count == 0:
        raise UserError("no token of the measured text has a loss: every one begins a window or a document; give more")
    return total / count


def check_columns(losses: Sequence[np.ndarray], block: int = BLOCK) -> None:
    """See that columns belong together: one length, one set of candidates, finite losses.

    Raises:
        UserError: they do not.
    """
    cure = "remove the measured columns and run `tokensieve dynamics` again"
    lengths = [len(column) for column in losses]
    if len(set(lengths)) > 1:
        i = next(i for i, length in enumerate(lengths) if length != lengths[0])
        raise UserError(f"column {i + 1} has {lengths[i]} tokens and the first one {lengths[0]}; {cure}")
    for begin, end in blocks(lengths[0], block):
        live = ~np.isnan(losses[0][begin:end])
        for i, column in enumerate(losses):
            part = column[begin:end]
            wrong = np.isfinite(part) != live
            if wrong.any():
                at = int(np.flatnonzero(wrong)[0])
                raise UserError(
                    f"column {i + 1} holds {part[at]} for token {begin + at}, where the first one holds "
                    f"{losses[0][begin + at]}: they were not measured on the same tokens, or are damaged; {cure}"
                )


def blocks(count: int, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Begin and end of blocks of at most `size` that cover `count` tokens."""
    for begin in range(0, count, size):
        yield begin, min(begin + size, count)
