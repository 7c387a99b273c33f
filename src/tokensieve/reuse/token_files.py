"""Token ids that others wrote, as runs of documents: `.ds` files, Megatron's files, rows of a data set.

Which of them a source is, is told by its files' names alone; what is not a file is a data set of the Hub. Nothing
that a file says is trusted: sizes are compared before anything is read, ids are checked by whoever stores them.
"""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokensieve.corpus.listing import COMPRESSIONS
from tokensieve.corpus.store import INDEX_SUFFIX, TOKENS_SUFFIX
from tokensieve.errors import UserError
from tokensieve.reuse.megatron import BIN_SUFFIX, IDX_SUFFIX, read_index
from tokensieve.reuse.token_rows import TokenRun, read_dataset, read_row_file

_METADATA_SUFFIX = TOKENS_SUFFIX + ".metadata"
_METADATA_BYTES = 4096
_ROW_SUFFIXES = (".parquet", ".jsonl", ".ndjson")
_SAVED_DATASET = ("dataset_info.json", "dataset_dict.json")


@dataclass(frozen=True)
class TokenSource:
    """What an import reads."""

    kind: str
    """ds, megatron, rows or dataset."""
    paths: tuple[str, ...]
    """Files in reading order; a data set's folder or Hub id."""

    @property
    def sizes(self) -> list[int]:
        """Bytes of each file, as the manifest remembers them; 0 for what is no file."""
        return [os.path.getsize(path) if os.path.isfile(path) else 0 for path in self.paths]


def find_tokens(source: str) -> TokenSource:
    """Say what a file, folder, glob or Hub id is, and list its files in the order of their names.

    Raises:
        UserError: nothing there, or files of several kinds.
    """
    given = os.path.expanduser(source)
    if os.path.isdir(given):
        if any(os.path.isfile(os.path.join(given, name)) for name in _SAVED_DATASET):
            return TokenSource("dataset", (given,))
        found = glob.glob(os.path.join(glob.escape(given), "**", "*"), recursive=True)
    elif os.path.exists(given):
        found = [given.removesuffix(IDX_SUFFIX) + BIN_SUFFIX if given.endswith(IDX_SUFFIX) else given]
    elif glob.has_magic(given):
        found = glob.glob(given, recursive=True)
    elif re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        return TokenSource("dataset", (source,))
    else:
        raise UserError(f"{source}: no such file or folder, and no id of a Hub dataset; check the path")
    kinds: dict[str, list[str]] = {}
    for path in sorted(found, key=lambda path: Path(path).parts):
        kind = _kind(path)
        if kind is not None and not os.path.isdir(path):
            kinds.setdefault(kind, []).append(path)
    if len(kinds) != 1:
        what = f"holds files of several kinds ({', '.join(sorted(kinds))})" if kinds else "holds no tokens"
        raise UserError(
            f"{source}: {what}; name .ds files, Megatron's .bin files, or .parquet or .jsonl files with ids"
        )
    ((kind, paths),) = kinds.items()
    return TokenSource(kind, tuple(paths))


def read_tokens(
    source: TokenSource, *, field: str = "input_ids", config: str | None = None, split: str = "train"
) -> Iterator[TokenRun]:
    """The runs of a source, in order, one in memory at a time.

    Args:
        source: from `find_tokens`.
        field: the column of a data set that holds the ids.
        config: the Hub data set's configuration.
        split: the data set's split.

    Raises:
        UserError: unreadable or damaged, or an index that does not fit its file.
    """
    for path in source.paths:
        if source.kind == "ds":
            yield _file_run(Path(path), *_read_ds_index(Path(path)))
        elif source.kind == "megatron":
            yield _file_run(Path(path), *read_index(Path(path)))
        elif source.kind == "rows":
            yield from read_row_file(Path(path), field)
        else:
            yield from read_dataset(path, field, config, split)


def _kind(path: str) -> str | None:
    if path.endswith(TOKENS_SUFFIX):
        return "ds"
    if path.endswith(BIN_SUFFIX):
        return "megatron"
    bare = path.removesuffix(next((suffix for suffix in COMPRESSIONS if path.endswith(suffix)), ""))
    return "rows" if bare.endswith(_ROW_SUFFIXES) else None


def _read_ds_index(path: Path) -> tuple[np.dtype, np.ndarray]:
    """Type of the ids of a `.ds` file, and the lengths of its documents, [documents] int64.

    The type follows from the two files: the index ends with the number of tokens.
    """
    index = path.with_name(path.name.removesuffix(TOKENS_SUFFIX) + INDEX_SUFFIX)
    try:
        size, index_size = path.stat().st_size, index.stat().st_size
        if index_size % 8:
            raise UserError(f"{index}: has {index_size} bytes, not 8 for each document; copy it again")
        ends = np.fromfile(index, dtype="<u8")
    except OSError as error:
        raise UserError(
            f"{error.filename or index}: cannot read ({error.strerror}); each .ds file needs its .ds.index beside it"
        ) from error
    tokens = int(ends[-1]) if len(ends) else 0
    token_size = _token_size_of_metadata(path, tokens)
    if tokens:
        if size not in (2 * tokens, 4 * tokens) or (token_size or size // tokens) != size // tokens:
            told = f"{token_size}" if token_size else "2 or 4"
            raise UserError(
                f"{index}: ends at token {tokens}, but {path.name} has {size} bytes, not that many tokens of {told} "
                f"bytes; copy both again"
            )
        token_size = size // tokens
    elif size:
        raise UserError(f"{index}: names no token, but {path.name} has {size} bytes; copy both again")
    falling = np.flatnonzero(ends[1:] < ends[:-1])
    if len(falling):
        raise UserError(f"{index}: damaged (document {falling[0] + 1} ends before it begins); copy it again")
    return np.dtype(f"<u{token_size or 2}"), np.diff(ends.astype(np.int64), prepend=0)


def _token_size_of_metadata(path: Path, tokens: int) -> int | None:
    """What datatrove's `.ds.metadata` (TOKENIZER|BYTES, then the number of tokens) says, if it is there."""
    metadata = path.with_name(path.name.removesuffix(TOKENS_SUFFIX) + _METADATA_SUFFIX)
    if not metadata.exists():
        return None
    try:
        with metadata.open("rb") as file:
            lines = file.read(_METADATA_BYTES).split(b"\n")
    except OSError as error:
        raise UserError(f"{metadata}: cannot read ({error.strerror}); check its permissions") from error
    size = lines[0].rpartition(b"|")[2].strip()
    if size not in (b"2", b"4") or len(lines) < 2 or lines[1].strip() != str(tokens).encode():
        raise UserError(
            f"{metadata}: does not say 'TOKENIZER|2' or 'TOKENIZER|4' and then {tokens} tokens, where the index of "
            f"{path.name} ends; copy the files again, or remove this one"
        )
    return int(size)


def _file_run(path: Path, dtype: np.dtype, lengths: np.ndarray) -> TokenRun:
    def read(begin: int, end: int) -> np.ndarray:
        try:
            tokens = np.fromfile(path, dtype=dtype, count=end - begin, offset=begin * dtype.itemsize)
        except OSError as error:
            raise UserError(f"{path}: cannot read ({error.strerror}); check its permissions") from error
        if len(tokens) != end - begin:
            raise UserError(f"{path}: became shorter while it was read; copy it again")
        return tokens

    return TokenRun(str(path), "document", 0, lengths, read)
