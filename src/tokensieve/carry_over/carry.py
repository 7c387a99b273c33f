"""Losses of one tokenization shared out over another: pure arithmetic on spans, docs/carry-over.md has the definition.

Both tokenizations of a text are cut along one line: its UTF-8 bytes, then one more unit for the EOS of each document.
A token is an interval of that line, and a tokenization's intervals tile it. A reference token's loss lies along its
interval by `share_before`; a student's token receives what lies within its own. So the sum over a document cannot
change, whatever the tokenizers do, and where both cut alike losses are carried bit for bit: float16 losses are
multiples of 2**-24, whose float64 running sum is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FRONT = 0.7
"""Exponent of `share_before`: 1 spreads evenly; below 1, the beginning of a token holds more of its loss. How a
token begins is the hard part to guess: 0.7 agreed better with native losses than 1 (docs/carry-over.md)."""


@dataclass(frozen=True)
class Line:
    """Texts, one after the other, as positions on a line.

    Args:
        texts: the documents, without EOS.
    """

    first_character: np.ndarray
    """[documents + 1] int64: a document's first character on the line; its EOS counts as a character after its text."""
    byte_at: np.ndarray
    """[characters + 1] int64: where each character begins on the line; the last entry is the line's end."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Line":
        """The line of these documents."""
        sizes = np.fromiter((len(text) + 1 for text in texts), dtype=np.int64, count=len(texts))
        data = np.frombuffer("".join(f"{text}\n" for text in texts).encode("utf-8"), dtype=np.uint8)
        # Every byte but 10xxxxxx begins a character.
        starts = np.flatnonzero((data & 0xC0) != 0x80)
        return cls(np.concatenate([[0], np.cumsum(sizes)]), np.append(starts, len(data)))


@dataclass(frozen=True)
class Tiling:
    """A tokenization of the documents of a line: its tokens' intervals side by side."""

    edges: np.ndarray
    """[tokens + 1] float64, increasing: token i is the interval [edges[i], edges[i + 1]) of the line."""
    ends: np.ndarray
    """[documents] int64: ends of the documents in tokens, EOS counted."""


def tile(line: Line, offsets: Sequence[Sequence[tuple[int, int]]]) -> Tiling:
    """The intervals of a tokenization.

    1. A token covers the bytes of its characters. Characters that several neighbouring tokens have in common (byte
       fallback, a byte-level BPE that splits a character) are cut into equal parts, in the order of the tokens.
    2. Characters that no token covers (dropped white space) belong to the next token of the text, at its end to
       the last one.
    3. A token without a part of the line (an inserted prefix) shares the interval of the next token of the text that
       has one, in equal parts; at its end that of the last one. In a text without any such token it shares EOS.
    4. EOS is its own unit of the line. In a text without tokens it covers the text as well.

    Args:
        line: the texts.
        offsets: for each document, the [start, end) of its tokens in characters, EOS left out.
    """
    sizes = np.fromiter((len(row) + 1 for row in offsets), dtype=np.int64, count=len(offsets))
    ends = np.cumsum(sizes)
    eos = ends - 1
    flat = [np.array([*row, (0, 0)], dtype=np.int64) for row in offsets]
    spans = np.concatenate(flat) + np.repeat(line.first_character[:-1], sizes)[:, None]
    spans[eos, 0] = line.first_character[1:] - 1
    spans[eos, 1] = line.first_character[1:]
    # A tokenizer that reorders characters has no intervals; taken in order, its tokens still tile the line.
    begins, stops = np.maximum.accumulate(line.byte_at[spans], axis=0).T

    edges = np.empty(len(spans) + 1)
    edges[0], edges[-1] = 0, line.byte_at[-1]
    edges[1:-1] = _cuts(begins[1:], stops[:-1])
    texted = sizes > 1
    edges[eos[texted]] = line.byte_at[line.first_character[1:] - 1][texted]
    edges = np.maximum.accumulate(edges)
    return Tiling(_without_empty(edges, ends), ends)


