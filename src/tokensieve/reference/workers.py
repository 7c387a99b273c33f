"""Several workers on one score store: who does which shard, and how a finished one is put in its place.

Right without any of it: a shard is committed by one rename, the first one wins, and a later one is thrown away.
Claims only save work. They are file locks, which the system drops when their holder dies: no clock is read, and
nothing has to be cleaned up after a crash. Where a file system has no locks, workers may do a shard twice.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tokensieve.storage.checksums import SIDECAR_SUFFIX, seal_shard
from tokensieve.storage.store_mirror import StoreMirror

WORKERS = ".workers"
"""Folder of the locks in a store that is being written."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
_LEFT = re.compile(r"\.workers|\.[0-9]+\.[0-9a-f]{32}|[0-9]+\.done")
"""Folders of ours in a store that is being written."""


class Workers:
    """The workers of one store, seen by one of them.

    Args:
        folder: the store's, which is there.
        mirror: where the store lies too, if workers on other machines share no folder with this one.
    """

    def __init__(self, folder: Path, mirror: StoreMirror | None = None) -> None:
        self.folder = folder
        self.mirror = mirror
        self.have_locks = True
        """False as soon as the file system has refused one: claims no longer keep others away."""
        self._locks = folder / WORKERS

    def look_elsewhere(self) -> None:
        """See the shards that other machines have finished: a sidecar here means that a shard is done."""
        if self.mirror is not None:
            self.mirror.fetch()

    @contextlib.contextmanager
    def presence(self) -> Iterator[None]:
        """Say that this worker is at work."""
        with self._lock("present", fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other worker is at work; while this lasts, none begins. Never sure of it without locks."""
        with self._lock("present", fcntl.LOCK_EX | fcntl.LOCK_NB, without=False) as held:
            yield held

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """One worker at a time."""
        with self._lock("finish", fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def claim(self, shard: str) -> Iterator["Claim | None"]:
        """A shard to work on, or None if another worker has it."""
        with self._lock(shard, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            yield Claim(self._locks / shard) if held else None

    def under_way(self, shard: str) -> int | None:
        """Tokens of a shard that its present worker has done; None if nobody works on it."""
        if not (self._locks / shard).exists():
            return None
        with self._lock(shard, fcntl.LOCK_SH | fcntl.LOCK_NB) as free:
            return None if free else Claim(self._locks / shard).tokens()

    def seconds(self, shard: str) -> float:
        """What the shard took its worker."""
        return Claim(self._locks / shard).seconds()

    def leftovers(self) -> list[Path]:
        """What killed workers left: locks, shards half done, files under temporary names."""
        return [
            path
            for path in self.folder.iterdir()
            if (path.is_dir() and _LEFT.fullmatch(path.name)) or (path.is_file() and path.suffix == ".tmp")
        ]

    def clean(self) -> None:
        """Remove locks and leftovers of a finished store; only while `alone`."""
        for path in self.leftovers():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, name: str, kind: int, *, without: bool = True) -> Iterator[bool]:
        handle = self._open(name)
        try:
            held = True
            try:
                fcntl.flock(handle, kind)
            except BlockingIOError:
                held = False
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self.have_locks, held = False, without
            yield held
        finally:
            os.close(handle)

    def _open(self, name: str) -> int:
        while True:
            self._locks.mkdir(exist_ok=True)
            # Another worker, alone a moment ago, may just remove the folder: make it again.
            with contextlib.suppress(FileNotFoundError):
                return os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o666)


class Claim:
    """What a worker tells the others about its shard: tokens done and seconds spent, in the lock's own file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()

    def tell(self, tokens: int) -> None:
        """Tokens done so far."""
        # Some machines' clocks have gone back, and a manifest's seconds cannot.
        line = f"{tokens} {max(time.monotonic() - self._started, 0.0):.3f}".ljust(40)
        handle = os.open(self._path, os.O_WRONLY)
        try:
            os.pwrite(handle, line.encode(), 0)
        finally:
            os.close(handle)

    def tokens(self) -> int:
        """What the worker last told."""
        return int(self._read()[0])

    def seconds(self) -> float:
        """What the worker last told."""
        return self._read()[1]

    def _read(self) -> tuple[float, float]:
        # Another process may be writing: half a line is no news.
        try:
            tokens, seconds = self._path.read_text().split()
            return float(tokens), float(seconds)
        except (OSError, ValueError):
            return 0.0, 0.0


def is_committed(folder: Path, name: str) -> bool:
    """Whether a shard is whole and in its place; finishes what a killed worker had committed."""
    if (folder / (name + SIDECAR_SUFFIX)).exists():
        return True
    if (folder / f"{name}.done").is_dir():
        _settle(folder, name)
    # Looked at again in any case: another worker may have settled it between the two looks.
    return (folder / (name + SIDECAR_SUFFIX)).exists()


def discard_leftovers(folder: Path, name: str) -> None:
    """Remove files of a shard that is not committed: somebody took its sidecar away to have it made again.

    Only for the one who holds the shard's lock: those files may also be a commit that is just happening.
    """
    if not is_committed(folder, name):
        for path in folder.glob(f"{name}.*"):
            if path.is_file():
                path.unlink(missing_ok=True)


def commit_shard(folder: Path, name: str, files: Mapping[str, np.ndarray]) -> None:
    """Put a shard into a store, all of it or nothing; if another worker was first, its shard stays.

    The files are written to a folder of their own, synced, and committed by renaming it to `NAME.done`, which
    cannot replace another one. From there each file is moved to its name, the sidecar last.

    Args:
        folder: the store's.
        name: the shard's.
        files: suffix -> values.

    Raises:
        OSError: the shard cannot be written; nothing of it stays.
    """
    work = folder / f".{name}.{uuid.uuid4().hex}"
    try:
        work.mkdir()
        for suffix, values in files.items():
            with (work / (name + suffix)).open("wb") as file:
                file.write(values.data)
                file.flush()
                os.fsync(file.fileno())
        seal_shard(work, name, list(files))
        sync_folder(work)
        if not is_committed(folder, name):
            try:
                os.rename(work, folder / f"{name}.done")
            except OSError as error:
                if error.errno not in _TAKEN:  # by another worker's, which is not empty
                    raise
            _settle(folder, name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _settle(folder: Path, name: str) -> None:
    """Give the files of a committed shard their names; any worker may do it, several at once."""
    done = folder / f"{name}.done"
    try:
        # The sidecar last: it marks the shard as whole.
        names = sorted(os.listdir(done), key=lambda file: (file.endswith(SIDECAR_SUFFIX), file))
    except FileNotFoundError:
        return
    for file in names:
        link(done / file, folder / file)
    sync_folder(folder)
    shutil.rmtree(done, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Another name for a file, unless that is taken: what stands there is never replaced."""
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        pass  # another worker was here
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not target.exists():
            with contextlib.suppress(FileNotFoundError):
                os.rename(source, target)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
