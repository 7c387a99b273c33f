"""The life of a score store: one recipe, any number of workers, nothing half-done left behind."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.reference import making as module
from tokensieve.reference.making import finish_store, score_stage, unfinished_column, work_through
from tokensieve.reference.progress import ScoringProgress
from tokensieve.reference.store import MANIFEST, unscored
from tokensieve.reference.workers import Workers, commit_shard, is_committed
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import sidecar_digest

BINDING = {"reference": "a", "context": {"length": 16}, "shards": [["00000", 5]]}
MAKING = {"batch_size": 3, "software": {"torch": "2.13"}}


class Made:
    """Fills shards with constant losses, as a stage would."""

    def __init__(self, folder: Path, store: TokenStore) -> None:
        self.folder, self.store = folder, store
        self.filled: list[int] = []
        self.gates = 0

    def score(self, i: int, tell: Callable[[int], None]) -> None:
        self.filled.append(i)
        tokens = self.store.shards[i].tokens
        tell(tokens)
        values = unscored("loss", tokens)
        values[1] = i
        commit_shard(self.folder, self.store.shards[i].name, {".loss.f16": values})

    def gate(self) -> dict[str, Any]:
        self.gates += 1
        return {"windows": 1}

    def run(self, worker: tuple[int, int] = (0, 1), binding: Any = BINDING, making: Any = MAKING) -> None:
        with score_stage(self.folder, binding, making, self.store) as workers:
            if workers is None:
                return
            with ScoringProgress(workers, self.store, None, "float32") as progress:
                work_through(workers, self.store, self.score, worker, progress)
            finish_store(workers, self.store, ["loss"], [1] * len(self.store.shards), self.gate, carried=True)


@pytest.fixture
def made(store: TokenStore, tmp_path: Path) -> Made:
    return Made(tmp_path / "scores" / "x", store)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WHOLE = ["00000.loss.f16", "00000.xxh3", "00001.loss.f16", "00001.xxh3", MANIFEST]


def test_a_finished_store_says_what_it_holds_and_nothing_else_lies_there(made: Made) -> None:
    made.run()
    assert names(made.folder) == WHOLE
    manifest = read_manifest(made.folder / MANIFEST)
    assert manifest["inputs"] == {**BINDING, "making": MAKING}
    assert manifest["finished"] is True and manifest["seconds"] >= 0
    assert manifest["outputs"] == {
        "columns": ["loss"],
        "scored_tokens": 2,
        "shards": [
            {"name": name, "tokens": shard.tokens, "scored": 1, "digest": sidecar_digest(made.folder / f"{name}.xxh3")}
            for shard in made.store.shards
            for name in [shard.name]
        ],
        "gate": {"windows": 1},
        "carried": True,
    }


def test_a_finished_store_is_left_alone(made: Made) -> None:
    made.run()
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in made.folder.iterdir()}
    made.run()
    assert made.filled == [0, 1] and made.gates == 1
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in made.folder.iterdir()} == before


def test_a_worker_begins_where_it_is_told(made: Made) -> None:
    made.run(worker=(1, 2))
    assert made.filled == [1, 0]


@pytest.mark.parametrize(
    "binding, message",
    [
        ({**BINDING, "reference": "b"}, r"reference is 'a' there, 'b' here.; score under another name: score.name="),
        ({**BINDING, "context": {"length": 8}}, r"context.length is 16 there, 8 here"),
        ({**BINDING, "shards": [["00000", 6]]}, r"shards.0.1 is 5 there, 6 here"),
        ({**BINDING, "dtype": "bfloat16"}, r"dtype is None there, 'bfloat16' here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_store_of_other_inputs_is_refused_with_both_values_and_left_alone(
    made: Made, binding: dict[str, Any], message: str, finished: bool
) -> None:
    made.run()
    path = made.folder / MANIFEST
    if not finished:
        write_manifest(path, {**read_manifest(path), "finished": False})
    before = path.read_bytes()
    with pytest.raises(UserError, match=message) as caught:
        made.run(binding=binding)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == before and names(made.folder) == WHOLE


def test_what_changes_the_last_bits_may_change_only_when_nothing_is_left_to_do(made: Made) -> None:
    other = {**MAKING, "software": {"torch": "2.14"}}
    made.run()
    made.run(making=other)
    (made.folder / "00001.xxh3").unlink()
    with pytest.raises(
        UserError, match=r"software.torch is '2.13' there, '2.14' here.; go on with the same, or remove"
    ):
        made.run(making=other)
    assert made.filled == [0, 1]


@pytest.mark.parametrize("removed", ["00001.*", "00001.xxh3", "*"])
def test_shards_that_somebody_removed_are_made_again_with_equal_bytes(made: Made, removed: str) -> None:
    made.run()
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    (made.folder / "00001.loss.f16").write_bytes(b"damaged")
    for path in made.folder.glob(removed):
        if path.name != MANIFEST:
            path.unlink()
    made.run()
    after = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    assert made.filled == ([0, 1, 0, 1] if removed == "*" else [0, 1, 1])
    assert after == before
    assert made.gates == 1  # the same bytes were looked at before


def test_shards_made_again_with_other_bytes_go_through_the_gate_again(made: Made) -> None:
    made.run()
    (made.folder / "00001.xxh3").unlink()
    commit_shard(made.folder.parent, "00001", {".loss.f16": unscored("loss", made.store.shards[1].tokens)})
    for path in made.folder.parent.glob("00001.*"):
        os.replace(path, made.folder / path.name)
    (made.folder / "00000.xxh3").unlink()  # something is to be done
    made.run()
    assert made.gates == 2
    digest = sidecar_digest(made.folder / "00001.xxh3")
    assert read_manifest(made.folder / MANIFEST)["outputs"]["shards"][1]["digest"] == digest


def test_an_interrupted_store_goes_on_and_seconds_add_up(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    score = made.score

    def once(i: int, tell: Callable[[int], None]) -> None:
        if i == 1:
            raise KeyboardInterrupt
        score(i, tell)

    monkeypatch.setattr(made, "score", once)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert is_committed(made.folder, "00000") and not read_manifest(made.folder / MANIFEST)["finished"]
    monkeypatch.setattr(made, "score", score)
    made.run()
    assert made.filled == [0, 1] and names(made.folder) == WHOLE


@pytest.mark.parametrize("at, stays", [(0, False), (1, True)])
def test_after_a_failure_nothing_stays_but_finished_shards(
    made: Made, monkeypatch: pytest.MonkeyPatch, at: int, stays: bool
) -> None:
    score = made.score

    def fails(i: int, tell: Callable[[int], None]) -> None:
        if i == at:
            raise UserError("the loss is not finite")
        score(i, tell)

    monkeypatch.setattr(made, "score", fails)
    with pytest.raises(UserError, match="not finite"):
        made.run()
    assert made.folder.exists() == stays
    if stays:
        assert is_committed(made.folder, "00000")


def test_a_failure_beside_another_worker_leaves_what_that_one_does(made: Made) -> None:
    def fails(i: int, tell: Callable[[int], None]) -> None:
        raise UserError("the loss is not finite")

    made.score = fails  # type: ignore[method-assign]
    made.folder.mkdir(parents=True)
    (made.folder / ".workers").mkdir()
    with Workers(made.folder).presence(), pytest.raises(UserError, match="not finite"):
        made.run()
    assert (made.folder / MANIFEST).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("moment", ["mkdir", "open", "fsync", "link"])
def test_a_disk_that_refuses_at_the_first_steps_is_one_line(
    made: Made, monkeypatch: pytest.MonkeyPatch, number: int, moment: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(made.folder))

    with monkeypatch.context() as patch:
        patch.setattr(Path if moment == "mkdir" else os, moment, refuse)
        with pytest.raises(UserError, match=f"{made.folder}.*: cannot write .{os.strerror(number)}.; free space") as e:
            made.run()
    assert "\n" not in str(e.value)
    made.run()
    assert names(made.folder) == WHOLE


def test_a_folder_of_something_else_is_refused_and_left_alone(made: Made) -> None:
    made.folder.mkdir(parents=True)
    (made.folder / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files but no scores.json; choose another score.name or remove"):
        made.run()
    assert names(made.folder) == ["thesis.txt"]


def test_a_file_in_the_place_of_the_folder_is_one_line(made: Made) -> None:
    made.folder.parent.mkdir()
    made.folder.write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        made.run()
    assert made.folder.read_text() == "mine"


def test_what_a_worker_that_died_at_its_first_write_left_is_no_hindrance(made: Made) -> None:
    made.folder.mkdir(parents=True)
    (made.folder / f"{MANIFEST}.77.tmp").write_text("half")
    made.run()
    assert names(made.folder) == WHOLE


def test_what_a_worker_that_died_at_its_last_write_left_is_removed(made: Made) -> None:
    made.run()
    for name in (".workers", f".00001.{'0' * 32}"):
        (made.folder / name).mkdir()
    (made.folder / f"{MANIFEST}.77.tmp").write_text("half")
    made.run()
    assert names(made.folder) == WHOLE and made.filled == [0, 1]


def test_a_finished_store_on_a_read_only_disk_opens_though_it_has_leftovers(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run()
    (made.folder / f"{MANIFEST}.77.tmp").write_text("half")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("open", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    made.run()


def test_two_recipes_that_begin_at_once_do_not_mix(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both see no manifest; the first that writes one keeps the folder."""
    write, other = write_manifest, Made(made.folder, made.store)

    def late(path: Path, manifest: dict[str, Any]) -> None:
        monkeypatch.setattr(module, "write_manifest", write)
        other.run()
        write(path, manifest)

    monkeypatch.setattr(module, "write_manifest", late)
    with pytest.raises(UserError, match="reference is 'a' there, 'b' here"):
        made.run(binding={**BINDING, "reference": "b"})
    assert made.filled == [] and names(made.folder) == WHOLE
    assert read_manifest(made.folder / MANIFEST)["inputs"]["reference"] == "a"


