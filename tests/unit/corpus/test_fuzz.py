"""Arbitrary manifests, sidecars and indices, with checksums made right: a clear error and little memory.

Damage by accident is found by a checksum; here the checksums are those of what the files say, so that nothing
but the readers' own checks stands between a wild number and an allocation, a file name or a traceback.
"""

import json
import shutil
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import BLOCK, read_sidecar, seal_shard

SHARDS = [[[5, 6, 0], [7, 0]], [[8, 0], [9, 10, 0]]]
FREE = 300_000
"""Bytes of memory that any reading may take: messages, tracebacks, windows."""
PER_BYTE = 100
"""Bytes of memory for each byte of a file: a JSON list of two characters is a Python object of 56 bytes."""

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
long = settings(quick, max_examples=20_000)


@pytest.fixture(scope="module")
def sound(make_store: Callable[..., TokenStore], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("fuzz") / "s", SHARDS, regions=["other", "code"]).folder


def use(folder: Path) -> None:
    """Open a store and read all of it in every way."""
    store = TokenStore(folder)
    problems = list(store.verify())
    assert all("\n" not in line for line in problems)
    for i in range(len(store.shards)):
        store.document_ends(i)
        store.shard_tokens(i)[:]
        if store.regions is not None:
            store.shard_regions(i)[:]
    assert all("region.u8: does not belong" in line for line in problems), problems
    store.locate(store.tokens - 1)
    windows = Windows(store, 2)
    windows.__getitems__(range(len(windows)))
    sample_order(store, 2, 5, seed=0)


def only_a_clear_error(read: Callable[[], None], size: int) -> str | None:
    """Run it; any other exception, a message of several lines or much memory fails the test."""
    # Now and then something else allocates meanwhile (a garbage collection, hypothesis itself), but not each time.
    for _ in range(3):
        message, peak = measured(read)
        if peak < FREE + PER_BYTE * size:
            break
    else:
        raise AssertionError(f"{peak} bytes of memory for a file of {size}: {message}")
    if message is not None:
        assert "\n" not in message and len(message) < 2000, message[:3000]
    return message


def measured(read: Callable[[], None]) -> tuple[str | None, int]:
    message = None
    tracemalloc.start()
    try:
        read()
    except UserError as error:
        message = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return message, peak


# Manifests

number = st.one_of(
    st.integers(),
    st.integers(0, 10),
    st.sampled_from([2**31, 2**32, 2**53, 2**56, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -1, 0]),
    st.floats(),
)
leaf = st.one_of(
    st.none(),
    st.booleans(),
    number,
    st.text(max_size=8),
    st.sampled_from(["../../x", "/etc/passwd", "00001", "0" * 32]),
)
value = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
raw = st.sampled_from(
    ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "9" * 4000, "9" * 5000, "1e999", "-1e999"]
    + [
        "NaN",
        "Infinity",
        "-0.0",
        '"\\ud800"',
        '"\\u0000"',
        "[" + "0," * 5000 + "0]",
        "{}",
        "[]",
        '"\\n"',
        "1.0",
        "true",
    ]
)
PLACES = [
    *("format", "inputs", "finished", "seconds", "outputs"),
    *(
        f"outputs.{key}"
        for key in (
            *("token_size", "tokens", "documents", "bytes", "eos_token_id", "vocab_size", "tokenizer", "regions"),
            *("regions.0", "sources", "sources.0", "shards", "shards.0", "more", "shards.0.more", "sources.0.more"),
            *(f"sources.0.{name}" for name in ("name", "weight", "tokens", "documents", "bytes")),
            *(f"shards.0.{name}" for name in ("name", "source", "tokens", "documents", "digest", "start")),
        )
    ),
]


