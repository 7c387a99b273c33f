"""The text of each token, so that the pieces joined are the text itself, to the last character.

Decoding tokens one by one loses the spaces that some tokenizers keep between words, and tears characters that lie
across tokens. `token_pieces` therefore cuts the decoded text where decoding a token less would end; `text_pieces`
cuts a text where its tokens' offsets say. A token that ends inside a character gets none of it; the token that
completes the character gets all of it.
"""

import itertools
from collections.abc import Sequence
from difflib import SequenceMatcher

from transformers import PreTrainedTokenizerBase

from tokensieve.errors import UserError

BROKEN = "\ufffd"
"""What decoding makes of bytes that are no character."""

_BLOCK = 16
"""Tokens whose cuts are sought together."""
_CONTEXT = 8
"""Tokens before a block that are decoded with it: a decoder treats the first token differently."""
_MIDDLE = 64
"""Characters within which a decoded text and its original are brought together again."""


def token_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to what stands before it; near linear in the number of tokens.

    Args:
        tokenizer: any kind; special tokens are shown.
        ids: token ids, also ones that begin or end inside a character.

    Returns:
        One piece a token; joined, exactly what decoding `ids` without any cleaning up gives.
    """
    ids = list(ids)
    text = _decode(tokenizer, [ids])[0]
    cuts = [0]
    clean = [0]  # places known to lie between two characters; a block begins at the last of them
    while len(cuts) <= len(ids):
        start = len(cuts) - 1
        begin, before = _context(tokenizer, ids, clean, start)
        found: list[int] = []
        sure: list[bool] = []
        block = _BLOCK
        while start + len(found) < len(ids) and not any(sure):
            # Until a place between characters is found, nothing may be forgotten.
            reached = found[-1] if found else cuts[-1]
            some = _cuts(tokenizer, ids, (begin, start, start + len(found)), block, before, text, (cuts[-1], reached))
            found += some[0]
            sure += some[1]
            block *= 2
        last = max((i for i, whole in enumerate(sure) if whole), default=len(found) - 1)
        cuts += found[: last + 1]
        clean += [start + 1 + i for i in range(last + 1) if sure[i]]
    if ids:
        cuts[-1] = len(text)
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


def text_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[str]]:
    """Encode a text without losing a character of it.

    Special tokens are not added, and their names in the text are text. Characters that the tokenizer drops (white
    space of a WordPiece vocabulary, say) belong to the next token, at the end to the last.

    Args:
        tokenizer: any kind; one without offsets is followed by comparing what it decodes with the text.
        text: what to encode; without lone surrogates.

    Returns:
        The ids, and one piece a token; joined, exactly `text`.

    Raises:
        UserError: the text is not empty and the tokenizer makes no token of it, or it is no Unicode text.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError("the text holds half of a surrogate pair, which is no character: read it as UTF-8 again")
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=tokenizer.is_fast,
        return_attention_mask=False,
        verbose=False,
    )
    ids = list(encoded["input_ids"])
    if not ids:
        if text:
            raise UserError(f"the tokenizer makes no token of the text {text[:40]!r}; give a text with words in it")
        return [], []
    if tokenizer.is_fast:
        begins = [begin for begin, _ in encoded["offset_mapping"]]
        ends = [end for _, end in encoded["offset_mapping"]]
    else:
        begins, ends = _aligned(token_pieces(tokenizer, ids), text)
    cuts = [0] * len(ids) + [len(text)]
    following = len(text)
    for i in range(len(ids) - 1, 0, -1):
        # Where a later token begins before this one ends, they share a character, which is the later one's.
        following = min(following, begins[i])
        cuts[i] = min(ends[i - 1], following)
    for i in range(1, len(ids)):
        cuts[i] = max(cuts[i], cuts[i - 1])
    return ids, [text[a:b] for a, b in itertools.pairwise(cuts)]


def _decode(tokenizer: PreTrainedTokenizerBase, sequences: list[list[int]]) -> list[str]:
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.decode_batch(sequences, skip_special_tokens=False)
    return [
        str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)) for ids in sequences
    ]


def _context(tokenizer: PreTrainedTokenizerBase, ids: list[int], clean: list[int], start: int) -> tuple[int, str]:
    """A place between characters some tokens before `start`, and the text from there to `start`."""
    reach = _CONTEXT
    while True:
        begin = max((place for place in reversed(clean) if place <= start - reach), default=0)
        before = _decode(tokenizer, [ids[begin:start]])[0]
        # A decoder that drops the first space would drop it later, if nothing stood before.
        if begin == 0 or before.strip():
            return begin, before
        reach *= 2


def _cuts(
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    places: tuple[int, int, int],
    block: int,
    before: str,
    text: str,
    cuts: tuple[int, int],
) -> tuple[list[int], list[bool]]:
    """Where in `text` some tokens end, and whether that is surely between two characters.

    Args:
        tokenizer: decodes.
        ids: all of them.
        places: where the context begins, where it ends (between two characters), and where the block begins.
        block: tokens in it.
        before: the text of the context.
        text: the whole text.
        cuts: where in it the context ends, and the token before the block.
    """
    begin, start, first = places
    end = min(first + block, len(ids))
    # One more, to see whether it belongs to the same character.
    prefixes = _decode(tokenizer, [ids[begin:stop] for stop in range(first + 1, min(end + 1, len(ids)) + 1)])
    found, sure, reached = [], [], cuts[1]
    for i, prefix in enumerate(prefixes[: end - first]):
        added = prefix[len(before) :] if prefix.startswith(before) else ""
        length = _shared(added, text, cuts[0])
        whole = prefix.startswith(before) and length == len(added)
        broken = added.endswith(BROKEN)
        if broken and whole and prefixes[i + 1 : i + 2] == [prefix]:
            length -= 1  # the next token belongs to the same broken or unfinished character
        reached = max(reached, cuts[0] + length)
        found.append(reached)
        sure.append(whole and not broken and reached == cuts[0] + length)
    return found, sure


def _shared(added: str, text: str, cut: int) -> int:
    """Length of the longest beginning of `added` that stands at `cut` in `text`."""
    low, high = 0, len(added)
    if text.startswith(added, cut):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if text.startswith(added[:middle], cut):
            low = middle
        else:
            high = middle
    return low


def _aligned(pieces: list[str], text: str) -> tuple[list[int], list[int]]:
    """Begin and end in `text` of each piece of what it was decoded to, which a normaliser may have changed."""
    decoded = "".join(pieces)
    place = [0] * (len(decoded) + 1)
    i = j = 0
    while i < len(decoded):
        if j < len(text) and decoded[i] == text[j]:
            place[i] = j
            i, j = i + 1, j + 1
            continue
        near = SequenceMatcher(None, decoded[i : i + _MIDDLE], text[j : j + _MIDDLE], autojunk=False)
        match = near.get_matching_blocks()[0]
        if match.size == 0:
            match = match._replace(a=min(_MIDDLE, len(decoded) - i), b=min(_MIDDLE, len(text) - j))
        # What has no counterpart stands before what the match begins with.
        for changed in range(match.a):
            place[i + changed] = j + min(changed, match.b)
        i, j = i + match.a, j + match.b
    place[len(decoded)] = j
    ends, at = [], 0
    for piece in pieces:
        at += len(piece)
        ends.append(place[at])
    return [0, *ends[:-1]], ends
