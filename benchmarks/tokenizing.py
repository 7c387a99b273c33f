"""How fast tokenizing is: text file to token store, against `tokenizers` alone on the same text and cores.

    python benchmarks/tokenizing.py [--megabytes 20] [--cores 2]

The text is that of the installed sympy, as JSON lines; the tokenizer is a byte-level BPE trained on it. The baseline
is one call of `encode_batch_fast` on texts that are in memory already, its results thrown away. Ours reads and
parses the file, encodes, converts, writes and joins. Both are held to the same cores. Repeats are interleaved;
medians are printed, and minima, which say more on a machine that others use at the same time.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

GOAL = 0.9
"""Least speed relative to the baseline."""


def sympy_texts(megabytes: int) -> list[str]:
    spec = importlib.util.find_spec("sympy")
    if spec is None or spec.origin is None:
        raise SystemExit("sympy is not installed; it comes with tokensieve")
    texts = [path.read_text("utf-8") for path in sorted(Path(spec.origin).parent.rglob("*.py"))]
    kept: list[str] = []
    size = 0
    while size < megabytes * 1_000_000:
        text = texts[len(kept) % len(texts)]
        kept.append(text)
        size += len(text.encode())
    return kept


def processor() -> str:
    """The processor's name and the number of usable cores."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--vocabulary", type=int, default=16_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    os.environ["RAYON_NUM_THREADS"] = str(arguments.cores)

    from tokensieve.corpus.tokenizers import open_tokenizer, train_bpe
    from tokensieve.corpus.tokenizing import tokenize_sources
    from tokensieve.recipe import Source

    texts = sympy_texts(arguments.megabytes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train_bpe(texts[:400], arguments.vocabulary).save_pretrained(folder / "tokenizer")
        with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        backend = open_tokenizer(folder / "tokenizer").backend_tokenizer
        source = Source(path=str(folder / "text.jsonl"))
        alone, ours = [], []
        tokens = 0
        for repeat in range(arguments.repeats + 1):
            begin = time.perf_counter()
            backend.encode_batch_fast(texts, add_special_tokens=False)
            middle = time.perf_counter()
            store = tokenize_sources(
                [source],
                folder / f"store{repeat}",
                folder / "tokenizer",
                shard_tokens=2**28,
                workers=1,
                max_document_mb=256,
            )
            end = time.perf_counter()
            tokens = store.tokens
            if repeat:  # the first round warms caches
                alone.append(middle - begin)
                ours.append(end - middle)
    size = sum(len(text.encode()) for text in texts) / 1e6
    baseline, own = statistics.median(alone), statistics.median(ours)
    print(f"{processor()}; {arguments.cores} threads; {size:.1f} MB of text, {tokens:,} tokens")
    print(f"{'':<28}{'seconds':>9}{'MB/s':>8}{'Mtok/s':>8}")
    for name, seconds in (("tokenizers alone, in memory", baseline), ("file to token store", own)):
        print(f"{name:<28}{seconds:>9.2f}{size / seconds:>8.2f}{tokens / seconds / 1e6:>8.2f}")
    ratio = baseline / own
    print(f"speed relative to the baseline, best repeats: {min(alone) / min(ours):.2f}")
    print(f"speed relative to the baseline: {ratio:.2f} (goal {GOAL}: {'met' if ratio >= GOAL else 'missed'})")
    print("repeats: " + ", ".join(f"{a / o:.2f}" for a, o in zip(alone, ours, strict=True)))


if __name__ == "__main__":
    main()
