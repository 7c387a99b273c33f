"""Checksums: any changed byte of any file is found, and found where it was read; what is sound still reads."""

import builtins
import io
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from torch.utils.data import DataLoader

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows, identity
from tokensieve.errors import UserError
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import (
    BLOCK,
    CheckedArray,
    FileChecksums,
    checksums_of,
    read_sidecar,
    seal_shard,
    write_sidecar,
)

Make = Callable[..., TokenStore]
SMALL = [[[5, 6, 0], [7, 0]], [[8, 0], [9, 10, 0]]]
FILES = ["corpus.json", *(f"0000{i}{suffix}" for i in (0, 1) for suffix in (".ds", ".ds.index", ".region.u8", ".xxh3"))]


@pytest.fixture(scope="module")
def small(make_store: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of five tokens with regions: each file is shorter than a block."""
    return make_store(tmp_path_factory.mktemp("small") / "s", SMALL, regions=["other", "code"]).folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    shutil.copytree(small, tmp_path / "s")
    return tmp_path / "s"


def large(make_store: Make, folder: Path, shards: int = 1) -> TokenStore:
    """Shards of 20,000 uint16 tokens, no two equal: three blocks, the last one short."""
    return make_store(folder, [[[*range(2 + i, 20_001 + i), 0]] for i in range(shards)])


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def problems(folder: Path) -> list[str]:
    """What opening or else `verify` finds."""
    try:
        store = TokenStore(folder)
    except UserError as error:
        return [str(error)]
    return list(store.verify())


def read_all(folder: Path) -> None:
    store = TokenStore(folder)
    for i in range(len(store.shards)):
        store.shard_tokens(i)[:], store.document_ends(i), store.shard_regions(i)[:]


# The sidecar


@pytest.mark.parametrize("sizes", [[], [0], [1], [BLOCK - 1], [BLOCK], [BLOCK + 1, 0, 3 * BLOCK]])
def test_a_sidecar_is_read_back(tmp_path: Path, sizes: list[int]) -> None:
    draw = np.random.default_rng(0)
    suffixes = [f".{i}" for i in range(len(sizes))]
    for suffix, size in zip(suffixes, sizes, strict=True):
        (tmp_path / f"00000{suffix}").write_bytes(draw.bytes(size))
    digest = seal_shard(tmp_path, "00000", suffixes)
    found = read_sidecar(tmp_path / "00000.xxh3", digest)
    assert list(found) == suffixes
    for suffix, size in zip(suffixes, sizes, strict=True):
        data = (tmp_path / f"00000{suffix}").read_bytes()
        blocks = [data[begin : begin + BLOCK] for begin in range(0, size, BLOCK)]
        assert found[suffix].size == size
        assert found[suffix].digests.tolist() == [xxhash.xxh3_64_intdigest(block) for block in blocks]
    whole = (tmp_path / "00000.xxh3").read_bytes()
    assert digest == xxhash.xxh3_128_hexdigest(whole[:-16]) == whole[-16:].hex()
    assert not list(tmp_path.glob("*.tmp"))


def test_every_changed_byte_of_a_sidecar_is_found_without_the_manifest(small: Path, tmp_path: Path) -> None:
    data = (small / "00000.xxh3").read_bytes()
    path = tmp_path / "00000.xxh3"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(UserError, match=r"00000\.xxh3: damaged \(not a sound checksum file\)"):
            read_sidecar(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="damaged"):
            read_sidecar(path)


def hashed(body: bytes) -> bytes:
    return body + xxhash.xxh3_128_digest(body)


ENTRY = struct.Struct("<32sQ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (struct.pack("<7sBII", b"tsieve\0", 2, BLOCK, 0), "checksum format 2 with blocks of 16384.*reads format 1"),
        (struct.pack("<7sBII", b"tsieve\0", 1, 4096, 0), "checksum format 1 with blocks of 4096 bytes"),
        (struct.pack("<7sBII", b"tsieve!", 1, BLOCK, 0), "damaged .not a sound checksum file"),
        (b"tsieve\0", "damaged .not a sound checksum file"),
        (struct.pack("<7sBII", b"tsieve\0", 1, BLOCK, 2) + ENTRY.pack(b".ds", 0), "too short for 2 files"),
        (struct.pack("<7sBII", b"tsieve\0", 1, BLOCK, 1) + ENTRY.pack(b".ds", 1), "too short for its sizes"),
        (struct.pack("<7sBII", b"tsieve\0", 1, BLOCK, 1) + ENTRY.pack(b".ds", 0) + b"12345678", "8 bytes too many"),
    ],
)
def test_a_sidecar_with_a_right_hash_that_says_nonsense(tmp_path: Path, body: bytes, message: str) -> None:
    path = tmp_path / "00000.xxh3"
    path.write_bytes(hashed(body))
    with pytest.raises(UserError, match=message) as caught:
        read_sidecar(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_sidecar_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sidecar(tmp_path / "00000.xxh3", [])
    before = (tmp_path / "00000.xxh3").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_sidecar(tmp_path / "00000.xxh3", [FileChecksums(".ds", 1, np.zeros(1, "<u8"))])
    assert (tmp_path / "00000.xxh3").read_bytes() == before


# Every byte of a store


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_is_found(small: Path, copy: Path, name: str) -> None:
    data = (small / name).read_bytes()
    for at in range(len(data)):
        (copy / name).write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        found = problems(copy)
        assert found, f"byte {at} of {name}"
        assert all("\n" not in line for line in found)
        assert name in found[0] or name.endswith(".xxh3")
        with pytest.raises(UserError):
            read_all(copy)
    (copy / name).write_bytes(data)
    assert problems(copy) == []
    read_all(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["truncated", "longer", "missing", "empty"])
def test_files_of_another_size_are_found(copy: Path, name: str, fault: str) -> None:
    path = copy / name
    data = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-1], "longer": data + b"\0", "empty": b""}[fault])
    found = problems(copy)
    assert found and name in found[0], found
    with pytest.raises(UserError):
        read_all(copy)


def test_swapped_shards_are_found_with_and_without_their_sidecars(make_store: Make, tmp_path: Path) -> None:
    suffixes = (".ds", ".ds.index", ".xxh3")
    for swapped in (suffixes[:2], suffixes, suffixes[2:]):
        store = large(make_store, tmp_path / f"{len(swapped)}{swapped[0]}", shards=2)
        for suffix in swapped:
            first, second = (store.folder / f"0000{i}{suffix}" for i in (0, 1))
            first.rename(store.folder / "aside")
            second.rename(first)
            (store.folder / "aside").rename(second)
        assert problems(store.folder)
        for i in (0, 1):
            with pytest.raises(UserError, match="damaged" if len(swapped) == 2 else "belongs to another shard"):
                TokenStore(store.folder).shard_tokens(i)[:1]


def test_extra_files_are_listed_and_hidden_ones_and_folders_are_not(copy: Path) -> None:
    for name in ("00002.ds", "00000.ds.tmp", "empty", ".claim"):
        (copy / name).touch()
    (copy / "units").mkdir()
    assert [line.split(": ")[0] for line in problems(copy)] == [
        str(copy / name) for name in ("00000.ds.tmp", "00002.ds", "empty")
    ]
    assert all("does not belong to this store" in line for line in problems(copy))


def test_what_right_checksums_cannot_hide(make_store: Make, tmp_path: Path) -> None:
    """A store that was written wrong: its checksums are right and its values cannot be."""
    store = make_store(tmp_path / "ids", [[[5, 59_999, 0]], [[5, 60_000, 0]]])
    assert list(store.verify()) == [f"{store.folder / '00001.ds'}: holds id 60000, the vocabulary has 60000"]
    store = make_store(tmp_path / "regions", [[[5, 6, 0]]], regions=["other", "code", "prose"])
    store.regions = ("other", "code")
    assert list(store.verify()) == [f"{store.folder / '00000.region.u8'}: holds region 2, the manifest has 2"]


@pytest.mark.parametrize(
    "ends", [[3, 2, 5], [2, 2, 5], [0, 2, 5], [2, 3, 4], [2, 3, 6], [2, 2**63, 5], [2**64 - 3, 1, 5]]
)
def test_an_index_that_does_not_increase_is_found_although_its_checksums_are_right(
    make_store: Make, tmp_path: Path, ends: list[int]
) -> None:
    folder = make_store(tmp_path / "s", [[[1, 0], [0], [2, 0]]]).folder
    np.array(ends, dtype="<u8").tofile(folder / "00000.ds.index")
    manifest = read_manifest(folder / "corpus.json")
    manifest["outputs"]["shards"][0]["digest"] = seal_shard(folder, "00000", [".ds", ".ds.index"])
    write_manifest(folder / "corpus.json", manifest)
    store = TokenStore(folder)
    with pytest.raises(UserError, match=r"00000\.ds\.index does not increase up to the shard's last token"):
        store.document_ends(0)
    assert len(list(store.verify())) == 1
    assert store.shard_tokens(0)[:].tolist() == [1, 0, 0, 2, 0]


# Blocks


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 39_999])
def test_a_touched_block_raises_and_the_others_read(make_store: Make, tmp_path: Path, at: int) -> None:
    store = large(make_store, tmp_path / "s")
    expected = store.shard_tokens(0)[:].copy()
    flip(store.folder / "00000.ds", at)
    tokens = TokenStore(store.folder).shard_tokens(0)
    block = at // BLOCK
    per_block = BLOCK // 2
    where = rf"00000\.ds: damaged \(bytes {block * BLOCK} to {(block + 1) * BLOCK - 1} differ"
    for begin, end in ((at // 2, at // 2 + 1), (0, 20_000), (max(0, block * per_block - 1), block * per_block + 1)):
        with pytest.raises(UserError, match=where):
            tokens[begin:end]
    for other in {0, 1, 2} - {block}:
        begin, end = other * per_block, min(20_000, (other + 1) * per_block)
        np.testing.assert_array_equal(tokens[begin:end], expected[begin:end])
    # What was refused once is refused again.
    with pytest.raises(UserError, match=where):
        tokens[at // 2 : at // 2 + 1]
    assert len(list(store.verify())) == 1


def test_all_damage_of_a_file_is_listed(make_store: Make, tmp_path: Path) -> None:
    store = large(make_store, tmp_path / "s", shards=2)
    advanced: list[int] = []
    for name, at in (("00000.ds", 5), ("00000.ds", 2 * BLOCK), ("00001.ds", BLOCK), ("00001.ds.index", 0)):
        flip(store.folder / name, at)
    assert [line.split(" differ")[0] for line in store.verify(advanced.append)] == [
        f"{store.folder / '00000.ds'}: damaged (bytes 0 to 16383",
        f"{store.folder / '00000.ds'}: damaged (bytes 32768 to 49151",
        f"{store.folder / '00001.ds'}: damaged (bytes 16384 to 32767",
        f"{store.folder / '00001.ds.index'}: damaged (bytes 0 to 16383",
    ]
    assert advanced == [20_000, 20_000]


def test_a_block_is_checked_once_and_verify_reads_it_again(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = large(make_store, tmp_path / "s")
    calls: list[int] = []
    real = xxhash.xxh3_64_intdigest

    def counted(data: np.ndarray) -> int:
        calls.append(len(data))
        return real(data)

    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", counted)
    tokens = store.shard_tokens(0)
    for _ in range(3):
        tokens[10:20]
    assert calls == [BLOCK]
    tokens[:]
    assert calls == [BLOCK, BLOCK, 40_000 - 2 * BLOCK]
    flip(store.folder / "00000.ds", 0)
    tokens[:5]
    assert list(tokens.damaged_blocks()) == [0]


def test_a_file_that_is_cut_short_or_unreadable_after_opening_is_named(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = large(make_store, tmp_path / "s")
    tokens = store.shard_tokens(0)
    tokens[:10]

    def unreadable(descriptor: int, count: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", unreadable)
        with pytest.raises(UserError, match=r"00000\.ds: cannot read from byte 16384 \(Input/output error\)"):
            tokens[8192:8193]
    os.truncate(store.folder / "00000.ds", BLOCK)
    with pytest.raises(UserError, match="bytes 32768 to 49151 differ"):
        tokens[19_000:]


def test_a_slice_is_a_plain_array_that_cannot_be_written(make_store: Make, tmp_path: Path) -> None:
    tokens = large(make_store, tmp_path / "s").shard_tokens(0)
    part = tokens[3:7]
    assert type(part) is np.ndarray and part.dtype == np.dtype("<u2") and part.tolist() == [5, 6, 7, 8]
    assert tokens.shape == (20_000,) and len(tokens) == 20_000
    assert tokens[7:3].tolist() == [] == tokens[20_000:].tolist()
    assert tokens[-2:].tolist() == [20_000, 0]
    assert np.asarray(tokens).tolist() == tokens[:].tolist()
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    with pytest.raises(ValueError, match="contiguous"):
        tokens[::2]
    with pytest.raises(ValueError, match="no regions"):
        large(make_store, tmp_path / "t").shard_regions(0)


def test_an_array_needs_a_sidecar_that_speaks_of_its_file(tmp_path: Path) -> None:
    np.arange(8, dtype="<u2").tofile(tmp_path / "00000.ds")
    digest = seal_shard(tmp_path, "00000", [".ds"])

    def array(suffix: str, length: int) -> CheckedArray:
        return CheckedArray(tmp_path, "00000", suffix, np.dtype("<u2"), length, digest)

    assert array(".ds", 8)[:].tolist() == list(range(8))
    with pytest.raises(UserError, match=r"00000\.xxh3: says nothing of 00000\.ds with 14 bytes"):
        array(".ds", 7)[:]
    with pytest.raises(UserError, match=r"says nothing of 00000\.loss"):
        array(".loss", 8)[:]
    os.truncate(tmp_path / "00000.ds", 14)
    with pytest.raises(UserError, match=r"00000\.ds: has 14 bytes, not 16"):
        array(".ds", 8)[:]
    (tmp_path / "00000.ds").unlink()
    with pytest.raises(UserError, match=r"00000\.ds: cannot read \(No such file"):
        array(".ds", 8)[:]
    (tmp_path / "00000.xxh3").unlink()
    with pytest.raises(UserError, match=r"00000\.xxh3: cannot read the checksums \(No such file"):
        array(".ds", 8)[:]


# When files are read


def test_opening_reads_no_data_and_no_sidecar(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = large(make_store, tmp_path / "s", shards=2).folder
    opened: list[str] = []
    real = os.stat(folder / "00000.ds")
    for path in folder.iterdir():
        if path.name != "corpus.json":
            os.truncate(path, 0)
            os.truncate(path, 40_000 if path.suffix == ".ds" else 8)
    assert os.stat(folder / "00000.ds").st_size == real.st_size

    def spied(path: object, *args: object, **options: object) -> io.IOBase:
        opened.append(str(path))
        return original(path, *args, **options)  # type: ignore[call-overload,no-any-return]

    original = io.open
    monkeypatch.setattr(io, "open", spied)
    monkeypatch.setattr(builtins, "open", spied)
    store = TokenStore(folder)
    windows = Windows(store, 100)
    assert len(windows) == 400
    arrays = [store.shard_tokens(0), store.shard_tokens(1)]
    assert opened == [str(folder / "corpus.json")]
    with pytest.raises(UserError, match=r"00001\.xxh3: damaged"):
        arrays[1][:1]
    assert str(folder / "00000.xxh3") not in opened


# Other processes


def test_an_array_travels_by_name_and_checks_again(make_store: Make, tmp_path: Path) -> None:
    store = large(make_store, tmp_path / "s")
    tokens = store.shard_tokens(0)
    tokens[:]
    store.document_ends(0)
    data = pickle.dumps((store, tokens))
    assert len(data) < 2000
    flip(store.folder / "00000.ds", BLOCK)
    again_store, again = pickle.loads(data)
    assert again[:8].tolist() == list(range(2, 10))
    assert again_store.document_ends(0).tolist() == [20_000]
    for array in (again, again_store.shard_tokens(0)):
        with pytest.raises(UserError, match="bytes 16384 to 32767"):
            array[:]


def test_damage_reaches_the_reader_through_dataloader_workers(make_store: Make, tmp_path: Path) -> None:
    store = large(make_store, tmp_path / "s")
    expected = torch.from_numpy(store.shard_tokens(0)[:20_000].astype(np.int64))
    flip(store.folder / "00000.ds", 39_000)
    loader = DataLoader(Windows(store, 2000), batch_size=2, collate_fn=identity, num_workers=1)
    batches = iter(loader)
    for begin in (0, 4000, 8000, 12_000):
        assert torch.equal(next(batches)["input_ids"].flatten(), expected[begin : begin + 4000])
    with pytest.raises(UserError, match=r"00000\.ds: damaged \(bytes 32768 to 49151"):
        next(batches)


def test_checksums_of_a_file_are_those_of_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(BLOCK) * 2 + b"end")
    found = checksums_of(".x", path)
    assert (found.suffix, found.size, len(found.digests)) == (".x", 2 * BLOCK + 3, 3)
    assert found.digests[0] == found.digests[1] != found.digests[2]
