"""Stores on several machines and one mirror: each folder here plays a machine."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokensieve.errors import UserError
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import CheckedArray, seal_shard
from tokensieve.storage.mirror import Mirror
from tokensieve.storage.store_mirror import StoreMirror

SUFFIXES = (".ds", ".ds.index")
SHARDS = ("00000", "00001", "00002")
INPUTS = {"sources": ["ä"], "tokenizer": "x"}
Machine = Callable[..., StoreMirror]


@pytest.fixture
def machine(bucket: str, tmp_path: Path) -> Machine:
    def make(name: str, inputs: dict[str, Any] | None = None) -> StoreMirror:
        """A machine's view of the store; with `inputs`, its run has begun."""
        folder = tmp_path / name / "corpus"
        if inputs is not None:
            folder.mkdir(parents=True)
            write_manifest(folder / "corpus.json", {"inputs": inputs, "finished": False, "outputs": {}})
        return StoreMirror(Mirror(f"s3://{bucket}/my run"), "corpus", folder, "corpus.json")

    return make


def make_shard(store: StoreMirror, name: str, seed: int = 0) -> str:
    draw = np.random.default_rng(seed + int(name))
    for suffix, size in zip(SUFFIXES, (100_000, 1000), strict=True):
        (store.folder / (name + suffix)).write_bytes(draw.bytes(size))
    return seal_shard(store.folder, name, SUFFIXES)


def finish(store: StoreMirror, digests: list[str]) -> None:
    path = store.folder / "corpus.json"
    write_manifest(path, read_manifest(path) | {"finished": True, "outputs": {"shards": digests}})


def names(store: StoreMirror) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir()) if store.folder.exists() else []


