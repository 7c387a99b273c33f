"""A folder behind a URL: files come whole or not at all, in both directions, in flat memory.

An upload is one object put, which object stores do whole or not at all, and its size is compared afterwards. A
download goes to a hidden temporary name, is checked, synced and renamed. `store_mirror.py` keeps token and
score stores in such a folder.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fsspec.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tokensieve.errors import UserError
from tokensieve.stage import is_main_process
from tokensieve.storage import remote

_SHOWN_BYTES = 1 << 25
"""Larger files show a progress bar."""
_MOST_READ = 1 << 28
"""`read` refuses larger objects: manifests and checksums are small."""

# s3fs holds this many parts of a file in memory; its own choice is 10 of 50 MiB.
_S3_UPLOAD = {"chunksize": 1 << 24, "max_concurrency": 2}


class Mirror:
    """A folder behind a URL. Picklable; a process connects when it first needs to.

    Names are relative to the folder, with "/" between their parts.

    Args:
        url: of anything fsspec can write to, for example s3://bucket/run.

    Raises:
        UserError: from every method: no access, no connection, no such bucket, a full disk.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if not remote.is_url(url):
            raise UserError(f"storage {url!r} is not a URL; write it as s3://bucket/folder, or leave it out")

    def at(self, name: str) -> str:
        """The URL of a file or folder."""
        return f"{self.url}/{name}" if name else self.url

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""
        with self._at(name) as (fs, path):
            try:
                entry = fs.info(path)
            except FileNotFoundError:
                return None
        return int(entry["size"]) if entry["type"] == "file" else None

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.size(name) is not None

    def names(self, folder: str = "") -> list[str]:
        """The names of the files right in a folder, sorted; none if there is no such folder."""
        with self._at(folder) as (fs, path):
            try:
                entries = fs.ls(path, detail=True)
            except FileNotFoundError:
                return []
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")

    def read(self, name: str) -> bytes | None:
        """A small file; None if there is none. One request: of a file that is replaced meanwhile the old or the new."""
        size = self.size(name)
        if size is None:
            return None
        if size > _MOST_READ:
            raise UserError(f"{self.at(name)}: has {size} bytes, which is no manifest and no checksum file")
        with self._at(name) as (fs, path):
            try:
                return bytes(fs.cat_file(path))
            except FileNotFoundError:
                return None

    def pull(
        self, name: str, path: Path, size: int | None = None, check: Callable[[Path], None] = lambda path: None
    ) -> None:
        """Fetch one file; `path` is whole and checked when this returns, and untouched if it fails.

        Args:
            name: the file's.
            path: where it goes; its folder is made.
            size: bytes that it must have; None: as many as it has.
            check: called with the temporary file before it gets its name; raises if something is wrong.
        """
        with remote.RemoteReader(self.at(name), size) as source:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _temporary(path) as temporary:
                    with temporary.open("wb") as target, _progress(f"fetch {path.name}", source.size) as show:
                        while data := source.read(remote.READ_BYTES):
                            target.write(data)
                            show(source.tell())
                        target.flush()
                        os.fsync(target.fileno())
                    check(temporary)
                    os.replace(temporary, path)
            except OSError as error:  # what the driver raises is a UserError by now
                raise cannot_write(path, error) from error

    def push(self, path: Path, name: str) -> None:
        """Store one file under a name; what was there is replaced, at once or not at all."""
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: cannot read ({error.strerror}); make it again") from error
        with self._at(name) as (fs, target):
            options = _S3_UPLOAD if "s3" in _protocols(fs) else {}
            with _progress(f"store {path.name}", size) as show:
                shown = Callback(hooks={"show": lambda size, value, **_: show(value)})
                fs.put_file(str(path), target, callback=shown, **options)
        stored = self.size(name)
        if stored != size:
            raise UserError(f"{self.at(name)}: has {stored} bytes after {size} were stored; remove it and run again")

    def create(self, name: str, data: bytes) -> bool:
        """Store a small file unless there is one; the first of several writers wins.

        Returns:
            Whether it was stored by this call. A store that knows no conditional writes may let two writers
            win that come within one request's time; the second's file stays.
        """
        with self._at(name) as (fs, path):
            try:
                fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                if fs.exists(path):
                    return False
                fs.pipe_file(path, data)
        return True

    @contextlib.contextmanager
    def _at(self, name: str) -> Iterator[tuple[Any, str]]:
        url = self.at(name)
        fs, path = remote.open_filesystem(url)
        with remote.failures(url):
            yield fs, path


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error about a local file that cannot be written."""
    return UserError(f"{path}: cannot write ({error.strerror}); free space or choose another `out`")


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A hidden name beside a file, this process's own, that is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for a large file, on the main process; gives a function that takes the bytes done so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    shown = total >= _SHOWN_BYTES and is_main_process()
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
