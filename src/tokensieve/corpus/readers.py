"""Files to records: JSON lines, Parquet and plain text, compressed or not, streamed in bounded memory.

A file lies on the local disk or behind a URL; what is read of it is the same.

Whatever is wrong with a file is found here and said in one line with the file, the line or row, and the
cure. A record larger than the limit is noticed before it is held whole.
"""

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from tokensieve.corpus.listing import COMPRESSIONS, Input
from tokensieve.errors import UserError
from tokensieve.recipe.reading import suggest
from tokensieve.storage import remote

Advance = Callable[[int], None]
"""Called with the number of input bytes that were just read."""

_BUFFER = 1 << 20
_BOM = b"\xef\xbb\xbf"
_PARQUET_ROWS = 1024
MEGABYTE = 1_000_000


def read_jsonl(item: Input, max_mb: int, advance: Advance) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSON-lines file with their places; blank lines are skipped.

    Raises:
        UserError: unreadable, damaged, not UTF-8, not JSON, not an object, or a line above `max_mb`.
    """
    path, limit = item.path, max_mb * MEGABYTE
    with _opened(item, advance) as stream:
        number = 0
        while line := stream.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise _too_large(f"{path}: line {number}", max_mb)
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.isspace():
                continue
            place = f"{path}: line {number}"
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{place}: not UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x}); "
                    f"convert the file to UTF-8"
                ) from error
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{place}: not valid JSON ({error}); the file must hold one JSON object a line"
                ) from error
            if not isinstance(record, dict):
                kind = type(record).__name__
                raise UserError(f"{place}: a JSON {kind}, not an object; the file must hold one object a line")
            yield place, record


def read_parquet(
    item: Input, columns: Sequence[str], max_mb: int, advance: Advance
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a Parquet file with their places, only the named columns, a slice of a row group at a time.

    Raises:
        UserError: unreadable, damaged, a column is absent, or a text above `max_mb`.
    """
    path, size = item.path, item.size
    done = row = 0
    try:
        with contextlib.ExitStack() as stack:
            source, buffer = path, _BUFFER
            if remote.is_url(path):
                # Ranges of the wanted columns only; Arrow buffers each column, so the file itself need not.
                raw = stack.enter_context(remote.RemoteReader(path, size))
                source, buffer = stack.enter_context(pa.PythonFile(raw, "r")), remote.READ_BYTES
            file = stack.enter_context(pa.parquet.ParquetFile(source, buffer_size=buffer, pre_buffer=False))
            for column in columns:
                if column not in file.schema_arrow.names:
                    raise absent_field(path, column, file.schema_arrow.names)
            total = file.metadata.num_rows
            for batch in file.iter_batches(_PARQUET_ROWS, columns=list(columns), use_threads=False):
                _refuse_large_rows(batch, f"{path}: row", row, max_mb)
                for record in batch.to_pylist():
                    yield f"{path}: row {row} (from 0)", record
                    row += 1
                advance(size * row // total - done)
                done = size * row // total
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable Parquet file after row {row} ({_one_line(error)}); fetch or write it again"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def read_text(item: Input, max_mb: int, advance: Advance) -> str:
    """A whole plain text file: one document.

    Raises:
        UserError: unreadable, damaged, not UTF-8, or above `max_mb`.
    """
    path, limit = item.path, max_mb * MEGABYTE
    known_too_large = Path(path).suffix not in COMPRESSIONS and item.size > limit
    with _opened(item, advance) as stream:
        data = b"" if known_too_large else stream.read(limit + 1)
        if len(data) > limit or known_too_large:
            raise _too_large(path, max_mb)
    try:
        return data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: line {line}: not UTF-8 (byte {error.start + 1} of the file is "
            f"0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error


def absent_field(place: str, field: str, known: Sequence[str]) -> UserError:
    """The error for a record without the field the recipe names."""
    hint = suggest(field, known).removeprefix("; ").removesuffix("?")
    return UserError(f"{place}: no field {field!r} ({hint}); set the source's `field` or `template`")


@contextlib.contextmanager
def _opened(item: Input, advance: Advance) -> Iterator[BinaryIO]:
    path = item.path
    suffix, at_once = Path(path).suffix, remote.READ_BYTES if remote.is_url(path) else _BUFFER
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(_Counted(item, advance))
            stream: BinaryIO = stack.enter_context(io.BufferedReader(raw, at_once))
            if suffix == ".gz":
                unzipped = stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
                stream = stack.enter_context(io.BufferedReader(cast(io.RawIOBase, unzipped), _BUFFER))
            elif suffix == ".zst":
                unzipped = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"))
                stream = stack.enter_context(io.BufferedReader(unzipped, _BUFFER))
            yield stream
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged ({_one_line(error)}); fetch or write it again") from error
    except OSError as error:
        raise _unreadable(path, error) from error


class _Counted(io.RawIOBase):
    """A file that tells how many bytes were read from it, as they are stored: the measure of progress."""

    def __init__(self, item: Input, advance: Advance) -> None:
        if remote.is_url(item.path):
            self._file: io.RawIOBase = remote.RemoteReader(item.path, item.size)
        else:
            self._file = io.FileIO(item.path)
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._advance(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _refuse_large_rows(batch: pa.RecordBatch, place: str, first: int, max_mb: int) -> None:
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes = pa.compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
            if len(sizes) and sizes.max() > max_mb * MEGABYTE:
                raise _too_large(f"{place} {first + int(sizes.argmax())} (from 0)", max_mb)


def _too_large(place: str, max_mb: int) -> UserError:
    return UserError(f"{place}: larger than {max_mb} MB; split the document or raise corpus.max_document_mb")


def _unreadable(path: str, error: OSError) -> UserError:
    # Damaged compressed data also comes as OSError, but without an error number.
    if error.errno is None:
        return UserError(f"{path}: truncated or damaged ({_one_line(error)}); fetch or write it again")
    return UserError(f"{path}: cannot read ({error.strerror or error}); check the path and its permissions")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
