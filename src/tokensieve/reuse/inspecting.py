"""The work of `tokensieve inspect`: what a store holds, exactly, in one pass and flat memory.

A float16 has 65,536 values, so the distribution of billions of losses is one count for each of them: means and
quantiles are exact, not sampled. The bits of finite, non-negative float16 go up with their values, so the highest and
lowest tokens are found on the bits; ties are broken by a hash of the position, so that the many tokens of loss 0
are shown from all over the corpus.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.store import TokenStore
from tokensieve.reference.store import COLUMNS, ScoreStore
from tokensieve.reuse.opening import OpenedStore
from tokensieve.reuse.spans import is_scored

PIECE = 1 << 22
"""Tokens that are held together."""
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_BEFORE, _AFTER = 48, 16
"""Tokens of context that are decoded around an example."""


def inspect_store(
    opened: OpenedStore,
    *,
    examples: int = 10,
    tokenizer: PreTrainedTokenizerBase | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """What a store holds, as plain JSON data.

    Args:
        opened: token store or score store.
        examples: how many of the highest and of the lowest tokens by loss.
        tokenizer: decodes the examples; None: they are ids.
        advance: called with the tokens just read, of `corpus.tokens` in all. A token store's are not read.

    Returns:
        `kind`, `folder`, `tokens`, `documents`, `text_bytes`, `shards`, `token_bytes`, `vocab_size`, `tokenizer`,
        `regions`, `document_tokens`, `sources`, `disk_bytes`, `bytes_per_token` (None if not all of it is here),
        `shards_elsewhere` (of which something lies in the run's storage alone); of scores also `scored`, `columns`,
        `inputs` and `outputs` (the manifest's), `distribution` (column -> one for all sources, whose `source` is None,
        and one for each), `highest`, `lowest`.

    Raises:
        UserError: a damaged block.
    """
    corpus = opened.corpus
    found: dict[str, Any] = {
        "kind": "tokens" if opened.scores is None else "scores",
        "folder": str(opened.folder),
        "tokens": corpus.tokens,
        "documents": corpus.documents,
        "text_bytes": corpus.bytes,
        "shards": len(corpus.shards),
        "token_bytes": corpus.token_dtype.itemsize,
        "vocab_size": corpus.vocab_size,
        "tokenizer": corpus.tokenizer,
        "regions": None if corpus.regions is None else list(corpus.regions),
        "document_tokens": _document_lengths(corpus),
        "sources": [vars(source) for source in corpus.sources],
    }
    if opened.scores is not None:
        scores = opened.scores
        found |= {
            "scored": scores.scored_tokens,
            "columns": list(scores.columns),
            "inputs": {key: value for key, value in scores.inputs.items() if key != "corpus"},
            "outputs": {key: value for key, value in scores.outputs.items() if key not in ("columns", "shards")},
            "distribution": {},
        }
        for column in scores.columns:
            keep = examples if column == "loss" else 0
            summary = _summarize(scores, column, keep, advance)
            found["distribution"][column] = summary.distribution
            if keep:
                for name, positions in (("highest", summary.highest), ("lowest", summary.lowest)):
                    found[name] = [_example(scores, position, tokenizer) for position in positions]
    # Last: what was read is here by now.
    size = sum(path.stat().st_size for path in opened.folder.iterdir() if path.is_file())
    rest = len(opened.elsewhere)
    return found | {
        "disk_bytes": size,
        "bytes_per_token": None if rest else size / corpus.tokens,
        "shards_elsewhere": rest,
    }


@dataclass(frozen=True)
class _Summary:
    distribution: list[dict[str, Any]]
    highest: list[int]
    lowest: list[int]


def _summarize(scores: ScoreStore, column: str, examples: int, advance: Callable[[int], None]) -> _Summary:
    corpus = scores.corpus
    kind = COLUMNS[column]
    counts = np.zeros((len(corpus.sources), 1 << (8 * kind.dtype.itemsize)), dtype=np.int64)
    highest, lowest = _Extremes(examples), _Extremes(examples)
    for shard, array in zip(corpus.shards, scores.column(column), strict=True):
        for begin in range(0, shard.tokens, PIECE):
            values = array[begin : begin + PIECE]
            bits = values.view(f"<u{kind.dtype.itemsize}")
            counts[shard.source] += np.bincount(bits, minlength=counts.shape[1])
            if examples:
                scored = np.flatnonzero(is_scored(column, values))
                positions = scored + (shard.start + begin)
                lowest.add(bits[scored], positions)
                highest.add(0xFFFF - bits[scored], positions)
            advance(len(values) if column == scores.columns[0] else 0)
    names = [None, *(source.name for source in corpus.sources)]
    distribution = [
        {"source": name, **_distribution(own, column)}
        for name, own in zip(names, [counts.sum(axis=0), *counts], strict=True)
    ]
    return _Summary(distribution, highest.positions(), lowest.positions())


def _distribution(counts: np.ndarray, column: str) -> dict[str, Any]:
    """Counts of each bit pattern -> `scored`, `never_scored`, `mean` and quantiles, all exact."""
    kind = COLUMNS[column]
    values = np.arange(len(counts), dtype=f"<u{kind.dtype.itemsize}").view(kind.dtype).astype(np.float64)
    counts = counts.copy()
    never = int(counts[kind.never_scored])
    counts[kind.never_scored] = 0
    scored = int(counts.sum())
    if scored == 0:
        return {"scored": 0, "never_scored": never}
    present = np.flatnonzero(counts)
    ordered = present[np.argsort(values[present], kind="stable")]
    cumulative = np.cumsum(counts[ordered])
    # The smallest value that at least this share of the tokens does not exceed.
    ranks = [max(1, int(np.ceil(q * scored))) for q in QUANTILES]
    quantiles = values[ordered[np.searchsorted(cumulative, ranks)]].tolist()
    return {
        "scored": scored,
        "never_scored": never,
        "mean": float((values[present] * counts[present]).sum() / scored),
        "quantiles": {str(q): value for q, value in zip(QUANTILES, quantiles, strict=True)},
        "min": float(values[ordered[0]]),
        "max": float(values[ordered[-1]]),
    }


class _Extremes:
    """The positions with the lowest keys seen so far; ties go to the lower hash of the position."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._keys = np.zeros(0, dtype=np.uint16)
        self._positions = np.zeros(0, dtype=np.int64)

    def add(self, keys: np.ndarray, positions: np.ndarray) -> None:
        """More of them, uint16 and int64, [tokens]."""
        if len(keys) > self._count:
            bound = np.partition(keys, self._count - 1)[self._count - 1]
            if len(self._keys) == self._count:
                bound = min(bound, self._keys[-1])
            few = np.flatnonzero(keys <= bound)
            keys, positions = keys[few], positions[few]
        keys = np.concatenate([self._keys, keys])
        positions = np.concatenate([self._positions, positions])
        order = np.lexsort((_hash(positions), keys))[: self._count]
        self._keys, self._positions = keys[order], positions[order]

    def positions(self) -> list[int]:
        """Lowest key first."""
        return self._positions.tolist()


def _hash(positions: np.ndarray) -> np.ndarray:
    """The finisher of splitmix64 (Steele, Lea and Flood 2014): uint64, the same for the same position."""
    mixed = positions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _example(scores: ScoreStore, position: int, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """A token with its values, its place and the text around it inside its document."""
    corpus = scores.corpus
    place = corpus.locate(position)
    i = next(i for i, shard in enumerate(corpus.shards) if shard.name == place.shard)
    at = position - corpus.shards[i].start
    begin = at - min(place.offset, _BEFORE)
    end = min(int(corpus.document_ends(i)[place.document]), at + 1 + _AFTER)
    ids = corpus.shard_tokens(i)[begin:end].tolist()
    parts = {"before": ids[: at - begin], "token": ids[at - begin : at - begin + 1], "after": ids[at - begin + 1 :]}
    return {
        **{column: float(scores.column(column)[i][at : at + 1][0]) for column in scores.columns},
        "position": position,
        "source": place.source,
        "shard": place.shard,
        "document": place.document,
        "offset": place.offset,
        "id": parts["token"][0],
        **{name: None if tokenizer is None else _decode(tokenizer, part) for name, part in parts.items()},
    }


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _document_lengths(corpus: TokenStore) -> dict[str, float]:
    lengths = np.concatenate([np.diff(corpus.document_ends(i), prepend=0) for i in range(len(corpus.shards))])
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "mean": float(lengths.mean()),
        "max": int(lengths.max()),
    }
