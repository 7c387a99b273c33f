"""Models by recipe: pretrained or fresh, checked against tokenizer and context before anything runs.

Safetensors only: pickled weights run code when they are loaded. Master weights are float32 unless the recipe
says otherwise, because small updates vanish in anything shorter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.hub import cached_file

from tokensieve.causal_head import check_document_mask
from tokensieve.corpus.tokenizers import check_vocabulary, open_tokenizer, tokenizer_digest, vocabulary_size
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ModelSection, suggest

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# What transformers raises for a folder, an id or a configuration that cannot be.
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)
_BUILD_ERRORS = (*_LOAD_ERRORS, TypeError, AttributeError, ZeroDivisionError, AssertionError)


def load_model(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, context: ContextSection, seed: int
) -> PreTrainedModel:
    """The model of a recipe section, float32 master weights by default, in train mode.

    Args:
        section: a pretrained name or a fresh configuration.
        tokenizer: a fresh model gets its vocabulary; a pretrained one must have a row for each id, and must not
            bring another tokenizer of its own.
        context: its length must not exceed the model's, and with `document_mask` attention must stay inside
            documents.
        seed: of a fresh model's initialisation.

    Raises:
        UserError: missing or unreachable model, pickled or missing weights, vocabulary, length or attention
            that do not fit.
    """
    dtype = getattr(torch, section.dtype)
    if section.fresh is not None:
        name = "model.fresh"
        config = _fresh_config(section.fresh, vocabulary_size(tokenizer), tokenizer.eos_token_id)
        _check_length(config, context.length, name)
        set_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        except _BUILD_ERRORS as error:
            raise UserError(f"model.fresh: {_one_line(error)}") from error
    else:
        assert section.name is not None
        name = section.name
        model = _pretrained(section, dtype)
        _check_length(model.config, context.length, name)
        rows: Any = model.get_input_embeddings().weight
        check_vocabulary(tokenizer, len(rows), name)
        _check_own_tokenizer(section, tokenizer)
    if context.document_mask:
        try:
            check_document_mask(model, min(context.length, 16), rows=2)
        except ValueError as error:
            raise UserError(f"{name}: {error}; set context.document_mask=false") from error
        except RuntimeError as error:
            raise UserError(f"{name}: the model cannot run: {_one_line(error)}; check its configuration") from error
    return model.train()


def check_section(section: ModelSection, length: int) -> None:
    """Refuse what can be known without weights: missing folder, pickled weights, configuration, length.

    Raises:
        UserError: the first thing found.
    """
    if section.fresh is not None:
        # The vocabulary is not known yet; any fits.
        config = _fresh_config({**section.fresh, "vocab_size": section.fresh.get("vocab_size", 1000)}, 0, 0)
        _check_length(config, length, "model.fresh")
        return
    assert section.name is not None
    check_folder(section.name)
    try:
        config = AutoConfig.from_pretrained(
            section.name, revision=section.revision, trust_remote_code=section.trust_remote_code
        )
    except _LOAD_ERRORS as error:
        raise _cannot_load(section.name, error) from error
    _check_length(config, length, section.name)


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """What reports say of a model: {"parameters": int, "description": str}."""
    config = model.config
    return {
        "parameters": model.num_parameters(),
        "description": f"{config.model_type}, {config.num_hidden_layers} layers, width {config.hidden_size}, "
        f"vocabulary {config.vocab_size:,}",
    }


def check_folder(name: str) -> None:
    """UserError if `name` is a local folder without safetensors, or looks like a folder that is not there."""
    folder = Path(name)
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UserError(f"{name}: no such model folder")
        return
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
    check_folder(section.name)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            section.name,
            revision=section.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=section.trust_remote_code,
            output_loading_info=True,
        )
    except _LOAD_ERRORS as error:
        raise _cannot_load(section.name, error) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{section.name}: the weights of {missing[0]} are missing ({len(missing)} tensors in all) and would be "
            f"random; the folder is incomplete or of another architecture"
        )
    return model


def _cannot_load(name: str, error: Exception) -> UserError:
    return UserError(
        f"{name}: cannot load the model: {_one_line(error)} (a local folder, or a Hub id that can be reached?)"
    )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_own_tokenizer(section: ModelSection, tokenizer: PreTrainedTokenizerBase) -> None:
    """Equal size is not equal ids: a model with a tokenizer beside it is used with that one."""
    name = str(section.name)
    # In the folder, or on the Hub; None: nowhere, so there is nothing to compare with.
    try:
        described = cached_file(
            name,
            "tokenizer_config.json",
            revision=section.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as error:
        raise _cannot_load(name, error) from error
    if described is None:
        return
    own = open_tokenizer(name, revision=section.revision, trust_remote_code=section.trust_remote_code)
    there, here = tokenizer_digest(own), tokenizer_digest(tokenizer)
    if there != here:
        raise UserError(
            f"{name}: the tokenizer beside this model gives other ids than the recipe's (digest {there} there, {here} "
            f"here); leave `tokenizer` out of the recipe, or name this one there"
        )


def _fresh_config(fresh: Mapping[str, Any], vocab_size: int, eos_token_id: int) -> Any:
    values = dict(fresh)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise UserError("model.fresh: model_type is missing, for example model_type: llama")
    if model_type not in CONFIG_MAPPING:
        raise UserError(f"model.fresh: unknown model_type {model_type!r}{suggest(str(model_type), CONFIG_MAPPING)}")
    config = AutoConfig.for_model(model_type)
    for key in values:
        if not hasattr(config, key):
            raise UserError(f"model.fresh: {model_type} has no {key!r}{suggest(key, config.to_dict())}")
    ids = {"bos_token_id": None, "eos_token_id": eos_token_id, "pad_token_id": None}
    try:
        config = AutoConfig.for_model(model_type, **{"vocab_size": vocab_size, **ids, **values})
    except _BUILD_ERRORS as error:
        raise UserError(f"model.fresh: {' '.join(str(error).split())}") from error
    if config.get_text_config().vocab_size < vocab_size:
        raise UserError(f"model.fresh: vocab_size {config.vocab_size} is below the tokenizer's {vocab_size}")
    return config


def _check_length(config: Any, length: int, name: str) -> None:
    # Models without positions of their own (state space models, ALiBi) name no longest length.
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise UserError(f"{name}: context.length {length} is above the model's {longest} positions; lower it")
