"""Scoring a corpus: tokens a second and peak memory, against the floor and against what people do today.

    python benchmarks/score.py                        # SmolLM2-135M's shape, float32, windows of 1,024
    python benchmarks/score.py --dtype bfloat16 --rounds 5
    python benchmarks/score.py --workers              # only: two workers against one, one core each

`ours`: `Scorer.score_shard`, reading and writing included. `floor`: the backbone's forward and the chunked products of
hidden states and head weight on the very same rows, under inference_mode, and nothing else. `loop`: the plain loop
`model(input_ids, labels)` over packed windows, four a batch. `lm-eval`: `loglikelihood_rolling` over the documents'
texts (if lm-eval is installed). The text is that of the embedded default: sources of sympy (long documents) and
docstrings (short ones). Each measurement is a process of its own, so that its peak memory is its own; variants
take turns, and medians of the rounds' ratios are printed.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VARIANTS = ("floor", "ours", "loop", "lm-eval")
CORPORA = {"long": "noisy", "short": "clean"}


def make_corpora(folder: Path, shard_tokens: int) -> None:
    """Token stores of long and of short documents, with one tokenizer."""
    from tokensieve.corpus.embedded import write_embedded
    from tokensieve.corpus.tokenizers import load_tokenizer
    from tokensieve.corpus.tokenizing import tokenize_sources
    from tokensieve.recipe import ModelSection, Source, TokenizerSection

    write_embedded(folder / "text")
    sources = {name: Source(path=str(folder / "text" / f"{file}.jsonl")) for name, file in CORPORA.items()}
    section, model = TokenizerSection(train_vocab=8192), ModelSection(fresh={"model_type": "llama"})
    load_tokenizer(section, model, folder, tuple(sources.values()), 16)
    for name, source in sources.items():
        options: dict[str, Any] = {"workers": 1, "max_document_mb": 16}
        tokenize_sources([source], folder / name, folder / "tokenizer", shard_tokens=shard_tokens, **options)


def make_model(layers: int, length: int) -> Any:
    """SmolLM2-135M's shape with random weights, on the accelerator if there is one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_config(config).to(device).eval()


