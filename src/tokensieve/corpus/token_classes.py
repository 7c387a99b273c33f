"""Each vocabulary id's class, by what it writes and by how often the corpus has it: what a report counts choices by.

What an id writes is asked of the tokenizer itself: it decodes the id behind another one, and what is added to that
one's text is the id's own. So byte-level, SentencePiece and WordPiece vocabularies, each with its own marks for spaces
and parts of words, need no rules here.
"""

import functools
import unicodedata

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import vocabulary_size

CLASSES = (
    "word start",
    "word continuation",
    "other script",
    "digits",
    "punctuation",
    "code and symbols",
    "whitespace",
    "part of a character",
    "special",
)
FREQUENCIES = (
    "commonest (half of the text)",
    "common (the next quarter)",
    "uncommon (the next 15 %)",
    "rare (the last 10 %)",
)
_SHARES = (0.5, 0.75, 0.9)
"""Where one class of frequency ends and the next begins, in occurrences covered."""

_CODE = frozenset("#%&*/\\@[]{}_")
"""Punctuation for Unicode, but seldom in prose."""
_IN_WORDS = str.maketrans("", "", "'’-\u00ad")
_OPENING = '([{"“‘«„'
_UNREADABLE = "\ufffd"
"""What an incomplete character decodes to."""

_PIECE = 1 << 16


def token_classes(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], np.ndarray]:
    """What each id writes.

    - word start: letters of the Latin script (also with apostrophe or hyphen) behind a space, bracket or quotation
      mark;
    - word continuation: such letters without one. In vocabularies whose tokens carry their spaces this is also the
      first word of a line; where no token has a mark, every word is a start;
    - other script: letters among which some are not Latin, with or without a space;
    - digits; punctuation of prose; whitespace;
    - code and symbols: the rest, also mixtures such as `_name`, `x1` and `).`;
    - part of a character: bytes that are no whole text alone (they decode to nothing or to a replacement character);
    - special: control tokens, and ids without a token.

    Spaces around a token do not change its class, but for words.

    Returns:
        The names, and the class of each id, [V] uint8; V is the largest id plus one.
    """
    special = {int(i) for i in tokenizer.all_special_ids}
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = sorted(set(tokenizer.get_vocab().values()) - special)
    classes = np.full(vocabulary_size(tokenizer), CLASSES.index("special"), dtype=np.uint8)
    if ids:
        classes[ids] = [CLASSES.index(_class_of(text)) for text in _texts(tokenizer, ids)]
    return CLASSES, classes


def frequency_classes(store: TokenStore, most: int = 1 << 26) -> tuple[tuple[str, ...], np.ndarray]:
    """How often the corpus has each id: the commonest ids that make up half of its tokens, and so on.

    Of ids that occur equally often the lower one counts as commoner. An id that never occurs is rare.

    Args:
        store: the corpus.
        most: read at most about this many tokens, in pieces spread evenly over the corpus.

    Returns:
        The names, and the class of each id, [V] uint8, with V of the store.
    """
    counts = np.zeros(store.vocab_size, dtype=np.int64)
    pieces = -(-store.tokens // _PIECE)
    taken = min(pieces, max(1, most // _PIECE))
    starts = np.array([shard.start for shard in store.shards])
    arrays = [store.shard_tokens(i) for i in range(len(store.shards))]
    for k in range(taken):
        begin = k * pieces // taken * _PIECE
        end = min(begin + _PIECE, store.tokens)
        while begin < end:  # a piece may go on in the next shard
            i = int(np.searchsorted(starts, begin, side="right")) - 1
            part = arrays[i][begin - starts[i] : end - starts[i]]
            counts += np.bincount(part, minlength=store.vocab_size)
            begin += len(part)
    order = np.argsort(-counts, kind="stable")
    # By what commoner ids cover: an id that makes up most of the text alone is still the commonest.
    before = np.cumsum(counts[order]) - counts[order]
    classes = np.empty(store.vocab_size, dtype=np.uint8)
    classes[order] = np.searchsorted(np.array(_SHARES) * counts.sum(), before, side="right")
    return FREQUENCIES, classes


def _texts(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """What each id writes behind a word, with the space it carries or gets."""
    alone = _decode(tokenizer, [[i] for i in ids])
    # Not the beginning of a text: many decoders drop the first space.
    words = (i for i, text in zip(ids, alone, strict=True) if text.strip().isascii() and text.strip().isalnum())
    anchor = next(words, None)
    if anchor is None:
        return alone
    before = alone[ids.index(anchor)]
    return [text.removeprefix(before) for text in _decode(tokenizer, [[anchor, i] for i in ids])]


def _decode(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    if tokenizer.is_fast:
        return list(tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False))
    return [str(tokenizer.decode(row, skip_special_tokens=False, clean_up_tokenization_spaces=False)) for row in rows]


def _class_of(text: str) -> str:
    body = text.strip()
    if not text or _UNREADABLE in text:
        return "part of a character"
    if not body:
        return "whitespace"
    word = body.lstrip(_OPENING).translate(_IN_WORDS)
    kinds = {_kind(character) for character in word}
    if word and kinds <= {"latin", "letter", "mark"} and kinds != {"mark"}:
        if "letter" in kinds:
            return "other script"
        return "word start" if text[0].isspace() or text[0] in _OPENING else "word continuation"
    kinds = {_kind(character) for character in body}
    if kinds == {"digit"}:
        return "digits"
    if kinds == {"punctuation"}:
        return "punctuation"
    return "other script" if kinds == {"mark"} else "code and symbols"


@functools.cache
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category.startswith("L"):
        return "latin" if unicodedata.name(character, "").startswith(("LATIN", "MODIFIER LETTER")) else "letter"
    if category.startswith("M"):
        return "mark"
    if category.startswith("N"):
        return "digit"
    return "punctuation" if category.startswith("P") and character not in _CODE else "symbol"
