"""The work of `tokensieve export`: a store as Parquet rows, or the kept documents as JSON lines of text.

Each row is a document (or a window) with its tokens, its values and their aggregates. Ranked and cut by an aggregate,
an export is a data filter. Row groups are streamed: memory does not grow with the corpus, but for the few dozen
bytes a row that ranking needs.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerBase

from tokensieve.errors import UserError
from tokensieve.reuse.opening import OpenedStore, tokenizer_of
from tokensieve.reuse.spans import PIECE, Piece, Rows, Spans, aggregate, is_scored, rank, scored_tokens

_GROUP_ROWS = 1 << 16
SUFFIXES = (".parquet", ".jsonl")


@dataclass(frozen=True)
class Selection:
    """Which rows to write, and in which order."""

    keep: float | None = None
    """Share to keep, above 0 and up to 1; None: all."""
    by: str = "mean_loss"
    """The aggregated score that decides."""
    unit: Literal["tokens", "documents"] = "tokens"
    """What the share is of."""
    highest: bool = False
    """Keep the highest instead of the lowest."""
    ranked: bool = False
    """Write the best first, instead of in the corpus's order."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    rows: int
    tokens: int
    of_rows: int
    of_tokens: int
    unscored: int
    """Rows of the store without any scored token; a share keeps none of them."""


