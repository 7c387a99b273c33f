"""The stores of a run: where they lie on this machine, and behind the recipe's `storage` URL if it has one.

`storage` makes `out` a cache: tokenizer, token stores, reference and scores are stored there when they are
finished, and come from there when a machine does not have them.
"""

import functools
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from tokensieve.corpus.store import INDEX_SUFFIX, MANIFEST, TokenStore
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, Source
from tokensieve.stage import first_difference, is_main_process, read_manifest, write_manifest
from tokensieve.storage.mirror import Mirror
from tokensieve.storage.store_mirror import StoreMirror

_LISTING = "files.json"
"""Behind the URL, beside a stored folder's files: what they are."""


def store_mirror(recipe: Recipe, name: str, manifest: str, folder: Path | None = None) -> StoreMirror | None:
    """Where else a store of the run lies, or None.

    Args:
        recipe: names the storage.
        name: the store's folder in the run's.
        manifest: the manifest's file name.
        folder: where the store lies here; None: in the run's folder.
    """
    if recipe.storage is None:
        return None
    return StoreMirror(Mirror(recipe.storage), name, folder or recipe.folder / name, manifest)


def open_tokens(recipe: Recipe, name: str = "corpus") -> TokenStore:
    """A token store of the run: `corpus`, `clean` or `targets/NAME`.

    Raises:
        UserError: it is neither here nor behind the URL, is damaged, or the URL cannot be reached.
    """
    if name == "corpus" and recipe.corpus.existing is not None:
        return TokenStore(recipe.corpus_folder)
    mirror = store_mirror(recipe, name, MANIFEST)
    if mirror is not None:
        mirror.fetch(first=(INDEX_SUFFIX,))
    return TokenStore(recipe.folder / name, mirror)


def make_tokens(recipe: Recipe, name: str, sources: Sequence[Source]) -> TokenStore:
    """Tokenize sources into a token store of the run, and store it behind the URL; or open it, if it is finished.

    Raises:
        UserError: see `tokenize_sources` and `open_tokens`.
    """
    mirror = store_mirror(recipe, name, MANIFEST)
    if mirror is not None:
        mirror.fetch(first=(INDEX_SUFFIX,))
    made = tokenize_sources(
        sources,
        recipe.folder / name,
        recipe.folder / "tokenizer",
        shard_tokens=recipe.corpus.shard_tokens,
        workers=recipe.corpus.workers,
        max_document_mb=recipe.corpus.max_document_mb,
        trust_remote_code=recipe.tokenizer_code_trusted,
        mirror=mirror,
    )
    if mirror is not None:
        mirror.push_store()
    return made


def share_folder(recipe: Recipe, name: str, manifest: str) -> None:
    """Store a finished folder of the run (`tokenizer`, `reference`) behind the URL; the first of several stays.

    Its files lie in a folder named after their digests; a list of them, stored last, marks it as whole.

    Raises:
        UserError: the URL cannot be reached, or holds the folder of another recipe or other weights.
    """
    if recipe.storage is None or not is_main_process():
        return
    mirror, folder = Mirror(recipe.storage), recipe.folder / name
    here = read_manifest(folder / manifest)
    there = _listed(mirror, name)
    if there is None:
        files = {path.relative_to(folder).as_posix(): path for path in _files(folder, manifest)}
        digests = {file: [path.stat().st_size, _digest(path)] for file, path in files.items()}
        place = xxhash.xxh3_128_hexdigest(json.dumps(digests).encode())
        for file, path in files.items():
            mirror.push(path, f"{name}/{place}/{file}")
        outputs = {"digest": here["outputs"]["digest"], "place": place, "files": digests}
        with tempfile.TemporaryDirectory() as temporary:
            listing = Path(temporary) / _LISTING
            write_manifest(listing, {"inputs": here["inputs"], "finished": True, "outputs": outputs})
            if mirror.create(f"{name}/{_LISTING}", listing.read_bytes()):
                return
        there = _listed(mirror, name) or here
    _refuse_another(mirror, name, here, there)
    if here["outputs"]["digest"] != there["outputs"]["digest"]:
        raise UserError(
            f"{mirror.at(f'{name}/{_LISTING}')}: another machine was first, and its {name} differs from {folder} "
            f"(digest {there['outputs']['digest']} there, {here['outputs']['digest']} here); remove {folder} to use it"
        )


def bring_folder(recipe: Recipe, name: str, manifest: str) -> None:
    """Fetch a finished folder of the run that is not here, its manifest last; nothing happens if it is nowhere.

    Raises:
        UserError: the URL cannot be reached, holds the folder of another recipe, or a file there is damaged.
    """
    folder = recipe.folder / name
    here = read_manifest(folder / manifest) if (folder / manifest).exists() else None
    if recipe.storage is None or (here is not None and here["finished"]):
        return
    mirror = Mirror(recipe.storage)
    there = _listed(mirror, name)
    if there is None:
        return
    _refuse_another(mirror, name, here, there)
    place, files = there["outputs"]["place"], there["outputs"]["files"]
    for file in sorted(files, key=lambda file: (file == manifest, file)):
        size, digest = files[file]
        source = f"{name}/{place}/{file}"
        mirror.pull(source, folder / file, size, functools.partial(_check, mirror.at(source), digest))


def _listed(mirror: Mirror, name: str) -> dict[str, Any] | None:
    """The list of a stored folder's files, in a manifest; None: the folder is not stored."""
    data = mirror.read(f"{name}/{_LISTING}")
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        listing = Path(temporary) / _LISTING
        listing.write_bytes(data)
        try:
            return read_manifest(listing)
        except UserError as error:
            raise UserError(str(error).replace(str(listing), mirror.at(f"{name}/{_LISTING}"))) from error


def _refuse_another(mirror: Mirror, name: str, here: dict[str, Any] | None, there: dict[str, Any]) -> None:
    different = None if here is None else first_difference(there["inputs"], here["inputs"])
    if different is not None:
        key, value, wanted = different
        raise UserError(
            f"{mirror.at(f'{name}/{_LISTING}')}: belongs to another recipe ({key} is {value!r} there, {wanted!r} "
            f"here); choose another `storage`"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _check(place: str, digest: str, path: Path) -> None:
    found = _digest(path)
    if found != digest:
        raise UserError(
            f"{place}: damaged (its checksum is {found}, not {digest}); remove its folder there, and run the stage "
            f"again on a machine that has it"
        )


def _files(folder: Path, last: str) -> list[Path]:
    """The files of a folder; those of its checkpoints are for resuming here."""
    paths = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(("checkpoint-", ".")) for part in path.relative_to(folder).parts)
    ]
    return sorted(paths, key=lambda path: (path.name == last, path))
