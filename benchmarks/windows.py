"""How fast the window reader is, what its checksums cost, and how soon ten billion tokens are open.

    python benchmarks/windows.py [--length 2048] [--batch 8]

Makes a store of random tokens (documents of about 600 or 20 tokens, one float16 column) in a temporary folder and
reads it in shuffled batches on one core. "copy" gathers the same windows into int64 and does nothing more: no
labels, positions, columns or token indices. "unchecked" is the same reader over plain memory maps; "first" is a
reader that was just opened, which compares every block with its checksum, and "later" one that has done so. All
files are in the page cache. Repeats are interleaved; medians are printed. The last section opens a store of ten
billion tokens (sparse files) and reads random windows from it.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from tokensieve.corpus import TokenStore, Windows, sample_order
from tokensieve.stage import write_manifest
from tokensieve.storage.checksums import BLOCK, CheckedArray, FileChecksums, checksums_of, seal_shard, write_sidecar

GOAL = 20e6
"""Tokens a second on one core (B = 8, T = 2048), checked before."""
GOAL_OPEN = 1.0
"""Seconds to open ten billion tokens."""

LARGE_TOKENS = 10_000_000_000
LARGE_SHARD = 2**28


class Unchecked(TokenStore):
    """The same store over plain memory maps."""

    def shard_tokens(self, i: int) -> np.ndarray:  # type: ignore[override]
        """The whole shard, mapped."""
        path = self.folder / f"{self.shards[i].name}.ds"
        return np.asarray(np.memmap(path, dtype=self.token_dtype, mode="r"))

    def document_ends(self, i: int) -> np.ndarray:
        """Mapped, not looked at."""
        return np.asarray(np.memmap(self.folder / f"{self.shards[i].name}.ds.index", dtype="<i8", mode="r"))


def write_store(folder: Path, shards: Sequence[dict[str, int | str]]) -> None:
    tokens, documents = (sum(int(shard[key]) for shard in shards) for key in ("tokens", "documents"))
    size = {"tokens": tokens, "documents": documents, "bytes": 4 * tokens}
    outputs = {
        "token_size": 2,
        **size,
        "eos_token_id": 0,
        "vocab_size": 50_000,
        "tokenizer": "random",
        "regions": None,
        "sources": [{"name": "random", "weight": None, **size}],
        "shards": list(shards),
    }
    write_manifest(folder / "corpus.json", {"inputs": {}, "finished": True, "outputs": outputs})


def make_store(folder: Path, shards: int, shard_tokens: int, mean_document: int) -> list[CheckedArray]:
    """A token store in `folder`; returns its column of losses, which lies in `folder/scores`."""
    generator = np.random.default_rng(0)
    described: list[dict[str, int | str]] = []
    losses = []
    (folder / "scores").mkdir()
    for i in range(shards):
        name = f"{i:05d}"
        generator.integers(0, 50_000, shard_tokens, dtype=np.uint16).tofile(folder / f"{name}.ds")
        ends = np.unique(generator.integers(1, shard_tokens, shard_tokens // mean_document))
        ends = np.append(ends, shard_tokens).astype("<u8")
        ends.tofile(folder / f"{name}.ds.index")
        digest = seal_shard(folder, name, [".ds", ".ds.index"])
        described.append({"name": name, "source": 0, "tokens": shard_tokens, "documents": len(ends), "digest": digest})
        np.full(shard_tokens, 1.5, dtype="<f2").tofile(folder / "scores" / f"{name}.loss.f16")
        digest = seal_shard(folder / "scores", name, [".loss.f16"])
        losses.append(CheckedArray(folder / "scores", name, ".loss.f16", np.dtype("<f2"), shard_tokens, digest))
    write_store(folder, described)
    return losses


def processor() -> str:
    """The processor's name and the number of usable cores."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def seconds(read: Callable[[list[int]], object], batches: list[list[int]]) -> float:
    begin = time.perf_counter()
    for batch in batches:
        read(batch)
    return time.perf_counter() - begin


