r"""Megatron's `.bin` and `.idx`: the token files of Megatron-LM, NeMo and datatrove's MegatronDocumentTokenizer.

`.bin` is nothing but token ids. `.idx` (little-endian) is the 9 bytes `MMIDIDX\0\0`, version 1 as uint64, one byte
for the type of an id, the numbers of sequences and of document marks as uint64, then the sequences' lengths in
tokens (int32) and byte offsets in `.bin` (int64), and the document marks (int64): document d is the sequences
from mark d up to mark d+1. Nothing in a header is used as a size before it was compared with the files' sizes.
"""

import struct
from pathlib import Path

import numpy as np

from tokensieve.errors import UserError

BIN_SUFFIX = ".bin"
IDX_SUFFIX = ".idx"

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""Type codes of ids. 6 and 7 are floats, which no ids are."""
_CURE = "copy both files again"


def read_index(path: Path) -> tuple[np.dtype, np.ndarray]:
    """The type of the ids in a `.bin` and the lengths of its documents, from the `.idx` beside it.

    Args:
        path: the `.bin` file.

    Returns:
        The type, and the tokens of each document, [documents] int64; the documents follow each other from the
        file's first byte to its last.

    Raises:
        UserError: a file is missing, damaged, of another version, or the two do not fit each other.
    """
    index = path.with_suffix(IDX_SUFFIX)
    try:
        bin_size, index_size = path.stat().st_size, index.stat().st_size
        with index.open("rb") as file:
            header = file.read(_HEADER.size)
            dtype, sequences, marks = _parse_header(index, header, index_size)
            lengths = np.fromfile(file, dtype="<i4", count=sequences).astype(np.int64)
            offsets = np.fromfile(file, dtype="<i8", count=sequences)
            documents = np.fromfile(file, dtype="<i8", count=marks)
    except OSError as error:
        raise UserError(f"{error.filename or index}: cannot read ({error.strerror}); {_CURE}") from error
    if (len(lengths), len(offsets), len(documents)) != (sequences, sequences, marks):
        raise UserError(f"{index}: became shorter while it was read; {_CURE}")
    if sequences and int(lengths.min()) < 0:
        raise UserError(f"{index}: damaged (sequence {int(lengths.argmin())} has {lengths.min()} tokens); {_CURE}")
    ends = np.concatenate([[0], np.cumsum(lengths)])
    misplaced = np.flatnonzero(offsets != ends[:-1] * dtype.itemsize)
    if len(misplaced):
        i = int(misplaced[0])
        raise UserError(
            f"{index}: sequence {i} begins at byte {offsets[i]} of {path.name}, not at {ends[i] * dtype.itemsize}, "
            f"where the one before it ends; only files whose sequences follow each other can be imported"
        )
    if int(ends[-1]) * dtype.itemsize != bin_size:
        raise UserError(
            f"{index}: its sequences are {ends[-1]} tokens of {dtype.itemsize} bytes, but {path.name} has {bin_size} "
            f"bytes; {_CURE}"
        )
    if documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise UserError(f"{index}: damaged (its document marks do not go up from 0 to {sequences}); {_CURE}")
    return dtype, np.diff(ends[documents])


def _parse_header(path: Path, header: bytes, size: int) -> tuple[np.dtype, int, int]:
    """Type of an id, number of sequences, number of document marks; all of them fit the file's size."""
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise UserError(f"{path}: not a Megatron index (it does not begin with MMIDIDX); {_CURE}")
    _, version, code, sequences, marks = _HEADER.unpack(header)
    if version != _VERSION:
        raise UserError(f"{path}: version {version} of the Megatron index, this program reads {_VERSION}")
    if code not in _DTYPES:
        raise UserError(f"{path}: type code {code} is no type of token ids (known: {', '.join(map(str, _DTYPES))})")
    wanted = _HEADER.size + 12 * sequences + 8 * marks
    if marks < 1 or size not in (wanted, wanted + sequences):
        raise UserError(
            f"{path}: has {size} bytes, not the {wanted} of {sequences} sequences and {marks} document marks; {_CURE}"
        )
    if size != wanted:
        raise UserError(f"{path}: an index with modes, of text beside images; import files of text alone")
    return np.dtype(_DTYPES[code]), sequences, marks
