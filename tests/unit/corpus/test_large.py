"""Ten billion tokens: opened at once, read at random in flat memory. The files are sparse and the checksums real."""

import os
from pathlib import Path

import numpy as np
import pytest
import xxhash

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.stage import write_manifest
from tokensieve.storage.checksums import BLOCK, CheckedArray, FileChecksums, write_sidecar

TOKENS = 10_000_000_000
SHARD_TOKENS = 2**28
DOCUMENT = 2**20
LENGTH = 2048


def write_zeros(folder: Path, name: str, tokens: int) -> dict[str, int | str]:
    """A shard of zeros that holds no blocks on disk, with right checksums; the last block is short."""
    (folder / f"{name}.ds").touch()
    os.truncate(folder / f"{name}.ds", 2 * tokens)
    digests = np.full(-(-2 * tokens // BLOCK), xxhash.xxh3_64_intdigest(bytes(BLOCK)), dtype="<u8")
    if 2 * tokens % BLOCK:
        digests[-1] = xxhash.xxh3_64_intdigest(bytes(2 * tokens % BLOCK))
    ends = np.append(np.arange(DOCUMENT, tokens, DOCUMENT), tokens).astype("<u8")
    ends.tofile(folder / f"{name}.ds.index")
    index = ends.tobytes()
    blocks = [xxhash.xxh3_64_intdigest(index[begin : begin + BLOCK]) for begin in range(0, len(index), BLOCK)]
    digest = write_sidecar(
        folder / f"{name}.xxh3",
        [
            FileChecksums(".ds", 2 * tokens, digests),
            FileChecksums(".ds.index", len(index), np.array(blocks, dtype="<u8")),
        ],
    )
    return {"name": name, "source": 0, "tokens": tokens, "documents": len(ends), "digest": digest}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    sizes = [SHARD_TOKENS] * (TOKENS // SHARD_TOKENS) + [TOKENS % SHARD_TOKENS]
    try:
        shards = [write_zeros(folder, f"{i:05d}", size) for i, size in enumerate(sizes)]
    except OSError as error:
        pytest.skip(f"a sparse file cannot be made here ({error.strerror})")
    documents = sum(int(shard["documents"]) for shard in shards)
    size = {"tokens": TOKENS, "documents": documents, "bytes": 4 * TOKENS}
    outputs = {
        "token_size": 2,
        **size,
        "eos_token_id": 0,
        "vocab_size": 50_000,
        "tokenizer": "made",
        "regions": None,
        "sources": [{"name": "zeros", "weight": None, **size}],
        "shards": shards,
    }
    write_manifest(folder / "corpus.json", {"inputs": {}, "finished": True, "outputs": outputs})
    return folder


def status(key: str) -> int:
    """Bytes of memory of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def bytes_read() -> int:
    """Bytes that this process asked files for."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def test_opening_reads_the_manifest_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sum(path.stat().st_size for path in folder.glob("*.ds"))
    on_disk = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    assert data == 2 * TOKENS and on_disk < 25_000_000, "the files are not sparse"
    touched: list[Path] = []
    monkeypatch.setattr(CheckedArray, "_open", lambda self: touched.append(self.path))
    manifest = (folder / "corpus.json").stat().st_size
    before = bytes_read()
    store = TokenStore(folder)
    windows = Windows(store, LENGTH)
    # Reading the counter itself is read as well.
    assert bytes_read() - before < manifest + 1000
    assert len(windows) == TOKENS // SHARD_TOKENS * (SHARD_TOKENS // LENGTH) + TOKENS % SHARD_TOKENS // LENGTH
    assert touched == []


def test_random_windows_are_read_in_flat_memory(folder: Path) -> None:
    store = TokenStore(folder)
    windows = Windows(store, LENGTH)
    draw = np.random.default_rng(0)
    assert store.shards[-1].tokens * 2 % BLOCK, "the last block of the last shard must be short"
    last = len(windows) - 1
    # Once into every shard: its checksums (8 bytes for 16 KiB) and index stay in memory.
    first = np.searchsorted(np.cumsum(store.windows_per_shard(LENGTH)), np.arange(len(windows), step=10_000), "right")
    assert set(first.tolist()) == set(range(len(store.shards)))
    windows.__getitems__(list(range(0, len(windows), 10_000)))
    before = status("RssAnon")
    for _ in range(300):
        batch = windows.__getitems__(draw.integers(0, len(windows), 8).tolist())
        assert not batch["input_ids"].any()
    assert status("RssAnon") - before < 4_000_000
    final = windows.__getitems__([last])
    assert final["token_index"][0, -1] < TOKENS and not final["input_ids"].any()
    tail = store.shard_tokens(len(store.shards) - 1)
    assert not tail[len(tail) - 10 :].any()
    assert store.locate(TOKENS - 1).shard == store.shards[-1].name


def test_a_changed_byte_in_ten_billion_tokens_is_found_where_it_is(folder: Path) -> None:
    path, at = folder / "00017.ds", 400_000_001
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x01")
    try:
        tokens = TokenStore(folder).shard_tokens(17)
        with pytest.raises(UserError, match=r"00017\.ds: damaged \(bytes 399998976 to 400015359 differ"):
            tokens[at // 2 : at // 2 + 1]
        assert not tokens[at // 2 - BLOCK : at // 2 - BLOCK // 2].any()
    finally:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\0")
