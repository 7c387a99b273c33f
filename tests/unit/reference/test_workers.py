"""Workers of one store: claims save work, and the first commit stays, whatever dies or runs beside it."""

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokensieve.reference import workers as module
from tokensieve.reference.workers import Claim, Workers, commit_shard, discard_leftovers, is_committed
from tokensieve.storage.checksums import CheckedArray, read_sidecar, sidecar_digest

FIRST = {".loss.f16": np.arange(9, dtype="<f2"), ".correct.u8": np.ones(9, np.uint8)}
SECOND = {".loss.f16": np.arange(9, dtype="<f2") + 1, ".correct.u8": np.zeros(9, np.uint8)}
FILES = ["00003.correct.u8", "00003.loss.f16", "00003.xxh3"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holds(folder: Path, files: dict[str, np.ndarray]) -> bool:
    """Whether shard 00003 is whole, and these values."""
    digest = sidecar_digest(folder / "00003.xxh3")
    for suffix, values in files.items():
        read = CheckedArray(folder, "00003", suffix, values.dtype, len(values), digest)[:]
        if read.tobytes() != values.tobytes():
            return False
    return set(read_sidecar(folder / "00003.xxh3")) == set(files)


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_shard_is_committed_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    assert not is_committed(tmp_path, "00003")
    commit_shard(tmp_path, "00003", FIRST)
    assert names(tmp_path) == FILES and holds(tmp_path, FIRST) and is_committed(tmp_path, "00003")


def test_the_first_commit_stays_and_a_later_one_is_thrown_away(tmp_path: Path) -> None:
    commit_shard(tmp_path, "00003", FIRST)
    commit_shard(tmp_path, "00003", SECOND)
    assert names(tmp_path) == FILES and holds(tmp_path, FIRST)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_whoever_renames_first_wins_though_both_were_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The second worker had looked before the first one committed, and has other bytes."""
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    looked = module.is_committed

    def late(folder: Path, name: str) -> bool:
        answer = looked(folder, name)
        monkeypatch.setattr(module, "is_committed", looked)
        commit_shard(tmp_path, "00003", FIRST)
        return answer

    monkeypatch.setattr(module, "is_committed", late)
    commit_shard(tmp_path, "00003", SECOND)
    assert names(tmp_path) == FILES and holds(tmp_path, FIRST)


def test_a_second_worker_that_renames_while_the_first_settles_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = module._settle

    def interrupted(folder: Path, name: str) -> None:
        monkeypatch.setattr(module, "_settle", settle)
        commit_shard(tmp_path, "00003", SECOND)  # NAME.done is there: this settles the first one's
        settle(folder, name)

    monkeypatch.setattr(module, "_settle", interrupted)
    commit_shard(tmp_path, "00003", FIRST)
    assert names(tmp_path) == FILES and holds(tmp_path, FIRST)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize("steps", range(8))
def test_a_shard_whose_worker_died_at_any_step_is_whole_after_the_next_look_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, steps: int
) -> None:
    """The worker is stopped, without its clean-up, at its first, second, ... change of a name."""
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    left = steps

    class Killed(BaseException):
        pass

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return function(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        for name in ("link", "rename", "replace"):
            if links or name != "link":
                patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        try:
            commit_shard(tmp_path, "00003", FIRST)
            killed = False
        except Killed:
            killed = True
    assert killed or steps > 4
    if is_committed(tmp_path, "00003"):
        assert holds(tmp_path, FIRST)
        assert not (tmp_path / "00003.done").exists() or steps >= 4
    else:
        assert steps < 2
    commit_shard(tmp_path, "00003", FIRST if steps >= 2 else SECOND)
    Workers(tmp_path).clean()
    assert names(tmp_path) == FILES and holds(tmp_path, FIRST if steps >= 2 else SECOND)


def test_several_settle_one_shard_at_once(tmp_path: Path) -> None:
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        commit_shard(folder, "00003", FIRST)
        (folder / "00003.done").mkdir()
        for file in FILES:
            os.rename(folder / file, folder / "00003.done" / file)
        answers: list[bool] = []
        threads = [
            threading.Thread(target=lambda to=answers, at=folder: to.append(is_committed(at, "00003")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 4
        assert names(folder) == FILES and holds(folder, FIRST)


def test_a_shard_that_is_settled_between_two_looks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its sidecar was there at the first look, nor its folder at the second."""
    commit_shard(tmp_path, "00003", FIRST)
    sidecar, hidden = tmp_path / "00003.xxh3", tmp_path / "hidden"
    os.rename(sidecar, hidden)
    is_dir = Path.is_dir

    def settled_meanwhile(path: Path) -> bool:
        if hidden.exists():
            os.rename(hidden, sidecar)
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", settled_meanwhile)
    assert is_committed(tmp_path, "00003")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_commit_that_fails_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Swallowed, it would be scored again and again, without end."""
    monkeypatch.setattr(os, "rename", refusing(number))
    with pytest.raises(OSError) as caught:
        commit_shard(tmp_path, "00003", FIRST)
    assert caught.value.errno == number and names(tmp_path) == []


def test_a_link_that_fails_otherwise_is_an_error_and_the_next_look_settles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refusing(errno.EIO))
        with pytest.raises(OSError):
            commit_shard(tmp_path, "00003", FIRST)
    assert is_committed(tmp_path, "00003") and names(tmp_path) == FILES and holds(tmp_path, FIRST)


def test_leftovers_go_and_a_whole_shard_stays(tmp_path: Path) -> None:
    commit_shard(tmp_path, "00003", FIRST)
    commit_shard(tmp_path, "00004", FIRST)
    discard_leftovers(tmp_path, "00003")
    assert holds(tmp_path, FIRST)
    (tmp_path / "00003.xxh3").unlink()
    (tmp_path / "00003.loss.f16").write_bytes(b"damaged")
    discard_leftovers(tmp_path, "00003")
    assert names(tmp_path) == [name.replace("3", "4", 1) for name in FILES]
    commit_shard(tmp_path, "00003", SECOND)
    assert holds(tmp_path, SECOND)


def test_a_claim_is_for_one_and_is_free_when_its_holder_is_gone(tmp_path: Path) -> None:
    """Claims of two handles are told apart also inside one process."""
    one, two = Workers(tmp_path), Workers(tmp_path)
    assert two.under_way("00003") is None
    with one.claim("00003") as mine, two.claim("00003") as refused, two.claim("00004") as other:
        assert mine is not None and refused is None and other is not None
        mine.tell(123)
        assert two.under_way("00003") == 123
        assert two.under_way("00005") is None
    assert two.under_way("00003") is None
    with two.claim("00003") as free:
        assert free is not None


def test_a_claim_is_dropped_when_its_process_is_killed(tmp_path: Path) -> None:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with Workers(tmp_path).presence(), Workers(tmp_path).claim("00003"):
            os.write(told, b"x")
            while True:
                threading.Event().wait(60)
    os.read(ready, 1)
    workers = Workers(tmp_path)
    with workers.claim("00003") as refused, workers.alone() as alone:
        assert refused is None and not alone
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(ready), os.close(told)
    with workers.claim("00003") as free, workers.alone() as alone:
        assert free is not None and alone


def test_being_alone(tmp_path: Path) -> None:
    one, two = Workers(tmp_path), Workers(tmp_path)
    with one.presence():
        with two.presence(), two.alone() as alone:  # several may be present
            assert not alone
        with two.alone() as alone:
            assert not alone
    with two.alone() as alone:
        assert alone


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_every_claim_is_granted_and_nobody_is_sure_to_be_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    one, two = Workers(tmp_path), Workers(tmp_path)
    with one.presence(), one.claim("00003") as mine, two.claim("00003") as too, two.alone() as alone, two.finishing():
        assert mine is not None and too is not None
        assert not alone  # or it would remove what the other one is writing
    assert two.under_way("00003") is None


def test_another_error_of_a_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError), Workers(tmp_path).claim("00003"):
        pass


def test_locks_may_be_removed_while_a_worker_takes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was alone a moment ago cleans up."""
    workers, opened = Workers(tmp_path), os.open

    def removed_before(*arguments: Any) -> int:
        monkeypatch.setattr(os, "open", opened)
        shutil.rmtree(tmp_path / ".workers")
        return opened(*arguments)

    monkeypatch.setattr(os, "open", removed_before)
    with workers.claim("00003") as claim:
        assert claim is not None


def test_a_claim_tells_tokens_and_seconds_and_half_a_line_is_no_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(tmp_path)
    assert workers.seconds("00003") == 0.0
    moments = iter([100.0, 107.5, 90.0])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    with workers.claim("00003") as claim:
        assert claim is not None
        claim.tell(1_000_000)
        assert (claim.tokens(), workers_seconds(tmp_path)) == (1_000_000, 7.5)
        claim.tell(7)  # shorter than before; and the clock has gone back
        assert (claim.tokens(), workers_seconds(tmp_path)) == (7, 0.0)
    path = tmp_path / ".workers" / "00003"
    for text in ("", "12", "12 ", "12 x", "a b c"):
        path.write_text(text)
        claim = Claim.__new__(Claim)
        claim._path = path
        assert (claim.tokens(), claim.seconds()) == (0, 0.0)


def workers_seconds(folder: Path) -> float:
    """As another process reads it."""
    claim = Claim.__new__(Claim)
    claim._path = folder / ".workers" / "00003"
    return claim.seconds()


def test_cleaning_removes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    commit_shard(tmp_path, "00003", FIRST)
    for name in (".workers", f".00003.{'0123abcd' * 4}", "00004.done", ".git", "notes", "old.done"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / "scores.json.12.tmp").write_text("")
    (tmp_path / "notes.txt").write_text("")
    Workers(tmp_path).clean()
    assert names(tmp_path) == [".git", *FILES, "notes", "notes.txt", "old.done"]
