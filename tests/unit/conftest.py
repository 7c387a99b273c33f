"""Tiny models, tokenizers, files and token stores that several parts are tested on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.stage import write_manifest
from tokensieve.storage.checksums import seal_shard

EOS = 0
TEXT = [
    "The cat sat on the mat, and the dog sat by the cat.",
    "Selective training keeps the tokens that are worth learning.\n\tIt drops noise.",
    "Ünïcödé is text too: 日本語, emoji 🙂, and naïve café.",
    "def add(a, b):\n    return a + b\n",
]


@pytest.fixture(scope="session")
def bpe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 330 ids (2-byte tokens)."""
    folder = tmp_path_factory.mktemp("bpe")
    train_bpe(TEXT * 3, 330).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def word_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70,000 words w0, w1, ... (4-byte tokens), split at white space only."""
    folder = tmp_path_factory.mktemp("words")
    words = {word: i for i, word in enumerate(["<unk>", "<eos>", *(f"w{i}" for i in range(70_000))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, records: Sequence[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"text": r} if isinstance(r, str) else r, ensure_ascii=False) for r in records]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def make_store() -> Callable[..., TokenStore]:
    def make(
        folder: Path,
        shards: Sequence[Sequence[Sequence[int]]],
        *,
        sources: Sequence[int] | None = None,
        weights: Sequence[float | None] = (None,),
        dtype: str = "<u2",
        regions: Sequence[str] | None = None,
        vocab_size: int = 60_000,
    ) -> TokenStore:
        """A store by hand: shards of documents of token ids; regions, if any, follow each other token by token."""
        # Thousands of small stores need not survive a power cut.
        with mock.patch("os.fsync"):
            return write(folder, shards, sources, weights, dtype, regions, vocab_size)

    def write(
        folder: Path,
        shards: Sequence[Sequence[Sequence[int]]],
        sources: Sequence[int] | None,
        weights: Sequence[float | None],
        dtype: str,
        regions: Sequence[str] | None,
        vocab_size: int,
    ) -> TokenStore:
        folder.mkdir(parents=True, exist_ok=True)
        owner = list(sources or [0] * len(shards))
        described = []
        for i, documents in enumerate(shards):
            tokens = [token for document in documents for token in document]
            np.array(tokens, dtype=dtype).tofile(folder / f"{i:05d}.ds")
            ends = np.cumsum([len(document) for document in documents])
            ends.astype("<u8").tofile(folder / f"{i:05d}.ds.index")
            suffixes = [".ds", ".ds.index"]
            if regions is not None:
                (np.arange(len(tokens)) % len(regions)).astype("u1").tofile(folder / f"{i:05d}.region.u8")
                suffixes.append(".region.u8")
            described.append(
                {
                    "name": f"{i:05d}",
                    "source": owner[i],
                    "tokens": len(tokens),
                    "documents": len(documents),
                    "digest": seal_shard(folder, f"{i:05d}", suffixes),
                }
            )
        totals = []
        for s, weight in enumerate(weights):
            own = [shard for shard in described if shard["source"] == s]
            tokens, documents = (sum(shard[key] for shard in own) for key in ("tokens", "documents"))
            totals.append(
                {"name": f"s{s}", "weight": weight, "tokens": tokens, "documents": documents, "bytes": 4 * tokens}
            )
        outputs = {
            "token_size": np.dtype(dtype).itemsize,
            "tokens": sum(total["tokens"] for total in totals),
            "documents": sum(total["documents"] for total in totals),
            "bytes": sum(total["bytes"] for total in totals),
            "eos_token_id": 0,
            "vocab_size": vocab_size,
            "tokenizer": "hand-made",
            "regions": None if regions is None else list(regions),
            "sources": totals,
            "shards": described,
        }
        write_manifest(folder / "corpus.json", {"inputs": {}, "finished": True, "outputs": outputs})
        return TokenStore(folder)

    return make


@pytest.fixture
def store(tmp_path: Path, make_store: Callable[..., TokenStore]) -> TokenStore:
    """Two shards of random documents, 61 ids."""
    draw = np.random.default_rng(0)
    shards = [[[*draw.integers(1, 61, size).tolist(), EOS] for size in draw.integers(1, 30, 20)] for _ in range(2)]
    return make_store(tmp_path / "store", shards, vocab_size=61)


@pytest.fixture
def tiny_model() -> Callable[[int], PreTrainedModel]:
    """Makes a small Llama with 61 ids and dropout, the same for the same seed."""

    def make(seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            "llama",
            vocab_size=61,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            attention_dropout=0.1,
            bos_token_id=None,
            eos_token_id=EOS,
        )
        return AutoModelForCausalLM.from_config(config).train()

    return make
