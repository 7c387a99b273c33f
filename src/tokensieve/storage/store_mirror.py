"""A token or score store kept in a mirror: shards go up as they are finished and come down when first touched.

Behind the URL, `NNNNN.xxh3` marks shard NNNNN as whole, as it does on disk; it is stored last, and the first of
several writers wins. A shard's data files carry its digest in their names there (`NNNNN.DIGEST.ds`), so that two
workers whose bytes differ can never mix their files. The manifest comes last of all.
"""

import contextlib
import functools
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.errors import UserError
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import SIDECAR_SUFFIX, FileChecksums, checksums_of, describe_damage, read_sidecar
from tokensieve.storage.mirror import Mirror, cannot_write

_DIGEST_BYTES = 16
"""A sidecar ends with its digest."""
_CURE = "remove the shard's files in that place and store it again from a machine that has it, or make it again"


class StoreMirror:
    """One store of a run in the run's mirror. Picklable.

    Args:
        mirror: of the run.
        name: the store's folder in it, for example `corpus` or `scores/reference`.
        folder: the store on this machine; need not be there yet.
        manifest: the manifest's file name.

    Raises:
        UserError: from every method: see `Mirror`; another recipe's store is there; a file there is damaged.
    """

    def __init__(self, mirror: Mirror, name: str, folder: Path, manifest: str) -> None:
        self.mirror = mirror
        self.name = name
        self.folder = folder
        self._manifest = folder / manifest

    def fetch(self, first: Collection[str] = ()) -> bool:
        """Bring what other machines have finished: the shards' checksums, then the manifest.

        A store that is finished here asks nothing of the network. Call it again to see more shards.

        Args:
            first: suffixes of data files that are fetched at once, for example the document ends.

        Returns:
            Whether a manifest is here now.
        """
        here = read_manifest(self._manifest) if self._manifest.exists() else None
        if here is not None and here["finished"]:
            return True
        there = self._manifest_there()
        if there is not None:
            self._refuse_another_recipe(here, there)
            # Checksums of an unfinished store are its own; beside a finished one only those that it names are right.
            again = here is None or there["finished"]
            for shard in self.finished_shards():
                if again or not self._sidecar(shard).exists():
                    self._take_theirs(shard)
                if first:
                    self.fetch_shard(shard, first)
            if here is None or there["finished"]:
                self._write_manifest(there)  # what was read before the shards were listed: all of its shards are here
        return self._manifest.exists()

    def finished_shards(self) -> list[str]:
        """The shards that are whole in the mirror, by name."""
        names = self.mirror.names(self.name)
        return [name.removesuffix(SIDECAR_SUFFIX) for name in names if name.endswith(SIDECAR_SUFFIX)]

    def fetch_shard(self, shard: str, suffixes: Collection[str] | None = None) -> None:
        """Bring a shard's data files, those that are not here yet; each is compared with its checksums.

        Args:
            shard: its name.
            suffixes: of the files; None: all of them.
        """
        if not self._sidecar(shard).exists():
            self._take_theirs(shard)
        files, digest = self._checksums(shard)
        for suffix, file in files.items():
            path = self.folder / (shard + suffix)
            if suffixes is not None and suffix not in suffixes:
                continue
            if not path.exists() or path.stat().st_size != file.size:
                name = self._there(f"{shard}.{digest}{suffix}")
                self.mirror.pull(name, path, file.size, functools.partial(self._check_data, self.mirror.at(name), file))

    def push_shard(self, shard: str, *, keep: bool = False) -> str:
        """Store a shard that is whole here. If another worker's is there already, it takes this one's place here.

        Args:
            shard: its name.
            keep: the shard here must stay, because a finished manifest names it: another one there is an error.

        Returns:
            The digest of the shard that is in the mirror, and of the sidecar here. If that is another worker's,
            the data files here are gone: `fetch_shard` brings them when they are needed.
        """
        files, digest = self._checksums(shard)
        if not self.mirror.exists(self._there(shard + SIDECAR_SUFFIX)):
            for suffix, file in files.items():
                name = self._there(f"{shard}.{digest}{suffix}")
                if self.mirror.size(name) != file.size:  # else the digest in its name says that it is the same
                    path = self.folder / (shard + suffix)
                    self._check_data(str(path), file, path)
                    self.mirror.push(path, name)
            if self.mirror.create(self._there(shard + SIDECAR_SUFFIX), self._sidecar(shard).read_bytes()):
                return digest
        theirs = self.mirror.read(self._there(shard + SIDECAR_SUFFIX)) or b""
        if theirs[-_DIGEST_BYTES:].hex() == digest:
            return digest
        if keep:
            raise UserError(
                f"{self._url(shard + SIDECAR_SUFFIX)}: is of another shard than the one in {self.folder}; remove that "
                f"folder to use what is there, or choose another `storage`"
            )
        self._take_theirs(shard)
        return self._checksums(shard)[1]

    def push_manifest(self) -> None:
        """Store the manifest: unfinished, to bind the folder to this recipe; finished, after all shards.

        A finished one that is there stays.

        Raises:
            UserError: also if it says something else than the finished one here.
        """
        here, there = read_manifest(self._manifest), self._manifest_there()
        if there is None:
            if self.mirror.create(self._there(self._manifest.name), self._manifest.read_bytes()):
                return
            there = self._manifest_there() or here  # another machine was first
        self._refuse_another_recipe(here, there)
        if there["finished"]:
            if here["finished"] and here["outputs"].get("shards") != there["outputs"].get("shards"):
                raise UserError(
                    f"{self._url(self._manifest.name)}: describes other shards than {self._manifest}; remove "
                    f"{self.folder} to use the shards there, or choose another `storage`"
                )
        elif here["finished"]:
            self.mirror.push(self._manifest, self._there(self._manifest.name))

    def push_store(self) -> None:
        """Store every shard that is whole here, then the manifest; what is there already is left as it is.

        Before the first shard an unfinished manifest binds the place to this recipe. While the store is unfinished
        here, another worker's shard takes the place of this machine's, as in `push_shard`.
        """
        here = read_manifest(self._manifest)
        there = self._manifest_there() or self._bind(here)
        self._refuse_another_recipe(here, there)
        if not there["finished"]:
            for path in sorted(self.folder.glob(f"*{SIDECAR_SUFFIX}")):
                self.push_shard(path.name.removesuffix(SIDECAR_SUFFIX), keep=here["finished"])
        self.push_manifest()

    def _bind(self, here: dict[str, Any]) -> dict[str, Any]:
        """Store an unfinished manifest; returns the one that is there then: the first writer's."""
        unfinished = {"inputs": here["inputs"], "finished": False, "outputs": {}}
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / self._manifest.name
            write_manifest(copy, unfinished)
            created = self.mirror.create(self._there(self._manifest.name), copy.read_bytes())
        return unfinished if created else self._manifest_there() or unfinished

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_manifest(self._manifest, manifest)
        except OSError as error:
            raise cannot_write(self._manifest, error) from error

    def _manifest_there(self) -> dict[str, Any] | None:
        data = self.mirror.read(self._there(self._manifest.name))
        if data is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / self._manifest.name
            copy.write_bytes(data)
            with self._said_of(copy, self._there(self._manifest.name)):
                return read_manifest(copy)

    def _refuse_another_recipe(self, here: dict[str, Any] | None, there: dict[str, Any]) -> None:
        if here is not None and here["inputs"] != there["inputs"]:
            raise UserError(
                f"{self._url(self._manifest.name)}: belongs to another recipe than {self._manifest}; choose another "
                f"`storage` or `out`"
            )

    def _take_theirs(self, shard: str) -> None:
        """Bring a shard's checksums; data files here that are not known to be theirs go."""
        name, path = self._there(shard + SIDECAR_SUFFIX), self._sidecar(shard)
        here = _bytes(path)
        if here is None or here != self.mirror.read(name):
            self.mirror.pull(name, path, check=functools.partial(self._make_room, shard))

    def _make_room(self, shard: str, sidecar: Path) -> None:
        with self._said_of(sidecar, self._there(shard + SIDECAR_SUFFIX)):
            read_sidecar(sidecar)
        if _bytes(self._sidecar(shard)) == sidecar.read_bytes():
            return  # another process of this machine was first
        self._sidecar(shard).unlink(missing_ok=True)  # first: from now on the shard is not whole here
        for file in self.folder.glob(f"{shard}.*"):
            if file.is_file():
                file.unlink(missing_ok=True)

    def _check_data(self, place: str, file: FileChecksums, path: Path) -> None:
        try:
            found = checksums_of(file.suffix, path)
        except OSError as error:
            raise UserError(f"{place}: cannot read ({error.strerror}); remove its shard and make it again") from error
        if found.size != file.size:
            raise UserError(f"{place}: has {found.size} bytes, its checksums are of {file.size}; {_CURE}")
        different = np.flatnonzero(found.digests != file.digests)
        if len(different):
            raise UserError(f"{place}: {describe_damage(int(different[0]))}; {_CURE}")

    @contextlib.contextmanager
    def _said_of(self, path: Path, name: str) -> Iterator[None]:
        """An error about a temporary file names the file behind the URL."""
        try:
            yield
        except UserError as error:
            raise UserError(str(error).replace(str(path), self.mirror.at(name))) from error

    def _checksums(self, shard: str) -> tuple[dict[str, FileChecksums], str]:
        path = self._sidecar(shard)
        files = read_sidecar(path)
        return files, path.read_bytes()[-_DIGEST_BYTES:].hex()

    def _sidecar(self, shard: str) -> Path:
        return self.folder / (shard + SIDECAR_SUFFIX)

    def _there(self, name: str) -> str:
        return f"{self.name}/{name}"

    def _url(self, name: str) -> str:
        return self.mirror.at(self._there(name))


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