def fails(action: Callable[[], Any], message: str) -> str:
    with pytest.raises(UserError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def finished(machine: Machine) -> StoreMirror:
    """A store of three shards, made by machine A and pushed."""
    store = machine("A", INPUTS)
    finish(store, [make_shard(store, name) for name in SHARDS])
    store.push_store()
    return store


def test_a_finished_store_is_opened_elsewhere_and_its_shards_come_when_touched(
    finished: StoreMirror, machine: Machine
) -> None:
    other = pickle.loads(pickle.dumps(machine("B")))
    assert other.fetch(first=(".ds.index",))
    assert names(other) == sorted(
        ["corpus.json", *(name + suffix for name in SHARDS for suffix in (".xxh3", ".ds.index"))]
    )
    other.fetch_shard("00001")
    array = CheckedArray(
        other.folder,
        "00001",
        ".ds",
        np.dtype("<u2"),
        50_000,
        read_manifest(other.folder / "corpus.json")["outputs"]["shards"][1],
    )
    assert array[:].tobytes() == (finished.folder / "00001.ds").read_bytes()
    assert not (other.folder / "00000.ds").exists()
    for name in SHARDS:
        other.fetch_shard(name)
    assert {name: (other.folder / name).read_bytes() for name in names(other)} == {
        name: (finished.folder / name).read_bytes() for name in names(finished)
    }


def test_nothing_there_is_no_error_and_leaves_no_folder(machine: Machine) -> None:
    other = machine("B")
    assert not other.fetch() and other.finished_shards() == [] and not other.folder.exists()
    fails(lambda: other.fetch_shard("00000"), r"corpus/00000\.xxh3: no such file")


def test_a_finished_store_asks_nothing_of_the_network(finished: StoreMirror, aws: Callable[[str], None]) -> None:
    aws("http://127.0.0.1:9")
    assert finished.fetch()
    finished.fetch_shard("00000")


def test_pushing_again_changes_nothing(finished: StoreMirror, s3: Any, bucket: str) -> None:
    before = {name: entry["LastModified"] for name, entry in s3.find(bucket, detail=True).items()}
    finished.push_store()
    for name in SHARDS:
        finished.push_shard(name)
    assert {name: entry["LastModified"] for name, entry in s3.find(bucket, detail=True).items()} == before


def test_workers_on_two_machines_see_each_others_shards(machine: Machine) -> None:
    one, two = machine("A", INPUTS), machine("B", INPUTS)
    one.push_manifest()
    digests = [make_shard(one, "00000")]
    assert one.push_shard("00000") == digests[0]
    two.fetch()
    assert two.finished_shards() == ["00000"] and names(two) == ["00000.xxh3", "corpus.json"]
    digests.append(make_shard(two, "00001"))
    two.push_shard("00001")
    one.fetch()
    assert names(one) == ["00000.ds", "00000.ds.index", "00000.xxh3", "00001.xxh3", "corpus.json"]
    finish(one, digests)
    one.push_store()  # also where some shards' data are elsewhere
    assert two.fetch() and read_manifest(two.folder / "corpus.json")["finished"]
    two.fetch_shard("00000")
    assert (two.folder / "00000.ds").read_bytes() == (one.folder / "00000.ds").read_bytes()


def test_the_first_of_two_machines_wins_and_their_files_never_mix(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machine("A", INPUTS), machine("B", INPUTS)
    first, second = make_shard(one, "00000", seed=1), make_shard(two, "00000", seed=2)
    assert first != second
    create = Mirror.create

    def meanwhile(self: Mirror, name: str, data: bytes) -> bool:
        # Both have stored their data files by now: `one` marks the shard as whole a moment before `two` does.
        monkeypatch.setattr(Mirror, "create", create)
        assert one.push_shard("00000") == first
        return create(self, name, data)

    monkeypatch.setattr(Mirror, "create", meanwhile)
    assert two.push_shard("00000") == first
    assert names(two) == ["00000.xxh3", "corpus.json"]
    for other in (two, machine("C")):
        other.fetch_shard("00000")
        assert (other.folder / "00000.ds").read_bytes() == (one.folder / "00000.ds").read_bytes()
    again = machine("D", INPUTS)
    make_shard(again, "00000", seed=2)
    assert again.push_shard("00000") == first


def test_an_upload_cut_at_any_file_is_completed_by_the_next(
    machine: Machine, wire: Any, aws: Callable[[str], None], server: Any, s3: Any, bucket: str
) -> None:
    store = machine("A", INPUTS)
    digest = make_shard(store, "00000")
    aws(wire.url)
    wire.cut(times=10**6, after=50_000)  # the large file
    fails(lambda: store.push_shard("00000"), "run again")
    assert store.finished_shards() == []
    aws(server.url)
    assert machine("B").fetch() is False
    assert store.push_shard("00000") == digest and store.finished_shards() == ["00000"]


def test_a_fetch_that_breaks_is_completed_by_the_next(
    finished: StoreMirror, machine: Machine, wire: Any, aws: Callable[[str], None], server: Any
) -> None:
    other = machine("B")
    aws(wire.url)
    wire.cut(times=10**6, after=20_000)
    fails(lambda: other.fetch(first=(".ds",)), "run again")
    assert all(not name.startswith(".") and not name.endswith(".ds") for name in names(other))
    assert not (other.folder / "corpus.json").exists()  # it comes last
    aws(server.url)
    assert other.fetch(first=(".ds",))
    assert (other.folder / "00002.ds").read_bytes() == (finished.folder / "00002.ds").read_bytes()


def test_damage_on_the_server_is_refused(finished: StoreMirror, machine: Machine, s3: Any, bucket: str) -> None:
    (key,) = [name for name in s3.find(bucket) if name.endswith(".ds") and "00001." in name]
    data = s3.cat_file(key)
    s3.pipe_file(key, data[:-1])
    other = machine("B")
    other.fetch()
    fails(lambda: other.fetch_shard("00001"), r"00001\.\w+\.ds: has 99999 bytes, not 100000")
    s3.pipe_file(key, data[:20_000] + bytes([data[20_000] ^ 1]) + data[20_001:])
    text = fails(lambda: other.fetch_shard("00001"), "damaged .bytes 16384 to 32767")
    assert text.startswith(f"s3://{key}")
    s3.pipe_file(key, data)
    other.fetch_shard("00001")
    for name in ("corpus.json", "00000.xxh3"):
        key = f"{bucket}/my run/corpus/{name}"
        data = s3.cat_file(key)
        s3.pipe_file(key, data.replace(data[40:41], bytes([data[40] ^ 1]), 1))
        assert fails(lambda: machine("C").fetch(), "damaged").startswith(f"s3://{key}: ")
        assert not (machine("C").folder / "corpus.json").exists()
        s3.pipe_file(key, data)


def test_damage_here_is_not_stored(machine: Machine, s3: Any, bucket: str) -> None:
    store = machine("A", INPUTS)
    make_shard(store, "00000")
    path = store.folder / "00000.ds"
    data = path.read_bytes()
    path.write_bytes(b"!" + data[1:])
    assert fails(lambda: store.push_shard("00000"), "damaged .bytes 0 to").startswith(str(path))
    path.write_bytes(data[1:])
    fails(lambda: store.push_shard("00000"), "has 99999 bytes")
    assert s3.find(bucket) == []


def test_another_recipes_store_is_never_touched(finished: StoreMirror, machine: Machine, s3: Any, bucket: str) -> None:
    before = {name: s3.cat_file(name) for name in s3.find(bucket)}
    other = machine("B", INPUTS | {"tokenizer": "y"})
    make_shard(other, "00003")
    for action in (other.fetch, other.push_manifest, other.push_store):
        fails(action, r"corpus\.json: belongs to another recipe")
    same = machine("C", INPUTS)
    finish(same, [make_shard(same, "00000", seed=9)])
    fails(same.push_store, r"corpus\.json: describes other shards")
    assert {name: s3.cat_file(name) for name in s3.find(bucket)} == before


def test_an_unfinished_manifest_does_not_replace_a_finished_one(finished: StoreMirror, machine: Machine) -> None:
    late = machine("B", INPUTS)
    late.push_manifest()
    assert late.fetch() and read_manifest(late.folder / "corpus.json") == read_manifest(finished.folder / "corpus.json")
