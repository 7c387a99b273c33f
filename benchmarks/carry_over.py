"""How well carried-over scores agree with native ones, on real text (docs/carry-over.md).

    python benchmarks/carry_over.py --out DIR [--text FILE.jsonl.gz] [--vocabularies 2000 6000]

For each vocabulary, a byte-level BPE and three models of equal shape are trained on the same text by the stages of
the product: two references of different seeds, and a student that saw a third of it. Held-out text is then scored in
one tokenization (a) natively, (b) natively by the other seed, which shows how far two references differ anyway, and (c)
by the reference with the other tokenizer, carried over. (b) is the fair ceiling of (c). Excess is the student's loss
less the reference's; the overlap is that of the 60 % of tokens with the highest excess. Without --text, the
sources of the installed sympy are read. Finished stages are not repeated.
"""

import argparse
import gzip
import importlib.util
import json
import random
import time
from pathlib import Path

import numpy as np

from tokensieve import pipeline
from tokensieve.carry_over.carry import FRONT
from tokensieve.carry_over.foreign import carry_over
from tokensieve.carry_over.foreign_tokens import batches
from tokensieve.carry_over.token_pair import Pair, open_pair
from tokensieve.corpus.store import TokenStore
from tokensieve.recipe import (
    ContextSection,
    CorpusSection,
    ModelSection,
    Recipe,
    ReferenceSection,
    ScoreSection,
    Source,
    TokenizerSection,
    TrainSection,
)
from tokensieve.reference.store import ScoreStore
from tokensieve.training.reference import load_reference

RATIO = 0.6
MODELS = (("native", 0, 1.0), ("other seed", 1, 1.0), ("student", 2, 0.3))
"""Name, seed, passes over the training text."""
SHAPE = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def read_texts(path: Path | None) -> list[str]:
    """The documents of a JSONL file, or the sources of sympy."""
    if path is not None:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in file]
    spec = importlib.util.find_spec("sympy")
    if spec is None or spec.origin is None:
        raise SystemExit("sympy is not installed; it comes with tokensieve")
    return [file.read_text("utf-8") for file in sorted(Path(spec.origin).parent.rglob("*.py"))]


def write_texts(out: Path, texts: list[str], megabytes: float) -> None:
    """`held.jsonl`, 0.6 MB, and `train.jsonl`, of documents drawn at random."""
    out.mkdir(parents=True, exist_ok=True)
    random.Random(0).shuffle(texts)
    for name, budget in (("held", 600_000), ("train", megabytes * 1e6)):
        lines, size = [], 0
        while texts and size < budget:
            size += len(texts[-1])
            lines.append(json.dumps({"text": texts.pop()}, ensure_ascii=False) + "\n")
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def recipe_for(out: Path, name: str, vocabulary: int, seed: int, passes: float, length: int) -> Recipe:
    """A reference trained on `train.jsonl`, for the corpus `held.jsonl`."""
    trainer = {
        "per_device_train_batch_size": 16,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20,
        "save_strategy": "no",
    }
    train = (Source(path=str(out / "train.jsonl")),)
    return Recipe(
        out=str(out / f"{vocabulary} {name}"),
        seed=seed,
        tokenizer=TokenizerSection(train_vocab=vocabulary),
        context=ContextSection(length=length),
        model=ModelSection(fresh={**SHAPE, "max_position_embeddings": length}),
        corpus=CorpusSection(sources=(Source(path=str(out / "held.jsonl")),)),
        reference=ReferenceSection(sources=train, epochs=passes, trainer=trainer),
        train=TrainSection(tokens=16 * length),
    )


def scored(recipe: Recipe) -> np.ndarray:
    """Losses of the held-out text by the recipe's reference, all shards."""
    pipeline.tokenize(recipe)
    pipeline.reference(recipe)
    return joined(pipeline.score(recipe))


def joined(store: ScoreStore) -> np.ndarray:
    return np.concatenate([column[:] for column in store.column("loss")]).astype(np.float64)


