"""The stores of a run: where they lie on this machine, and behind the recipe's `storage` URL if it has one.

`storage` makes `out` a cache: tokenizer, token stores, reference and scores are stored there when they are
finished, and come from there when a machine does not have them.
"""

from collections.abc import Sequence
from pathlib import Path

from tokensieve.corpus.mirror import Mirror
from tokensieve.corpus.store import INDEX_SUFFIX, MANIFEST, TokenStore
from tokensieve.corpus.store_mirror import StoreMirror
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.recipe import Recipe, Source
from tokensieve.stage import is_main_process, read_manifest


def store_mirror(recipe: Recipe, name: str, manifest: str) -> StoreMirror | None:
    """Where else a store of the run lies, or None.

    Args:
        recipe: names the storage.
        name: the store's folder in the run's.
        manifest: the manifest's file name.
    """
    return None if recipe.storage is None else StoreMirror(Mirror(recipe.storage), name, recipe.folder / name, manifest)


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
    """Store a finished folder of the run (`tokenizer`, `reference`) behind the URL, its manifest last.

    Raises:
        UserError: the URL cannot be reached.
    """
    if recipe.storage is None or not is_main_process():
        return
    mirror, folder = Mirror(recipe.storage), recipe.folder / name
    if mirror.read(f"{name}/{manifest}") == (folder / manifest).read_bytes():
        return
    for path in _files(folder, manifest):
        mirror.push(path, f"{name}/{path.relative_to(folder).as_posix()}")


def bring_folder(recipe: Recipe, name: str, manifest: str) -> None:
    """Fetch a finished folder of the run that is not here, its manifest last; nothing happens if it is nowhere.

    Raises:
        UserError: the URL cannot be reached.
    """
    folder = recipe.folder / name
    if recipe.storage is None or ((folder / manifest).exists() and read_manifest(folder / manifest)["finished"]):
        return
    mirror = Mirror(recipe.storage)
    if mirror.exists(f"{name}/{manifest}"):
        for file in sorted(mirror.names(name), key=lambda file: (file == manifest, file)):
            mirror.pull(f"{name}/{file}", folder / file)


def _files(folder: Path, last: str) -> list[Path]:
    """The files of a folder; those of its checkpoints are for resuming here."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "checkpoint-" not in path.as_posix()]
    return sorted(paths, key=lambda path: (path.name == last, path))
