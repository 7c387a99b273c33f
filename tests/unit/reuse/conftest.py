"""A run's folder with a corpus of two sources, its tokenizer, and scores written by hand."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer, train_bpe
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.recipe import Source
from tokensieve.reference.store import COLUMNS, ScoreStore, corpus_identity
from tokensieve.stage import write_manifest
from tokensieve.storage.checksums import seal_shard

LENGTH = 16


@dataclass
class MadeRun:
    out: Path
    corpus: TokenStore
    scores: ScoreStore
    texts: list[str]
    """Of all documents, in the corpus's order."""


def documents(run: MadeRun) -> list[tuple[int, int, np.ndarray, dict[str, np.ndarray]]]:
    """(shard, number, tokens, columns) of each document, read the plain way."""
    found = []
    for i, shard in enumerate(run.corpus.shards):
        tokens = np.fromfile(run.corpus.folder / f"{shard.name}.ds", dtype="<u2")
        ends = np.fromfile(run.corpus.folder / f"{shard.name}.ds.index", dtype="<u8").astype(int)
        columns = {
            name: np.fromfile(run.scores.folder / (shard.name + COLUMNS[name].suffix), dtype=COLUMNS[name].dtype)
            for name in run.scores.columns
        }
        for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            part = {name: values[begin:end] for name, values in columns.items()}
            found.append((i, number, tokens[begin:end], part))
    return found


def write_scores(folder: Path, corpus: TokenStore, seed: int = 0) -> ScoreStore:
    """Random scores of the tokens that windows of 16 score, but for one document a shard."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    shards = []
    for i, shard in enumerate(corpus.shards):
        live = np.zeros(shard.tokens, dtype=bool)
        live[: shard.tokens // LENGTH * LENGTH] = True
        live[::LENGTH] = False
        live[np.concatenate([[0], corpus.document_ends(i)[:-1]])] = False
        live[slice(*corpus.document_ends(i)[2:4])] = False  # a document without any score
        values = {
            "loss": np.where(draw.random(shard.tokens) < 0.1, 0, draw.gamma(1.0, 2.0, shard.tokens)),
            "entropy": draw.gamma(2.0, 1.0, shard.tokens),
            "correct": draw.integers(0, 2, shard.tokens),
        }
        for name, column in values.items():
            kind = COLUMNS[name]
            stored = column.astype(kind.dtype)
            stored.view(f"<u{kind.dtype.itemsize}")[~live] = kind.never_scored
            stored.tofile(folder / (shard.name + kind.suffix))
        digest = seal_shard(folder, shard.name, [COLUMNS[name].suffix for name in values])
        shards.append({"name": shard.name, "tokens": shard.tokens, "scored": int(live.sum()), "digest": digest})
    inputs = {
        "corpus": corpus_identity(corpus),
        "context": {"length": LENGTH, "document_mask": True},
        "reference": "0123456789abcdef" * 2,
        "dtype": "float32",
        "columns": list(COLUMNS),
    }
    outputs = {
        "columns": list(COLUMNS),
        "scored_tokens": sum(shard["scored"] for shard in shards),
        "shards": shards,
        "gate": {"windows": 16, "largest_difference": 0.0007},
    }
    write_manifest(folder / "scores.json", {"inputs": inputs, "finished": True, "outputs": outputs})
    return ScoreStore(folder, corpus)


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    """Two sources, several shards, documents of 1 to about 120 tokens."""
    draw = np.random.default_rng(1)
    words = ["cat", "dog", "naïve café", "日本語 🙂", "x = [1, 2]", "[/b]", "line\nbreak", "the", "a"]
    texts = [" ".join(draw.choice(words, size)) for size in draw.integers(1, 40, 60)]
    texts[3] = "x"
    out = tmp_path / "out"
    tokenizer = train_bpe(texts, 300)
    tokenizer.save_pretrained(out / "tokenizer")
    assert open_tokenizer(out / "tokenizer").eos_token_id == 0
    sources = []
    for name, part in (("web", texts[:40]), ("books [b]", texts[40:])):
        path = tmp_path / f"{len(sources)}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
        sources.append(Source(path=str(path), name=name.split()[0]))
    corpus = tokenize_sources(
        sources, out / "corpus", out / "tokenizer", shard_tokens=700, workers=1, max_document_mb=1
    )
    assert len(corpus.shards) >= 4
    return MadeRun(out, corpus, write_scores(out / "scores" / "reference", corpus), texts)
