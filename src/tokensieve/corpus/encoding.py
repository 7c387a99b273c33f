"""Texts to token ids: the fast path of `tokenizers`, EOS after each document, a region for each token.

Text is never an instruction: `<|endoftext|>` inside a document is encoded as the characters it is made of, so
only this file puts EOS into a corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.sources import Document
from tokensieve.corpus.store import OTHER_REGION
from tokensieve.corpus.tokenizers import vocabulary_size
from tokensieve.errors import UserError

MAX_REGIONS = 256


@dataclass(frozen=True)
class Encoded:
    """A batch of documents as one run of tokens."""

    tokens: np.ndarray
    """[tokens] uint16 or uint32, EOS after each document."""
    lengths: np.ndarray
    """[documents] int64, EOS counted."""
    regions: np.ndarray | None
    """[tokens] uint8, when regions were asked for."""


class Encoder:
    """Encodes batches of documents with one tokenizer.

    Args:
        tokenizer: one with EOS; it is changed (no truncation, no padding, special tokens in text are text),
            so give one that nobody else uses.
        name: what errors call it.
        with_regions: find each token's region as well, which needs a fast tokenizer.

    Raises:
        UserError: regions are wanted of a tokenizer without offsets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, *, with_regions: bool = False) -> None:
        self.eos = int(tokenizer.eos_token_id)
        self.dtype = token_dtype(vocabulary_size(tokenizer))
        self.region_names = [OTHER_REGION]
        self._name = name
        self.with_regions = with_regions
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        if self._backend is None:
            if with_regions:
                raise UserError(f"{name}: regions_field needs a fast tokenizer; remove it or choose another tokenizer")
            return
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        if with_regions:
            # Without special tokens the post-processor only trims white space off the offsets, and a token
            # belongs to the region of its last character, white space or not.
            self._backend.post_processor = None

    def encode(self, documents: Sequence[Document]) -> list[Any]:
        """Run the tokenizer: the long part, without the interpreter lock when the tokenizer is fast."""
        texts = [document.text for document in documents]
        if self._backend is None:
            return self._tokenizer(
                texts,
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
                verbose=False,
            )["input_ids"]
        if self.with_regions:
            return self._backend.encode_batch(texts, add_special_tokens=False)
        return self._backend.encode_batch_fast(texts, add_special_tokens=False)

    def convert(self, documents: Sequence[Document], encodings: list[Any]) -> Encoded:
        """Turn what `encode` returned into arrays.

        Raises:
            UserError: the tokenizer turns ordinary text into EOS, or there are too many region names.
        """
        ids = encodings if self._backend is None else [encoding.ids for encoding in encodings]
        regions = None
        if self.with_regions:
            parts = [self._regions(d, e.offsets) for d, e in zip(documents, encodings, strict=True)]
            regions = np.concatenate(parts)
        lengths = np.fromiter((len(row) + 1 for row in ids), dtype=np.int64, count=len(ids))
        end = (self.eos,)
        flat = chain.from_iterable(chain.from_iterable((row, end) for row in ids))
        tokens = np.fromiter(flat, dtype=self.dtype, count=int(lengths.sum()))
        if np.count_nonzero(tokens == self.eos) != len(documents):
            row = next(i for i, row in enumerate(ids) if self.eos in row)
            raise UserError(
                f"{documents[row].place}: {self._name} turns text of this document into its end-of-sequence "
                f"token (id {self.eos}); remove that text or choose another tokenizer"
            )
        return Encoded(tokens, lengths, regions)

    def _regions(self, document: Document, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
        """Region of each token and of the EOS after them, which ends what it follows, [tokens + 1] uint8."""
        of_character = np.zeros(len(document.text) + 1, dtype=np.uint8)
        for start, end, kind in document.regions or ():
            of_character[start:end] = self._region_id(document, kind)
        ends = np.fromiter((end for _, end in offsets), dtype=np.int64, count=len(offsets))
        last = of_character[max(len(document.text) - 1, 0)]
        return np.append(of_character[np.maximum(ends - 1, 0)], last)

    def _region_id(self, document: Document, kind: str) -> int:
        if kind not in self.region_names:
            if len(self.region_names) == MAX_REGIONS:
                raise too_many_regions(document.place)
            self.region_names.append(kind)
        return self.region_names.index(kind)


def token_dtype(vocab_size: int) -> np.dtype:
    """Little-endian uint16 where every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def too_many_regions(place: str) -> UserError:
    """The error for more kinds of region than a byte can name."""
    return UserError(f"{place}: more than {MAX_REGIONS - 1} kinds of region in the corpus; merge some")
