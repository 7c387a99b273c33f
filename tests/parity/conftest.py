"""Tiny random models of every architecture, a batch for them, and losses through full logits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve import make_selective

VOCABULARY = 61
FLOAT_COLUMNS = ("reference_loss", "reference_entropy", "history_loss")
_IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
_MHA = {**_IDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_GQA = {**_MHA, "num_key_value_heads": 1, "head_dim": 8}
_MOE = {**_GQA, "num_experts_per_tok": 2, "output_router_logits": True, "router_aux_loss_coef": 0.3}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _GQA,
    "llama, tied": {**_GQA, "tie_word_embeddings": True},
    "mistral": {**_GQA, "sliding_window": None},
    "mistral, sliding window": {**_GQA, "sliding_window": 4},
    "qwen2": _GQA,
    "qwen3": _GQA,
    "gemma": _GQA,
    "gemma2": {**_GQA, "final_logit_softcapping": 3.0, "sliding_window": 4},
    "gemma3_text": {**_GQA, "final_logit_softcapping": 5.0, "sliding_window": 4},
    "gpt2": {**_IDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0},
    "gpt_neox": _MHA,
    "olmo": _GQA,
    "olmo2": _GQA,
    "phi": _MHA,
    "phi3": _GQA,
    "granite": {**_GQA, "logits_scaling": 4.0},
    "cohere": {**_GQA, "logit_scale": 0.25},
    "cohere2": {**_GQA, "logit_scale": 0.25, "sliding_window": 4},
    "smollm3": _GQA,
    "starcoder2": _GQA,
    "opt": {**_MHA, "ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0},
    "falcon": _MHA,
    "mixtral": {**_MOE, "num_local_experts": 4},
    "mixtral, no balance": {**_MOE, "num_local_experts": 4, "output_router_logits": False},
    "qwen3_moe": {**_MOE, "num_experts": 4, "moe_intermediate_size": 8, "decoder_sparse_step": 1},
    "olmoe": {**_MOE, "num_experts": 4},
    "granitemoe": {**_MOE, "num_local_experts": 4, "logits_scaling": 2.0},
}
BALANCED = [name for name, config in ARCHITECTURES.items() if config.get("output_router_logits")]


def tiny(name: str = "llama", dtype: torch.dtype = torch.float64, **more: Any) -> PreTrainedModel:
    """A model in train mode, the same at each call. Weights are large, so that no cap, scale or bias is idle."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split(",")[0], **{**ARCHITECTURES[name], **more})
    # The default implementation of experts takes float32 at most.
    experts = {"experts_implementation": "eager"} if "num_experts_per_tok" in ARCHITECTURES[name] else {}
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32, **experts)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape) * 0.3
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    return model.to(dtype).train()


def batch(rows: int = 3, length: int = 12, seed: int = 1) -> dict[str, Tensor]:
    """Rows of random ids with every column; some labels are no candidates."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, 0] = -100
    labels[1 % rows, 4:7] = -100
    columns = {name: torch.rand(rows, length, generator=generator).double() * 6 for name in FLOAT_COLUMNS}
    return {
        "input_ids": ids,
        "labels": labels,
        **columns,
        "selection_mask": torch.rand(rows, length, generator=generator) < 0.5,
        "token_index": torch.arange(rows * length).view(rows, length),
        "document_ids": torch.arange(rows * length).view(rows, length) // 5,
    }


def only(inputs: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """The model's own inputs (or those of them that are named)."""
    return {name: inputs[name] for name in names or ("input_ids", "labels")}


def full_logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Float64 logits that predict labels[:, 1:], and the load-balancing loss if the model has one."""
    given = {name: inputs[name] for name in ("input_ids", "position_ids") if name in inputs}
    outputs = model(**given, use_cache=False)
    return outputs.logits[:, :-1].double(), outputs.get("aux_loss")


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [B, T - 1], 0 where there is no label."""
    return F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")


def best(scores: Tensor, valid: Tensor, ratio: float) -> Tensor:
    """The definition of a choice, token by token: the floor(ratio * valid + 0.5) best, the first of equal ones."""
    ranked = sorted(valid.flatten().nonzero()[:, 0].tolist(), key=lambda i: -scores.flatten()[i].item())
    chosen = torch.zeros(valid.numel(), dtype=torch.bool)
    chosen[ranked[: int(ratio * len(ranked) + 0.5)]] = True
    return chosen.view(valid.shape)


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every parameter's gradient; the model is left without."""
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same(ours: dict[str, Tensor], wanted: dict[str, Tensor], rtol: float, atol: float) -> None:
    """The same parameters have gradients, and they are close."""
    assert ours.keys() == wanted.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(
            gradient, wanted[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.fixture
def selective() -> Iterator[Callable[..., Any]]:
    """Patches a model and undoes it at the end of the test."""
    handles = []

    def patch(model: PreTrainedModel, policy: Any, **more: Any) -> Any:
        handles.append(make_selective(model, policy, **more))
        return handles[-1]

    yield patch
    for handle in handles:
        handle.remove()