def test_workers_share_the_shards_and_the_last_one_finishes(made: Made) -> None:
    """Two at once, a claim each; the first to be done waits for the other."""
    monitors = [Made(made.folder, made.store), made]
    meet = threading.Barrier(2, timeout=30)

    def together(i: int, tell: Callable[[int], None], one: Made, score: Callable[..., None]) -> None:
        meet.wait()  # both are at work
        score(i, tell)

    for one in monitors:
        score = one.score
        one.score = lambda i, tell, one=one, score=score: together(i, tell, one, score)  # type: ignore[method-assign]
    threads = [threading.Thread(target=one.run, kwargs={"worker": (n, 2)}) for n, one in enumerate(monitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.filled for one in monitors) == [[0], [1]]
    assert monitors[0].gates + monitors[1].gates == 1
    assert names(made.folder) == WHOLE


def test_a_shard_whose_files_are_of_another_kind_is_refused(made: Made) -> None:
    made.run()
    manifest = read_manifest(made.folder / MANIFEST)
    write_manifest(made.folder / MANIFEST, {**manifest, "finished": False})
    for path in made.folder.glob("00001.*"):
        path.unlink()
    commit_shard(made.folder, "00001", {".loss.f16": np.zeros(3, "<f2")})
    with pytest.raises(UserError, match=r"00001.xxh3: lists \{'.loss.f16': 6\}, not .*; remove 00001.\* and score"):
        made.run()


def test_the_gate_stands_between_the_shards_and_the_finished_store(made: Made) -> None:
    def refuses() -> dict[str, Any]:
        raise UserError("the scores do not agree")

    made.gate = refuses  # type: ignore[method-assign]
    with pytest.raises(UserError, match="do not agree"):
        made.run()
    assert not read_manifest(made.folder / MANIFEST)["finished"]
    assert is_committed(made.folder, "00000") and is_committed(made.folder, "00001")


def test_a_column_can_be_read_before_the_manifest_is_written(made: Made) -> None:
    made.run()
    column = unfinished_column(Workers(made.folder), made.store, "loss")
    assert [float(array[1:2][0]) for array in column] == [0.0, 1.0]
    assert [array.shape[0] for array in column] == [shard.tokens for shard in made.store.shards]


def test_clocks_that_jump_change_nothing_but_the_seconds(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(1_000_000, -1_000_000, -500))
    monkeypatch.setattr("time.monotonic", lambda: float(next(moments)))
    monkeypatch.setattr("time.time", lambda: -5.0)
    made.run()
    monkeypatch.undo()
    assert read_manifest(made.folder / MANIFEST)["seconds"] >= 0
    assert names(made.folder) == WHOLE


def test_a_committed_shard_of_a_store_whose_manifest_is_gone_is_nobody_elses(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.folder.mkdir(parents=True)
    monkeypatch.setattr("tokensieve.reference.workers._settle", lambda *_: None)  # killed right after the commit
    made.score(0, lambda _: None)
    monkeypatch.undo()
    assert names(made.folder) == ["00000.done"]
    with pytest.raises(UserError, match="holds files but no scores.json"):
        made.run(binding={**BINDING, "reference": "another"})
    assert names(made.folder) == ["00000.done"]
