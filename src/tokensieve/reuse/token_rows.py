"""Rows with token ids: Parquet, JSON lines, and whatever `datasets` loads, a batch of rows at a time."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from tokensieve.corpus.listing import Input
from tokensieve.corpus.readers import absent_field, read_jsonl
from tokensieve.errors import UserError

_ROWS = 256
"""Rows that are held together; at 100,000 ids of 8 bytes a row that is 200 MB."""
_LINE_MB = 256
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, NotImplementedError, pa.ArrowException)
"""What `datasets` and pyarrow raise for a wrong id, split, file or network, or for damaged files."""


@dataclass(frozen=True)
class TokenRun:
    """Consecutive documents of one place."""

    place: str
    """File or data set, as errors name it."""
    unit: str
    """What a document is called there: document, row or line."""
    first: int
    """Number of the first document at its place."""
    lengths: np.ndarray
    """Tokens of each document, [documents] int64; they follow each other."""
    read: Callable[[int, int], np.ndarray]
    """Tokens [begin, end) of the run, of any integer type."""


def read_row_file(path: Path, field: str) -> Iterator[TokenRun]:
    """Rows of a Parquet file or lines of a JSON-lines file (also .gz, .zst).

    Raises:
        UserError: unreadable, damaged, without the field, or a row that is no list of whole numbers.
    """
    return _read_parquet(path, field) if path.suffix == ".parquet" else _read_lines(path, field)


def read_dataset(name: str, field: str, config: str | None, split: str) -> Iterator[TokenRun]:
    """Rows of a data set that was saved to disk by `datasets`, or of one on the Hub, which is streamed.

    Raises:
        UserError: not there, unreachable, without the field, or a row that is no list of whole numbers.
    """
    import datasets  # seconds to import, and only data sets need it

    def load() -> Iterator[pa.Table]:
        if os.path.isdir(name):
            folder = name
            if os.path.exists(os.path.join(name, "dataset_dict.json")):
                folder = os.path.join(name, split)
            rows = datasets.load_from_disk(folder)
        else:
            rows = datasets.load_dataset(name, config, split=split, streaming=True)
        yield from rows.with_format("arrow").iter(_ROWS)

    tables, row = load(), 0
    while True:
        try:
            table = next(tables, None)
        except _UNREADABLE as error:
            raise UserError(
                f"{name}: cannot read this dataset after row {row} ({_one_line(error)}); check its name, configuration "
                f"and split, and the network"
            ) from error
        if table is None:
            return
        _require_field(name, field, table.column_names)
        yield _run(name, row, table.column(field).combine_chunks())
        row += len(table)


def _read_parquet(path: Path, field: str) -> Iterator[TokenRun]:
    row = 0
    try:
        with pa.parquet.ParquetFile(path, pre_buffer=False) as file:
            _require_field(str(path), field, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS, columns=[field], use_threads=False):
                yield _run(str(path), row, batch.column(field))
                row += len(batch)
    except (pa.ArrowException, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable Parquet file after row {row} ({_one_line(error)}); fetch or write it again"
        ) from error


def _run(place: str, first: int, column: Any) -> TokenRun:
    """A batch of a list column."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise UserError(f"{place}: the ids are of type {kind}, not lists of whole numbers; name another field")
    if column.null_count:
        row = first + int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
        raise UserError(f"{place}: row {row} (from 0): no list of ids but null; remove the row")
    values = column.flatten()
    lengths = pa.compute.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    if values.null_count:
        at = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False)))
        row = first + int(np.searchsorted(np.cumsum(lengths), at, side="right"))
        raise UserError(f"{place}: row {row} (from 0): an id is null; repair or remove the row")
    tokens = values.to_numpy(zero_copy_only=False)
    return TokenRun(place, "row", first, lengths, lambda begin, end: tokens[begin:end])


def _read_lines(path: Path, field: str) -> Iterator[TokenRun]:
    rows: list[np.ndarray] = []
    row = 0
    item = Input(str(path), os.path.getsize(path), "jsonl")
    for place, record in read_jsonl(item, _LINE_MB, lambda count: None):
        rows.append(_ids(place, record, field))
        row += 1
        if len(rows) == _ROWS:
            yield _joined(path, row - len(rows), rows)
            rows = []
    if rows:
        yield _joined(path, row - len(rows), rows)


def _joined(path: Path, first: int, rows: list[np.ndarray]) -> TokenRun:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    tokens = np.concatenate(rows)
    return TokenRun(str(path), "row", first, lengths, lambda begin, end: tokens[begin:end])


def _ids(place: str, record: Mapping[str, Any], field: str) -> np.ndarray:
    _require_field(place, field, list(record))
    value = record[field]
    if not isinstance(value, list) or any(type(item) is not int for item in value):
        raise UserError(f"{place}: {field!r} is not a list of whole numbers; name another field or repair the line")
    try:
        return np.array(value, dtype=np.int64)
    except OverflowError as error:
        raise UserError(f"{place}: {field!r} holds {max(value, key=abs)}, which is no token id") from error


def _require_field(place: str, field: str, known: list[str]) -> None:
    if field not in known:
        hint = str(absent_field(place, field, known)).rpartition(";")[0]
        raise UserError(f"{hint}; name the column of ids with --field")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
