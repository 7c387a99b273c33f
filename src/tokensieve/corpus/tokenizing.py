"""The stage behind `tokensieve tokenize`: sources to a token store, in parallel and resumable.

Inputs are grouped into units, units run in processes of their own (or in this one), and the finished units
are joined into shards in order. So neither the number of workers nor an interruption changes a byte of it.
"""

import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tokensieve.corpus.encoding import token_dtype
from tokensieve.corpus.shards import write_shards
from tokensieve.corpus.store import MANIFEST, TokenStore
from tokensieve.corpus.tokenizers import describe_sources, open_tokenizer, tokenizer_digest, vocabulary_size
from tokensieve.corpus.units import Job, Unit, UnitResult, plan_units, read_result, run_unit
from tokensieve.errors import UserError
from tokensieve.recipe import Source
from tokensieve.stage import Stage
from tokensieve.storage.store_mirror import StoreMirror

UNITS = "units"
"""Subfolder with the units' files until the store is finished."""


def tokenize_sources(
    sources: Sequence[Source],
    folder: Path,
    tokenizer_folder: Path | str,
    *,
    shard_tokens: int,
    workers: int,
    max_document_mb: int,
    trust_remote_code: bool = False,
    mirror: StoreMirror | None = None,
) -> TokenStore:
    """Tokenize sources into a token store; if it is finished already, only open it.

    The text of special tokens inside a document is encoded as ordinary text, and EOS follows each document.
    While it runs, `folder` holds up to twice the size of the finished store.

    Args:
        sources: in the order in which the corpus holds them.
        folder: the store's folder, of this recipe or not there yet.
        tokenizer_folder: folder or Hub id of a tokenizer.
        shard_tokens: a shard holds at most this many tokens, or a single larger document.
        workers: processes; 1 is this process. Each gets its share of the cores.
        max_document_mb: a larger document is an error.
        trust_remote_code: run Python code that comes with the tokenizer.
        mirror: brings data files of a finished store that are not here.

    Raises:
        UserError: unreadable or wrong input, a source without text, a full disk; nothing is left behind. Or
            a killed worker; then the next run resumes.
    """
    sources = tuple(sources)
    tokenizer = open_tokenizer(tokenizer_folder, trust_remote_code=trust_remote_code)
    digest, vocab_size = tokenizer_digest(tokenizer), vocabulary_size(tokenizer)
    inputs = {"sources": describe_sources(sources), "tokenizer": digest, "shard_tokens": shard_tokens}
    stage = Stage(folder, MANIFEST, inputs)
    units_folder = folder / UNITS
    if not stage.finished:
        units = plan_units(sources)
        job = Job(units_folder, sources, str(tokenizer_folder), trust_remote_code, max_document_mb)
        token_size = token_dtype(vocab_size).itemsize
        with _removed_after_mistake(folder), stage.running(resumable=f"{UNITS}/*.json"):
            units_folder.mkdir(exist_ok=True)
            _run_units(units, job, workers, folder.name)
            results = [result for unit in units if (result := read_result(unit, units_folder)) is not None]
            counts = _count(sources, units, results)
            shards, regions = write_shards(
                folder,
                units_folder,
                units,
                results,
                labels=[source.label for source in sources],
                shard_tokens=shard_tokens,
                token_size=token_size,
            )
            stage.finish(
                token_size=token_size,
                tokens=sum(result.tokens for result in results),
                documents=sum(result.documents for result in results),
                bytes=sum(result.bytes for result in results),
                eos_token_id=tokenizer.eos_token_id,
                vocab_size=vocab_size,
                tokenizer=digest,
                regions=regions,
                sources=counts,
                shards=shards,
            )
    shutil.rmtree(units_folder, ignore_errors=True)
    return TokenStore(folder, mirror)


def _count(sources: Sequence[Source], units: Sequence[Unit], results: Sequence[UnitResult]) -> list[dict[str, Any]]:
    """The manifest's `sources`."""
    counts = []
    for s, source in enumerate(sources):
        own = [result for unit, result in zip(units, results, strict=True) if unit.source == s]
        size = sum(result.bytes for result in own)
        if size == 0:
            raise UserError(f"{source.path or source.hub}: holds no text; name a file with documents in it")
        tokens, documents = sum(result.tokens for result in own), sum(result.documents for result in own)
        counts.append(
            {
                "name": source.label,
                "weight": source.weight,
                "tokens": tokens,
                "documents": documents,
                "bytes": size,
            }
        )
    return counts


@contextmanager
def _removed_after_mistake(folder: Path) -> Iterator[None]:
    """Leave nothing after a user's mistake; keep finished units after a crash."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            f"{folder}: a tokenizing process was killed (out of memory?); lower corpus.workers and run again to resume"
        ) from error
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        # Reading has its own messages, so this is about writing: a full disk, a quota, a read-only folder.
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: cannot write ({error.strerror}); free space or choose another `out`") from error


def _run_units(units: Sequence[Unit], job: Job, workers: int, label: str) -> None:
    todo = [unit for unit in units if read_result(unit, job.folder) is None]
    total = sum(unit.size for unit in units)
    done = total - sum(unit.size for unit in todo)
    known = all(item.format != "hub" for unit in units for item in unit.inputs)
    with _progress() as progress:
        task = progress.add_task(f"tokenize {label}", total=total if known else None, completed=done)
        if workers == 1 or len(todo) <= 1:
            for unit in todo:
                run_unit(unit, job, lambda count: progress.advance(task, count))
        else:
            _run_in_processes(todo, job, workers, lambda count: progress.update(task, completed=done + count))


def _run_in_processes(todo: Sequence[Unit], job: Job, workers: int, show: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    pool = ProcessPoolExecutor(
        min(workers, len(todo)), context, initializer=_begin_worker, initargs=(counter, stop, threads)
    )
    try:
        with _interrupts_held():  # the pool starts its workers while it is given work
            pending = {pool.submit(_run_in_worker, unit, job) for unit in todo}
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            show(counter.value)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back. A process started meanwhile never gets it: this one stops its workers, in order.

    Workers that ignored it themselves would do so only after seconds of imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class _Shared:
    """What a worker shares with the process that started it."""

    counter: Any
    stop: Any


class _Stopped(Exception):
    """Another unit failed, so this one need not go on."""


_shared: _Shared


def _begin_worker(counter: Any, stop: Any, threads: int) -> None:
    global _shared
    _shared = _Shared(counter, stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Read by the tokenizers library when it first encodes.
    os.environ["RAYON_NUM_THREADS"] = str(threads)


def _end_with_parent() -> None:
    """A killed run must not leave workers behind: they would write into the files of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run_in_worker(unit: Unit, job: Job) -> None:
    run_unit(unit, job, _advance)


def _advance(count: int) -> None:
    if _shared.stop.is_set():
        raise _Stopped
    with _shared.counter.get_lock():
        _shared.counter.value += count


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
