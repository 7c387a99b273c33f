"""`handle = make_selective(model, policy)`: any causal LM becomes a selective one, in place.

Two forwards of the model *instance* are patched. `model.forward(..., labels, reference_loss)` runs the
backbone and then **calls** the head, handing it what to compute (`selective_loss.py`); the head returns the
loss. Going through modules, and never reading the head's weight from outside, is what keeps this right under
every sharding engine: they gather weights in module hooks. No logits of all tokens exist at any time.

Selection acts only while `model.training`: in eval mode, or without labels, the model behaves as before.
Shapes: B rows, T positions. `labels[i]`, like every column, belongs to predicting token i.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from tokensieve.causal_head import (
    check_document_mask,
    check_head,
    eval_mode,
    head_transform,
    linear_head,
    linear_heads,
    without_adapter,
)
from tokensieve.filtered import FilteredBackward
from tokensieve.head import HeadTransform
from tokensieve.selection import SelectionPolicy
from tokensieve.selective_forward import HeadForward, ModelForward, RefuseBypass
from tokensieve.selective_loss import NonFiniteLossError, NonFiniteReferenceError, OwnReferenceError
from tokensieve.stats import SelectionStats

if TYPE_CHECKING:
    from peft import PeftModel

    from tokensieve.online import OnlineReference

__all__ = [
    "NonFiniteLossError",
    "NonFiniteReferenceError",
    "OwnReferenceError",
    "SelectiveHandle",
    "make_selective",
    "refuse_trainer_arguments",
]


@dataclass(eq=False)
class SelectiveHandle:
    """What `make_selective` returns: the patched model, its statistics, and the way back."""

    model: PreTrainedModel
    policy: SelectionPolicy
    transform: HeadTransform
    original_forward: Callable[..., Any]
    """The model's forward before the patch."""
    filtered: FilteredBackward | None = None
    """Set for `backward="filtered"`."""
    stats: SelectionStats = field(default_factory=SelectionStats)
    step: int | None = None
    """The optimizer step that is running, from 0; set it before each step if the policy has a warm-up or a schedule."""
    measure: bool = False
    """Compute losses of unselected tokens too, where the policy alone would not (set it on logging steps)."""
    keep_selection: bool = False
    """Keep the last forward's choice in `last_selection`."""
    last_selection: tuple[Tensor | None, Tensor, Tensor] | None = None
    """(token_index, valid, selected), each [B, T-1], of the last training forward."""
    checked: bool = False
    """Whether the head was compared with the model's own logits."""
    running: bool = False
    """Whether the patched forward of the model is running."""
    removed: bool = False
    """Whether the patch was undone: wrappers that were put over it since then call through it."""
    crossing: dict[bool, str] = field(default_factory=dict)
    """Why packed documents would see each other in this model, "" if they do not: in one row, and in several."""
    reference_checked: bool = False
    """Whether a batch has shown that its reference losses are not the model's own."""
    reference: "OnlineReference | None" = None
    """Computes the reference columns where no batch brings them; `online.attach_reference` sets it."""

    @property
    def batch_columns(self) -> tuple[str, ...]:
        """The policy's columns that batches must bring: all, or all but those of an attached reference."""
        columns = self.policy.columns
        return columns if self.reference is None else tuple(c for c in columns if not c.startswith("reference_"))

    def token_losses(self, labels: Tensor, *, entropy: bool = False, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Loss of every token of a batch, through the model's own forward, so right under any sharding.

        Always in eval mode (afterwards every module has the mode it had) and without gradient.

        Args:
            labels: [B, T]; entry i belongs to predicting token i, -100 is left out.
            entropy: also the entropy of the model's next-token distribution at each label.
            inputs: `input_ids`, `position_ids`, ...; columns are ignored.

        Returns:
            losses and entropies (or None), [B, T] in nats, float32 (float64 for float64 models); 0 where the label is
            -100 and at position 0.
        """
        with torch.no_grad(), eval_mode(self.model):
            return self.model(labels=labels, token_losses="entropy" if entropy else "loss", **inputs)

    def check(self) -> None:
        """Refuse a head that our loss does not reproduce (see `causal_head.check_head`)."""
        check_head(self.model, self.transform, self.original_forward)
        self.checked = True

    # It runs the model a second time: nothing to compile into a training step.
    @torch.compiler.disable
    def check_packed_rows(self, position_ids: Tensor | None, attention_mask: Tensor | None, cache: Any) -> None:
        """Refuse rows of several documents whose attention would cross documents.

        transformers sees from position_ids ([B, T]) where documents end, but only if there is neither mask nor cache,
        and not for every architecture.

        Raises:
            ValueError: positions restart inside a row, and there is a mask or a cache, or the model does not heed them.
        """
        if (
            position_ids is None
            or position_ids.dim() != 2
            or (attention_mask is not None and attention_mask.dim() != 2)
        ):
            return
        alone = attention_mask is None and cache is None
        # Asked at the first rows with positions, packed or not, so that all ranks of a sharded model take part.
        several = len(position_ids) > 1
        if alone and several not in self.crossing:
            try:
                check_document_mask(self.model, max(2, min(position_ids.shape[1], 32)), 1 + several)
                self.crossing[several] = ""
            except ValueError as error:
                self.crossing[several] = str(error)
        if alone and not self.crossing[several]:
            return
        restarts = position_ids[:, 1:] <= position_ids[:, :-1]
        if attention_mask is not None:
            restarts = restarts & (attention_mask[:, 1:] != 0) & (attention_mask[:, :-1] != 0)
        if restarts.any():
            raise ValueError(
                self.crossing[several]
                if alone
                else "position_ids restart inside a row (packed documents) and there is an attention_mask or a cache: "
                "attention would cross documents without a word; leave attention_mask and past_key_values out"
            )

    def remove(self) -> None:
        """Undo the patch; the model is again what it was, bit for bit. An attached reference is given back too."""
        if self.reference is not None:
            self.reference.release()
            self.reference = None
        if self.filtered is not None:
            self.filtered.remove()
        # Adapters may have put copies of the head beside it, patch included.
        for module in self.model.modules():
            if isinstance(vars(module).get("forward"), (ModelForward, HeadForward)):
                del module.forward
            for key in [key for key, hook in module._forward_pre_hooks.items() if isinstance(hook, RefuseBypass)]:
                del module._forward_pre_hooks[key]
        self.removed = True


def make_selective(
    model: "PreTrainedModel | PeftModel", policy: SelectionPolicy, *, backward: Literal["exact", "filtered"] = "exact"
) -> SelectiveHandle:
    """Patch a causal LM in place so that its training loss is the selective loss (Rho-1, eq. 5).

    The loss is sum over selected tokens / (ratio * num_items_in_batch); the stock Trainer counts
    `num_items_in_batch` over accumulation steps and ranks, without it the live labels of the forward count.

    Args:
        model: any transformers causal LM with a linear head, plain or with PEFT adapters. Its training forward
            then takes the policy's columns ([B, T], entry i belongs to predicting token i): float32, float16, or
            int16 holding the bits of float16; bfloat16 is refused, because it changes 1 % of the choices.
        policy: what to select. `ratio=1` is ordinary training.
        backward: `filtered` is approximate: it drops the gradient of unselected tokens in every linear map
            of the backbone (see `filtered.py`).

    Raises:
        TypeError: the model has no linear head or no separate backbone.
        ValueError: the model is patched already, or its loss is something this head cannot reproduce (the message
            gives the difference).
    """
    if not isinstance(policy, SelectionPolicy):
        raise TypeError(f"policy is {type(policy).__name__}: give a SelectionPolicy")
    base = without_adapter(model)
    if not isinstance(base, PreTrainedModel):
        raise TypeError(
            f"{type(model).__name__} is not a transformers model: make the model selective first, and wrap it (DDP, "
            "torch.compile, accelerator.prepare) afterwards"
        )
    linear_head(base)
    if "forward" in vars(base):
        raise ValueError(
            "the model's forward is patched already: undo it with handle.remove() if it was make_selective, with "
            "accelerator.unwrap_model(model, keep_fp32_wrapper=False) if it was accelerate"
        )
    if base.base_model is base:
        raise TypeError(f"{type(base).__name__} has no backbone separate from its head")
    if backward not in ("exact", "filtered"):
        raise ValueError(f"backward {backward!r} is not one of exact, filtered")
    if backward == "filtered" and (policy.alpha != 1 or policy.temperature is not None):
        raise ValueError("backward='filtered' needs a hard choice: leave alpha at 1 and temperature out")
    handle = SelectiveHandle(base, policy, head_transform(base.config), base.forward)
    base.forward = ModelForward(handle)
    for head in linear_heads(base):
        head.forward = HeadForward(head)  # type: ignore[method-assign,assignment]
    base.base_model.register_forward_pre_hook(RefuseBypass(handle))
    try:
        # DeepSpeed's ZeRO-3 marks the parameters that it has sharded with ds_id.
        if not any(p.is_meta or isinstance(p, DTensor) or hasattr(p, "ds_id") for p in base.parameters()):
            handle.check()
        if backward == "filtered":
            handle.filtered = FilteredBackward(base.base_model)
    except BaseException:
        handle.remove()
        raise
    return handle


def refuse_trainer_arguments(args: Any) -> None:
    """Refuse transformers.TrainingArguments that would replace or rescale the selective loss.

    Raises:
        ValueError: names the argument and the value to use.
    """
    if args.label_smoothing_factor:
        raise ValueError("label_smoothing_factor replaces the model's loss; set it to 0")
    if args.use_liger_kernel:
        raise ValueError("use_liger_kernel replaces the model's forward; set it to false")
    if not args.average_tokens_across_devices:
        raise ValueError("average_tokens_across_devices=false makes the loss depend on the ranks; set it to true")
    if args.n_gpu > 1:
        raise ValueError(
            "several GPUs without torchrun use DataParallel, which bypasses the patch; start with torchrun"
        )
