"""The life of a score store, from the first worker's manifest to the last worker's.

What fills a shard is not known here: the reference itself (scoring.py), or losses that are carried over from
another tokenizer (foreign.py).
"""

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.reference.progress import ScoringProgress
from tokensieve.reference.store import COLUMNS, MANIFEST
from tokensieve.reference.workers import Workers, discard_leftovers, is_committed, link
from tokensieve.stage import first_difference, read_manifest, write_manifest
from tokensieve.storage.checksums import SIDECAR_SUFFIX, CheckedArray, read_sidecar, sidecar_digest
from tokensieve.storage.store_mirror import StoreMirror

_WAIT = 0.5
"""Seconds between two looks at what the other workers have done."""
_WAIT_FAR = 10.0
"""The same, where looking is a request over a network."""

ScoreShard = Callable[[int, Callable[[int], None]], None]
"""Fills and commits one shard: its number, and what to call with the tokens just done."""


@contextlib.contextmanager
def score_stage(
    folder: Path,
    binding: Mapping[str, Any],
    making: Mapping[str, Any],
    corpus: TokenStore,
    mirror: StoreMirror | None = None,
) -> Iterator[Workers | None]:
    """Hold a store's folder while it is filled: yields its workers, or None if nothing is left to do.

    A finished store that lacks a shard (somebody removed a damaged one) is filled again.

    Args:
        folder: the store's.
        binding: what its readers must match.
        making: what must not change while it is being made.
        corpus: the tokens.
        mirror: where the store lies too.

    Raises:
        UserError: the folder belongs to other inputs, or cannot be written.
    """
    names = [shard.name for shard in corpus.shards]
    workers = Workers(folder, mirror)
    workers.look_elsewhere()
    try:
        found = _begin(folder, {**binding, "making": making})
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless something is in it
        raise _cannot_write(folder, error) from error
    path = folder / MANIFEST
    _refuse_another(path, found["inputs"], binding, "score under another name: score.name=ANOTHER")
    try:
        finished = found["finished"] and all(is_committed(folder, name) for name in names)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if finished:
        with contextlib.suppress(OSError):  # a finished store may lie on a disk that is read-only by now
            if workers.leftovers():
                _clean(workers)  # of a worker that was killed after its last write
        if mirror is not None:
            mirror.push_store()  # asks only, if all of it is there
        yield None
        return
    _refuse_another(path, found["inputs"].get("making"), making, f"go on with the same, or remove {folder}")
    if mirror is not None:
        mirror.push_store()  # binds the place to this recipe; brings what was finished here before a crash
    try:
        with workers.presence():
            yield workers
            if mirror is not None:
                mirror.push_store()
        _clean(workers)
    except BaseException as error:
        _leave(workers, names, failed=isinstance(error, Exception))
        if isinstance(error, OSError):
            raise _cannot_write(folder, error) from error
        raise


def work_through(
    workers: Workers, corpus: TokenStore, score: ScoreShard, worker: tuple[int, int], progress: ScoringProgress
) -> None:
    """Do every shard that nobody else does; returns when all are committed, whoever did them.

    Args:
        workers: of the store.
        corpus: the tokens.
        score: fills and commits one shard.
        worker: (number, how many): which shards this worker tries first.
        progress: is told what is done.
    """
    number, count = worker
    order = sorted(range(len(corpus.shards)), key=lambda i: (i - number) % count)
    waiting = False
    while pending := [i for i in order if not is_committed(workers.folder, corpus.shards[i].name)]:
        done_any = False
        for i in pending:
            name = corpus.shards[i].name
            with workers.claim(name) as claim:
                workers.look_elsewhere()
                if claim is None or is_committed(workers.folder, name):
                    continue
                if workers.have_locks:
                    discard_leftovers(workers.folder, name)
                done = 0

                def tell(count: int) -> None:
                    nonlocal done
                    done += count
                    claim.tell(done)  # noqa: B023
                    progress.show()

                claim.tell(0)
                score(i, tell)
                if workers.mirror is not None:
                    workers.mirror.push_shard(name)
                progress.shard_done(name, done, workers.seconds(name))
                done_any, waiting = True, False
        if not done_any:
            progress.show()
            if not waiting:
                progress.say(f"waiting for {len(pending)} shards that other workers are at")
                waiting = True
            time.sleep(_WAIT if workers.mirror is None else _WAIT_FAR)
            workers.look_elsewhere()  # the rest is being done by others: if one dies, its shard becomes free


