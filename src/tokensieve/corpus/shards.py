"""From units to shards: the units' files are joined, in order, into shards of an agreed size.

What a shard holds depends on the documents alone, not on how many processes made the units: documents go in
order into the current shard, and one that would not fit begins the next. Each file is written under a
temporary name, synced and renamed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokensieve.corpus.encoding import MAX_REGIONS, too_many_regions
from tokensieve.corpus.store import INDEX_SUFFIX, OTHER_REGION, REGIONS_SUFFIX, TOKENS_SUFFIX
from tokensieve.corpus.units import Unit, UnitResult
from tokensieve.errors import UserError
from tokensieve.storage.checksums import seal_shard

_COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class _Piece:
    """Documents [first, last) of a unit, which are its tokens [begin, end)."""

    unit: int
    first: int
    last: int
    begin: int
    end: int


def write_shards(
    folder: Path,
    units_folder: Path,
    units: Sequence[Unit],
    results: Sequence[UnitResult],
    *,
    labels: Sequence[str],
    shard_tokens: int,
    token_size: int,
) -> tuple[list[dict[str, int | str]], list[str] | None]:
    """Join the units' files into `folder/NNNNN.*`.

    Args:
        folder: receives the shards.
        units_folder: holds the units' files.
        units: all of them, in order.
        results: one for each unit.
        labels: name of each source; if others have regions, a source without is one region of that name.
        shard_tokens: tokens a shard holds at most.
        token_size: bytes of a token.

    Returns:
        The manifest's `shards` and `regions`.

    Raises:
        UserError: more kinds of region than a byte can name.
        OSError: the shards cannot be written.
    """
    with_regions = [(units_folder / f"{unit.number:05d}{REGIONS_SUFFIX}").exists() for unit in units]
    has_regions = any(with_regions)
    names = [
        result.regions if own else (labels[unit.source],)
        for unit, result, own in zip(units, results, with_regions, strict=True)
    ]
    regions = list(dict.fromkeys(name for unit_names in ((OTHER_REGION,), *names) for name in unit_names))
    if has_regions and len(regions) > MAX_REGIONS:
        raise too_many_regions(str(folder))
    suffixes = (TOKENS_SUFFIX, INDEX_SUFFIX) + ((REGIONS_SUFFIX,) if has_regions else ())
    described: list[dict[str, int | str]] = []
    for source in dict.fromkeys(unit.source for unit in units):
        numbers = [unit.number for unit in units if unit.source == source]
        for pieces in _plan(units_folder, numbers, shard_tokens):
            name = f"{len(described):05d}"
            _join(folder / (name + TOKENS_SUFFIX), units_folder, pieces, TOKENS_SUFFIX, token_size)
            _write_index(folder / (name + INDEX_SUFFIX), units_folder, pieces)
            if has_regions:
                path = folder / (name + REGIONS_SUFFIX)
                _write_regions(path, units_folder, pieces, names, regions)
            tokens = sum(piece.end - piece.begin for piece in pieces)
            documents = sum(piece.last - piece.first for piece in pieces)
            digest = seal_shard(folder, name, suffixes)
            described.append(
                {"name": name, "source": source, "tokens": tokens, "documents": documents, "digest": digest}
            )
    return described, regions if has_regions else None


def _plan(units_folder: Path, numbers: Sequence[int], shard_tokens: int) -> Iterator[list[_Piece]]:
    """Pieces of each shard of one source."""
    pieces: list[_Piece] = []
    room = shard_tokens
    for number in numbers:
        ends = _ends(units_folder, number)
        first = begin = 0
        while first < len(ends):
            last = int(np.searchsorted(ends, begin + room, side="right"))
            if last <= first:
                if pieces:
                    yield pieces
                    pieces, room = [], shard_tokens
                    continue
                last = first + 1  # a document larger than a shard is a shard of its own
            end = int(ends[last - 1])
            pieces.append(_Piece(number, first, last, begin, end))
            room -= end - begin
            first, begin = last, end
    if pieces:
        yield pieces


def _ends(units_folder: Path, number: int) -> np.ndarray:
    # Signed: searching uint64 for a Python number would turn the index into floats.
    return np.fromfile(units_folder / f"{number:05d}{INDEX_SUFFIX}", dtype="<i8")


def _join(path: Path, units_folder: Path, pieces: Sequence[_Piece], suffix: str, item_size: int) -> None:
    with _Replacing(path) as target:
        for piece in pieces:
            with (units_folder / f"{piece.unit:05d}{suffix}").open("rb") as file:
                file.seek(piece.begin * item_size)
                left = (piece.end - piece.begin) * item_size
                while left:
                    data = file.read(min(left, _COPY_BYTES))
                    if not data:
                        raise UserError(f"{file.name}: ends early; remove {units_folder.parent} and tokenize again")
                    target.write(data)
                    left -= len(data)


def _write_index(path: Path, units_folder: Path, pieces: Sequence[_Piece]) -> None:
    with _Replacing(path) as target:
        done = 0
        for piece in pieces:
            ends = _ends(units_folder, piece.unit)[piece.first : piece.last]
            target.write((ends - piece.begin + done).astype("<u8").data)
            done += piece.end - piece.begin


def _write_regions(
    path: Path,
    units_folder: Path,
    pieces: Sequence[_Piece],
    names: Sequence[Sequence[str]],
    regions: Sequence[str],
) -> None:
    """Join the region files, each unit's own ids turned into the corpus's; no file means one region."""
    with _Replacing(path) as target:
        for piece in pieces:
            own = units_folder / f"{piece.unit:05d}{REGIONS_SUFFIX}"
            count = piece.end - piece.begin
            ids = np.array([regions.index(name) for name in names[piece.unit]], dtype=np.uint8)
            if not own.exists():
                target.write(ids.tobytes() * count)
                continue
            target.write(ids[np.fromfile(own, dtype=np.uint8, count=count, offset=piece.begin)].data)


class _Replacing:
    """A file that gets its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")

    def __enter__(self) -> BinaryIO:
        self._file: BinaryIO = self._temporary.open("wb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if kind is None:
            os.replace(self._temporary, self._path)
