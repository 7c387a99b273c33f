"""Files behind a URL: what fsspec can reach (s3://, gs://, hf://, ...), listed and read without surprises.

Nothing is cached, because other machines write to the same place. A file is read in ranges whose lengths are
compared with what was asked for, and its size with what the listing said: a connection that breaks is tried
again by the driver or is an error, never a short file. Everything a driver raises becomes one line.
"""

import contextlib
import errno
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fsspec.core import url_to_fs
from fsspec.utils import glob_translate

from tokensieve.errors import UserError

Kind = Literal["folder", "file", "glob"]
"""What a path stands for."""
READ_BYTES = 1 << 23
"""Bytes asked for at once: a request takes tens of milliseconds, whatever its size."""

# Drivers raise these besides OSError. They are looked up among the modules that are loaded: a driver that is not
# installed raises nothing.
_DRIVER_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
)


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, as it was listed."""

    url: str
    size: int
    """Bytes."""


def is_url(path: str) -> bool:
    """Whether a recipe's path goes to fsspec and not to the local disk."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def is_below(url: str, folder: str) -> bool:
    """Whether a URL is a folder's or lies in it: what is written there would be read with the folder."""
    return f"{url.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def find(url: str) -> tuple[Kind, list[RemoteFile]]:
    """The files that a URL stands for: a folder's, to any depth, a file, or a glob's; sorted by their paths' parts.

    Names that begin with a dot are left out of folders and globs, unless the glob asks for them.

    Raises:
        UserError: no such file, folder or bucket, no access, no connection, or no driver for the URL.
    """
    fs, path = open_filesystem(url)
    if glob_signs(path.split("/")[0]):
        raise UserError(f"{url}: a pattern in place of the bucket; name the bucket")
    with failures(url):
        try:
            top = fs.info(path)
        except FileNotFoundError:
            if not glob_signs(path):
                raise
            # fs.glob() leaves out folders that it fails to list; one listing below the first sign is whole or an error.
            top_folder, matches = _literal(path), re.compile(glob_translate(path)).match
            found = {name: entry for name, entry in fs.find(top_folder, detail=True).items() if matches(name)}
            return "glob", _files(url, fs, found, top_folder, hidden="/." in path)
        if top["type"] == "directory":
            return "folder", _files(url, fs, fs.find(path, detail=True), path, hidden=False)
    return "file", [RemoteFile(url, _size(url, top))]


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, without a cache of listings, and the path inside it.

    Raises:
        UserError: an unknown protocol, a driver that is not installed, or a URL that names no folder.
    """
    protocol, _, rest = url.partition("://")
    if "::" in url or not rest.strip("/"):
        raise UserError(f"{url}: not a URL of one file or folder; write it as {protocol}://bucket/folder")
    try:
        # Object stores have no folders to make; a mounted share has.
        return url_to_fs(url, use_listings_cache=False, **({"auto_mkdir": True} if protocol == "file" else {}))
    except ImportError as error:
        cure = "run pip install 'tokensieve[s3]'" if protocol in ("s3", "s3a") else "install that driver with pip"
        raise UserError(f"{url}: no driver for {protocol}:// ({_one_line(error)}); {cure}") from error
    except ValueError as error:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "hf"))
        raise UserError(f"{url}: {_one_line(error)}; write a local path, {known} or what else fsspec knows") from error


@contextlib.contextmanager
def failures(url: str) -> Iterator[None]:
    """Turn whatever a driver raises about a URL into a `UserError`."""
    try:
        yield
    except _raised_by_drivers() as error:
        raise UserError(f"{url}: {_explanation(error)}") from error


def glob_signs(path: str) -> bool:
    """Whether a path holds *, ? or [."""
    return not set(path).isdisjoint("*?[")


class RemoteReader(io.RawIOBase):
    """A file behind a URL as a seekable binary stream; each read is a request for exactly that range.

    Args:
        url: the file's.
        size: bytes that it must have, from an earlier listing; None: as many as it has.

    Raises:
        UserError: from the constructor and from reading: missing, of another size, changed or cut short.
    """

    def __init__(self, url: str, size: int | None = None) -> None:
        super().__init__()
        self.url = url
        fs, path = open_filesystem(url)
        with failures(url):
            self.size = _size(url, fs.info(path))
            if size is not None and self.size != size:
                raise UserError(f"{url}: has {self.size} bytes, not {size}; it changed or is cut short: write it again")
            self._file = fs.open(path, "rb", cache_type="none")
            if getattr(self._file, "size", self.size) not in (self.size, None):
                raise UserError(f"{url}: was replaced while it was opened; run again")
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always, as far as the driver reads ranges."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without a request."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """The position of the next byte."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or as much of it as the file has left."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self.size - self._at))
        done = 0
        with failures(self.url):
            if wanted and self._file.tell() != self._at:
                self._file.seek(self._at)
            while done < wanted and (data := self._file.read(wanted - done)):
                view[done : done + len(data)] = data
                done += len(data)
        self._at += done
        if done < wanted:
            raise UserError(f"{self.url}: ended after {self._at} of {self.size} bytes; the connection broke: run again")
        return done

    def close(self) -> None:
        """Let the connection go."""
        if not self.closed:
            self._file.close()
        super().close()


def _files(url: str, fs: Any, found: dict[str, dict[str, Any]], top: str, *, hidden: bool) -> list[RemoteFile]:
    names = [
        name
        for name, entry in found.items()
        # Some tools make empty objects whose names end with a slash, to show a folder.
        if entry["type"] == "file" and not name.endswith("/") and (hidden or not _is_hidden(name, top))
    ]
    ordered = sorted(names, key=lambda name: name.split("/"))
    return [RemoteFile(fs.unstrip_protocol(name), _size(url, found[name])) for name in ordered]


def _is_hidden(name: str, top: str) -> bool:
    return any(part.startswith(".") for part in name[len(top) :].strip("/").split("/"))


def _literal(pattern: str) -> str:
    """The folders that a glob starts with, up to its first sign."""
    parts = pattern.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if glob_signs(part))])


def _size(url: str, entry: dict[str, Any]) -> int:
    if not isinstance(entry.get("size"), int):
        raise UserError(f"{url}: the server does not tell its size, so a short read would go unnoticed; copy it first")
    return int(entry["size"])


def _raised_by_drivers() -> tuple[type[Exception], ...]:
    # Drivers say ValueError or NotImplementedError of names that their store cannot have.
    loaded = (getattr(sys.modules[module], name) for module, name in _DRIVER_ERRORS if module in sys.modules)
    return (OSError, ValueError, NotImplementedError, *loaded)


def _explanation(error: Exception) -> str:
    what = _one_line(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return f"no such file, folder or bucket ({what}); check the URL"
    if isinstance(error, PermissionError) or "redential" in what:
        return f"no access ({what}); check the credentials (for s3://: AWS_ACCESS_KEY_ID, ..., or AWS_PROFILE)"
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return f"refused ({what}); check the URL, or run again if the file was being replaced"
    return f"cannot reach it ({what}); check the URL and the network, then run again"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
