"""The token store: one folder of raw token files that any tool can map into memory.

Shards have the `.ds` layout of datatrove (also read by nanotron and OLMo-core): `NNNNN.ds` is nothing but
little-endian uint16 or uint32 token ids, `NNNNN.ds.index` the uint64 ends of its documents in tokens. Every
document ends with EOS, stands whole in one shard, and a shard holds documents of one source. `corpus.json`
says what made the store, and its sizes are checked against the files, so opening is instant at any size.
`NNNNN.region.u8`, where the source has regions, holds one region id a token (0 is "other").
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.errors import UserError
from tokensieve.stage import read_json

MANIFEST = "corpus.json"
TOKENS_SUFFIX = ".ds"
INDEX_SUFFIX = ".ds.index"
REGIONS_SUFFIX = ".region.u8"
OTHER_REGION = "other"
"""Name of region 0: characters outside every span that a document brings."""


@dataclass(frozen=True)
class StoredSource:
    """One source of the corpus and what it came to."""

    name: str
    weight: float | None
    """Share of the training windows; None: each window counts alike."""
    tokens: int
    documents: int
    bytes: int
    """UTF-8 bytes of the text."""


@dataclass(frozen=True)
class Shard:
    """One token file."""

    name: str
    source: int
    """Index into the store's `sources`."""
    tokens: int
    documents: int
    digest: str
    """128-bit xxh3 of the token file."""
    start: int
    """Corpus position of the shard's first token."""


@dataclass(frozen=True)
class Location:
    """Where a corpus position lies."""

    shard: str
    source: str
    document: int
    """Number of the document in its shard, from 0."""
    offset: int
    """Number of the token in its document, from 0."""


class TokenStore:
    """A finished token store, opened for reading. Picklable; files are mapped only when asked for.

    Args:
        folder: where `corpus.json` lies.

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

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._path = self.folder / MANIFEST
        if not self._path.exists():
            raise UserError(f"{self._path}: no token store here; run `tokensieve tokenize` first")
        manifest = read_json(self._path)
        try:
            if not manifest["finished"]:
                raise UserError(f"{self._path}: the token store is not finished; run `tokensieve tokenize` again")
            self._read(manifest["outputs"])
        except (KeyError, TypeError) as error:
            raise self._damaged(f"{error} is missing or of the wrong type") from error
        self._check_files()

    @property
    def token_dtype(self) -> np.dtype:
        """Type of the stored ids: little-endian uint16 or uint32."""
        return self._dtype

    def shard_tokens(self, i: int) -> np.memmap:
        """Token ids of shard `i`, [shard tokens]."""
        return np.memmap(self._file(i, TOKENS_SUFFIX), dtype=self._dtype, mode="r")

    def document_ends(self, i: int) -> np.ndarray:
        """Ends of the documents of shard `i` in its tokens, [shard documents] uint64."""
        return np.memmap(self._file(i, INDEX_SUFFIX), dtype="<u8", mode="r")

    def shard_regions(self, i: int) -> np.memmap:
        """Region id of each token of shard `i`, [shard tokens] uint8.

        Raises:
            ValueError: the store has no regions.
        """
        if self.regions is None:
            raise ValueError(f"{self.folder} has no regions")
        return np.memmap(self._file(i, REGIONS_SUFFIX), dtype=np.uint8, mode="r")

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
        ends = self.document_ends(i).view(np.int64)
        document = int(np.searchsorted(ends, inside, side="right"))
        begin = int(ends[document - 1]) if document else 0
        shard = self.shards[i]
        return Location(shard.name, self.sources[shard.source].name, document, inside - begin)

    def _read(self, outputs: dict[str, Any]) -> None:
        size = outputs["token_size"]
        if size not in (2, 4):
            raise self._damaged(f"token_size is {size!r}, not 2 or 4")
        self._dtype = np.dtype(f"<u{size}")
        self.tokens = int(outputs["tokens"])
        self.documents = int(outputs["documents"])
        self.bytes = int(outputs["bytes"])
        self.eos_token_id = int(outputs["eos_token_id"])
        self.vocab_size = int(outputs["vocab_size"])
        self.tokenizer = outputs["tokenizer"]
        regions = outputs["regions"]
        self.regions = None if regions is None else tuple(regions)
        self.sources = tuple(StoredSource(**source) for source in outputs["sources"])
        shards = []
        start = 0
        for shard in outputs["shards"]:
            shards.append(Shard(**shard, start=start))
            start += shard["tokens"]
        self.shards = tuple(shards)
        if start != self.tokens or sum(shard.documents for shard in shards) != self.documents:
            raise self._damaged("the shards do not add up to the whole")

    def _check_files(self) -> None:
        for i, shard in enumerate(self.shards):
            sizes = {TOKENS_SUFFIX: shard.tokens * self._dtype.itemsize, INDEX_SUFFIX: shard.documents * 8}
            if self.regions is not None:
                sizes[REGIONS_SUFFIX] = shard.tokens
            for suffix, wanted in sizes.items():
                path = self._file(i, suffix)
                try:
                    found = path.stat().st_size
                except OSError as error:
                    raise self._damaged(f"{path.name}: {error.strerror}") from error
                if found != wanted:
                    raise self._damaged(f"{path.name} has {found} bytes, not {wanted}")
            if int(self.document_ends(i)[-1]) != shard.tokens:
                raise self._damaged(f"{shard.name}{INDEX_SUFFIX} does not end with the shard's last token")

    def _file(self, i: int, suffix: str) -> Path:
        return self.folder / (self.shards[i].name + suffix)

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self._path}: damaged ({what}); remove {self.folder} and tokenize again")