def export_store(
    opened: OpenedStore,
    out: Path,
    *,
    rows: Rows = "documents",
    selection: Selection | None = None,
    text: bool = False,
    tokenizer: str | None = None,
) -> Exported:
    """Write a store, or the part of it that a selection keeps, to one file.

    Args:
        opened: token store or score store.
        out: `.parquet`, or `.jsonl` for text and aggregates without tokens.
        rows: documents or windows.
        selection: None: everything, in order.
        text: add the decoded text to Parquet rows.
        tokenizer: folder or Hub id, where it is not in the run's folder.

    Raises:
        UserError: `out` exists or has another suffix, the tokenizer is not the store's, the store is damaged, nothing
            is kept, or the file cannot be written. Then nothing is left behind.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: exports end with {' or '.join(SUFFIXES)}; choose such a name")
    if selection is not None and selection.keep is not None and not 0 < selection.keep <= 1:
        raise UserError(f"keep is {selection.keep}; give a share above 0 and up to 1")
    if out.exists():
        raise UserError(f"{out}: exists; choose another name or remove it")
    spans = Spans(opened, rows)
    reader = tokenizer_of(opened.corpus, tokenizer) if text or out.suffix == ".jsonl" else None
    counts = np.array([len(spans.ends(i)) for i in range(len(opened.corpus.shards))], dtype=np.int64)
    first_row = np.concatenate([[0], np.cumsum(counts)])
    if first_row[-1] == 0:
        raise UserError(f"{opened.folder}: holds no {rows}: none of its shards is as long as one; export documents")
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tokens"))
    with Progress(*bar, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        order, unscored = None, 0
        if selection is not None:
            task = progress.add_task("rank", total=opened.corpus.tokens)
            order, unscored = rank(
                spans,
                selection.by,
                selection.keep,
                unit=selection.unit,
                highest=selection.highest,
                advance=lambda count: progress.advance(task, count),
            )
        writing = progress.add_task("export", total=None if order is not None else opened.corpus.tokens)
        batches: Iterator[_Batch]
        if selection is not None and selection.ranked and order is not None:
            batches = _in_order(spans, order, first_row)
        else:
            batches = _in_corpus_order(spans, None if order is None else np.sort(order), first_row)
        by = None if selection is None else selection.by
        written = tokens = 0
        with _writer(out, _Table(spans, by, reader), opened, selection) as write:
            for batch in batches:
                write(batch)
                written += len(batch.numbers)
                tokens += len(batch.piece.tokens)
                progress.update(writing, completed=tokens)
    return Exported(written, tokens, int(first_row[-1]), opened.corpus.tokens, unscored)


@dataclass(frozen=True)
class _Batch:
    """Rows that are written together; `piece.shard` and `piece.first` mean nothing where shards are mixed."""

    piece: Piece
    shards: np.ndarray
    numbers: np.ndarray


def _in_corpus_order(spans: Spans, kept: np.ndarray | None, first_row: np.ndarray) -> Iterator[_Batch]:
    for piece in spans.pieces():
        numbers = np.arange(piece.first, piece.first + len(piece.lengths))
        if kept is not None:
            begin = int(first_row[piece.shard]) + piece.first
            at, end = np.searchsorted(kept, [begin, begin + len(numbers)])
            inside = np.zeros(len(numbers), dtype=bool)
            inside[kept[at:end] - begin] = True
            if not inside.any():
                continue
            of_tokens = np.repeat(inside, piece.lengths)
            columns = {name: values[of_tokens] for name, values in piece.columns.items()}
            piece = Piece(piece.shard, piece.first, piece.lengths[inside], piece.tokens[of_tokens], columns)
            numbers = numbers[inside]
        yield _Batch(piece, np.full(len(numbers), piece.shard), numbers)


def _in_order(spans: Spans, order: np.ndarray, first_row: np.ndarray) -> Iterator[_Batch]:
    pieces: list[Piece] = []
    held = 0
    for row in order.tolist():
        shard = int(np.searchsorted(first_row, row, side="right")) - 1
        number = row - int(first_row[shard])
        ends = spans.ends(shard)
        begin = int(ends[number - 1]) if number else 0
        pieces.append(spans.read(shard, number, np.array([begin, ends[number]])))
        held += len(pieces[-1].tokens)
        if held >= PIECE or len(pieces) == _GROUP_ROWS:
            yield _joined(pieces)
            pieces, held = [], 0
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[Piece]) -> _Batch:
    names = pieces[0].columns
    piece = Piece(
        -1,
        -1,
        np.concatenate([piece.lengths for piece in pieces]),
        np.concatenate([piece.tokens for piece in pieces]),
        {name: np.concatenate([piece.columns[name] for piece in pieces]) for name in names},
    )
    shards, numbers = ([getattr(piece, name) for piece in pieces] for name in ("shard", "first"))
    return _Batch(piece, np.array(shards), np.array(numbers))


class _Table:
    """Batches as Arrow tables."""

    def __init__(self, spans: Spans, by: str | None, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self._spans = spans
        self._tokenizer = tokenizer
        self.statistics = [f"{statistic}_{column}" for column in spans.columns for statistic in ("mean", "sum")]
        if by is not None and by not in self.statistics:
            self.statistics.append(by)  # a median is sorted for only if it decides

    def columns(self, batch: _Batch, *, lists: bool) -> dict[str, pa.Array]:
        """One column each; `lists`: also tokens and their values."""
        corpus, piece = self._spans.corpus, batch.piece
        shards = [corpus.shards[i] for i in batch.shards.tolist()]
        found = {
            "source": pa.array([corpus.sources[shard.source].name for shard in shards], pa.string()),
            "shard": pa.array([shard.name for shard in shards], pa.string()),
            self._spans.unit: pa.array(batch.numbers, pa.int64()),
        }
        if self._tokenizer is not None:
            found["text"] = pa.array(self._decode(piece), pa.large_string())
        if lists:
            offsets = pa.array(np.concatenate([[0], np.cumsum(piece.lengths)]), pa.int32())
            found["tokens"] = pa.ListArray.from_arrays(offsets, pa.array(piece.tokens))
            for name, values in piece.columns.items():
                exact = values.astype(np.float32) if values.dtype.kind == "f" else values == 1
                found[name] = pa.ListArray.from_arrays(offsets, pa.array(exact, mask=~is_scored(name, values)))
        if self._spans.columns:
            found["scored"] = pa.array(scored_tokens(piece, self._spans.columns[0]), pa.int64())
        for name in self.statistics:
            scores = aggregate(piece, name)
            found[name] = pa.array(scores, mask=np.isnan(scores))
        return found

    def _decode(self, piece: Piece) -> list[str]:
        assert self._tokenizer is not None
        eos, begin, rows = self._spans.corpus.eos_token_id, 0, []
        for length in piece.lengths.tolist():
            row = piece.tokens[begin : begin + length]
            begin += length
            # The EOS of a document is ours, not the text's.
            rows.append((row[:-1] if self._spans.unit == "document" and row[-1] == eos else row).tolist())
        if self._tokenizer.is_fast:
            return self._tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
        return [str(self._tokenizer.decode(row, clean_up_tokenization_spaces=False)) for row in rows]


@contextlib.contextmanager
def _writer(out: Path, table: _Table, opened: OpenedStore, selection: Selection | None) -> Iterator[Any]:
    """A function that writes a batch; the file gets its name when the block ends well."""
    temporary = out.with_name(out.name + ".tmp")
    try:
        try:
            if out.suffix == ".jsonl":
                with temporary.open("w", encoding="utf-8") as lines:
                    yield lambda batch: _write_lines(lines, table.columns(batch, lists=False))
            else:
                with _ParquetFile(temporary, table, _provenance(opened, selection)) as file:
                    yield file.write
            with temporary.open("rb+") as whole:
                os.fsync(whole.fileno())
            os.replace(temporary, out)
        except OSError as error:
            raise UserError(f"{out}: cannot write ({error.strerror or error}); free space or choose another") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class _ParquetFile:
    """A Parquet file, opened with the schema of its first batch."""

    def __init__(self, path: Path, table: _Table, metadata: dict[str, str]) -> None:
        self._path, self._table, self._metadata = path, table, metadata
        self._writer: Any = None

    def __enter__(self) -> "_ParquetFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, batch: _Batch) -> None:
        table = pa.table(self._table.columns(batch, lists=True))
        if self._writer is None:
            table = table.replace_schema_metadata(self._metadata)
            self._writer = pa.parquet.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)


def _write_lines(file: TextIO, columns: dict[str, pa.Array]) -> None:
    for record in pa.table(columns).to_pylist():
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _provenance(opened: OpenedStore, selection: Selection | None) -> dict[str, str]:
    """The file's metadata: what its rows were made of."""
    made_of: dict[str, Any] = {"tokenizer": opened.corpus.tokenizer, "eos_token_id": opened.corpus.eos_token_id}
    if opened.scores is not None:
        made_of |= {key: value for key, value in opened.scores.inputs.items() if key != "corpus"}
    if selection is not None:
        made_of["selection"] = vars(selection)
    return {"tokensieve": json.dumps(made_of)}
