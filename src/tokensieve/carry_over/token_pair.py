"""Documents in two tokenizations at once: the corpus's own and the reference's, over one text.

The text is what the corpus's ids decode to. Encoded again it must give those very ids: only then do the offsets of
both tokenizers mean the same characters, and a document for which it does not is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.carry_over.carry import FRONT, Line, carry, tile
from tokensieve.corpus.encoding import token_dtype
from tokensieve.corpus.tokenizers import open_tokenizer, tokenizer_digest, vocabulary_size
from tokensieve.errors import UserError


class Pair:
    """The two tokenizers of a carry-over.

    Args:
        student: made the corpus; it is changed (offsets kept whole, special tokens in text are text).
        reference: of the reference model; changed likewise.
        student_name: what errors call it.
        reference_name: what errors call it.

    Raises:
        UserError: one of them has no offsets, or both are the same.
    """

    def __init__(
        self,
        student: PreTrainedTokenizerBase,
        reference: PreTrainedTokenizerBase,
        student_name: str,
        reference_name: str,
    ) -> None:
        for tokenizer, name in ((student, student_name), (reference, reference_name)):
            if not tokenizer.is_fast:
                raise UserError(f"{name}: score.carry_over needs a fast tokenizer (a tokenizer.json): it tells offsets")
        self.student_digest, self.reference_digest = tokenizer_digest(student), tokenizer_digest(reference)
        if self.student_digest == self.reference_digest:
            raise UserError(
                f"score.carry_over: {reference_name} has the corpus's own tokenizer, so there is nothing to carry "
                f"over; remove score.carry_over"
            )
        self.reference_name = reference_name
        self.vocab_size = vocabulary_size(reference)
        self.eos = int(reference.eos_token_id)
        self.dtype = token_dtype(self.vocab_size)
        self._student, self._reference = _plain(student), _plain(reference)

    def align(self, documents: Sequence[np.ndarray]) -> "Aligned":
        """Both tokenizations of documents.

        Args:
            documents: the student's ids, each with its EOS at the end.
        """
        ids = [document[:-1].tolist() for document in documents]
        texts = self._student.decode_batch(ids, skip_special_tokens=False)
        encoded = self._student.encode_batch(texts, add_special_tokens=False)
        carried = np.array([e.ids == row for e, row in zip(encoded, ids, strict=True)], dtype=bool)
        kept = list(compress(texts, carried))
        foreign = self._reference.encode_batch(kept, add_special_tokens=False)
        return Aligned(
            carried, kept, [e.offsets for e in compress(encoded, carried)], foreign, [*map(len, documents)], self.eos
        )


def _plain(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    # Without special tokens the post-processor only trims white space off the offsets.
    backend.post_processor = None
    return backend


@dataclass(frozen=True)
class Aligned:
    """Documents in both tokenizations."""

    carried: np.ndarray
    """[documents] bool: the document's text gives back its ids. The lists below hold only these documents."""
    texts: list[str]
    student_offsets: list[list[tuple[int, int]]]
    foreign: list[Any]
    """The reference tokenizer's encodings."""
    sizes: list[int]
    """The student's tokens of every document, EOS counted."""
    eos: int
    """The reference's."""

    def foreign_ids(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """The reference's ids [tokens] and each document's tokens [documents]; EOS alone where none is carried."""
        rows = iter(self.foreign)
        parts = [[*next(rows).ids, self.eos] if carried else [self.eos] for carried in self.carried.tolist()]
        lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        return np.fromiter(chain.from_iterable(parts), dtype=dtype, count=int(lengths.sum())), lengths

    def carry(self, losses: np.ndarray, lengths: np.ndarray, front: float = FRONT) -> np.ndarray:
        """The reference's losses of these documents as losses of the student's tokens, [tokens] float64.

        Args:
            losses: of the reference's tokens, in the order of `foreign_ids`.
            lengths: from there.
            front: see `carry.share_before`.
        """
        result = np.full(sum(self.sizes), np.nan)
        if self.texts:
            line = Line.of(self.texts)
            source, target = tile(line, [e.offsets for e in self.foreign]), tile(line, self.student_offsets)
            own = losses[np.repeat(self.carried, lengths)]
            result[np.repeat(self.carried, self.sizes)] = carry(own, source, target, front)
        return result


def open_pair(
    student: Path | str,
    reference: Path | str,
    *,
    trust_student_code: bool = False,
    trust_reference_code: bool = False,
) -> Pair:
    """The pair of the tokenizer that made the corpus and the one beside a reference model.

    Args:
        student: the run's tokenizer folder.
        reference: the reference model's folder or Hub id.
        trust_student_code: run Python code that comes with the student's tokenizer.
        trust_reference_code: run Python code that comes with the reference's.

    Raises:
        UserError: one cannot be loaded, or they are no pair (see `Pair`).
    """
    return Pair(
        open_tokenizer(student, trust_remote_code=trust_student_code),
        open_tokenizer(reference, trust_remote_code=trust_reference_code),
        str(student),
        str(reference),
    )
