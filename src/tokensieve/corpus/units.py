"""Work units: a few input files, tokenized by one process into files of their own.

A unit is the grain of parallel work and of resuming: its marker is written last, so a unit with a marker is
whole and one without is done again. Reading, encoding and writing overlap, because encoding releases the
interpreter lock and takes nearly all the time (benchmarks/tokenizing.py).
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.encoding import Encoded, Encoder
from tokensieve.corpus.readers import Advance
from tokensieve.corpus.sources import Document, Input, list_inputs, read_input
from tokensieve.corpus.store import INDEX_SUFFIX, REGIONS_SUFFIX, TOKENS_SUFFIX
from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.recipe import Source
from tokensieve.stage import read_json, write_json

UNIT_BYTES = 64_000_000
"""Small files share a unit up to this many bytes of input."""
_BATCH_BYTES = 4_000_000
_BATCH_DOCUMENTS = 4096


@dataclass(frozen=True)
class Unit:
    """Consecutive inputs of one source."""

    number: int
    source: int
    inputs: tuple[Input, ...]

    @property
    def size(self) -> int:
        """Bytes of input on disk."""
        return sum(item.size for item in self.inputs)

    @property
    def marker(self) -> str:
        """Name of the file that says the unit is whole."""
        return f"{self.number:05d}.json"


@dataclass(frozen=True)
class Job:
    """What all units of a run share."""

    folder: Path
    """Where units write."""
    sources: tuple[Source, ...]
    tokenizer: str
    """Folder or Hub id."""
    trust_remote_code: bool
    max_document_mb: int


@dataclass(frozen=True)
class UnitResult:
    """A unit's marker: what it wrote."""

    tokens: int
    documents: int
    bytes: int
    regions: tuple[str, ...]
    """The unit's own region names by id; only "other" when its source has no regions."""


def plan_units(sources: Sequence[Source]) -> list[Unit]:
    """Group the inputs of all sources, in order. A function of the files' names and sizes only.

    Raises:
        UserError: a source's files cannot be listed.
    """
    units: list[Unit] = []
    for s, source in enumerate(sources):
        group: list[Input] = []
        for item in list_inputs(source):
            if group and sum(other.size for other in group) + item.size > UNIT_BYTES:
                units.append(Unit(len(units), s, tuple(group)))
                group = []
            group.append(item)
        units.append(Unit(len(units), s, tuple(group)))
    return units


def read_result(unit: Unit, folder: Path) -> UnitResult | None:
    """The marker of a unit that is whole, or None."""
    path = folder / unit.marker
    if not path.exists():
        return None
    found = read_json(path)
    return UnitResult(found["tokens"], found["documents"], found["bytes"], tuple(found["regions"]))


def run_unit(unit: Unit, job: Job, advance: Advance) -> None:
    """Tokenize a unit; its files and then its marker are on disk when this returns.

    Raises:
        UserError: unreadable or wrong input (see `sources.read_input` and `Encoder`).
        OSError: the unit's files cannot be written.
    """
    source = job.sources[unit.source]
    tokenizer = _tokenizer(job.tokenizer, job.trust_remote_code)
    encoder = Encoder(tokenizer, job.tokenizer, with_regions=source.regions_field is not None)
    documents = (
        document for item in unit.inputs for document in read_input(source, item, job.max_document_mb, advance)
    )
    batches = _batches(documents)
    with (
        _UnitFiles(job.folder / f"{unit.number:05d}", encoder) as files,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        written: Future[None] | None = None
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            encodings = encoder.encode(batch)
            if written is not None:
                written.result()
            written = writer.submit(files.write, batch, encodings)
        if written is not None:
            written.result()
        files.finish()
    write_json(
        job.folder / unit.marker,
        {
            "tokens": files.tokens,
            "documents": files.documents,
            "bytes": files.bytes,
            "regions": encoder.region_names,
        },
    )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.bytes
        if size >= _BATCH_BYTES or len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@functools.lru_cache(maxsize=1)
def _tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    # Loading takes longer than a small unit does. Only encoders of this process use it, all of them alike.
    return open_tokenizer(name, trust_remote_code=trust_remote_code)


class _UnitFiles:
    """The files of one unit while they are written: under names of this process until they are whole.

    A worker of a killed run may live for a moment and write the same unit as the next run: the same bytes, but
    not at the same place in the same file.
    """

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self.tokens = self.documents = self.bytes = 0
        self._path = path
        self._encoder = encoder
        self._files: dict[str, BinaryIO] = {}
        for suffix in (TOKENS_SUFFIX, INDEX_SUFFIX) + ((REGIONS_SUFFIX,) if encoder.with_regions else ()):
            self._files[suffix] = self._temporary(suffix).open("wb")

    def _temporary(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}{suffix}.{os.getpid()}.tmp")

    def __enter__(self) -> "_UnitFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def write(self, batch: Sequence[Document], encodings: list[Any]) -> None:
        encoded: Encoded = self._encoder.convert(batch, encodings)
        self._files[TOKENS_SUFFIX].write(encoded.tokens.data)
        ends = self.tokens + np.cumsum(encoded.lengths)
        self._files[INDEX_SUFFIX].write(ends.astype("<u8").data)
        if encoded.regions is not None:
            self._files[REGIONS_SUFFIX].write(encoded.regions.data)
        self.tokens += len(encoded.tokens)
        self.documents += len(batch)
        self.bytes += sum(document.bytes for document in batch)

    def finish(self) -> None:
        for suffix, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            os.replace(self._temporary(suffix), self._path.with_name(self._path.name + suffix))
