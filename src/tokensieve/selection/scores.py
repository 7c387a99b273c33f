"""Scores: one number a token, and one sign convention: *higher = kept*.

Every scorer of the product is in this file, so that polarity is decided once. Shapes: any shape, the
same for all columns of a call; entry i belongs to predicting one token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenColumns:
    """What scores are computed from; a column that no score of the policy reads may be None."""

    loss: Tensor | None = None
    """Loss of the model being trained, nats."""
    entropy: Tensor | None = None
    """Entropy of the model's next-token distribution, nats."""
    reference_loss: Tensor | None = None
    """Loss of the reference model, nats."""
    reference_entropy: Tensor | None = None
    """Entropy of the reference's next-token distribution, nats."""
    history_loss: Tensor | None = None
    """Loss of an earlier checkpoint, nats."""
    selection_mask: Tensor | None = None
    """Boolean, from anywhere."""
    token_index: Tensor | None = None
    """int64 position in the training stream: pass * corpus tokens + corpus position."""


def compute_score(name: str, columns: TokenColumns, seed: int = 0) -> Tensor:
    """The score called `name`.

    - `excess_loss`: loss - reference loss (Rho-1 eq. 3), never clamped.
    - `reference_loss`, `reference_entropy`: low is kept, so their negatives (Rho-1 app. H).
    - `current_loss`, `current_entropy`: high is kept.
    - `history_loss`: loss of an earlier checkpoint - loss now: what has been learned since is kept.
    - `random`: uniform in [0, 1), a hash of seed and token_index, the same for every layout and rank.
    - `mask`: 1 where `selection_mask`, else 0.

    Raises:
        ValueError: a column that the score reads was not given.
    """
    if name == "excess_loss":
        return _need(columns.loss, name, "loss") - _need(columns.reference_loss, name, "reference_loss")
    if name == "reference_loss":
        return -_need(columns.reference_loss, name, "reference_loss")
    if name == "reference_entropy":
        return -_need(columns.reference_entropy, name, "reference_entropy")
    if name == "current_loss":
        return _need(columns.loss, name, "loss")
    if name == "current_entropy":
        return _need(columns.entropy, name, "entropy")
    if name == "history_loss":
        return _need(columns.history_loss, name, "history_loss") - _need(columns.loss, name, "loss")
    if name == "random":
        return hash_uniform(_need(columns.token_index, name, "token_index"), seed)
    if name == "mask":
        return _need(columns.selection_mask, name, "selection_mask").float()
    raise ValueError(f"unknown score {name!r}")


def hash_uniform(index: Tensor, seed: int) -> Tensor:
    """Uniform float64 in [0, 1) from int64 positions: the splitmix64 finaliser (Steele et al., 2014).

    A pure function of (seed, index), so that batch layout, rank and resume cannot change a choice.
    """
    x = index.to(torch.int64) * -7046029254386353131 + _mix_seed(seed)
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    x = x ^ _shift(x, 31)
    return _shift(x, 11).to(torch.float64) * 2.0**-53


def _mix_seed(seed: int) -> int:
    # Neighbouring seeds must not give shifted copies of one stream, so the seed is mixed as well.
    mask = 2**64 - 1
    x = (seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & mask
    x ^= x >> 32
    x = (x * 0xDABA0B6EB09322E3) & mask
    x ^= x >> 32
    return x - 2**64 if x >= 2**63 else x


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _need(column: Tensor | None, score: str, name: str) -> Tensor:
    if column is None:
        raise ValueError(
            f"score {score!r} needs the column {name}, which the batch does not have (in a transformers.Trainer, set "
            f"remove_unused_columns=False)"
        )
    return column
