"""Models by recipe: pretrained or fresh, checked against tokenizer and context before anything runs.

Safetensors only: pickled weights run code when they are loaded. Master weights are float32 unless the recipe
says otherwise, because small updates vanish in anything shorter.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection, suggest

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def load_model(section: ModelSection, *, vocab_size: int, eos_token_id: int, length: int, seed: int) -> PreTrainedModel:
    """The model of a recipe section, float32 master weights by default, in train mode.

    Args:
        section: a pretrained name or a fresh configuration.
        vocab_size: the tokenizer's; a fresh model gets it, a pretrained one must have at least that many rows.
        eos_token_id: for a fresh model's configuration.
        length: the context length, which must not exceed the model's.
        seed: of a fresh model's initialisation.

    Raises:
        UserError: missing or unreachable model, pickled weights, vocabulary or length that do not fit.
    """
    dtype = getattr(torch, section.dtype)
    if section.fresh is not None:
        config = _fresh_config(section.fresh, vocab_size, eos_token_id)
        _check_length(config, length, "model.fresh")
        set_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        assert section.name is not None
        model = _pretrained(section, dtype)
        _check_length(model.config, length, section.name)
        rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
        if rows < vocab_size:
            raise UserError(
                f"{section.name}: the model's vocabulary has {rows} entries, the tokenizer's {vocab_size}; "
                f"use the tokenizer that belongs to the model"
            )
    return model.train()


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """What reports say of a model: {"parameters": int, "description": str}."""
    config = model.config
    return {
        "parameters": model.num_parameters(),
        "description": f"{config.model_type}, {config.num_hidden_layers} layers, width {config.hidden_size}, "
        f"vocabulary {config.vocab_size:,}",
    }


def refuse_pickled_weights(folder: Path) -> None:
    """UserError if a local model folder has no safetensors but pickled weights."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise UserError(
            f"{folder}: holds pickled weights ({pickled[0]}), which can run code when loaded; "
            f"convert them to model.safetensors with save_pretrained where you trust them"
        )
    raise UserError(f"{folder}: no model.safetensors here; is it a transformers model folder?")


def _pretrained(section: ModelSection, dtype: torch.dtype) -> PreTrainedModel:
    assert section.name is not None
    folder = Path(section.name)
    if folder.is_dir():
        refuse_pickled_weights(folder)
    elif section.name.startswith((".", "/", "~")) or section.name.count("/") > 1:
        raise UserError(f"{section.name}: no such model folder")
    try:
        return AutoModelForCausalLM.from_pretrained(
            section.name,
            revision=section.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=section.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"{section.name}: cannot load the model: {first_line} (a local folder, or a Hub id that can be reached?)"
        ) from error


def _fresh_config(fresh: Any, vocab_size: int, eos_token_id: int) -> Any:
    values = dict(fresh)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise UserError("model.fresh: model_type is missing, for example model_type: llama")
    try:
        config = AutoConfig.for_model(model_type)
    except ValueError as error:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        raise UserError(
            f"model.fresh: unknown model_type {model_type!r}{suggest(model_type, CONFIG_MAPPING)}"
        ) from error
    for key in values:
        if not hasattr(config, key):
            raise UserError(f"model.fresh: {model_type} has no {key!r}{suggest(key, config.to_dict())}")
    try:
        config = AutoConfig.for_model(
            model_type,
            **{"vocab_size": vocab_size, "bos_token_id": None, "eos_token_id": eos_token_id, **values},
        )
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"model.fresh: {' '.join(str(error).split())}") from error
    if config.vocab_size < vocab_size:
        raise UserError(f"model.fresh: vocab_size {config.vocab_size} is below the tokenizer's {vocab_size}")
    return config


def _check_length(config: Any, length: int, name: str) -> None:
    longest = config.get_text_config().max_position_embeddings
    if length > longest:
        raise UserError(f"{name}: context.length {length} is above the model's {longest} positions; lower it")
