"""The corpus in the tokens of another tokenizer: same documents, same order, same shards.

A document whose text does not give back its very ids (token_pair.py) is left empty and counted; where that is more
than a few, the whole is refused. A shard's marker is written last, so an interrupted run goes on after the last whole
shard, and neither its bytes nor their order depend on how often it was interrupted.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tokensieve.carry_over.token_pair import Pair
from tokensieve.corpus.store import INDEX_SUFFIX, MANIFEST, TOKENS_SUFFIX, TokenStore
from tokensieve.errors import UserError
from tokensieve.reference.store import corpus_identity
from tokensieve.reference.workers import Workers
from tokensieve.stage import Stage, read_json, write_json
from tokensieve.storage.checksums import seal_shard

MOST_LOST = 0.05
"""A larger share of the corpus's tokens in documents that cannot be carried is refused."""

_BATCH_TOKENS = 1 << 18
"""Documents are handled together up to about this many tokens; a longer one is handled alone."""
_MARKERS = "shards"
"""Subfolder with a marker for each whole shard until the store is finished."""


def foreign_store(corpus: TokenStore, pair: Pair, folder: Path) -> TokenStore:
    """The corpus in the reference's tokens: same documents, same order, same shards. Resumes; does nothing if finished.

    A document that cannot be carried is left empty (EOS alone). `documents_not_carried` and `tokens_not_carried` in the
    manifest's outputs count them, in the student's tokens.

    Args:
        corpus: in the student's tokens.
        pair: the two tokenizers.
        folder: receives the token store. Processes that share it take turns.

    Raises:
        UserError: the folder belongs to another corpus or tokenizer, more than `MOST_LOST` of the tokens cannot be
            carried, or the disk is full.
    """
    if pair.student_digest != corpus.tokenizer:
        raise UserError(
            f"{corpus.folder}: made with another tokenizer than the run's (digest {corpus.tokenizer}, the run's is "
            f"{pair.student_digest}); tokenize again"
        )
    inputs = {"corpus": corpus_identity(corpus), "tokenizer": pair.reference_digest}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder.parent):
        stage = Stage(folder, MANIFEST, inputs, any_rank=True)  # the one that holds the lock
        if not stage.finished:
            markers = folder / _MARKERS
            try:
                with stage.running(resumable=f"{_MARKERS}/*.json"):
                    markers.mkdir(exist_ok=True)
                    stage.finish(**_write_store(corpus, pair, folder, markers))
            except OSError as error:
                raise UserError(
                    f"{folder}: cannot write ({error.strerror}); free space, then run again to resume"
                ) from error
        shutil.rmtree(folder / _MARKERS, ignore_errors=True)
        for leftover in folder.glob(".*.tmp"):  # of killed processes
            leftover.unlink(missing_ok=True)
    return TokenStore(folder)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """One process at a time; the last one takes its locks away, and the folder too if nothing came of it."""
    workers = Workers(folder)
    try:
        with workers.presence(), workers.finishing():
            yield
    finally:
        with contextlib.suppress(OSError), workers.alone() as alone:
            if alone:
                workers.clean()
                folder.rmdir()  # only if nothing is in it


def _write_store(corpus: TokenStore, pair: Pair, folder: Path, markers: Path) -> dict[str, Any]:
    """All shards, and the manifest's outputs."""
    described = []
    lost = 0
    with _progress() as progress:
        task = progress.add_task("retokenizing", total=corpus.tokens)
        for i, shard in enumerate(corpus.shards):
            marker = markers / f"{shard.name}.json"
            if not marker.exists():
                write_json(marker, _write_shard(corpus, i, pair, folder, lambda n: progress.advance(task, n)))
            else:
                progress.advance(task, shard.tokens)
            described.append(read_json(marker))
            lost += described[-1]["tokens_not_carried"]
            if lost > MOST_LOST * corpus.tokens:
                shutil.rmtree(folder, ignore_errors=True)
                raise UserError(
                    f"{corpus.folder}: {lost:,} of {corpus.tokens:,} tokens are in documents whose text its tokenizer "
                    f"does not turn into the same tokens again (unknown or dropped characters), so losses cannot be "
                    f"carried over; use a reference with this corpus's tokenizer"
                )

    def total(key: str, source: int | None = None) -> int:
        return sum(shard[key] for shard in described if source is None or shard["source"] == source)

    size = {key: total(key) for key in ("tokens", "documents", "bytes", "documents_not_carried", "tokens_not_carried")}
    if size["bytes"] == 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{corpus.folder}: holds no text that could be carried over; use another corpus")
    sources = [
        {"name": source.name, "weight": source.weight, **{k: total(k, s) for k in ("tokens", "documents", "bytes")}}
        for s, source in enumerate(corpus.sources)
    ]
    keys = ("name", "source", "tokens", "documents", "digest")
    return {
        "token_size": pair.dtype.itemsize,
        **size,
        "eos_token_id": pair.eos,
        "vocab_size": pair.vocab_size,
        "tokenizer": pair.reference_digest,
        "regions": None,
        "sources": sources,
        "shards": [{key: shard[key] for key in keys} for shard in described],
    }


def _write_shard(
    corpus: TokenStore, i: int, pair: Pair, folder: Path, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Write one shard; its description, to be written last as its marker."""
    shard = corpus.shards[i]
    counts = {"tokens": 0, "documents": 0, "bytes": 0, "documents_not_carried": 0, "tokens_not_carried": 0}
    paths = [folder / (shard.name + suffix) for suffix in (TOKENS_SUFFIX, INDEX_SUFFIX)]
    temporaries = [path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in paths]
    with temporaries[0].open("wb") as ids_file, temporaries[1].open("wb") as index_file:
        for documents in batches(corpus, i):
            aligned = pair.align(documents)
            ids, lengths = aligned.foreign_ids(pair.dtype)
            ids_file.write(ids.data)
            index_file.write((counts["tokens"] + np.cumsum(lengths)).astype("<u8").data)
            counts["tokens"] += len(ids)
            counts["documents"] += len(documents)
            counts["bytes"] += sum(len(text.encode("utf-8")) for text in aligned.texts)
            counts["documents_not_carried"] += int((~aligned.carried).sum())
            counts["tokens_not_carried"] += int(np.array(aligned.sizes)[~aligned.carried].sum())
            advance(sum(aligned.sizes))
        for file in (ids_file, index_file):
            file.flush()
            os.fsync(file.fileno())
    for temporary, path in zip(temporaries, paths, strict=True):
        os.replace(temporary, path)
    digest = seal_shard(folder, shard.name, (TOKENS_SUFFIX, INDEX_SUFFIX))
    return {"name": shard.name, "source": shard.source, "digest": digest, **counts}


def batches(corpus: TokenStore, i: int) -> Iterator[list[np.ndarray]]:
    """The documents of a shard with their EOS, several at a time."""
    ends = corpus.document_ends(i)
    tokens = corpus.shard_tokens(i)
    first = begin = 0
    while first < len(ends):
        last = max(int(np.searchsorted(ends, begin + _BATCH_TOKENS, side="right")), first + 1)
        stop = int(ends[last - 1])
        yield np.split(tokens[begin:stop], ends[first : last - 1] - begin)
        first, begin = last, stop


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
