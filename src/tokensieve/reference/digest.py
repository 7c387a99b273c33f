"""What binds scores to the model that made them: a digest of weights and configuration."""

import json
from typing import Any

import torch
import xxhash
from transformers import PreTrainedModel

_NOT_COMPUTED_WITH = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache")
"""Configuration entries that say where a model came from, not what it computes."""


def weights_digest(model: PreTrainedModel) -> str:
    """xxh3-128 over the configuration and over names, types, shapes and bytes of all weights.

    The configuration counts too: equal weights with another rope base or soft cap give other losses.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_COMPUTED_WITH}
    digest = xxhash.xxh3_128(json.dumps(_plain(config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """As JSON gives it back: keys are strings, tuples are lists."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
