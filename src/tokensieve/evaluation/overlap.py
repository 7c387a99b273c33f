"""Evaluation text inside the training text: how much of each target stands there word for word.

A loss on text that was trained on measures memory, and an arm that happens to repeat such text looks better than it
is. Two texts overlap where they have a run of `ngram` tokens in common (13; GPT-3's authors took 13 words, Brown et
al. 2020, appendix C). Rolling hashes of 64 bits find candidates and their token ids are compared, so that a hash that
two runs share changes nothing: the counts are exact.

The targets are held in memory, about 100 bytes a token while they are hashed; the training text streams through in
pieces.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tokensieve.corpus.store import TokenStore

NGRAM = 13
"""Tokens of a run that counts as common text."""
SHORT = 8
"""A document shorter than the n-gram but at least this long is looked for as a whole, anywhere. A shorter one
("Solve for x.") stands in any text by chance: it counts only where a training document is nothing else. 8 is the
shortest run that GPT-3's authors used."""
MOSTLY = 0.5
"""A document counts as being in the training text when at least this share of its tokens is covered."""
COVERED = 0.1
"""Share of covered tokens that is reported although no document is mostly covered. Texts of one kind have phrases in
common without being copies: 3 % of the tokens of GSM8K's test split stand in its training split, 4 % of sympy's
docstrings in docstrings of its other modules. MATH, whose splits share whole exercises with other numbers, has 18 %
(vocabularies of 8192)."""

_PIECE = 1 << 16
"""Training tokens that are hashed together: the arrays stay in the processor's cache."""
_SHOWN_AFTER = 1.0
"""Seconds before a bar is drawn."""


def find_overlap(
    targets: Mapping[str, TokenStore], training: Sequence[TokenStore], *, ngram: int = NGRAM
) -> dict[str, Any]:
    """Look for the text of the targets in the training text.

    N-grams leave EOS out and so never cross documents. A document shorter than `ngram` is looked for as a whole; see
    `SHORT`. A document without text is never touched.

    Args:
        targets: evaluation text by name.
        training: all that the models are trained on, the reference's clean text too.
        ngram: tokens of a run that counts as common.

    Returns:
        {"ngram", "targets": {name: {"documents", "documents_touched" (a run in common), "documents_mostly" (at least
        half of its tokens in common runs), "tokens", "tokens_covered"}}}; tokens do not count EOS.

    Raises:
        ValueError: `ngram` below 1, or stores of different tokenizers.
        UserError: a store is damaged.
    """
    if ngram < 1:
        raise ValueError(f"ngram must be at least 1, not {ngram}")
    stores = [*targets.values(), *training]
    if len({(store.tokenizer, store.eos_token_id) for store in stores}) > 1:
        raise ValueError("targets and training text have different tokenizers: their ids cannot be compared")
    texts = {name: _Text.of(store) for name, store in targets.items()}
    runs = _Runs.of(list(texts.values()), stores[0].eos_token_id, ngram) if texts else None
    if runs is not None and runs.tables:
        _stream(training, runs)
    found, begin = {}, 0
    for name, text in texts.items():
        assert runs is not None
        end = begin + len(text.tokens)
        found[name] = text.count(runs.covered[begin:end])
        begin = end
    return {"ngram": ngram, "targets": found}


def overlap_warnings(found: Mapping[str, Any], kind: str = "target") -> list[str]:
    """One line for each set that stands in the training text so far that its loss cannot be trusted.

    Args:
        found: of `find_overlap`.
        kind: what the sets are called.

    Returns:
        A line where any document is mostly there, however few: each can be removed, and the share says how much they
        matter. Without such a document, a line from `COVERED` of the tokens.
    """
    lines = []
    for name, item in found["targets"].items():
        documents, mostly = item["documents"], item["documents_mostly"]
        share = item["tokens_covered"] / max(item["tokens"], 1)
        if mostly:
            stand = "stands" if mostly == 1 else "stand"
            lines.append(
                f"{kind} {name}: {mostly} of {documents} documents ({_percent(mostly / documents)}) "
                f"{stand} mostly in the training text ({_percent(share)} of all tokens): "
                f"the loss there measures memory, not learning; remove them there or from corpus and clean text"
            )
        elif share >= COVERED:
            lines.append(
                f"{kind} {name}: {_percent(share)} of its tokens stand in the training text, in runs of "
                f"{found['ngram']} tokens or more, spread over {item['documents_touched']} of {documents} documents: "
                f"their loss measures memory too; look for templates, quotations and repeated exercises"
            )
    return lines


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "less than 0.1 %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


