"""A mirror moves files whole or not at all, whatever breaks on the way."""

import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from tokensieve.errors import UserError
from tokensieve.storage import remote
from tokensieve.storage.mirror import Mirror

Files = Callable[[], list[str]]


@pytest.fixture
def mirror(bucket: str) -> Mirror:
    return Mirror(f"s3://{bucket}/läufe/run 1/")


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def fails(action: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)


def test_there_and_back(mirror: Mirror, s3: Any, bucket: str, tmp_path: Path, files: Files) -> None:
    data = noise(100_000)
    (tmp_path / "a.ds").write_bytes(data)
    assert not mirror.exists("scores/ä b/a.ds") and mirror.names("scores/ä b") == [] and mirror.read("none") is None
    mirror.push(tmp_path / "a.ds", "scores/ä b/a.ds")
    assert s3.cat_file(f"{bucket}/läufe/run 1/scores/ä b/a.ds") == data
    assert mirror.exists("scores/ä b/a.ds") and not mirror.exists("scores/ä b") and not mirror.exists("scores/ä")
    assert mirror.names("scores/ä b") == ["a.ds"] and mirror.names("scores") == []
    again = pickle.loads(pickle.dumps(mirror))
    again.pull("scores/ä b/a.ds", tmp_path / "new folder" / "b.ds", len(data))
    assert (tmp_path / "new folder" / "b.ds").read_bytes() == again.read("scores/ä b/a.ds") == data
    assert files() == ["a.ds", "new folder/b.ds"]


def test_what_others_store_is_seen_at_once(mirror: Mirror, s3: Any, bucket: str) -> None:
    for count in range(3):
        assert len(mirror.names("scores")) == count and not mirror.exists(f"scores/{count}.xxh3")
        s3.pipe_file(f"{bucket}/läufe/run 1/scores/{count}.xxh3", b"x")
        assert mirror.exists(f"scores/{count}.xxh3")


def test_the_first_to_create_a_file_wins(mirror: Mirror) -> None:
    assert mirror.create("a", b"first")
    assert not mirror.create("a", b"second")
    assert mirror.read("a") == b"first"


