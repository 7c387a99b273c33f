"""How fast the window reader is: tokens a second on one core, against merely copying the same tokens.

    python benchmarks/windows.py [--length 2048] [--batch 8]

Makes a store of random tokens (documents of about 600 tokens, one float16 column) in a temporary folder and
reads it in shuffled batches. The baseline gathers the same windows into int64 and does nothing more: no
labels, positions, columns or token indices. Repeats are interleaved; medians are printed.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tokensieve.corpus import TokenStore, Windows, sample_order
from tokensieve.stage import write_json

GOAL = 20e6
"""Tokens a second on one core (B = 8, T = 2048)."""


def make_store(folder: Path, shards: int, shard_tokens: int, mean_document: int) -> TokenStore:
    generator = np.random.default_rng(0)
    described = []
    for i in range(shards):
        name = f"{i:05d}"
        generator.integers(0, 50_000, shard_tokens, dtype=np.uint16).tofile(folder / f"{name}.ds")
        ends = np.unique(generator.integers(1, shard_tokens, shard_tokens // mean_document))
        ends = np.append(ends, shard_tokens).astype("<u8")
        ends.tofile(folder / f"{name}.ds.index")
        described.append({"name": name, "source": 0, "tokens": shard_tokens, "documents": len(ends), "digest": ""})
    tokens = shards * shard_tokens
    documents = sum(shard["documents"] for shard in described)
    source = {"name": "random", "weight": None, "tokens": tokens, "documents": documents, "bytes": 4 * tokens}
    outputs = {
        "token_size": 2,
        "tokens": tokens,
        "documents": documents,
        "bytes": 4 * tokens,
        "eos_token_id": 0,
        "vocab_size": 50_000,
        "tokenizer": "random",
        "regions": None,
        "sources": [source],
        "shards": described,
    }
    write_json(folder / "corpus.json", {"inputs": {}, "finished": True, "outputs": outputs})
    return TokenStore(folder)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    T, B = arguments.length, arguments.batch
    rows = []
    for mean_document in (600, 20):
        with tempfile.TemporaryDirectory() as temporary:
            store = make_store(Path(temporary), 4, 8_000_000, mean_document)
            losses = [np.full(shard.tokens, 1.5, dtype=np.float16) for shard in store.shards]
            samples = sum(shard.tokens // T for shard in store.shards) // B * B
            order = sample_order(store, T, samples, seed=0)
            windows = Windows(store, T, columns={"reference_loss": losses}, order=order)
            batches = np.arange(samples).reshape(-1, B).tolist()[: max(1, 8_000_000 // (B * T))]
            maps = [np.asarray(store.shard_tokens(i)) for i in range(len(store.shards))]
            per_shard = int(store.windows_per_shard(T)[0])

            def copy(
                batch: list[int], maps: list = maps, order: np.ndarray = order, per_shard: int = per_shard
            ) -> torch.Tensor:
                ids = np.empty((B, T), dtype=np.int64)
                for row, i in enumerate(batch):
                    shard, window = divmod(int(order[i]), per_shard)
                    ids[row] = maps[shard][window * T : (window + 1) * T]
                return torch.from_numpy(ids)

            readers: dict[str, Callable[[list[int]], object]] = {
                "copy": copy,
                "windows": windows.__getitems__,
            }
            taken: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(arguments.repeats):
                for name, read in readers.items():
                    taken[name].append(seconds(read, batches))
            tokens = len(batches) * B * T
            speed = {name: tokens / statistics.median(times) for name, times in taken.items()}
            rows.append((mean_document, speed["windows"], speed["copy"]))

    print(f"{processor()}; one thread; B = {B}, T = {T}, one float16 column; numpy {np.__version__}")
    print(f"{'mean document':>14} {'windows Mtok/s':>15} {'copy Mtok/s':>12} {'windows/copy':>13} {'goal':>6}")
    for mean_document, ours, baseline in rows:
        met = "met" if ours >= GOAL else "missed"
        print(f"{mean_document:>9} {ours / 1e6:>15.1f} {baseline / 1e6:>12.1f} {ours / baseline:>13.2f} {met:>7}")


if __name__ == "__main__":
    main()
