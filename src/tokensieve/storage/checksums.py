"""Checksums of a store's files: one sidecar a shard, and arrays that check each block when it is first touched.

A store is read for weeks and damaged in silence: a flipped bit in a token or a score changes what is trained on
and crashes nothing. So every 16 KiB block of every data file has an xxh3-64 in its shard's sidecar, the sidecar
ends with an xxh3-128 of itself, and the store's manifest, which has a checksum of its own, holds that one.
Opening reads no data; reading checks what it touches, once. docs/formats.md has the bytes.
"""

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from tokensieve.errors import UserError

if TYPE_CHECKING:
    from tokensieve.storage.store_mirror import StoreMirror

BLOCK = 16_384
"""Bytes that share one checksum."""
SIDECAR_SUFFIX = ".xxh3"

_MAGIC = b"tsieve\x00"
_VERSION = 1
_HEADER = struct.Struct("<7sBII")
"""Magic, version, bytes of a block, number of files."""
_ENTRY = struct.Struct("<32sQ")
"""A file's suffix padded with zeros, its size in bytes."""
_END = 16


@dataclass(frozen=True)
class FileChecksums:
    """What a sidecar says of one file."""

    suffix: str
    size: int
    """Bytes."""
    digests: np.ndarray
    """xxh3-64 of each block, [blocks] uint64; the last block may be short."""