def sealed(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    at = data.rfind(b'"checksum": "') + len(b'"checksum": "')
    return data[:at] + xxhash.xxh3_128_hexdigest(data).encode() + data[at + 32 :]


def changed(manifest: Any, place: str, new: Any) -> None:
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    for key in path:
        manifest = manifest[key]
    manifest[last] = new


def check_manifest(sound: Path, changes: list[tuple[str, Any]]) -> None:
    """The sound store with some values replaced; ("raw", text) stands for JSON text as it is."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "s"
        shutil.copytree(sound, folder)
        manifest = read_manifest(folder / "corpus.json") | {"seconds": 1.0, "checksum": "0" * 32}
        texts = {}
        for i, (place, new) in enumerate(changes):
            if isinstance(new, tuple):
                texts[f'"RAW{i}"'] = new[1]
                new = f"RAW{i}"
            try:
                changed(manifest, place, new)
            except (TypeError, KeyError, IndexError):
                continue  # an earlier change removed the place
        text = json.dumps(manifest, indent=2)
        for mark, own in texts.items():
            text = text.replace(mark, own)
        data = sealed(text)
        (folder / "corpus.json").write_bytes(data)
        only_a_clear_error(lambda: use(folder), len(data))


changes = st.lists(
    st.tuples(st.sampled_from(PLACES), value | raw.map(lambda text: ("raw", text))), min_size=1, max_size=3
)


@quick
@given(changes=changes)
def test_fuzzed_manifests(sound: Path, changes: list[tuple[str, Any]]) -> None:
    check_manifest(sound, changes)


@pytest.mark.soak
@long
@given(changes=changes)
def test_fuzzed_manifests_for_long(sound: Path, changes: list[tuple[str, Any]]) -> None:
    check_manifest(sound, changes)


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "9" * 5000])
@pytest.mark.parametrize("place", ["inputs", "outputs.sources", "outputs.shards.0.tokens"])
def test_manifests_nested_deep_and_numbers_without_end(sound: Path, place: str, text: str) -> None:
    check_manifest(sound, [(place, ("raw", text))])


@pytest.mark.parametrize("tokens", [10**9, 2**50, 2**55, 2**62, 2**63, 2**64, 10**30])
def test_a_manifest_that_speaks_of_huge_shards_allocates_nothing(sound: Path, tokens: int) -> None:
    """All counts agree with each other, and only the files do not."""
    places = ("tokens", "documents", "shards.0.tokens", "shards.0.documents")
    both = [
        (f"outputs.{place}", tokens + (5 if place == "tokens" else 2 if place == "documents" else 0))
        for place in places
    ]
    check_manifest(sound, both)


@pytest.mark.parametrize("name", ["../../x", "..", "/etc/passwd", "a/00000", "00000/../00000", "~/00000", "00000\0"])
def test_a_shard_cannot_be_named_like_a_path(sound: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / "b"
    shutil.copytree(sound, folder)
    manifest = read_manifest(folder / "corpus.json")
    manifest["outputs"]["shards"][0]["name"] = name
    write_manifest(folder / "corpus.json", manifest)
    with (
        mock.patch.object(Path, "stat", side_effect=AssertionError("looked at a file")),
        mock.patch.object(Path, "exists", return_value=True),
        pytest.raises(UserError) as caught,
    ):
        TokenStore(folder)
    assert "damaged (shard" in str(caught.value)


# Sidecars


def check_sidecar(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "00000.xxh3"
        path.write_bytes(data)

        def read() -> None:
            for suffix, file in read_sidecar(path).items():
                assert len(suffix) <= 32 and len(file.digests) == -(-file.size // BLOCK)

        only_a_clear_error(read, len(data))


wild = st.integers(0, 4) | st.sampled_from([2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
size = st.integers(0, 4 * BLOCK) | st.sampled_from([2**32, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@st.composite
def framed(draw: st.DrawFn) -> bytes:
    """Right framing and a right end, whatever stands between."""
    entries = draw(st.lists(st.tuples(st.binary(max_size=32), size), max_size=4))
    blocks = draw(st.integers(0, 12))
    fitting = sum(-(-length // BLOCK) for _, length in entries)
    if draw(st.booleans()) and fitting < 100:
        blocks = fitting
    count = draw(st.just(len(entries)) | wild)
    version = draw(st.sampled_from([1, 1, 1, 0, 2, 255]))
    block = draw(st.sampled_from([BLOCK, BLOCK, BLOCK, 0, 1, 2**32 - 1]))
    body = struct.pack("<7sBII", b"tsieve\0", version, block, count)
    body += b"".join(struct.pack("<32sQ", name, length) for name, length in entries)
    body += draw(st.binary(min_size=8 * blocks, max_size=8 * blocks)) + draw(st.just(b"") | st.binary(max_size=9))
    return body + xxhash.xxh3_128_digest(body)


hashed = st.binary(max_size=200).map(lambda body: body + xxhash.xxh3_128_digest(body))
sidecars = st.one_of(st.binary(max_size=200), hashed, framed(), framed())


@settings(quick, max_examples=200)
@given(data=sidecars)
def test_fuzzed_sidecars(data: bytes) -> None:
    check_sidecar(data)


@pytest.mark.soak
@settings(long, max_examples=100_000)
@given(data=sidecars)
def test_fuzzed_sidecars_for_long(data: bytes) -> None:
    check_sidecar(data)


@pytest.mark.parametrize(("files", "length"), [(2**32 - 1, 0), (1, 2**64 - 1), (1, 2**63), (4, 2**40)])
def test_a_sidecar_that_promises_more_than_it_holds_allocates_nothing(files: int, length: int) -> None:
    body = struct.pack("<7sBII", b"tsieve\0", 1, BLOCK, files) + struct.pack("<32sQ", b".ds", length) * 4
    check_sidecar(body + xxhash.xxh3_128_digest(body))


@quick
@given(data=sidecars, right=st.booleans())
def test_a_store_with_a_fuzzed_sidecar(sound: Path, data: bytes, right: bool) -> None:
    """Also where the manifest has that sidecar's own digest."""
    with tempfile.TemporaryDirectory() as temporary, mock.patch("os.fsync"):
        folder = Path(temporary) / "s"
        shutil.copytree(sound, folder)
        (folder / "00000.xxh3").write_bytes(data)
        if right:
            manifest = read_manifest(folder / "corpus.json")
            manifest["outputs"]["shards"][0]["digest"] = xxhash.xxh3_128_hexdigest(data[:-16])
            write_manifest(folder / "corpus.json", manifest)
        assert only_a_clear_error(lambda: use(folder), len(data)) is not None


# Indices


def check_index(sound: Path, ends: list[int]) -> None:
    with tempfile.TemporaryDirectory() as temporary, mock.patch("os.fsync"):
        folder = Path(temporary) / "s"
        shutil.copytree(sound, folder)
        np.array(ends, dtype="<i8").tofile(folder / "00000.ds.index")
        manifest = read_manifest(folder / "corpus.json")
        shard = manifest["outputs"]["shards"][0]
        shard["digest"] = seal_shard(folder, "00000", [".ds", ".ds.index", ".region.u8"])
        manifest["outputs"]["documents"] += len(ends) - shard["documents"]
        shard["documents"] = len(ends)
        write_manifest(folder / "corpus.json", manifest)
        message = only_a_clear_error(lambda: use(folder), 8 * len(ends))
        assert (message is None) == (sorted({*ends, 5}) == ends and ends[0] > 0 and ends[-1] == 5)


end = st.integers(0, 6) | st.integers(-(2**63), 2**63 - 1)
indices = st.lists(end, min_size=1, max_size=7) | st.sets(st.integers(1, 4)).map(lambda ends: [*sorted(ends), 5])


@quick
@given(ends=indices)
def test_fuzzed_indices(sound: Path, ends: list[int]) -> None:
    check_index(sound, ends)


@pytest.mark.soak
@long
@given(ends=indices)
def test_fuzzed_indices_for_long(sound: Path, ends: list[int]) -> None:
    check_index(sound, ends)