def measure(folder: Path, T: int, B: int, repeats: int, mean_document: int) -> dict[str, float]:
    """Tokens a second of each reader."""
    columns = make_store(folder, 4, 8_000_000, mean_document)
    checked, unchecked = TokenStore(folder), Unchecked(folder)
    mapped = [np.asarray(np.memmap(column.path, dtype="<f2", mode="r")) for column in columns]
    samples = sum(shard.tokens // T for shard in checked.shards) // B * B
    order = sample_order(checked, T, samples, seed=0)
    batches = np.arange(samples).reshape(-1, B).tolist()
    maps = [unchecked.shard_tokens(i) for i in range(len(unchecked.shards))]
    per_shard = int(checked.windows_per_shard(T)[0])

    def copy(batch: list[int]) -> torch.Tensor:
        ids = np.empty((B, T), dtype=np.int64)
        for row, i in enumerate(batch):
            shard, window = divmod(int(order[i]), per_shard)
            ids[row] = maps[shard][window * T : (window + 1) * T]
        return torch.from_numpy(ids)

    taken: dict[str, list[float]] = {name: [] for name in ("copy", "unchecked", "first", "later")}
    plain = Windows(unchecked, T, columns={"reference_loss": mapped}, order=order)
    for _ in range(repeats):
        opened = [
            CheckedArray(folder / "scores", array.path.name[:5], ".loss.f16", array.dtype, len(array), array._digest)
            for array in columns
        ]
        fresh = Windows(TokenStore(folder), T, columns={"reference_loss": opened}, order=order)
        taken["copy"].append(seconds(copy, batches))
        taken["unchecked"].append(seconds(plain.__getitems__, batches))
        taken["first"].append(seconds(fresh.__getitems__, batches))
        taken["later"].append(seconds(fresh.__getitems__, batches))
    return {name: len(batches) * B * T / statistics.median(times) for name, times in taken.items()}


def make_large(folder: Path) -> None:
    """Ten billion zeros in sparse files, with right checksums."""
    described: list[dict[str, int | str]] = []
    zeros = xxhash.xxh3_64_intdigest(bytes(BLOCK))
    for i, tokens in enumerate([LARGE_SHARD] * (LARGE_TOKENS // LARGE_SHARD) + [LARGE_TOKENS % LARGE_SHARD]):
        name = f"{i:05d}"
        (folder / f"{name}.ds").touch()
        os.truncate(folder / f"{name}.ds", 2 * tokens)
        digests = np.full(-(-2 * tokens // BLOCK), zeros, dtype="<u8")
        if 2 * tokens % BLOCK:
            digests[-1] = xxhash.xxh3_64_intdigest(bytes(2 * tokens % BLOCK))
        ends = np.append(np.arange(2**20, tokens, 2**20), tokens).astype("<u8")
        ends.tofile(folder / f"{name}.ds.index")
        index = checksums_of(".ds.index", folder / f"{name}.ds.index")
        digest = write_sidecar(folder / f"{name}.xxh3", [FileChecksums(".ds", 2 * tokens, digests), index])
        described.append({"name": name, "source": 0, "tokens": tokens, "documents": len(ends), "digest": digest})
    write_store(folder, described)


def anonymous_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure_large(folder: Path, T: int, B: int, repeats: int) -> None:
    make_large(folder)
    on_disk = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    sidecars = sum(path.stat().st_size for path in folder.glob("*.xxh3"))
    opening = []
    for _ in range(repeats):
        begin = time.perf_counter()
        windows = Windows(TokenStore(folder), T)
        opening.append(time.perf_counter() - begin)
    draw = np.random.default_rng(0)
    # Every shard once: from then on its checksums are in memory.
    windows.__getitems__(list(range(0, len(windows), 10_000)))
    before = anonymous_memory()
    batches = [draw.integers(0, len(windows), B).tolist() for _ in range(4096 // B)]
    taken = seconds(windows.__getitems__, batches)
    grown = anonymous_memory() - before
    windows_read = len(batches) * B
    print(
        f"\n{LARGE_TOKENS:,} tokens in {len(windows.store.shards)} shards ({on_disk / 1e6:.0f} MB on disk, "
        f"{sidecars / 1e6:.1f} MB of checksums):"
    )
    median = statistics.median(opening)
    met = "met" if median < GOAL_OPEN else "missed"
    print(f"  opened in {median * 1e3:.1f} ms (goal {GOAL_OPEN:g} s: {met})")
    print(
        f"  {windows_read} random windows of {T} tokens: {taken / windows_read * 1e3:.3f} ms a window on first touch, "
        f"anonymous memory {grown / 1e6:+.1f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    T, B = arguments.length, arguments.batch
    print(f"{processor()}; one thread; B = {B}, T = {T}, one float16 column; numpy {np.__version__}; Mtokens/s")
    print(
        f"{'mean document':>14} {'copy':>7} {'unchecked':>10} {'first':>7} {'later':>7} "
        f"{'later/unchecked':>16} {'goal':>7}"
    )
    for mean_document in (600, 20):
        with tempfile.TemporaryDirectory() as temporary:
            speed = measure(Path(temporary), T, B, arguments.repeats, mean_document)
        met = "met" if speed["later"] >= GOAL else "missed"
        print(
            f"{mean_document:>14} {speed['copy'] / 1e6:>7.1f} {speed['unchecked'] / 1e6:>10.1f} "
            f"{speed['first'] / 1e6:>7.1f} {speed['later'] / 1e6:>7.1f} "
            f"{speed['later'] / speed['unchecked']:>16.2f} {met:>7}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        measure_large(Path(temporary), T, B, arguments.repeats)


if __name__ == "__main__":
    main()
