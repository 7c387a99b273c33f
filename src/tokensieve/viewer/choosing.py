"""Which windows of a token store become passages: evenly spread, of one source or document, or those with a text."""

import difflib
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.order import middles
from tokensieve.corpus.pieces import token_pieces
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.viewer.progress import bar

_BYTES, _BYTES_A_TOKEN, _BYTES_A_MODEL = 4_400_000, 11.0, 5.4
"""Of a page's data; of a token's text, id and place in it; of a token's loss and entropy under one model."""
PASSAGES = 200
_ROWS = 64
"""Windows that are decoded together."""


@dataclass(frozen=True)
class Wish:
    """What a reader asked to see of a store."""

    passages: int = PASSAGES
    """At most so many."""
    length: int | None = None
    """Tokens of each; None: the whole window, as long as the page stays below 5 MB."""
    find: str | None = None
    """Only passages whose text contains this."""
    source: str | None = None
    """Only passages of this source."""
    document: int | None = None
    """Only passages with tokens of this document of the store, counted from 0 over all shards."""

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise UserError(f"passages must be at least 1, not {self.passages}")
        if self.length is not None and self.length < 2:
            raise UserError(f"length must be at least 2 tokens, not {self.length}: the first token has no loss")
        if self.find == "":
            raise UserError("find is empty: give the text to look for, or leave it out")


@dataclass(frozen=True)
class Choice:
    """Parts of windows, in the order of the store."""

    windows: np.ndarray
    """Numbers of the windows, int64 [P], increasing."""
    starts: np.ndarray
    """Where in its window each passage begins, int64 [P]."""
    length: int
    """Tokens of each passage, at most the window's."""


def most_tokens(models: int) -> int:
    """Tokens of all passages together, for a page below 5 MB, unless a length is asked for."""
    return int(_BYTES / (_BYTES_A_TOKEN + _BYTES_A_MODEL * models))


def choose(
    store: TokenStore,
    context_length: int,
    wish: Wish,
    tokenizer: PreTrainedTokenizerBase,
    models: int,
    among: np.ndarray | None = None,
) -> Choice:
    """Choose windows.

    Of the windows that fit the wish each source gives its share by their number (largest remainder, at least one if
    there are enough passages), from the middles of so many equal parts of them: no randomness, the same windows for
    the same store and wish. A passage begins where its window does, because a loss holds for its context; one that
    was found by its text or its document begins so that this can be seen.

    Args:
        store: the tokens.
        context_length: T of the windows.
        wish: what to show.
        tokenizer: decodes, for `find`.
        models: how many models' losses the page will hold.
        among: numbers of the windows to choose from; None: all.

    Raises:
        UserError: no window fits the wish, or there is no such source or document.
    """
    windows = Windows(store, context_length)
    fitting = np.arange(windows.n_windows) if among is None else np.unique(among)
    sources = np.repeat([shard.source for shard in store.shards], store.windows_per_shard(context_length))
    if wish.source is not None:
        fitting = fitting[sources[fitting] == _source(store, wish.source)]
    at = np.zeros(windows.n_windows, dtype=np.int64)
    if wish.document is not None:
        inside, begin = _windows_of(store, context_length, wish.document)
        fitting = fitting[np.isin(fitting, inside)]
        at[inside[:1]] = begin
    if len(fitting) == 0:
        what = f"of source {wish.source!r}" if wish.source is not None else f"with document {wish.document}"
        raise UserError(f"{store.folder}: no window of {context_length} tokens {what} to show: it is too short")
    at, before = at[fitting], 0
    if wish.find is not None:
        fitting, at = _search(store, context_length, fitting, wish.find, tokenizer)
        before = 3  # what was found stands in the first third, with some text before it
    taken = spread(sources[fitting], wish.passages)
    chosen, at = fitting[taken], at[taken]
    length = wish.length or max(2, most_tokens(models) // len(chosen))
    length = min(length, context_length)
    starts = np.clip(at - (length // before if before else 0), 0, context_length - length)
    return Choice(chosen, starts, length)


def spread(groups: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` entries of `groups` (or all), evenly spread, each group by its share; increasing."""
    if count >= len(groups):
        return np.arange(len(groups))
    names, sizes = np.unique(groups, return_counts=True)
    exact = sizes * count / len(groups)
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: count - int(shares.sum())]] += 1
    if count >= len(names):
        # Every group is seen, at the cost of the largest.
        for group in np.flatnonzero(shares == 0):
            shares[group] += 1
            shares[shares.argmax()] -= 1
    parts = [
        np.flatnonzero(groups == name)[middles(int(size), int(share))]
        for name, size, share in zip(names, sizes, shares, strict=True)
    ]
    return np.sort(np.concatenate(parts))


def _source(store: TokenStore, name: str) -> int:
    names = [source.name for source in store.sources]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise UserError(
            f"{store.folder}: has no source {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; its sources are {', '.join(names)}")
        )
    return names.index(name)


def _windows_of(store: TokenStore, length: int, document: int) -> tuple[np.ndarray, int]:
    """Numbers of the windows that hold tokens of a document, and where in the first of them it begins."""
    if not 0 <= document < store.documents:
        raise UserError(
            f"{store.folder}: has no document {document}; they are numbered from 0 to {store.documents - 1}"
        )
    first, window = 0, 0
    for i, shard in enumerate(store.shards):
        whole = shard.tokens // length
        if document < first + shard.documents:
            ends = store.document_ends(i)
            inside = document - first
            begin = int(ends[inside - 1]) if inside else 0
            held = np.arange(begin // length, min(-(-int(ends[inside]) // length), whole))
            return window + held, begin % length
        first, window = first + shard.documents, window + whole
    raise AssertionError("the shards hold fewer documents than the store")


def _search(
    store: TokenStore, length: int, among: np.ndarray, text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, np.ndarray]:
    """Of some windows those with a text, and the token where it begins."""
    windows = Windows(store, length, order=among)
    found, at = [], []
    with bar(f"search {text!r:.30}", len(among), "windows") as advance:
        for begin in range(0, len(among), _ROWS):
            rows = list(range(begin, min(begin + _ROWS, len(among))))
            for row, ids in zip(rows, windows.__getitems__(rows)["input_ids"].tolist(), strict=True):
                if text in _decoded(tokenizer, ids):
                    found.append(among[row])
                    at.append(_token_at(tokenizer, ids, text))
            advance(len(rows))
    if not found:
        raise UserError(
            f"{store.folder}: {text!r} is in none of the {len(among):,} windows (capital letters count, and a text "
            f"across two windows is not found); look for a shorter text"
        )
    return np.array(found), np.array(at)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _token_at(tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str) -> int:
    pieces = token_pieces(tokenizer, ids)
    ends = np.cumsum([len(piece) for piece in pieces])
    return int(np.searchsorted(ends, max(0, "".join(pieces).find(text)), side="right"))