def carried(recipe: Recipe, other: Recipe, fronts: list[float]) -> dict[str, np.ndarray]:
    """Losses of `recipe`'s held-out text by the reference of `other`, by exponent of the sharing."""
    corpus = TokenStore(recipe.folder / "corpus")
    pair = open_pair(recipe.folder / "tokenizer", other.folder / "tokenizer")
    folder = recipe.folder / "scores" / "carried"
    section = ScoreSection(carry_over=True)
    store = carry_over(section, recipe.context, corpus, load_reference(other), pair, folder)
    outputs = store.outputs
    print(
        f"foreign tokens {outputs['foreign_tokens']:,}, documents not carried {outputs['documents_not_carried']}, "
        f"largest relative change of a document's total {outputs['gate']['largest_change_of_a_total']:.1e}"
    )
    result = {f"carried (front {FRONT}, the default)": joined(store)}
    foreign = TokenStore(folder / "foreign" / "corpus")
    losses = ScoreStore(folder / "foreign" / "scores", foreign, recipe.context).column("loss")
    for front in fronts:
        parts = [shared_out(corpus, i, losses[i][:], pair, front) for i in range(len(corpus.shards))]
        result[f"carried (front {front})"] = np.concatenate(parts)
    return result


def shared_out(corpus: TokenStore, i: int, losses: np.ndarray, pair: Pair, front: float) -> np.ndarray:
    parts, done = [], 0
    for documents in batches(corpus, i):
        aligned = pair.align(documents)
        lengths = aligned.foreign_ids(pair.dtype)[1]
        end = done + int(lengths.sum())
        parts.append(aligned.carry(losses[done:end], lengths, front))
        done = end
    return np.concatenate(parts)


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort(kind="stable").argsort(kind="stable")


def report(name: str, losses: np.ndarray, native: np.ndarray, student: np.ndarray) -> None:
    """One line of the table."""
    both = np.isfinite(losses) & np.isfinite(native) & np.isfinite(student)
    losses, native, student = losses[both], native[both], student[both]
    keep = round(RATIO * len(losses))
    chosen, wanted = (np.argsort(loss - student, kind="stable")[:keep] for loss in (losses, native))
    overlap = len(np.intersect1d(chosen, wanted)) / keep
    row = [np.corrcoef(losses, native)[0, 1], np.corrcoef(ranks(losses), ranks(native))[0, 1]]
    row += [np.abs(losses - native).mean(), np.corrcoef(student - losses, student - native)[0, 1], overlap]
    print(f"| {name:<32} | {losses.mean():.3f} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


def speed(corpus: TokenStore, pair: Pair, foreign: int) -> None:
    """Retokenizing and sharing, without the reference's forward pass."""
    begin = time.perf_counter()
    aligned = [pair.align(documents) for i in range(len(corpus.shards)) for documents in batches(corpus, i)]
    middle = time.perf_counter()
    for part in aligned:
        part.carry(np.ones(len(part.foreign_ids(pair.dtype)[0])), part.foreign_ids(pair.dtype)[1])
    end = time.perf_counter()
    print(
        f"decode, encode twice: {corpus.tokens / (middle - begin) / 1e6:.2f} Mtok/s; "
        f"share out: {corpus.tokens / (end - middle) / 1e6:.2f} Mtok/s ({foreign:,} foreign tokens)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--megabytes", type=float, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--vocabularies", type=int, nargs=2, default=(2000, 6000))
    parser.add_argument("--fronts", type=float, nargs="*", default=(1.0, 0.7, 0.5, 0.25))
    arguments = parser.parse_args()
    if not (arguments.out / "train.jsonl").exists():
        write_texts(arguments.out, read_texts(arguments.text), arguments.megabytes)
    first, second = arguments.vocabularies
    recipes, losses = {}, {}
    for vocabulary in (first, second):
        for name, seed, passes in MODELS:
            recipe = recipe_for(arguments.out, name, vocabulary, seed, passes, arguments.length)
            recipes[vocabulary, name], losses[vocabulary, name] = recipe, scored(recipe)
    for own, other in ((first, second), (second, first)):
        native, student = losses[own, "native"], losses[own, "student"]
        print(
            f"\nstudent's vocabulary {own}, reference's {other}; native mean loss {np.nanmean(native):.3f} nats a token"
        )
        rows = {"same tokenizer, other seed": losses[own, "other seed"]}
        rows |= carried(recipes[own, "native"], recipes[other, "native"], list(arguments.fronts))
        print("| scores | mean | r | rank r | mean abs. difference | r of the excess | overlap of the top 60 % |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, values in rows.items():
            report(name, values, native, student)
        corpus = TokenStore(recipes[own, "native"].folder / "corpus")
        pair = open_pair(recipes[own, "native"].folder / "tokenizer", recipes[other, "native"].folder / "tokenizer")
        speed(corpus, pair, TokenStore(recipes[other, "native"].folder / "corpus").tokens)


if __name__ == "__main__":
    main()
