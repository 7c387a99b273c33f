"""Tiny models and token stores that several parts are tested on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve.corpus.checksums import seal_shard
from tokensieve.corpus.store import TokenStore
from tokensieve.stage import write_manifest

EOS = 0


def make_store(folder: Path, shards: Sequence[Sequence[Sequence[int]]], vocab_size: int = 61) -> TokenStore:
    """A token store written by hand: `shards[i][j]` are the ids of a document without its EOS."""
    folder.mkdir(parents=True)
    manifests = []
    for i, documents in enumerate(shards):
        ids = np.array([token for document in documents for token in (*document, EOS)], dtype="<u2")
        ids.tofile(folder / f"{i:05d}.ds")
        np.cumsum([len(document) + 1 for document in documents]).astype("<u8").tofile(folder / f"{i:05d}.ds.index")
        digest = seal_shard(folder, f"{i:05d}", [".ds", ".ds.index"])
        manifests.append(
            {"name": f"{i:05d}", "source": 0, "tokens": len(ids), "documents": len(documents), "digest": digest}
        )
    tokens, documents = (sum(shard[key] for shard in manifests) for key in ("tokens", "documents"))
    size = {"tokens": tokens, "documents": documents, "bytes": 4 * tokens}
    outputs = {
        "token_size": 2,
        **size,
        "eos_token_id": EOS,
        "vocab_size": vocab_size,
        "tokenizer": "digest",
        "regions": None,
        "sources": [{"name": "made", "weight": None, **size}],
        "shards": manifests,
    }
    write_manifest(folder / "corpus.json", {"inputs": {}, "finished": True, "outputs": outputs})
    return TokenStore(folder)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    """Two shards of random documents, 61 ids."""
    draw = np.random.default_rng(0)
    shards = [[draw.integers(1, 61, size).tolist() for size in draw.integers(1, 30, 20)] for _ in range(2)]
    return make_store(tmp_path / "store", shards)


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
