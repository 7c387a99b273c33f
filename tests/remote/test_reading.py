"""Sources behind a URL: the same documents, order and rules as on the local disk, and one line for each mistake."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tokensieve.corpus.sources import list_inputs, read_documents, read_input
from tokensieve.errors import UserError
from tokensieve.recipe import Source
from tokensieve.storage import remote

Put = Callable[[str, bytes], str]


@pytest.fixture(autouse=True)
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests for small files."""
    monkeypatch.setattr(remote, "READ_BYTES", 1 << 18)


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def noise(count: int) -> list[str]:
    """Texts that do not compress."""
    draw = np.random.default_rng(0)
    return [draw.bytes(6000).hex() for _ in range(count)]


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def texts(url: str, **options: Any) -> list[str]:
    return [document.text for document in read_documents(Source(path=url, **options), 1)]


def fails(url: str, message: str, **options: Any) -> str:
    with pytest.raises(UserError, match=message) as caught:
        texts(url, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(url.split("*")[0])
    return str(caught.value)


NAMES = [
    "z.jsonl",
    "a b/ä 日本.jsonl",
    "a/b.jsonl.gz",
    "a.txt",
    "a-b/c.jsonl",
    "a/.hidden.jsonl",
    ".git/x.jsonl",
    "a/notes.md",
    "[1].jsonl",
]


def test_a_folder_and_globs_list_what_the_local_disk_lists(put: Put, bucket: str, tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(lines(name)) if name.endswith(".gz") else lines(name))
        put(f"dir/{name}", path.read_bytes())
    for name in ("dir/a/", "dir/folder.jsonl/"):
        put(name, b"")  # what some tools make for a folder
    put("dirt/x.jsonl", lines("of another folder"))
    for pattern in ("", "/", "/**/*.jsonl", "/*.jsonl", "/a*/*.jsonl*", "/?*/*.jsonl", "/a/.*.jsonl", "/[1].jsonl"):
        near = list_inputs(Source(path=f"{tmp_path}{pattern}"))
        far = list_inputs(Source(path=f"s3://{bucket}/dir{pattern}"))
        assert [(item.path.removeprefix(f"s3://{bucket}/dir"), item.size, item.format) for item in far] == [
            (item.path.removeprefix(str(tmp_path)), item.size, item.format) for item in near
        ], pattern
    assert texts(f"s3://{bucket}/dir") == texts(str(tmp_path))
    assert [item.path for item in list_inputs(Source(path=f"s3://{bucket}/dir", every=2, format="text"))] == [
        f"s3://{bucket}/dir/a.txt"
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_streamed_files_are_read_whole_and_counted(put: Put, name: str) -> None:
    wanted = noise(300)  # more than one request
    data = lines(*wanted)
    url = put(name, {"l": data, "z": gzip.compress(data, 1), "t": zst(data)}[name[-1]])
    (item,) = list_inputs(Source(path=url))
    counted: list[int] = []
    documents = list(read_input(Source(path=url), item, 1, counted.append))
    assert [document.text for document in documents] == wanted
    assert sum(counted) == item.size and len(counted) > 1
    assert documents[-1].place == f"{url}: line 300"


def test_parquet_reads_the_ranges_of_its_columns_only(
    bucket: str, s3: Any, wire: Any, aws: Callable[[str], None]
) -> None:
    wanted = noise(50)
    table = pa.table({"heavy": [text * 60 for text in wanted], "text": wanted})
    with s3.open(f"{bucket}/a.parquet", "wb") as file:
        pa.parquet.write_table(table, file, row_group_size=20, compression="none", use_dictionary=False)
    aws(wire.url)
    assert texts(f"s3://{bucket}/a.parquet") == wanted
    assert 600_000 < wire.forwarded < 1_500_000 < 36_000_000 < s3.info(f"{bucket}/a.parquet")["size"]
    fails(f"s3://{bucket}/a.parquet", "no field 'texd'", field="texd")
    s3.pipe_file(f"{bucket}/b.parquet", b"PAR1 no more")
    fails(f"s3://{bucket}/b.parquet", "not a readable Parquet file")


def test_plain_text_and_damage(put: Put) -> None:
    assert texts(put("ä b.txt", b"one\ntwo\n")) == ["one\ntwo\n"]
    fails(put("cut.jsonl.gz", gzip.compress(lines(*noise(50)))[:-20]), "truncated or damaged")
    fails(put("cut.jsonl.zst", zst(lines(*noise(50)))[:-20]), "truncated or damaged")
    fails(put("large.txt", b"x" * 1_000_001), "larger than 1 MB")
    fails(put("bad.jsonl", b'{"text": 1'), "line 1: not valid JSON")


def test_missing_things_are_named(bucket: str, put: Put) -> None:
    put("dir/x.md", b"x")
    fails(f"s3://{bucket}-none/a.jsonl", "no such file, folder or bucket .*bucket does not exist")
    fails(f"s3://{bucket}-none/*.jsonl", "no such file, folder or bucket .*bucket does not exist")
    fails(f"s3://{bucket}/none.jsonl", "no such file, folder or bucket")
    fails(f"s3://{bucket}/dir", r"no \.jsonl, .* file")
    fails(f"s3://{bucket}/none/*.jsonl", "no file matches")
    fails(f"s3://{bucket}/dir/x.md", "does not tell the format")
    fails("s3://*/a.jsonl", "name the bucket")
    fails("s3://", "not a URL of one file or folder")
    fails(f"s3://{bucket}::{bucket}/a", "not a URL of one file or folder")


def test_credentials(server: Any, put: Put, aws: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    url = put("a.jsonl", lines("x"))
    server.ask_for_credentials(True)
    try:
        fails(url, "no access .*credentials")  # the server knows no such key
    finally:
        server.ask_for_credentials(False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    aws(server.url)
    fails(url, "no access .*AWS_ACCESS_KEY_ID")


def test_a_missing_driver_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    fails("s3://bucket/a.jsonl", r"no driver for s3://.*pip install 'tokensieve\[s3\]'")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    fails("gs://bucket/a.jsonl", "no driver for gs://.*gcsfs")
    fails("s4://bucket/a.jsonl", "Protocol not known: s4")


def test_other_protocols_of_fsspec(s3: Any, bucket: str, tmp_path: Path, server: Any) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/remote test/ä.jsonl", lines("in memory"))
    assert texts("memory://remote test") == ["in memory"]
    memory.rm("/remote test", recursive=True)
    (tmp_path / "a.jsonl").write_bytes(lines("mounted"))
    assert texts(f"file://{tmp_path}/*.jsonl") == ["mounted"]
    s3.pipe_file(f"{bucket}/over http.jsonl", lines("by http"), ACL="public-read")
    name = f"{bucket}/over http.jsonl"
    assert texts(f"{server.url}/{name.replace(' ', '%20')}") == ["by http"]


def test_a_file_of_another_size_than_listed_is_refused(put: Put) -> None:
    url = put("a.jsonl", lines(*noise(10)))
    (item,) = list_inputs(Source(path=url))
    put("a.jsonl", lines(*noise(9)))
    with pytest.raises(UserError, match=rf"has \d+ bytes, not {item.size}"):
        list(read_input(Source(path=url), item, 1))


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(put: Put) -> None:
    url = put("a.jsonl", lines(*noise(300)))
    reading = read_documents(Source(path=url), 1)
    next(reading)
    put("a.jsonl", lines(*noise(300)).replace(b"0", b"1"))  # as large as before
    with pytest.raises(UserError, match=r"a\.jsonl: .*run again"):
        list(reading)


def test_a_connection_that_breaks_once_is_tried_again(put: Put, wire: Any, aws: Callable[[str], None]) -> None:
    wanted = noise(300)
    url = put("a.jsonl", lines(*wanted))
    aws(wire.url)
    reading = read_documents(Source(path=url), 1)
    found = [next(reading).text]
    wire.cut(times=1, after=100_000)
    assert found + [document.text for document in reading] == wanted
    assert wire.cuts == 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_connection_that_stays_broken_is_an_error(
    put: Put, s3: Any, bucket: str, wire: Any, aws: Callable[[str], None], name: str
) -> None:
    data = lines(*noise(300))
    url = put(name, {"l": data, "z": gzip.compress(data, 1), "t": zst(data)}[name[-1]])
    if name == "a.parquet":
        with s3.open(f"{bucket}/{name}", "wb") as file:
            pa.parquet.write_table(
                pa.table({"text": [text[:999] for text in noise(3000)]}),
                file,
                row_group_size=1100,
                use_dictionary=False,
            )
    aws(wire.url)
    reading = read_documents(Source(path=url), 1)
    next(reading)
    wire.cut(times=10**6, after=100_000)
    with pytest.raises(UserError, match=rf"{name}: cannot reach it .*network, then run again") as caught:
        list(reading)
    assert "\n" not in str(caught.value)


def test_what_lies_below_what() -> None:
    assert remote.is_below("s3://b/run/out", "s3://b/run/") and remote.is_below("s3://b/run", "s3://b/run")
    assert not remote.is_below("s3://b/runs", "s3://b/run")
    assert remote.is_url("s3://b") and not remote.is_url("data/a://b") and not remote.is_url("/data/x")