class Part:
    """The first tokens of a store as a store of one shard: what one measurement scores."""

    def __init__(self, store: Any, tokens: int) -> None:
        from dataclasses import replace

        self.store, self.folder = store, store.folder
        self.shards = (replace(store.shards[0], tokens=tokens),)

    def shard_tokens(self, i: int) -> Any:
        """As the store's."""
        return self.store.shard_tokens(i)[: self.shards[i].tokens]

    def document_ends(self, i: int) -> Any:
        """As the store's."""
        return self.store.document_ends(i)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of one variant, and its peak memory above that of the loaded model."""
    import torch

    from tokensieve.corpus.store import TokenStore
    from tokensieve.recipe import ContextSection
    from tokensieve.reference.scorer import Scorer

    store: Any = Part(TokenStore(arguments.folder / arguments.corpus), arguments.tokens)
    model = make_model(arguments.layers, arguments.length)
    context = ContextSection(length=arguments.length)
    scorer = Scorer(model, ["loss"], context, arguments.rows, arguments.dtype)
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16")
    run = {"ours": ours, "floor": floor, "loop": loop, "lm-eval": rolling}[arguments.variant]
    with torch.inference_mode(), autocast:  # the first call of a library is not its speed
        model.base_model(torch.zeros(1, 64, dtype=torch.long, device=model.device))
    before = peak_bytes()
    started = time.perf_counter()
    with torch.inference_mode(), autocast:
        tokens = run(arguments, store, model, scorer)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return {"rate": tokens / (time.perf_counter() - started), "memory": peak_bytes() - before}


def ours(arguments: argparse.Namespace, store: Any, model: Any, scorer: Any) -> int:
    """Scoring as `tokensieve score` does it."""
    scorer.score_shard(store, 0)
    return arguments.tokens


def floor(arguments: argparse.Namespace, store: Any, model: Any, scorer: Any) -> int:
    """The products that no scorer can do without."""
    import torch

    from tokensieve.head import default_chunk_rows

    weight = model.get_output_embeddings().weight
    size = default_chunk_rows(len(weight))
    buffer = torch.empty(0)
    for _, ids, labels in scorer._inputs(store, 0):
        hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state[:, :-1]
        rows = hidden[labels[:, 1:].to(model.device) != -100]
        with torch.autocast(model.device.type, enabled=False):
            for chunk in rows.split(size):
                if buffer.shape[:1] < (min(size, len(rows)),) or buffer.dtype != chunk.dtype:
                    buffer = torch.empty(size, len(weight), dtype=chunk.dtype, device=chunk.device)
                torch.mm(chunk, weight.to(chunk.dtype).T, out=buffer[: len(chunk)])
    return arguments.tokens


def loop(arguments: argparse.Namespace, store: Any, model: Any, scorer: Any) -> int:
    """Packed windows through `model(input_ids, labels)`, a mean loss a batch."""
    import torch

    ids = torch.from_numpy(store.shard_tokens(0)[: arguments.tokens].astype("int64")).view(-1, arguments.length)
    for batch in ids.to(model.device).split(arguments.rows):
        model(input_ids=batch, labels=batch).loss.item()
    return ids.numel()


def rolling(arguments: argparse.Namespace, store: Any, model: Any, scorer: Any) -> int:
    """lm-eval over the texts of the same documents."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.folder / "tokenizer")
    begin, ends = 0, store.document_ends(0)
    requests, tokens = [], 0
    for end in ends[ends <= arguments.tokens].tolist():
        text = tokenizer.decode(store.shard_tokens(0)[begin : end - 1].tolist())
        requests.append(Instance("loglikelihood_rolling", {}, (text,), 0))
        tokens, begin = tokens + end - begin, end
    evaluator = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=arguments.rows, max_length=arguments.length, backend="causal"
    )
    evaluator.loglikelihood_rolling(requests, disable_tqdm=True)
    return tokens


def peak_bytes() -> float:
    """The most memory this process has held so far."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def work(arguments: argparse.Namespace, out: Path, number: int, of: int, ready: Any, results: Any) -> None:
    """One worker on one core, for the comparison of two with one."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
    import torch

    from tokensieve.corpus.store import TokenStore
    from tokensieve.recipe import ContextSection
    from tokensieve.reference.making import score_stage, work_through
    from tokensieve.reference.progress import ScoringProgress
    from tokensieve.reference.scorer import Scorer
    from tokensieve.reference.store import COLUMNS
    from tokensieve.reference.workers import commit_shard

    torch.set_num_threads(1)
    store = TokenStore(arguments.folder / "sharded")
    model = make_model(arguments.layers, arguments.length)
    scorer = Scorer(model, ["loss"], ContextSection(length=arguments.length), 1, arguments.dtype)
    model(input_ids=torch.zeros(1, 64, dtype=torch.long))

    def score(i: int, tell: Any) -> None:
        values = scorer.score_shard(store, i, tell)
        commit_shard(out, store.shards[i].name, {COLUMNS["loss"].suffix: values["loss"]})

    ready.wait()
    started = time.perf_counter()
    with score_stage(out, {}, {}, store) as workers:
        assert workers is not None
        with ScoringProgress(workers, store, model, arguments.dtype) as progress:
            work_through(workers, store, score, (number, of), progress)
    results.put(time.perf_counter() - started)


