"""Documents and windows of a store with their aggregated scores: what is ranked, filtered and exported.

Both are spans of tokens of a shard. Their values are read in pieces of bounded size; what is held of a whole corpus
is a score, a size and a rank a span, a few dozen bytes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokensieve.errors import UserError
from tokensieve.reference.store import COLUMNS
from tokensieve.reuse.opening import OpenedStore

PIECE = 1 << 21
"""Tokens that are held together; a larger document is held alone."""
Rows = Literal["documents", "windows"]
_STATISTICS = ("mean", "median", "sum")


@dataclass(frozen=True)
class Piece:
    """Consecutive spans of one shard, with what the store holds of them."""

    shard: int
    first: int
    """Number of the first span in its shard."""
    lengths: np.ndarray
    """Tokens of each span, [spans] int64."""
    tokens: np.ndarray
    columns: Mapping[str, np.ndarray]
    """Name -> [tokens], with NaN or 255 where never scored."""


class Spans:
    """The documents or windows of a store.

    Args:
        opened: the store.
        rows: which of them. Windows are those that were scored, so a token store has none.

    Raises:
        UserError: windows of a token store.
    """

    def __init__(self, opened: OpenedStore, rows: Rows = "documents") -> None:
        self.corpus, self.scores = opened.corpus, opened.scores
        self.columns = () if opened.scores is None else opened.scores.columns
        self.unit = rows.removesuffix("s")
        self._length: int | None = None
        self._window_ends: dict[int, np.ndarray] = {}
        if rows == "windows":
            if opened.scores is None:
                raise UserError(f"{opened.folder}: a token store has no windows; export its documents or a score store")
            self._length = int(opened.scores.inputs["context"]["length"])
        self._tokens = [self.corpus.shard_tokens(i) for i in range(len(self.corpus.shards))]
        self._columns = {name: opened.scores.column(name) if opened.scores is not None else [] for name in self.columns}

    def ends(self, shard: int) -> np.ndarray:
        """Ends of the spans of a shard in its tokens, int64; windows leave the tail of the shard out."""
        if self._length is None:
            return self.corpus.document_ends(shard)
        if shard not in self._window_ends:
            windows = self.corpus.shards[shard].tokens // self._length
            self._window_ends[shard] = np.arange(1, windows + 1, dtype=np.int64) * self._length
        return self._window_ends[shard]

    def pieces(self) -> Iterator[Piece]:
        """All spans, in order."""
        for shard in range(len(self.corpus.shards)):
            starts = np.concatenate([[0], self.ends(shard)])
            first = 0
            while first < len(starts) - 1:
                last = max(int(np.searchsorted(starts, starts[first] + PIECE, side="right")) - 1, first + 1)
                yield self.read(shard, first, starts[first : last + 1])
                first = last

    def read(self, shard: int, first: int, bounds: np.ndarray) -> Piece:
        """The spans of a shard from `first` on; `bounds` are the begin of the first and the ends of all."""
        begin, end = int(bounds[0]), int(bounds[-1])
        columns = {name: arrays[shard][begin:end] for name, arrays in self._columns.items()}
        return Piece(shard, first, np.diff(bounds), self._tokens[shard][begin:end], columns)


def statistics(columns: Sequence[str]) -> list[str]:
    """Names of the aggregated scores: `mean_loss`, `median_loss`, `sum_loss`, and so on for each column."""
    return [f"{statistic}_{column}" for column in columns for statistic in _STATISTICS]


def aggregate(piece: Piece, name: str) -> np.ndarray:
    """One aggregated score of each span over its scored tokens, float64 [spans]; NaN where none is scored."""
    statistic, column = name.split("_", 1)
    values = as_floats(column, piece.columns[column])
    counts = scored_tokens(piece, column)
    starts = np.cumsum(piece.lengths) - piece.lengths
    if statistic == "median":
        return _median(values, counts, starts, piece.lengths)
    sums = np.add.reduceat(np.where(np.isnan(values), 0.0, values), starts)
    sums[counts == 0] = np.nan
    return sums / np.maximum(counts, 1) if statistic == "mean" else sums


def scored_tokens(piece: Piece, column: str) -> np.ndarray:
    """Scored tokens of each span, int64 [spans]."""
    starts = np.cumsum(piece.lengths) - piece.lengths
    return np.add.reduceat(is_scored(column, piece.columns[column]).astype(np.int64), starts)


def is_scored(column: str, values: np.ndarray) -> np.ndarray:
    """Which values of a column are scores, bool."""
    return values.view(f"<u{values.dtype.itemsize}") != COLUMNS[column].never_scored


def as_floats(column: str, values: np.ndarray) -> np.ndarray:
    """A column as float64, exactly; NaN where never scored."""
    return np.where(is_scored(column, values), values.astype(np.float64), np.nan)


def rank(
    spans: Spans,
    by: str | None,
    keep: float | None,
    *,
    unit: Literal["tokens", "documents"] = "tokens",
    highest: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, int]:
    """Order the spans of a store by an aggregated score.

    Args:
        spans: all of them.
        by: name of the score, one of `statistics(spans.columns)`; lowest first, ties in the corpus's order.
        keep: share to keep, above 0 and up to 1; None: all, those without any scored token last.
        unit: what the share is of: the corpus's tokens (so many that they do not exceed it), or its spans.
        highest: highest first.
        advance: called with the tokens just read.

    Returns:
        Numbers of the kept spans in the whole store, int64, best first; and how many spans have no score.

    Raises:
        UserError: no such score, or nothing is kept.
    """
    if by not in statistics(spans.columns):
        known = ", ".join(statistics(spans.columns)) or "none: it holds tokens only"
        raise UserError(f"{spans.corpus.folder}: cannot rank by {by}; the store's scores are {known}")
    scores, sizes = [], []
    for piece in spans.pieces():
        scores.append(aggregate(piece, by))
        sizes.append(piece.lengths)
        advance(int(piece.lengths.sum()))
    score, size = np.concatenate(scores), np.concatenate(sizes)
    if highest:
        score = -score
    order = np.argsort(score, kind="stable")  # NaN last
    without = int(np.isnan(score).sum())
    if keep is None:
        return order, without
    order = order[: len(order) - without]
    if unit == "documents":
        order = order[: int(keep * len(score) + 0.5)]
    else:
        order = order[np.cumsum(size[order]) <= int(keep * int(size.sum()) + 0.5)]
    if len(order) == 0:
        raise UserError(f"{spans.corpus.folder}: a share of {keep} keeps no {spans.unit} of {len(score)}; keep more")
    return order, without


def _median(values: np.ndarray, counts: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    ordered = values[np.lexsort((values, np.repeat(np.arange(len(lengths)), lengths)))]  # NaN last in each span
    low, high = np.maximum(counts - 1, 0) // 2, counts // 2
    high = np.minimum(high, lengths - 1)
    medians = (ordered[starts + low] + ordered[starts + high]) / 2
    medians[counts == 0] = np.nan
    return medians