def finish_store(
    workers: Workers,
    corpus: TokenStore,
    columns: Sequence[str],
    scored: Sequence[int],
    gate: Callable[[], dict[str, Any]],
    **outputs: Any,
) -> None:
    """Write the manifest for the last time, unless another worker has.

    Args:
        workers: of the store, whose shards are all committed.
        corpus: the tokens.
        columns: of `store.COLUMNS`.
        scored: tokens with a loss, of each shard.
        gate: scores a sample again; returns what the manifest keeps of it, or raises.
        outputs: more to keep.

    Raises:
        UserError: a shard is not what its sidecar says, or the gate.
    """
    folder, path = workers.folder, workers.folder / MANIFEST
    with workers.finishing():
        if workers.mirror is not None:
            workers.mirror.push_store()  # from now on every sidecar here is the one that is there
        shards = []
        for shard, count in zip(corpus.shards, scored, strict=True):
            sizes = {COLUMNS[column].suffix: COLUMNS[column].dtype.itemsize * shard.tokens for column in columns}
            sidecar = folder / (shard.name + SIDECAR_SUFFIX)
            found = {suffix: file.size for suffix, file in read_sidecar(sidecar).items()}
            if found != sizes:
                raise UserError(f"{sidecar}: lists {found}, not {sizes}; remove {shard.name}.* and score again")
            shards.append(
                {"name": shard.name, "tokens": shard.tokens, "scored": count, "digest": sidecar_digest(sidecar)}
            )
        manifest = read_manifest(path)
        if manifest["finished"] and manifest["outputs"].get("shards") == shards:
            return
        started = time.monotonic()
        result = gate()
        seconds = sum(workers.seconds(shard.name) for shard in corpus.shards) + max(time.monotonic() - started, 0.0)
        manifest |= {
            "finished": True,
            # Of all workers together: what the scores cost.
            "seconds": round(seconds + manifest.get("seconds", 0.0), 3),
            "outputs": {
                "columns": list(columns),
                "scored_tokens": sum(scored),
                "shards": shards,
                "gate": result,
                **outputs,
            },
        }
        write_manifest(path, manifest)


def unfinished_column(workers: Workers, corpus: TokenStore, column: str) -> list[CheckedArray]:
    """A column of a store whose manifest is not written yet."""
    folder, kind = workers.folder, COLUMNS[column]
    return [
        CheckedArray(
            folder,
            shard.name,
            kind.suffix,
            kind.dtype,
            shard.tokens,
            sidecar_digest(folder / (shard.name + SIDECAR_SUFFIX)),
            workers.mirror,
        )
        for shard in corpus.shards
    ]


def _begin(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a store's folder; if there is none, it is begun, by one worker alone."""
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and any(_is_of_a_store(entry) for entry in folder.iterdir()):
            # Unless another worker has just begun.
            if not path.exists():
                raise UserError(
                    f"{folder}: holds files but no {MANIFEST}; choose another score.name or remove the folder"
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            # Linked to its name, which replaces nothing: a worker of another recipe may begin at this moment.
            temporary = folder / f"{MANIFEST}.{uuid.uuid4().hex}.tmp"
            try:
                write_manifest(temporary, {"inputs": inputs, "finished": False, "outputs": {}})
                link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    return read_manifest(path)


def _is_of_a_store(entry: Path) -> bool:
    """Whether a store without a manifest would take this for its own: `NNNNN.done` is a committed shard too."""
    return entry.suffix == ".done" or (entry.suffix != ".tmp" and entry.is_file())


def _clean(workers: Workers) -> None:
    with workers.alone() as alone:
        if alone:
            workers.clean()


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{error.filename or folder}: cannot write ({error.strerror}); free space or mend the folder, and run "
        f"the same command again: finished shards are kept"
    )


def _refuse_another(path: Path, found: Any, wanted: Mapping[str, Any], cure: str) -> None:
    here = dict(wanted)
    there = {key: value for key, value in found.items() if key in here} if isinstance(found, dict) else found
    different = first_difference(there, here)
    if different is not None:
        key, there, here_value = different
        raise UserError(f"{path}: belongs to another recipe ({key} is {there!r} there, {here_value!r} here); {cure}")


def _leave(workers: Workers, names: Sequence[str], *, failed: bool) -> None:
    """After a failure nothing stays, unless some shard is finished or others are at work."""
    with contextlib.suppress(OSError), workers.alone() as alone:
        if alone and failed and not any(is_committed(workers.folder, name) for name in names):
            keep = [entry for entry in workers.folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
            if not keep:
                shutil.rmtree(workers.folder, ignore_errors=True)
