"""The score store: what the reference thinks of every corpus token, beside the tokens it belongs to.

`scores/NAME/NNNNN.loss.f16` (and `.entropy.f16`) hold one little-endian float16 for each token of corpus shard
NNNNN, nats; entry i belongs to predicting token i. Scored values are finite and not negative; NaN (0x7E00) means
never scored: a window's first token, a document's first token, the tail of a shard. `.correct.u8` holds 1 where
the reference's likeliest token was the right one, 0 where not, 255 where never scored. float16 and not bfloat16,
because it keeps 99.9 % of the selections. `scores.json` binds the store to the corpus, the tokenizer, the
reference and the context that the losses were computed under, and `NNNNN.xxh3` holds the checksums.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.corpus.corpus_manifest import is_digest, whole
from tokensieve.corpus.store import TokenStore, extra_files
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.stage import first_difference, read_manifest
from tokensieve.storage.checksums import SIDECAR_SUFFIX, CheckedArray, describe_damage
from tokensieve.storage.store_mirror import StoreMirror

MANIFEST = "scores.json"


@dataclass(frozen=True)
class Column:
    """How one column is stored."""

    suffix: str
    dtype: np.dtype
    never_scored: int
    """Bits of the value that says so."""


COLUMNS = {
    "loss": Column(".loss.f16", np.dtype("<f2"), 0x7E00),
    "entropy": Column(".entropy.f16", np.dtype("<f2"), 0x7E00),
    "correct": Column(".correct.u8", np.dtype("u1"), 255),
}
_LARGEST = {"loss": 0x7BFF, "entropy": 0x7BFF, "correct": 1}
"""Bits of the largest value a scored token may have; those of smaller ones are smaller."""
_PIECE = 1 << 22
_AGAIN = "`tokensieve score RECIPE score.name=ANOTHER`"


def unscored(column: str, tokens: int) -> np.ndarray:
    """A column of `tokens` values that were never scored."""
    kind = COLUMNS[column]
    return np.full(tokens, kind.never_scored, dtype=f"<u{kind.dtype.itemsize}").view(kind.dtype)


class ScoreStore:
    """A finished score store, opened for reading. Picklable.

    Args:
        folder: where scores.json lies.
        corpus: the token store that will be read along with it.
        context: the context of the training that will read it; None: whatever it was scored under.
        mirror: brings data files that are not here.

    Raises:
        UserError: missing, unfinished, damaged, or made for another corpus, tokenizer or context.
    """

    def __init__(
        self, folder: Path, corpus: TokenStore, context: ContextSection | None = None, mirror: StoreMirror | None = None
    ) -> None:
        self.folder = folder
        self._mirror = mirror
        self.corpus = corpus
        path = folder / MANIFEST
        if not path.exists():
            raise UserError(f"{path}: no scores here; run `tokensieve score` first")
        manifest = read_manifest(path)
        if not manifest["finished"]:
            raise UserError(f"{path}: scoring is not finished; run `tokensieve score` again")
        self.inputs: dict[str, Any] = manifest["inputs"]
        self.outputs: dict[str, Any] = manifest["outputs"]
        try:
            self._read(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: damaged ({error} is missing or of the wrong type); score again") from error
        different = first_difference(self.inputs["corpus"], corpus_identity(corpus))
        if different is not None:
            key, there, here = different
            raise UserError(
                f"{path}: made for another corpus than {corpus.folder} ({key} is {there!r} there, {here!r} here); "
                f"score this one: {_AGAIN}"
            )
        if context is not None and self.inputs["context"] != describe_context(context):
            raise UserError(
                f"{path}: scored under the context {self.inputs['context']}, training uses "
                f"{describe_context(context)}; a loss holds for its context only: {_AGAIN}"
            )
        for i in range(len(corpus.shards)):
            for column in self.columns:
                array = self._array(i, column)
                size = array.path.stat().st_size if array.path.exists() else -1
                wanted = len(array) * array.dtype.itemsize
                if size != wanted and not (size < 0 and self._mirror is not None):
                    found = "is missing" if size < 0 else f"has {size} bytes, not {wanted}"
                    cure = f"remove {corpus.shards[i].name}.* in {folder}, and score again"
                    raise UserError(f"{array.path}: {found}; {cure}")

    def column(self, name: str) -> list[CheckedArray]:
        """`loss`, `entropy` or `correct`, one array a shard.

        Raises:
            UserError: the store has no such column.
        """
        if name not in self.columns:
            raise UserError(f"{self.folder}: has no {name}; set score.{name}: true and score under another score.name")
        return [self._array(i, name) for i in range(len(self.corpus.shards))]

    def verify(self, advance: Callable[[int], None] = lambda count: None) -> Iterator[str]:
        """Compare every byte with its checksum, and every value with what it may be.

        What is not here but in the mirror is left out: it is checked when it comes. See `elsewhere`.

        Args:
            advance: called with the number of tokens just looked at.

        Yields:
            One line for each thing that is wrong; nothing if the store is sound.
        """
        for i, shard in enumerate(self.corpus.shards):
            scored = {}
            for column in self.columns:
                array = self._array(i, column)
                if array.is_elsewhere:
                    continue
                try:
                    damaged = [describe_damage(block) for block in array.damaged_blocks()]
                    yield from (f"{array.path}: {damage}" for damage in damaged)
                    if not damaged:
                        scored[column], wrong = _count(array, column)
                        yield from (f"{array.path}: {line}" for line in wrong)
                except UserError as error:
                    yield str(error)
            for column, count in scored.items():
                if count != self._scored[i]:
                    yield f"{self.folder}: shard {shard.name} has {count} scored {column}, not {self._scored[i]}"
            advance(shard.tokens)
        suffixes = (*(COLUMNS[column].suffix for column in self.columns), SIDECAR_SUFFIX)
        known = {MANIFEST} | {shard.name + suffix for shard in self.corpus.shards for suffix in suffixes}
        yield from extra_files(self.folder, known)

    def elsewhere(self) -> list[str]:
        """Names of the shards of which something is not here but in the mirror."""
        return [
            shard.name
            for i, shard in enumerate(self.corpus.shards)
            if any(self._array(i, column).is_elsewhere for column in self.columns)
        ]

    def _read(self, path: Path) -> None:
        for key in ("corpus", "context"):
            if not isinstance(self.inputs[key], dict):
                raise TypeError(key)
        columns, shards = self.outputs["columns"], self.outputs["shards"]
        # In the order of COLUMNS, each once: so a list of anything else differs from what it should be.
        if (
            not isinstance(columns, list)
            or columns != [name for name in COLUMNS if name in columns]
            or "loss" not in columns
        ):
            raise ValueError("columns")
        self.columns = tuple(columns)
        if [shard["name"] for shard in shards] != [shard.name for shard in self.corpus.shards]:
            raise UserError(
                f"{path}: holds {len(shards)} shards, the corpus {self.corpus.folder} has {len(self.corpus.shards)} "
                f"(or others); score this one: {_AGAIN}"
            )
        if not all(is_digest(shard["digest"]) for shard in shards):
            raise ValueError("digest")
        self._digests = [shard["digest"] for shard in shards]
        tokens = [shard.tokens for shard in self.corpus.shards]
        self._scored = [whole(shard, "scored", 0, most) for shard, most in zip(shards, tokens, strict=True)]
        self.scored_tokens = sum(self._scored)

    def _array(self, i: int, column: str) -> CheckedArray:
        shard, kind = self.corpus.shards[i], COLUMNS[column]
        return CheckedArray(
            self.folder, shard.name, kind.suffix, kind.dtype, shard.tokens, self._digests[i], self._mirror
        )


def _count(array: CheckedArray, column: str) -> tuple[int, list[str]]:
    """Scored values, and a line for each kind of value that cannot be."""
    kind, scored = COLUMNS[column], 0
    for begin in range(0, len(array), _PIECE):
        bits = array[begin : begin + _PIECE].view(f"<u{kind.dtype.itemsize}")
        inside = bits != kind.never_scored
        scored += int(inside.sum())
        wrong = inside & (bits > _LARGEST[column])
        if wrong.any():
            place = begin + int(wrong.argmax())
            return scored, [f"value {array[place : place + 1][0]} at token {place} is negative or not finite"]
    return scored, []


def corpus_identity(corpus: TokenStore) -> dict[str, Any]:
    """What a score store remembers of its corpus."""
    return {
        "tokenizer": corpus.tokenizer,
        "tokens": corpus.tokens,
        "shards": [[shard.name, shard.tokens, shard.digest] for shard in corpus.shards],
    }


def describe_context(context: ContextSection) -> dict[str, Any]:
    """What a score store remembers of the context: windows begin at multiples of `length` in each shard."""
    return {"length": context.length, "document_mask": context.document_mask}
