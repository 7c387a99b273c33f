"""Peak memory of one device, as an estimate whose terms can be checked one by one.

Activations were fitted to what autograd really saves for the layers of a Llama in transformers 5.23 (eager,
scaled-dot-product attention, float32 residual stream): 4 bytes a token for each input and 2 for each output of
the layer's matrices under bfloat16 autocast, twice that less 28·D without; with activation checkpointing 4·D a
layer and one whole layer. Fragmentation, communication and one chunk of logits come on top: leave 10 % free.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tokensieve.planning.shape import ModelShape

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    """AdamW's two moments."""
    buffers: float
    """Low-precision copies of the weights, and communication buckets (DDP) or gathered layers (FSDP)."""
    activations: float
    sharded: bool
    """Whether weights, gradients and optimizer are spread over all devices (FSDP, full shard)."""
    recompute: bool
    """Whether activations are recomputed in the backward pass."""

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.buffers + self.activations

    def describe(self) -> dict[str, Any]:
        """The terms in GB, for JSON."""
        return {key: value if isinstance(value, bool) else value / 1e9 for key, value in asdict(self).items()}


def training_memory(
    shape: ModelShape, dtype: str, trainer: Mapping[str, Any], ranks: int, device_tokens: int
) -> Memory:
    """Peak memory of training with AdamW.

    Args:
        shape: the model.
        dtype: type of the master weights; gradients and moments have it too.
        trainer: the recipe's TrainingArguments; `bf16`, `fp16`, `fsdp`, `fsdp_config` and
            `activation_checkpointing` (or its older name) matter here.
        ranks: data-parallel replicas.
        device_tokens: tokens of one forward pass on one device.
    """
    size = DTYPE_BYTES[dtype]
    autocast = bool(trainer.get("bf16") or trainer.get("fp16"))
    sharded = ranks > 1 and bool(trainer.get("fsdp"))
    recompute = recomputes(trainer)
    owned = shape.parameters * size / (ranks if sharded else 1)
    if sharded:
        # Two layers are gathered at once (one works, the next arrives), embedding and head beside them.
        buffers = (2 * shape.backbone / shape.layers + 2 * shape.head) * (2 if autocast else size)
    else:
        copies = 2 * shape.parameters if autocast and size > 2 else 0
        buffers = copies + (shape.parameters * size if ranks > 1 else 0)
    return Memory(
        weights=owned,
        gradients=owned,
        optimizer=2 * owned,
        buffers=buffers,
        activations=device_tokens * _activation_bytes(shape, autocast, recompute),
        sharded=sharded,
        recompute=recompute,
    )


def recomputes(trainer: Mapping[str, Any]) -> bool:
    """Whether a recipe's trainer options ask for activation checkpointing."""
    settings = trainer.get("fsdp_config")
    inside = isinstance(settings, Mapping) and bool(settings.get("activation_checkpointing"))
    return inside or bool(trainer.get("activation_checkpointing") or trainer.get("gradient_checkpointing"))


def scoring_memory(shape: ModelShape, dtype: str, device_tokens: int) -> Memory:
    """Peak memory of a forward pass without gradient: float32 weights, and one layer's activations."""
    copies = 2 * shape.parameters if dtype == "bfloat16" else 0
    one_layer = _activation_bytes(shape, dtype == "bfloat16", recompute=False) / shape.layers
    return Memory(
        weights=4 * shape.parameters,
        gradients=0,
        optimizer=0,
        buffers=copies,
        activations=device_tokens * one_layer,
        sharded=False,
        recompute=False,
    )


def _activation_bytes(shape: ModelShape, autocast: bool, recompute: bool) -> float:
    """Bytes a token keeps for the backward pass."""
    everything: float = 4 * shape.inputs + 2 * shape.outputs
    if not autocast:
        everything = 2 * everything - 28 * shape.width * shape.layers
    if not recompute:
        return everything
    return 4 * shape.width * shape.layers + everything / shape.layers
