"""A full disk, a read-only one, a folder that is not ours: one clear line, nothing half-written, and on it goes."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.errors import UserError
from tokensieve.recipe import Source
from tokensieve.reference.store import ScoreStore
from tokensieve.reference.workers import is_committed

from .world import CONTEXT, Scoring, fork, snapshot

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts at a new folder; skips where that is not allowed."""
    mounted: list[Path] = []

    def make(*arguments: str) -> Path:
        folder = tmp_path / f"disk {len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def tmpfs(mount: Mount, kilobytes: int) -> Path:
    return mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs")


def whole(path: Path) -> bool:
    """Whether a folder holds nothing half-written: whole shards, the manifest, locks."""
    names = {entry.name for entry in path.iterdir()}
    shards = {name[:5] for name in names if name[0] == "0"}
    expected = {shard + suffix for shard in shards for suffix in (".loss.f16", ".entropy.f16", ".correct.u8", ".xxh3")}
    return names - {".workers", "scores.json"} == expected


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4000k", str(disk)], check=True)


@pytest.mark.parametrize("free, finished", [(4, 0), (20, 0), (28, 1), (100, 1), (296, 1)])
def test_scoring_on_a_full_disk(scoring: Scoring, mount: Mount, free: int, finished: int) -> None:
    """24 shards of four files, a page each, take 400 kilobytes; a shard that is under way takes its place twice."""
    disk = tmpfs(mount, free)
    folder = disk / "scores" / "x"
    with pytest.raises(UserError, match="cannot write .No space left on device.; free space .* run the same") as caught:
        scoring.score(folder)
    assert "\n" not in str(caught.value)
    kept = []
    if folder.exists():
        assert whole(folder), sorted(path.name for path in folder.iterdir())
        kept = [shard.name for shard in scoring.corpus.shards if is_committed(folder, shard.name)]
    assert bool(kept) == folder.exists() == bool(finished)
    times = {name: (folder / f"{name}.loss.f16").stat().st_mtime_ns for name in kept}
    grow(disk)
    scoring.score(folder)
    scoring.check(folder)
    assert times == {name: (folder / f"{name}.loss.f16").stat().st_mtime_ns for name in kept}


def test_a_file_that_may_not_grow_further(scoring: Scoring, place: Path) -> None:
    """EFBIG instead of ENOSPC, as a quota of another kind gives it."""
    import resource
    import signal

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
        try:
            with pytest.raises(UserError, match="cannot write .File too large."):
                scoring.score(place)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert not place.exists()

    _succeeds(limited, place.parent.parent / "log")
    scoring.score(place)
    scoring.check(place)


def _succeeds(work: Callable[[], Any], log: Path) -> None:
    process = fork(work, log)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()


def test_a_read_only_disk_is_one_line_and_a_finished_store_is_read_there(
    scoring: Scoring, mount: Mount, tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    scoring.score(inside / "finished")
    disk = mount("--bind", str(inside))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
    with pytest.raises(UserError, match="cannot write .Read-only file system.") as caught:
        scoring.score(disk / "new" / "x")
    assert "\n" not in str(caught.value)
    again = scoring.score(disk / "finished")
    assert list(again.verify()) == []
    assert list(ScoreStore(disk / "finished", scoring.corpus, CONTEXT).verify()) == []


def test_a_folder_that_takes_no_more_files_on_the_way(scoring: Scoring, place: Path) -> None:
    """After some shards nothing can be made in the folder any more."""
    base, inner = scoring.model.base_model, scoring.model.base_model.forward
    calls = 0

    def chattr(flag: str) -> None:
        done = subprocess.run(["chattr", flag, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no immutable folders here: {done.stderr.strip()}")

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 60:
            chattr("+i")
        return inner(*arguments, **more)

    base.forward = counted
    try:
        with pytest.raises(UserError, match="cannot write .Operation not permitted.; free space or mend"):
            scoring.score(place)
        chattr("-i")
    finally:
        del base.forward
    assert whole(place) and any(is_committed(place, shard.name) for shard in scoring.corpus.shards)
    scoring.score(place)
    scoring.check(place)


def test_a_folder_of_somebody_else(scoring: Scoring, tmp_path: Path) -> None:
    """As another user, whom modes bind."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    theirs = Path("/tmp") / f"tokensieve-theirs-{os.getpid()}"
    theirs.mkdir(mode=0o755)
    try:

        def somebody() -> None:
            os.setgid(65_534)
            os.setuid(65_534)
            with pytest.raises(UserError, match=f"{theirs}.*cannot write .Permission denied."):
                # Opened already: the tests' own folder is closed to them.
                scoring.score(theirs / "x")

        for shard in range(len(scoring.corpus.shards)):
            scoring.corpus.document_ends(shard)
        _succeeds(somebody, tmp_path / "log")
        assert list(theirs.iterdir()) == []
    finally:
        theirs.rmdir()


@pytest.mark.parametrize("free", [4, 100, 180])
def test_tokenizing_on_a_full_disk(mount: Mount, tmp_path: Path, free: int) -> None:
    """Units and shards, twice the store, do not fit; nothing stays, and with room it goes through."""
    text = tmp_path / "text.txt"
    text.write_text("some words of text, again and again. " * 2_000)
    train_bpe(["some words of text"], 258).save_pretrained(tmp_path / "tokenizer")

    def tokenize(folder: Path) -> None:
        source = Source(path=str(text), format="text")
        tokenize_sources([source], folder, tmp_path / "tokenizer", shard_tokens=500_000, workers=1, max_document_mb=1)

    tokenize(tmp_path / "undisturbed")
    disk = tmpfs(mount, free)
    with pytest.raises(UserError, match="cannot write .No space left on device.; free space") as caught:
        tokenize(disk / "corpus")
    assert "\n" not in str(caught.value)
    assert list(disk.iterdir()) == []
    grow(disk)
    tokenize(disk / "corpus")
    assert snapshot(disk / "corpus") == snapshot(tmp_path / "undisturbed")
