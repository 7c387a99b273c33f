"""What one forward pass of scoring is made of: fragments of like length, without padding to speak of.

A fragment is a document's part in one window. With `document_mask` attention never leaves it and positions begin
anew in it, so its losses are those of a row of its own: rows of like length go together, causal attention
needs no mask, and no token attends to what the mask would hide. Without `document_mask` a fragment is a window.

The plan is a pure function of the shard's document ends, the context and the batch's size: whoever scores the
shard, and however often, gets the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tokensieve.recipe import ContextSection

_PADDING = 0.05
"""Share of padding up to which a pass takes more rows."""
_GROUP = 64
"""Batches whose fragments are sorted together: enough for like lengths, few enough to read near each other."""


@dataclass(frozen=True)
class Rows:
    """The rows of one forward pass: fragments of one shard, longest first."""

    begins: np.ndarray
    """Position of each row's first token in the shard, [rows] int64."""
    lengths: np.ndarray
    """Tokens of each row, at least 2, [rows] int64."""

    def read(self, tokens: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids [rows, longest] int64, 0 behind a row's end, and whether a token belongs to its row, bool.

        Args:
            tokens: a part of the shard that holds all rows.
            first: the part's position in the shard.
        """
        offsets = np.arange(int(self.lengths[0]))
        inside = offsets < self.lengths[:, None]
        places = np.where(inside, (self.begins - first)[:, None] + offsets, 0)
        return np.where(inside, tokens[places], 0).astype(np.int64), inside

    @property
    def positions(self) -> np.ndarray:
        """Shard positions of the tokens that have a loss, row by row: all but each row's first, [tokens] int64."""
        counts = self.lengths - 1
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.begins + 1, counts) + within


@dataclass(frozen=True)
class Group:
    """Forward passes over one stretch of a shard."""

    first: int
    """Position of the stretch's first token in the shard."""
    last: int
    """Position after its last token."""
    passes: tuple[Rows, ...]


def plan_groups(ends: np.ndarray, tokens: int, context: ContextSection, batch_size: int) -> Iterator[Group]:
    """All forward passes over a shard, in order.

    Args:
        ends: ends of the documents, [documents] int64.
        tokens: of the shard.
        context: window length and document mask.
        batch_size: a pass takes at most batch_size * context.length tokens, padding counted.
    """
    T = context.length
    whole = tokens // T * T
    budget = batch_size * T
    for first in range(0, whole, _GROUP * budget):
        last = min(first + _GROUP * budget, whole)
        starts = np.arange(first, last, T)
        if context.document_mask:
            inside = ends[np.searchsorted(ends, first, side="right") : np.searchsorted(ends, last, side="left")]
            starts = np.union1d(starts, inside)
        lengths = np.diff(starts, append=last)
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 1]  # a single token has nothing before it
        passes = []
        while len(order):
            rows = _rows_of_like_length(lengths[order], budget)
            chosen, order = order[:rows], order[rows:]
            passes.append(Rows(starts[chosen].astype(np.int64), lengths[chosen].astype(np.int64)))
        yield Group(first, last, tuple(passes))


def _rows_of_like_length(lengths: np.ndarray, budget: int) -> int:
    """How many of the longest fragments make one pass: as fit into the budget, but not many tokens of padding.

    Args:
        lengths: of the fragments that are left, falling.
        budget: tokens of a pass, padding counted.
    """
    longest = int(lengths[0])
    most = min(max(1, budget // longest), len(lengths))
    held = np.cumsum(lengths[:most])
    dense = held >= (1 - _PADDING) * longest * np.arange(1, most + 1)
    # A pass of less than a quarter of the budget would cost more than its padding.
    least = min(most, max(1, budget // 4 // longest))
    return max(least, int(np.flatnonzero(dense)[-1]) + 1)


def scored_tokens(ends: np.ndarray, tokens: int, context: ContextSection) -> int:
    """How many tokens of a shard get a loss."""
    T = context.length
    whole = tokens // T * T
    starts = whole // T
    if context.document_mask:
        inside = ends[: np.searchsorted(ends, whole, side="left")]
        starts += int(np.count_nonzero(inside % T))
    return whole - starts