def _cuts(begins: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Where neighbours part: cut i lies between a token that stops at stops[i] and one that begins at begins[i]."""
    common = stops > begins
    new = np.ones(len(begins), dtype=bool)
    new[1:] = (begins[1:] != begins[:-1]) | (stops[1:] != stops[:-1])
    run = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    cuts_in_run = np.diff(first, append=len(begins))[run] if len(begins) else first
    k = np.arange(len(begins)) - first[run] + 1 if len(begins) else first
    # Whole numbers until the one division, so that two tokenizers that cut alike get the same float.
    return np.where(common, begins + (stops - begins) * k / (cuts_in_run + 1), stops)


def _without_empty(edges: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Give each token without an interval a part of a neighbour's (rule 3)."""
    length = np.diff(edges)
    if (length > 0).all():
        return edges
    index = np.arange(len(length))
    starts, eos = np.concatenate([[0], ends[:-1]]), ends - 1
    following = np.minimum.accumulate(np.where(length > 0, index, len(length))[::-1])[::-1]
    before = np.maximum.accumulate(np.where(length > 0, index, -1))
    document = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    trailing = (following == eos[document]) & (index != eos[document]) & (before >= starts[document])
    host = np.where(trailing, before, following)
    _, first, group, count = np.unique(host, return_index=True, return_inverse=True, return_counts=True)
    parts = edges[host] + length[host] * (index - first[group]) / count[group]
    return np.append(parts, edges[-1])


def share_before(part: np.ndarray, front: float = FRONT) -> np.ndarray:
    """How much of a token's loss lies in the first `part` (0 to 1) of its interval, 0 to 1."""
    return part if front == 1 else part**front


def carry(losses: np.ndarray, source: Tiling, target: Tiling, front: float = FRONT) -> np.ndarray:
    """The losses of one tokenization as losses of another of the same line.

    A target token none of whose interval is scored is NaN. One that is scored in part would be too low, which looks
    like a token worth learning: it is NaN as well, and what it received goes to the nearest token of its text that
    is scored throughout (of two, the later). It keeps its part only where it is its document's first token, which is
    never a candidate, or EOS, or where the text has no token scored throughout. The sum of a document's losses is that
    of its scored source tokens.

    Args:
        losses: [source tokens], nats, at least 0; NaN: never scored.
        source: the reference's tokens.
        target: the student's tokens of the same line.
        front: see `share_before`.

    Returns:
        [target tokens] float64, NaN or at least 0.

    Raises:
        ValueError: the tilings are not of one line, or the losses not of the source.
    """
    same_ends = np.array_equal(source.edges[source.ends], target.edges[target.ends])
    if len(losses) != len(source.edges) - 1 or not same_ends:
        raise ValueError("losses, source and target are not of the same documents")
    unscored = np.isnan(losses)
    known = np.where(unscored, 0, losses).astype(np.float64)
    total = np.concatenate([[0], np.cumsum(known)])
    holes = np.concatenate([[0], np.cumsum(unscored)])

    holder = np.minimum(np.searchsorted(source.edges, target.edges, side="right") - 1, len(losses) - 1)
    part = (target.edges - source.edges[holder]) / (source.edges[holder + 1] - source.edges[holder])
    received = np.maximum(np.diff(total[holder] + known[holder] * share_before(part, front)), 0)

    first = holder[:-1]
    last = np.searchsorted(source.edges, target.edges[1:], side="left")
    missing = holes[last] - holes[first]
    _pass_on(received, (missing > 0) & (missing < last - first), missing == 0, target.ends)
    received[missing == last - first] = np.nan
    return received


def _pass_on(received: np.ndarray, partial: np.ndarray, whole: np.ndarray, ends: np.ndarray) -> None:
    """Move what partly scored tokens received to their nearest wholly scored neighbour, and make them NaN."""
    starts, eos = np.concatenate([[0], ends[:-1]]), ends - 1
    partial[starts] = partial[eos] = False
    movers = np.flatnonzero(partial)
    whole = whole.copy()
    whole[eos] = False
    holders = np.flatnonzero(whole)
    if not len(movers) or not len(holders):
        return
    document = np.searchsorted(ends, movers, side="right")
    place = np.searchsorted(holders, movers)
    later, earlier = holders[np.minimum(place, len(holders) - 1)], holders[np.maximum(place - 1, 0)]
    far = len(received)
    later_distance = np.where((later > movers) & (later < ends[document]), later - movers, far)
    earlier_distance = np.where((earlier < movers) & (earlier >= starts[document]), movers - earlier, far)
    chosen = np.where(later_distance <= earlier_distance, later, earlier)
    moved = np.minimum(later_distance, earlier_distance) < far
    np.add.at(received, chosen[moved], received[movers[moved]])
    received[movers[moved]] = np.nan
