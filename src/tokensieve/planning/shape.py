"""A model's size, counted on the meta device from its configuration: no weights are loaded or allocated.

The configuration comes from the recipe (fresh models), from a local folder, from a small table of known
architectures (so that the paper's recipes can be planned offline), or from the Hugging Face Hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection, Recipe

# The published config.json of each model, reduced to what decides its size.
KNOWN: dict[str, Mapping[str, Any]] = {
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 5632,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "mistralai/Mistral-7B-v0.1": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
    },
    "meta-llama/Llama-2-7b-hf": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "HuggingFaceTB/SmolLM2-135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class ModelShape:
    """The sizes that decide a dense transformer's cost."""

    name: str
    """Hub id, folder, or a description of a fresh model."""
    parameters: int
    """All parameters; tied weights count once."""
    backbone: int
    """Weights of the backbone's matrix products; lookups and norms left out."""
    head: int
    """V·D: weights of the output layer's matrix product, tied or not."""
    layers: int
    width: int
    """D."""
    attention_width: int
    """Heads times head dimension."""
    inputs: int
    """Sum of the input widths of the backbone's matrices; with `outputs`, what activations are made of."""
    outputs: int
    """Sum of their output widths."""
    vocabulary: int
    max_length: int
    """The longest sequence the model was made for."""
    windows: tuple[int | None, ...]
    """Sliding attention window of each layer, in tokens; None attends to everything before."""


def model_shape(section: ModelSection, recipe: Recipe) -> ModelShape:
    """Count a model of the recipe.

    Raises:
        UserError: the configuration cannot be found or read, or is not a dense transformer.
    """
    config = _configuration(section, recipe)
    name = section.name or f"fresh {config.model_type}"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=section.trust_remote_code)
    head = model.get_output_embeddings().weight
    matrices = [
        parameter
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2 and parameter is not head
    ]
    if any(matrix.ndim > 2 for matrix in matrices):
        raise UserError(f"model {name}: plan counts dense transformers only, not experts or convolutions")
    text = config.get_text_config()
    known = text.to_dict()
    head_width = known.get("head_dim") or text.hidden_size // text.num_attention_heads
    sliding = known.get("sliding_window")
    kinds = known.get("layer_types") or ["sliding_attention"] * text.num_hidden_layers
    return ModelShape(
        name=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        backbone=sum(matrix.numel() for matrix in matrices),
        head=head.numel(),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        attention_width=head_width * text.num_attention_heads,
        inputs=sum(matrix.shape[1] for matrix in matrices),
        outputs=sum(matrix.shape[0] for matrix in matrices),
        vocabulary=head.shape[0],
        max_length=text.max_position_embeddings,
        windows=tuple(sliding if kind == "sliding_attention" else None for kind in kinds),
    )


def _configuration(section: ModelSection, recipe: Recipe) -> Any:
    if section.fresh is not None:
        settings = {"vocab_size": _vocabulary(recipe), **section.fresh}
        return _named_configuration(settings, "model.fresh")
    assert section.name is not None  # ModelSection: exactly one of name and fresh
    if section.name in KNOWN and not Path(section.name).exists():
        return _named_configuration(KNOWN[section.name], section.name)
    try:
        return AutoConfig.from_pretrained(
            section.name, revision=section.revision, trust_remote_code=section.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {section.name}: cannot read its config.json ({_first_line(error)}); "
            "give a local model folder, connect to the Hub, or write its shape under `fresh` for planning"
        ) from error


def _named_configuration(settings: Mapping[str, Any], place: str) -> Any:
    if "model_type" not in settings:
        raise UserError(f"{place}: model_type is missing; name a transformers architecture, for example llama")
    try:
        return AutoConfig.for_model(**settings)
    except ValueError as error:
        raise UserError(f"{place}: {_first_line(error)}") from error


def _vocabulary(recipe: Recipe) -> int:
    if recipe.tokenizer.train_vocab is not None:
        return recipe.tokenizer.train_vocab
    name = recipe.tokenizer.name or recipe.model.name
    if name in KNOWN:
        return int(KNOWN[name]["vocab_size"])
    try:
        return len(AutoTokenizer.from_pretrained(name, trust_remote_code=recipe.tokenizer.trust_remote_code))
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer {name}: cannot read it ({_first_line(error)}); "
            "give a local tokenizer folder or connect to the Hub"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
