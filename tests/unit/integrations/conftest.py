"""A tokenizer made by hand, rows of random tokens, and random models; nothing is fetched."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 61
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL looks a model's card up, and reports its use, unless told not to."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("CI", "1")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., PreTrainedModel]:
    """Makes a tiny random model without dropout, the same for the same seed."""

    def make(seed: int = 0, name: str = "llama", **more: Any) -> PreTrainedModel:
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**LLAMA, **more}))

    return make


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0 ... w60; w0 ends a text, w2 pads."""
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w1"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="w0", pad_token="w2", unk_token="w1")


@pytest.fixture(scope="session")
def rows() -> Callable[..., Dataset]:
    """Makes rows of random ids with losses that float16 holds exactly; entry 0 was never scored."""

    def make(count: int = 8, shortest: int = 4, longest: int = 16, seed: int = 0) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
        ids = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
        losses = [(torch.randint(0, 512, (length,), generator=generator) / 64).tolist() for length in lengths]
        return Dataset.from_dict({"input_ids": ids, "reference_loss": [[float("nan"), *row[1:]] for row in losses]})

    return make
