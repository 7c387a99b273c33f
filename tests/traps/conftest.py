"""A tiny random model for the traps, and batches for it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve import SelectionPolicy, make_selective
from tokensieve.selective import SelectiveHandle

VOCABULARY = 61


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """Makes a Llama of 61 ids in train mode, the same at each call; fields of its configuration may be given."""

    def make(dtype: torch.dtype = torch.float32, **more: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama",
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "bos_token_id": None,
                "eos_token_id": 0,
                "initializer_range": 0.3,
                **more,
            },
        )
        return AutoModelForCausalLM.from_config(config, dtype=dtype).train()

    return make


@pytest.fixture
def batch() -> Callable[..., dict[str, Tensor]]:
    """Makes rows of random ids; their first tokens are no candidates."""

    def make(rows: int = 3, length: int = 12, seed: int = 1) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, VOCABULARY, (rows, length), generator=generator)
        labels = ids.clone()
        labels[:, 0] = -100
        reference = torch.rand(rows, length, generator=generator) * 6
        return {"input_ids": ids, "labels": labels, "reference_loss": reference}

    return make


@pytest.fixture
def selective() -> Iterator[Callable[..., SelectiveHandle]]:
    """Patches a model, and keeps its choices in `last_selection`."""
    handles = []

    def patch(model: PreTrainedModel, policy: SelectionPolicy | None = None) -> SelectiveHandle:
        handles.append(make_selective(model, policy or SelectionPolicy()))
        handles[-1].keep_selection = True
        return handles[-1]

    yield patch
    for handle in handles:
        handle.remove()
