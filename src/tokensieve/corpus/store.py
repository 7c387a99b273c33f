"""The token store: one folder of raw token files that any tool can map into memory.

Shards have the `.ds` layout of datatrove (also read by nanotron and OLMo-core): `NNNNN.ds` is nothing but
little-endian uint16 or uint32 token ids, `NNNNN.ds.index` the uint64 ends of its documents in tokens. Every
document ends with EOS, stands whole in one shard, and a shard holds documents of one source. `corpus.json`
says what made the store, and its sizes are checked against the files, so opening is instant at any size.
`NNNNN.region.u8`, where the source has regions, holds one region id a token (0 is "other"); `NNNNN.xxh3` the
checksums of the shard's files, which are compared block by block when a block is first read.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.corpus.corpus_manifest import (
    MOST,
    Shard,
    StoredSource,
    region_names,
    stored_shard,
    stored_source,
    text,
    whole,
)
from tokensieve.errors import UserError
from tokensieve.stage import read_manifest
from tokensieve.storage.checksums import SIDECAR_SUFFIX, CheckedArray, describe_damage
from tokensieve.storage.store_mirror import StoreMirror

MANIFEST = "corpus.json"
TOKENS_SUFFIX = ".ds"
INDEX_SUFFIX = ".ds.index"
REGIONS_SUFFIX = ".region.u8"
OTHER_REGION = "other"
"""Name of region 0: characters outside every span that a document brings."""


@dataclass(frozen=True)
class Location:
    """Where a corpus position lies."""

    shard: str
    source: str
    document: int
    """Number of the document in its shard, from 0."""
    offset: int
    """Number of the token in its document, from 0."""


_PIECE = 1 << 22
"""Tokens that are looked at together."""


class TokenStore:
    """A finished token store, opened for reading. Picklable; files are mapped only when asked for.

    Args:
        folder: where `corpus.json` lies.
        mirror: brings data files that are not here.

    Raises:
        UserError: missing, unfinished or damaged.
    """

    folder: Path
    tokens: int
    documents: int
    bytes: int
    """UTF-8 bytes of the text, EOS not counted: the denominator of bits per byte."""
    eos_token_id: int
    vocab_size: int
    tokenizer: str
    """Digest of the vocabulary, id by id."""
    regions: tuple[str, ...] | None
    """Region names by id, "other" first; None when no source has regions."""
    sources: tuple[StoredSource, ...]
    shards: tuple[Shard, ...]

    def __init__(self, folder: Path, mirror: StoreMirror | None = None) -> None:
        self.folder = Path(folder)
        self._mirror = mirror
        self._path = self.folder / MANIFEST
        if not self._path.exists():
            raise UserError(f"{self._path}: no token store here; run `tokensieve tokenize` first")
        manifest = read_manifest(self._path)
        if not manifest["finished"]:
            raise UserError(f"{self._path}: the token store is not finished; run `tokensieve tokenize` again")
        try:
            self._read(manifest["outputs"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"{error} is missing or wrong") from error
        self._check_files()
        self._ends: dict[int, np.ndarray] = {}

    @property
    def token_dtype(self) -> np.dtype:
        """Type of the stored ids: little-endian uint16 or uint32."""
        return self._dtype

    def shard_tokens(self, i: int) -> CheckedArray:
        """Token ids of shard `i`, [shard tokens]."""
        return self._array(i, TOKENS_SUFFIX)

    def document_ends(self, i: int) -> np.ndarray:
        """Ends of the documents of shard `i` in its tokens, [shard documents] int64, increasing; checked whole.

        Raises:
            UserError: damaged, or not increasing up to the shard's last token.
        """
        if i not in self._ends:
            # Signed: searching uint64 for a signed number would turn the whole index into floats.
            ends = self._array(i, INDEX_SUFFIX)[:].view(np.int64)
            if ends[0] <= 0 or ends[-1] != self.shards[i].tokens or not (ends[1:] > ends[:-1]).all():
                raise self._damaged(
                    f"{self.shards[i].name}{INDEX_SUFFIX} does not increase up to the shard's last token"
                )
            self._ends[i] = ends
        return self._ends[i]

    def shard_regions(self, i: int) -> CheckedArray:
        """Region id of each token of shard `i`, [shard tokens] uint8.

        Raises:
            ValueError: the store has no regions.
        """
        if self.regions is None:
            raise ValueError(f"{self.folder} has no regions")
        return self._array(i, REGIONS_SUFFIX)

    def verify(self, advance: Callable[[int], None] = lambda count: None) -> Iterator[str]:
        """Compare every byte with its checksum, and every id and index with what they may be.

        What is not here but in the mirror is left out: it is checked when it comes. See `elsewhere`.

        Args:
            advance: called with the number of tokens just looked at.

        Yields:
            One line for each thing that is wrong; nothing if the store is sound.
        """
        for i, shard in enumerate(self.shards):
            for suffix in self.suffixes:
                array = self._array(i, suffix)
                if array.is_elsewhere:
                    continue
                try:
                    damaged = [describe_damage(block) for block in array.damaged_blocks()]
                    yield from (f"{array.path}: {damage}" for damage in damaged)
                    if suffix == TOKENS_SUFFIX and not damaged:
                        yield from _wrong_ids(array, "id", self.vocab_size, "vocabulary")
                    if suffix == REGIONS_SUFFIX and not damaged:
                        yield from _wrong_ids(array, "region", len(self.regions or ()), "manifest")
                    if suffix == INDEX_SUFFIX and not damaged:
                        self.document_ends(i)
                except UserError as error:
                    yield str(error)
            advance(shard.tokens)
        known = {MANIFEST} | {
            shard.name + suffix for shard in self.shards for suffix in (*self.suffixes, SIDECAR_SUFFIX)
        }
        yield from extra_files(self.folder, known)

    def elsewhere(self) -> list[str]:
        """Names of the shards of which something is not here but in the mirror."""
        return [
            shard.name
            for i, shard in enumerate(self.shards)
            if any(self._array(i, suffix).is_elsewhere for suffix in self.suffixes)
        ]

    def windows_per_shard(self, length: int) -> np.ndarray:
        """Whole windows of `length` tokens in each shard, int64 [shards]."""
        return np.array([shard.tokens // length for shard in self.shards], dtype=np.int64)

    def locate(self, position: int) -> Location:
        """The shard, source and document of a corpus position (a `token_index` modulo `tokens`)."""
        if not 0 <= position < self.tokens:
            raise IndexError(f"position {position} is outside the corpus of {self.tokens} tokens")
        starts = [shard.start for shard in self.shards]
        i = int(np.searchsorted(starts, position, side="right")) - 1
        inside = position - starts[i]
        ends = self.document_ends(i)
        document = int(np.searchsorted(ends, inside, side="right"))
        begin = int(ends[document - 1]) if document else 0
        shard = self.shards[i]
        return Location(shard.name, self.sources[shard.source].name, document, inside - begin)

    def _read(self, outputs: dict[str, Any]) -> None:
        size = outputs["token_size"]
        if size not in (2, 4):
            raise self._damaged(f"token_size is {size!r:.40}, not 2 or 4")
        self._dtype = np.dtype(f"<u{size}")
        self.tokens = whole(outputs, "tokens", 1, MOST)
        self.documents = whole(outputs, "documents", 1, MOST)
        self.bytes = whole(outputs, "bytes", 1, MOST)
        self.vocab_size = whole(outputs, "vocab_size", 1, 1 << 8 * size)
        self.eos_token_id = whole(outputs, "eos_token_id", 0, self.vocab_size - 1)
        self.tokenizer = text(outputs, "tokenizer")
        self.regions = region_names(outputs["regions"])
        self.sources = tuple(stored_source(described) for described in outputs["sources"])
        shards = []
        start = 0
        for described in outputs["shards"]:
            shard = stored_shard(described, start, len(self.sources))
            shards.append(shard)
            start += shard.tokens
        self.shards = tuple(shards)
        if len({shard.name for shard in shards}) != len(shards):
            raise self._damaged("two shards have one name")
        if start != self.tokens or sum(shard.documents for shard in shards) != self.documents:
            raise self._damaged("the shards do not add up to the whole")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the data files of each shard."""
        return (TOKENS_SUFFIX, INDEX_SUFFIX) + ((REGIONS_SUFFIX,) if self.regions is not None else ())

    def _array(self, i: int, suffix: str) -> CheckedArray:
        shard = self.shards[i]
        dtype = {TOKENS_SUFFIX: self._dtype, INDEX_SUFFIX: np.dtype("<u8"), REGIONS_SUFFIX: np.dtype("u1")}[suffix]
        length = shard.documents if suffix == INDEX_SUFFIX else shard.tokens
        return CheckedArray(self.folder, shard.name, suffix, dtype, length, shard.digest, self._mirror)

    def _check_files(self) -> None:
        for i in range(len(self.shards)):
            for suffix in self.suffixes:
                array = self._array(i, suffix)
                wanted = len(array) * array.dtype.itemsize
                try:
                    found = array.path.stat().st_size
                except OSError as error:
                    if self._mirror is not None and isinstance(error, FileNotFoundError):
                        continue  # it is fetched when it is first touched
                    raise self._damaged(f"{array.path.name}: {error.strerror}") from error
                if found != wanted:
                    raise self._damaged(f"{array.path.name} has {found} bytes, not {wanted}")

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read."""
        return self.__dict__ | {"_ends": {}}

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self._path}: damaged ({what}); remove {self.folder} and tokenize again")


def _wrong_ids(array: CheckedArray, kind: str, count: int, where: str) -> Iterator[str]:
    for begin in range(0, len(array), _PIECE):
        largest = int(array[begin : begin + _PIECE].max())
        if largest >= count:
            yield f"{array.path}: holds {kind} {largest}, the {where} has {count}"
            return


def extra_files(folder: Path, known: Collection[str]) -> Iterator[str]:
    """A line for each file of a store's folder that does not belong there; hidden ones are its workers'."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in known and not path.name.startswith("."):
            yield f"{path}: does not belong to this store; remove it"
