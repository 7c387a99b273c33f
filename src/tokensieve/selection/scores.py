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
    document_ids: Tensor | None = None
    """Integers, constant within a document and another number at its neighbours in the row: no score, but what
    the scope `document` groups by."""


def compute_score(name: str, columns: TokenColumns, seed: int = 0, reference_loss_cap: float | None = None) -> Tensor:
    """The score called `name`.

    - `excess_loss`: loss - reference loss (Rho-1 eq. 3), never clamped; with a cap (nats) it is
      loss - min(reference loss, cap).
    - `reference_loss`, `reference_entropy`: low is kept, so their negatives (Rho-1 app. H).
    - `current_loss`, `current_entropy`: high is kept.
    - `history_loss`: loss of an earlier checkpoint - loss now: what has been learned since is kept.
    - `random`: uniform in [0, 1), a hash of seed and token_index, the same for every layout and rank.
    - `mask`: 1 where `selection_mask`, else 0.

    Raises:
        ValueError: a column that the score reads was not given, or two columns differ in shape.
    """
    if name == "excess_loss":
        reference = need_column(columns.reference_loss, name, "reference_loss")
        if reference_loss_cap is not None:
            reference = reference.clamp(max=reference_loss_cap)
        return _difference(need_column(columns.loss, name, "loss"), reference, name)
    if name == "reference_loss":
        return -need_column(columns.reference_loss, name, "reference_loss")
    if name == "reference_entropy":
        return -need_column(columns.reference_entropy, name, "reference_entropy")
    if name == "current_loss":
        return need_column(columns.loss, name, "loss")
    if name == "current_entropy":
        return need_column(columns.entropy, name, "entropy")
    if name == "history_loss":
        earlier = need_column(columns.history_loss, name, "history_loss")
        return _difference(earlier, need_column(columns.loss, name, "loss"), name)
    if name == "random":
        return hash_uniform(need_column(columns.token_index, name, "token_index"), seed)
    if name == "mask":
        return need_column(columns.selection_mask, name, "selection_mask").float()
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


def _difference(first: Tensor, second: Tensor, score: str) -> Tensor:
    # Broadcasting would compare each token with another row's.
    if first.shape != second.shape:
        raise ValueError(f"score {score!r}: its columns have shapes {tuple(first.shape)} and {tuple(second.shape)}")
    return first - second


def need_column(column: Tensor | None, score: str, name: str) -> Tensor:
    """The column itself; ValueError, naming score and column, if there is none."""
    if column is None:
        raise ValueError(
            f"score {score!r} needs the column {name}, which the batch does not have (in a transformers.Trainer, set "
            f"remove_unused_columns=False)"
        )
    return column