@dataclass(frozen=True)
class _Text:
    """One target: tokens [N], and for each document where it begins and where its EOS stands, [documents]."""

    tokens: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(store: TokenStore) -> "_Text":
        tokens = [store.shard_tokens(i)[:] for i in range(len(store.shards))]
        ends = np.concatenate([store.document_ends(i) + shard.start for i, shard in enumerate(store.shards)])
        return _Text(np.concatenate(tokens), np.concatenate([[0], ends[:-1]]), ends - 1)

    def count(self, covered: np.ndarray) -> dict[str, int]:
        """The numbers of this target; covered [N] bool."""
        before = np.concatenate([[0], np.cumsum(covered)])
        per_document, lengths = before[self.ends] - before[self.begins], self.ends - self.begins
        return {
            "documents": len(lengths),
            "documents_touched": int((per_document > 0).sum()),
            "documents_mostly": int(((per_document >= MOSTLY * lengths) & (lengths > 0)).sum()),
            "tokens": int(lengths.sum()),
            "tokens_covered": int(per_document.sum()),
        }


@dataclass
class _Runs:
    """All runs of all targets that are looked for: a table for each length."""

    tokens: np.ndarray
    """All targets, one after the other, with an EOS before the first: [1 + N]."""
    tables: "list[_Table]"

    @staticmethod
    def of(texts: Sequence[_Text], eos: int, ngram: int) -> "_Runs":
        tokens = np.concatenate([np.array([eos], texts[0].tokens.dtype), *(text.tokens for text in texts)])
        offsets = 1 + np.cumsum([0, *(len(text.tokens) for text in texts[:-1])])
        begins = np.concatenate([text.begins + offset for text, offset in zip(texts, offsets, strict=True)])
        ends = np.concatenate([text.ends + offset for text, offset in zip(texts, offsets, strict=True)])
        lengths = ends - begins
        # A document may hold the id of EOS as text. A run with it could meet one across two training documents.
        before = np.concatenate([[0], np.cumsum(tokens == eos)])
        long = lengths >= ngram
        counts = lengths[long] - ngram + 1
        starts = np.repeat(begins[long] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        wanted = {ngram: [starts[before[starts + ngram] == before[starts]]]}
        short = before[ends] == before[begins]
        for length in range(1, ngram):
            own = begins[short & (lengths == length)]
            if length >= SHORT:
                wanted.setdefault(length, []).append(own)
            else:  # with an EOS on both sides: nothing but a whole document is equal to it
                wanted.setdefault(length + 2, []).append(own - 1)
        tables = []
        for length, parts in sorted(wanted.items()):
            starts = np.concatenate(parts)
            if len(starts):
                tables.append(_Table.of(tokens, starts, length))
        return _Runs(tokens, tables)

    @property
    def covered(self) -> np.ndarray:
        """Whether each token of the targets lies in a run that was found, [N] bool."""
        edges = np.zeros(len(self.tokens) + 1, dtype=np.int64)
        for table in self.tables:
            starts = table.starts[table.found[table.number]]
            np.add.at(edges, starts, 1)
            np.add.at(edges, starts + table.length, -1)
        return np.cumsum(edges)[1:-1] > 0


@dataclass
class _Table:
    """The runs of one length."""

    length: int
    starts: np.ndarray
    """Where each run begins in `_Runs.tokens`, [runs]."""
    number: np.ndarray
    """Which of the different runs each is, [runs]."""
    hashes: np.ndarray
    """Of the different runs, increasing, [different] uint64."""
    example: np.ndarray
    """Where one of each begins, [different]."""
    found: np.ndarray
    """Whether each stands in the training text, [different] bool."""
    base: np.uint64
    filter: np.ndarray
    """Whether a hash with these leading bits may be there: spares most searches, [2 ** bits] bool."""
    shift: np.uint64

    @staticmethod
    def of(tokens: np.ndarray, starts: np.ndarray, length: int) -> "_Table":
        # Should two different runs of the targets have one hash, another base tells them apart.
        for base in np.random.default_rng(0).integers(0, 1 << 63, 64, dtype=np.uint64):
            base = base * np.uint64(2) + np.uint64(1)
            of_runs = _hashes(tokens, length, base)[starts]
            hashes, first, number = np.unique(of_runs, return_index=True, return_inverse=True)
            if _equal(tokens, starts, tokens, starts[first][number], length).all():
                bits = int(np.clip(np.ceil(np.log2(16 * len(hashes))), 10, 28))
                shift = np.uint64(64 - bits)
                table = np.zeros(1 << bits, dtype=bool)
                table[(hashes >> shift).view(np.int64)] = True
                found = np.zeros(len(hashes), dtype=bool)
                return _Table(length, starts, number, hashes, starts[first], found, base, table, shift)
        raise AssertionError("no base tells the runs apart")

    def look(self, text: np.ndarray, tokens: np.ndarray) -> None:
        """Mark the runs that stand in a piece of training text; tokens are the targets'."""
        if len(text) < self.length:
            return
        hashes = _hashes(text, self.length, self.base)
        maybe = np.flatnonzero(self.filter.take((hashes >> self.shift).view(np.int64)))
        place = np.searchsorted(self.hashes, hashes[maybe])
        place[place == len(self.hashes)] = 0
        hit = (self.hashes[place] == hashes[maybe]) & ~self.found[place]
        maybe, place = maybe[hit], place[hit]
        self.found[place[_equal(text, maybe, tokens, self.example[place], self.length)]] = True


def _hashes(tokens: np.ndarray, length: int, base: np.uint64) -> np.ndarray:
    """Sum of token[i + j] * base ** (length - j) modulo 2**64, j below length: [N - length + 1] uint64.

    By doubling: the hash of twice as many tokens from two that lie side by side, so in about log2(length) steps.
    """
    double = np.multiply(tokens, base, dtype=np.uint64, casting="unsafe")
    result, done, size = double, 0, 1
    while True:
        if length & size:  # so many tokens more, on the left
            result = _joined(double, result, size, pow(int(base), done, 1 << 64)) if done else double
            done += size
        if done == length:
            return result
        double = _joined(double, double, size, pow(int(base), size, 1 << 64))
        size *= 2


def _joined(left: np.ndarray, right: np.ndarray, size: int, power: int) -> np.ndarray:
    """Hashes of runs from those of their left parts, `size` tokens, and right parts, whose base**tokens is `power`."""
    count = len(right) - size
    joined = left[:count] * np.uint64(power)
    joined += right[size:]
    return joined


def _equal(left: np.ndarray, at: np.ndarray, right: np.ndarray, other: np.ndarray, length: int) -> np.ndarray:
    """Whether `left` from `at` and `right` from `other` agree over `length` tokens, [n] bool."""
    equal = np.ones(len(at), dtype=bool)
    for j in range(length):
        equal &= left[at + j] == right[other + j]
    return equal


def _stream(training: Sequence[TokenStore], runs: _Runs) -> None:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=int(os.environ.get("RANK", "0")) != 0,
    )
    task = bar.add_task("look for evaluation text", total=sum(store.tokens for store in training))
    before = max(table.length for table in runs.tables) - 1
    started, shown = time.monotonic(), False
    try:
        for store in training:
            for piece, new in _pieces(store, before):
                for table in runs.tables:
                    table.look(piece, runs.tokens)
                bar.advance(task, new)
                if not shown and time.monotonic() - started > _SHOWN_AFTER:
                    bar.start()
                    shown = True
    finally:
        if shown:
            bar.stop()


def _pieces(store: TokenStore, before: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces of each shard, each with the last `before` tokens of the one before it, and how many tokens are new."""
    for i, shard in enumerate(store.shards):
        tokens = store.shard_tokens(i)
        # What a document at the beginning of a shard follows is no EOS, but ends as well.
        tail = np.array([store.eos_token_id], dtype=store.token_dtype)
        for begin in range(0, shard.tokens, _PIECE):
            new = tokens[begin : min(begin + _PIECE, shard.tokens)]
            piece = np.concatenate([tail, new])
            tail = piece[len(piece) - min(before, len(piece)) :]
            yield piece, len(new)