def compare_workers(arguments: argparse.Namespace) -> None:
    """Seconds of two workers and of one until all shards of one store are in their places.

    The check at the end is left out: it takes 16 windows whatever the corpus holds.
    """
    context = multiprocessing.get_context("spawn")
    ratios = []
    for turn in range(arguments.rounds):
        seconds = {}
        for count in (1, 2):
            out = arguments.folder / f"scores-{turn}-{count}"
            ready, results = context.Barrier(count), context.Queue()
            options = [(arguments, out, number, count, ready, results) for number in range(count)]
            processes = [context.Process(target=work, args=option) for option in options]
            for process in processes:
                process.start()
            seconds[count] = max(results.get() for _ in processes)
            for process in processes:
                process.join()
        sizes = [path.stat().st_size for path in out.iterdir() if path.is_file() and path.suffix != ".json"]
        ratios.append(seconds[1] / seconds[2])
        print(f"  round {turn}: one worker {seconds[1]:.1f} s, two {seconds[2]:.1f} s, {ratios[-1]:.2f} times as fast")
    print(f"two workers against one, one core each: {statistics.median(ratios):.2f} times as fast")
    tokens = json.loads((arguments.folder / "sharded" / "corpus.json").read_text())["outputs"]["tokens"]
    print(
        f"{sum(sizes) / tokens:.3f} bytes a token on disk (loss alone; {len(sizes) // 2} shards of {tokens:,} tokens)"
    )


def main() -> None:
    """Run the variants in turn and print the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=4, help="windows a batch")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=list(CORPORA))
    parser.add_argument("--workers", action="store_true", help="only compare two workers with one")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        arguments.folder = Path(scratch)
        make_corpora(arguments.folder, 2**28)
        if not arguments.workers:
            compare_variants(arguments)
        shard_stores(arguments)
        compare_workers(arguments)


def shard_stores(arguments: argparse.Namespace) -> None:
    """A store of 16 equal shards of short documents, for workers to share."""
    from tokensieve.corpus.tokenizing import tokenize_sources
    from tokensieve.recipe import Source

    texts = (arguments.folder / "text" / "clean.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (arguments.folder / "some.jsonl").write_text("".join(texts[: len(texts) // 15]), encoding="utf-8")
    tokenize_sources(
        [Source(path=str(arguments.folder / "some.jsonl"))],
        arguments.folder / "sharded",
        arguments.folder / "tokenizer",
        shard_tokens=2 * arguments.length + 64,
        workers=1,
        max_document_mb=16,
    )


def compare_variants(arguments: argparse.Namespace) -> None:
    """Each variant on each corpus, in turn."""
    import torch

    variants = [name for name in VARIANTS if name != "lm-eval" or importlib.util.find_spec("lm_eval")]
    where = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"{where}, torch {torch.__version__}, {arguments.dtype}")
    print(f"windows of {arguments.length}, {arguments.rows} a batch, {arguments.tokens:,} tokens")
    for corpus in arguments.corpora:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        for _ in range(arguments.rounds):
            for variant in variants:
                found[variant].append(measured(arguments, variant, corpus))
        print(f"{corpus} documents   {'tokens/s':>10} {'ours / it':>10} {'memory, MB':>11} {'ours / it':>10}")
        for variant in variants:
            rate, memory = (statistics.median(item[key] for item in found[variant]) for key in ("rate", "memory"))
            pairs = list(zip(found["ours"], found[variant], strict=True))
            faster = statistics.median(mine["rate"] / other["rate"] for mine, other in pairs)
            smaller = statistics.median(mine["memory"] / max(other["memory"], 1) for mine, other in pairs)
            print(f"  {variant:<12} {rate:>12,.0f} {faster:>10.2f} {memory / 1e6:>11,.0f} {smaller:>10.2f}", flush=True)


def measured(arguments: argparse.Namespace, variant: str, corpus: str) -> dict[str, float]:
    """One measurement in a process of its own."""
    names = ("layers", "length", "rows", "tokens", "dtype", "folder")
    options = [text for name in names for text in (f"--{name}", str(getattr(arguments, name)))]
    command = [sys.executable, __file__, "--variant", variant, "--corpus", corpus, *options]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
