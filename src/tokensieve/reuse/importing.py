"""The work of `tokensieve import`: tokens that others wrote become a token store, with a tokenizer beside it.

Everything is written into `OUT/.import` and renamed when it is whole, so a failure or an interruption leaves nothing.
The ids are copied, never encoded again; what makes them a corpus of ours is the manifest, the checksums and the
tokenizer, id by id.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tokensieve.corpus.encoding import token_dtype
from tokensieve.corpus.store import MANIFEST, TokenStore
from tokensieve.corpus.tokenizers import FOLDER, load_tokenizer, open_tokenizer, tokenizer_digest, vocabulary_size
from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection, Source, TokenizerSection
from tokensieve.reuse.import_shards import ImportedShards
from tokensieve.reuse.token_files import TokenSource, find_tokens, read_tokens
from tokensieve.stage import Stage, read_manifest

CORPUS = "corpus"
_TEMPORARY = ".import"


def import_corpus(
    source: str,
    tokenizer: str,
    out: Path,
    *,
    field: str = "input_ids",
    config: str | None = None,
    split: str = "train",
    add_eos: bool = False,
    shard_tokens: int = 2**28,
    trust_remote_code: bool = False,
) -> TokenStore:
    """Make `out/corpus` and `out/tokenizer` from tokens that are there already; if they were made, only open them.

    Args:
        source: `.ds` files (with `.ds.index`), Megatron `.bin` files (with `.idx`), Parquet or JSON lines with a column
            of ids, a data set that `datasets` saved, or one on the Hub. A file, a folder or a glob.
        tokenizer: folder or Hub id of the tokenizer that made them.
        out: the run's folder.
        field: the column of ids.
        config: the Hub data set's configuration.
        split: the data set's split.
        add_eos: end documents with EOS that do not; otherwise they are an error.
        shard_tokens: a shard holds at most this many tokens, or a single larger document.
        trust_remote_code: run Python code that comes with the tokenizer.

    Raises:
        UserError: unreadable, damaged or unfitting files, ids outside the vocabulary, documents without EOS, an `out`
            that holds another corpus or tokenizer. Nothing is left behind.
    """
    found = find_tokens(source)
    opened = open_tokenizer(tokenizer, trust_remote_code=trust_remote_code)
    digest = tokenizer_digest(opened)
    inputs = {
        "imported": {
            "kind": found.kind,
            "files": [list(item) for item in zip(found.paths, found.sizes, strict=True)],
            "columns": [field, config, split] if found.kind in ("rows", "dataset") else None,
            "add_eos": add_eos,
        },
        "tokenizer": digest,
        "shard_tokens": shard_tokens,
    }
    if Stage(out / CORPUS, MANIFEST, inputs).finished:
        return TokenStore(out / CORPUS)
    with _temporary_folder(out) as temporary:
        section = TokenizerSection(name=tokenizer, trust_remote_code=trust_remote_code)
        new = not (out / FOLDER).exists()
        kept = load_tokenizer(section, ModelSection(name=tokenizer), temporary if new else out, (), max_document_mb=1)
        if tokenizer_digest(kept) != digest:
            raise UserError(f"{out / FOLDER}: holds another vocabulary than {tokenizer}; choose another --out")
        stage = Stage(temporary / CORPUS, MANIFEST, inputs)
        with stage.running():
            shards = ImportedShards(stage.folder, opened, tokenizer, shard_tokens=shard_tokens, add_eos=add_eos)
            try:
                _copy(found, shards, {"field": field, "config": config, "split": split})
            finally:
                shards.abandon()
            if shards.bytes == 0:
                raise UserError(f"{source}: holds no tokens of text; name files with documents in them")
            counts = {"tokens": shards.tokens, "documents": shards.documents, "bytes": shards.bytes}
            name = Source(hub=source).label if found.kind == "dataset" else Source(path=source).label
            stage.finish(
                token_size=token_dtype(vocabulary_size(opened)).itemsize,
                **counts,
                eos_token_id=opened.eos_token_id,
                vocab_size=vocabulary_size(opened),
                tokenizer=digest,
                regions=None,
                sources=[{"name": name, "weight": None, **counts}],
                shards=shards.shards,
                added_eos=shards.added_eos,
            )
        TokenStore(stage.folder)  # refuses what a later stage would refuse, before anything gets its name
        if new:
            os.replace(temporary / FOLDER, out / FOLDER)
        os.replace(stage.folder, out / CORPUS)
    return TokenStore(out / CORPUS)


def added_eos(store: TokenStore) -> int:
    """How many documents of an imported store got an EOS of ours."""
    return int(read_manifest(store.folder / MANIFEST)["outputs"].get("added_eos", 0))


def _copy(found: TokenSource, shards: ImportedShards, columns: dict[str, Any]) -> None:
    bar = Progress(
        TextColumn("import"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    # Bytes of the files where each token has as many; else tokens, of a number not known before.
    sized = found.kind in ("ds", "megatron")
    with bar as progress:
        task = progress.add_task("", total=sum(found.sizes) if sized else None, unit="bytes" if sized else "tokens")
        for run in read_tokens(found, **columns):
            size = 1
            if sized:
                size = os.path.getsize(run.place) // max(1, int(run.lengths.sum()))
            shards.add(run, lambda count, size=size: progress.advance(task, count * size))  # type: ignore[misc]
        shards.close()


@contextlib.contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """`out/.import`, empty, for this process alone; gone afterwards."""
    temporary = out / _TEMPORARY
    made = not out.exists()
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{temporary}: cannot write ({error.strerror}); choose another --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            made = False
            raise UserError(f"{temporary}: another import writes here; wait for it or choose another --out") from error
        try:
            for name in (CORPUS, FOLDER):  # of an import that was killed
                shutil.rmtree(temporary / name, ignore_errors=True)
            yield temporary
        except OSError as error:
            raise UserError(
                f"{out}: cannot write ({error.strerror or error}); free space or choose another --out"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()  # only if nothing is in it