@pytest.mark.slow
def test_large_files_go_in_parts_and_small_memory(mirror: Mirror, s3: Any, bucket: str, tmp_path: Path) -> None:
    data = noise(1 << 20) * 96
    (tmp_path / "a").write_bytes(data)
    code = """
import resource, sys
from pathlib import Path
from tokensieve.storage.mirror import Mirror
url, folder = sys.argv[1], Path(sys.argv[2])
mirror = Mirror(url)
mirror.exists("a")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mirror.push(folder / "a", "a")
mirror.pull("a", folder / "b")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, mirror.url, str(tmp_path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (tmp_path / "b").read_bytes() == data
    assert s3.info(f"{bucket}/läufe/run 1/a")["ETag"].strip('"').endswith("-6")  # 6 parts of 16 MiB
    assert grown * 1024 < 85 << 20


def test_a_download_that_breaks_leaves_what_was_there(
    mirror: Mirror, tmp_path: Path, wire: Any, aws: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "READ_BYTES", 1 << 18)
    data = noise(2_000_000)
    (tmp_path / "a").write_bytes(data)
    mirror.push(tmp_path / "a", "a")
    (tmp_path / "a").write_bytes(b"older")
    aws(wire.url)
    wire.cut(times=10**6, after=200_000)
    fails(lambda: mirror.pull("a", tmp_path / "a"), "/a: cannot reach it .*run again")
    fails(lambda: mirror.pull("a", tmp_path / "b"), "/a: cannot reach it .*run again")
    assert files() == ["a"] and (tmp_path / "a").read_bytes() == b"older"
    wire.cut(times=2, after=200_000)  # tried again by itself
    mirror.pull("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data and wire.cuts == 0


@pytest.mark.parametrize("size", [1 << 20, 50 << 20])  # in one request, in four parts
def test_an_upload_that_breaks_leaves_no_object(
    mirror: Mirror, s3: Any, bucket: str, tmp_path: Path, wire: Any, aws: Any, size: int
) -> None:
    data = noise(1 << 20) * (size >> 20)
    (tmp_path / "a").write_bytes(data)
    aws(wire.url)
    wire.cut(times=10**6, after=500_000)
    fails(lambda: mirror.push(tmp_path / "a", "a"), "/a: .*run again")
    assert s3.find(bucket) == []
    wire.cut(times=0, after=0)
    mirror.push(tmp_path / "a", "a")
    assert mirror.size("a") == size


def test_a_server_that_dies_during_an_upload(tmp_path: Path, wire: Any, aws: Any, server: Any, s3: Any) -> None:
    other = type(server)()
    own = type(wire)(other.port)
    (tmp_path / "a").write_bytes(noise(50 << 20))
    try:
        aws(own.url)
        fsspec.filesystem("s3").mkdir("bucket")
        own.cut(times=10**6, after=1 << 20, when_cut=other.kill)
        mirror = Mirror("s3://bucket/run")
        fails(lambda: mirror.push(tmp_path / "a", "a"), "s3://bucket/run/a: cannot reach it .*run again")
        assert other.process.poll() is not None
        other = type(server)(other.port)  # the same address, with nothing in it
        own.cut(times=0, after=0)
        fsspec.filesystem("s3").mkdir("bucket")
        mirror.push(tmp_path / "a", "a")
        assert mirror.size("a") == 50 << 20
    finally:
        other.kill()
        own.close()


def test_mistakes_are_one_line(mirror: Mirror, bucket: str, tmp_path: Path, files: Files, server: Any) -> None:
    (tmp_path / "a").write_bytes(b"data")
    fails(lambda: Mirror("out/mirror"), "not a URL; write it as s3://")
    nowhere = Mirror(f"s3://{bucket}-none/run")
    fails(lambda: nowhere.push(tmp_path / "a", "a"), "run/a: no such file, folder or bucket .*bucket does not exist")
    fails(lambda: nowhere.create("a", b""), "run/a: no such file, folder or bucket .*bucket does not exist")
    fails(lambda: mirror.pull("none", tmp_path / "b"), "run 1/none: no such file")
    fails(lambda: mirror.push(tmp_path / "none", "a"), "none: cannot read")
    mirror.push(tmp_path / "a", "a")
    fails(lambda: mirror.pull("a", tmp_path / "b", 5), "run 1/a: has 4 bytes, not 5")
    fails(lambda: mirror.pull("a", tmp_path / "a" / "b"), "a/b: cannot write")
    server.ask_for_credentials(True)
    try:
        for action in (lambda: mirror.push(tmp_path / "a", "a"), lambda: mirror.exists("a"), lambda: mirror.names("")):
            fails(action, "no access .*credentials")
    finally:
        server.ask_for_credentials(False)
    assert files() == ["a"]


def test_a_full_disk(mirror: Mirror, tmp_path: Path, files: Files) -> None:
    mirror.create("a", noise(1 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))  # as far as a test can fill a disk
    try:
        fails(lambda: mirror.pull("a", tmp_path / "b"), "b: cannot write .*free space")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files() == []


def test_a_store_without_conditional_writes(mirror: Mirror, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = type(s3).pipe_file

    def refusing(self: Any, path: str, data: bytes, mode: str = "overwrite") -> Any:
        if mode == "create":
            raise OSError(38, "A header you provided implies functionality that is not implemented")
        return plain(self, path, data)

    monkeypatch.setattr(type(s3), "pipe_file", refusing)
    assert mirror.create("a", b"first") and not mirror.create("a", b"second")
    assert mirror.read("a") == b"first"


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_other_protocols(protocol: str, tmp_path: Path) -> None:
    mirror = Mirror(f"{protocol}://{tmp_path}/there")
    (tmp_path / "a").write_bytes(b"data")
    mirror.push(tmp_path / "a", "x/a")
    assert mirror.create("x/b", b"b") and not mirror.create("x/b", b"c")
    mirror.pull("x/a", tmp_path / "back", 4)
    assert (tmp_path / "back").read_bytes() == b"data" and mirror.names("x") == ["a", "b"]


def test_only_large_files_show_progress(mirror: Mirror, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    mirror.push(tmp_path / "a", "a")
    assert capfd.readouterr() == ("", "")
    (tmp_path / "b").write_bytes(bytes(1 << 25))
    mirror.push(tmp_path / "b", "b")
    assert capfd.readouterr().err