def checksums_of(suffix: str, path: Path) -> FileChecksums:
    """The checksums of a file as it is on disk."""
    size = path.stat().st_size
    digests = np.empty(-(-size // BLOCK), dtype="<u8")
    with path.open("rb") as file:
        for i in range(len(digests)):
            digests[i] = xxhash.xxh3_64_intdigest(file.read(BLOCK))
    return FileChecksums(suffix, size, digests)


def write_sidecar(path: Path, files: Sequence[FileChecksums]) -> str:
    """Write a shard's sidecar, whole or not at all; returns its digest, which the manifest keeps."""
    parts = [_HEADER.pack(_MAGIC, _VERSION, BLOCK, len(files))]
    parts += [_ENTRY.pack(file.suffix.encode(), file.size) for file in files]
    parts += [file.digests.astype("<u8").tobytes() for file in files]
    data = b"".join(parts)
    digest = xxhash.xxh3_128(data)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as target:
        target.write(data + digest.digest())
        target.flush()
        os.fsync(target.fileno())
    os.replace(temporary, path)
    return digest.hexdigest()


def seal_shard(folder: Path, name: str, suffixes: Sequence[str]) -> str:
    """Write `folder/NAME.xxh3` over the files `folder/NAME<suffix>`; returns the shard's digest."""
    return write_sidecar(
        folder / (name + SIDECAR_SUFFIX), [checksums_of(suffix, folder / (name + suffix)) for suffix in suffixes]
    )


def read_sidecar(path: Path, digest: str | None = None) -> dict[str, FileChecksums]:
    """A shard's sidecar by suffix.

    Args:
        path: the `.xxh3` file.
        digest: what the manifest says; None: any sound sidecar.

    Raises:
        UserError: missing, damaged, of another format, or not the one that the manifest names.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the checksums ({error.strerror}); {_CURE}") from error
    body, end = data[:-_END], data[-_END:]
    found = xxhash.xxh3_128(body)
    if len(data) < _HEADER.size + _END or not data.startswith(_MAGIC) or found.digest() != end:
        raise UserError(f"{path}: damaged (not a sound checksum file); {_CURE}")
    _, version, block, count = _HEADER.unpack_from(body)
    if (version, block) != (_VERSION, BLOCK):
        raise UserError(
            f"{path}: checksum format {version} with blocks of {block} bytes, this version reads format {_VERSION} "
            f"with {BLOCK}; use the tokensieve that wrote it, or make the store again"
        )
    if digest is not None and found.hexdigest() != digest:
        raise UserError(
            f"{path}: belongs to another shard or store (digest {found.hexdigest()}, the manifest says {digest}); "
            f"{_CURE}"
        )
    return _parse(path, body, count)


def sidecar_digest(path: Path) -> str:
    """The digest at the end of a sidecar, which stands for every byte of its shard.

    Raises:
        UserError: missing.
    """
    try:
        return path.read_bytes()[-_END:].hex()
    except OSError as error:
        raise UserError(f"{path}: cannot read the checksums ({error.strerror}); {_CURE}") from error


def _parse(path: Path, body: bytes, count: int) -> dict[str, FileChecksums]:
    begin = _HEADER.size + count * _ENTRY.size
    if begin > len(body):
        raise UserError(f"{path}: damaged (too short for {count} files); {_CURE}")
    files = {}
    for i in range(count):
        name, size = _ENTRY.unpack_from(body, _HEADER.size + i * _ENTRY.size)
        blocks = -(-size // BLOCK)
        if begin + 8 * blocks > len(body):
            raise UserError(f"{path}: damaged (too short for its sizes); {_CURE}")
        suffix = name.rstrip(b"\0").decode("ascii", "replace")
        files[suffix] = FileChecksums(suffix, size, np.frombuffer(body, dtype="<u8", count=blocks, offset=begin))
        begin += 8 * blocks
    if begin != len(body):
        raise UserError(f"{path}: damaged ({len(body) - begin} bytes too many); {_CURE}")
    return files


class CheckedArray:
    """One data file of a shard as an array: a slice of it is a plain array whose every block was checked.

    The file is opened, and its checksums are read, when it is first touched. Picklable: the other process opens
    the file itself.

    Args:
        folder: the store's.
        name: the shard's.
        suffix: the file's.
        dtype: type of an element.
        length: elements.
        digest: the shard's, from the manifest.
        mirror: brings the file from elsewhere if it is not here when it is first touched.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        suffix: str,
        dtype: np.dtype,
        length: int,
        digest: str,
        mirror: "StoreMirror | None" = None,
    ) -> None:
        self.path = folder / (name + suffix)
        self.dtype = np.dtype(dtype)
        self.shape = (length,)
        self._sidecar = folder / (name + SIDECAR_SUFFIX)
        self._name, self._suffix = name, suffix
        self._digest = digest
        self._mirror = mirror
        self._data: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> np.ndarray:
        """A contiguous slice, read-only.

        Raises:
            UserError: the file is missing, has another size, or a block that was touched differs from its checksum.
        """
        begin, end, step = key.indices(len(self))
        if step != 1:
            raise ValueError("only contiguous slices")
        if self._data is None:
            self._open()
        assert self._data is not None
        size = self.dtype.itemsize
        first, last = begin * size // BLOCK, -(-end * size // BLOCK)
        if self._sound.find(0, first, last) >= 0:
            self._check(first, last)
        return self._data[begin:end]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole file, checked."""
        return np.array(self[:], dtype=dtype, copy=copy)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_sound", "_digests")} | {
            "_data": None
        }

    @property
    def is_elsewhere(self) -> bool:
        """Whether the file is not here, and the mirror brings it when it is touched."""
        return self._mirror is not None and not self.path.exists()

    def damaged_blocks(self) -> Iterator[int]:
        """Every block that differs from its checksum; each is read anew.

        Raises:
            UserError: the file is missing or has another size, or its checksums are not sound.
        """
        self._open()
        with self._file() as file:
            for block in range(len(self._digests)):
                if not self._is_sound(file, block):
                    yield block

    def _open(self) -> None:
        if self.is_elsewhere:
            assert self._mirror is not None
            self._mirror.fetch_shard(self._name, (self._suffix,))
        files = read_sidecar(self._sidecar, self._digest)
        size = len(self) * self.dtype.itemsize
        if self._suffix not in files or files[self._suffix].size != size:
            raise UserError(f"{self._sidecar}: says nothing of {self.path.name} with {size} bytes; {_CURE}")
        try:
            found = self.path.stat().st_size
            if found != size:
                raise UserError(f"{self.path}: has {found} bytes, not {size}; {_CURE}")
            data = np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r")) if size else np.zeros(0, np.uint8)
        except OSError as error:
            raise UserError(f"{self.path}: cannot read ({error.strerror}); {_CURE}") from error
        self._digests = files[self._suffix].digests
        # Bytes, because looking for a zero in them is ten times faster than numpy's `all` of a few.
        self._sound = bytearray(len(self._digests))
        self._data = data.view(self.dtype)

    def _check(self, first: int, last: int) -> None:
        with self._file() as file:
            while (block := self._sound.find(0, first, last)) >= 0:
                if not self._is_sound(file, block):
                    raise UserError(f"{self.path}: {describe_damage(block)}; {_CURE}")
                self._sound[block] = 1

    @contextlib.contextmanager
    def _file(self) -> Iterator[int]:
        """The file, open for a check: kept open, those of a large corpus would exceed what a process may have."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{self.path}: cannot read ({error.strerror}); {_CURE}") from error
        try:
            yield file
        finally:
            os.close(file)

    def _is_sound(self, file: int, block: int) -> bool:
        # Not through the map: a fault there brings in all that the kernel reads ahead, often megabytes for 16 KiB,
        # and an unreadable sector or a file that was cut short kills the process.
        try:
            data = os.pread(file, BLOCK, block * BLOCK)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot read from byte {block * BLOCK} ({error.strerror}); {_CURE}"
            ) from error
        return xxhash.xxh3_64_intdigest(data) == int(self._digests[block])


def describe_damage(block: int) -> str:
    """Which bytes of a file a damaged block covers."""
    return f"damaged (bytes {block * BLOCK} to {(block + 1) * BLOCK - 1} differ from their checksum)"


_CURE = "`tokensieve verify` lists all damage; remove the shard's files (or the store) and make them again"
