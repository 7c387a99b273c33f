"""`handle = make_selective(model, policy)`: any causal LM becomes a selective one, in place.

Two forwards of the model *instance* are patched. `model.forward(..., labels, reference_loss)` runs the
backbone and then **calls** the head, handing it what to compute (`selective_loss.py`); the head returns the
loss. Going through modules, and never reading the head's weight from outside, is what keeps this right under
every sharding engine: they gather weights in module hooks. No logits of all tokens exist at any time.

Selection acts only while `model.training`: in eval mode, or without labels, the model behaves as before.
Shapes: B rows, T positions. `labels[i]`, like every column, belongs to predicting token i.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast, MoeCausalLMOutputWithPast
from transformers.utils import is_peft_available

from tokensieve.causal_head import (
    adds_balance_loss,
    auxiliary_loss,
    balance_coefficient,
    check_head,
    eval_mode,
    head_transform,
    linear_head,
)
from tokensieve.filtered import FilteredBackward
from tokensieve.head import HeadTransform
from tokensieve.selection import SelectionPolicy
from tokensieve.selective_loss import (
    COLUMNS,
    NonFiniteLossError,
    OwnReferenceError,
    SelectiveLoss,
    TokenLosses,
)
from tokensieve.stats import SelectionStats

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = [
    "NonFiniteLossError",
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
    reference_checked: bool = False
    """Whether a batch has shown that its reference losses are not the model's own."""

    def token_losses(self, labels: Tensor, *, entropy: bool = False, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Loss of every token of a batch, through the model's own forward, so right under any sharding.

        Always in eval mode (afterwards every module has the mode it had) and without gradient.

        Args:
            labels: [B, T]; entry i belongs to predicting token i, -100 is left out.
            entropy: also the entropy of the model's next-token distribution at each label.
            inputs: `input_ids`, `position_ids`, ...; columns are ignored.

        Returns:
            losses and entropies (or None), float32 [B, T] in nats; 0 where the label is -100 and at position 0.
        """
        with torch.no_grad(), eval_mode(self.model):
            return self.model(labels=labels, token_losses="entropy" if entropy else "loss", **inputs)

    def check(self) -> None:
        """Refuse a head that our loss does not reproduce (see `causal_head.check_head`)."""
        check_head(self.model, self.transform, self.original_forward)
        self.checked = True

    def remove(self) -> None:
        """Undo the patch; the model is again what it was, bit for bit."""
        if self.filtered is not None:
            self.filtered.remove()
        # Adapters may have put copies of the head beside it, patch included.
        for module in self.model.modules():
            if isinstance(vars(module).get("forward"), (_ModelForward, _HeadForward)):
                del module.forward
            for key in [key for key, hook in module._forward_pre_hooks.items() if isinstance(hook, _RefuseBypass)]:
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
    base = _without_adapter(model)
    head = linear_head(base)
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
    base.forward = _ModelForward(handle)
    head.forward = _HeadForward(head)  # type: ignore[method-assign,assignment]
    base.base_model.register_forward_pre_hook(_RefuseBypass(handle))
    try:
        if not any(parameter.is_meta or isinstance(parameter, DTensor) for parameter in base.parameters()):
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


class _ModelForward:
    """The model's forward. An object, not a closure, so that deepcopy follows the model."""

    def __init__(self, handle: SelectiveHandle) -> None:
        self.handle = handle
        self.__signature__ = inspect.signature(handle.original_forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.handle.removed:
            return self.handle.original_forward(*args, **kwargs)
        self.handle.running = True
        try:
            return self._forward(*args, **kwargs)
        finally:
            self.handle.running = False

    def _forward(self, *args: Any, labels: Tensor | None = None, token_losses: str | None = None, **kwargs: Any) -> Any:
        columns = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        handle, model = self.handle, self.handle.model
        if labels is None or not (model.training or token_losses):
            return handle.original_forward(*args, labels=labels, **kwargs)
        if kwargs.get("fused_lm_head"):
            raise ValueError(
                "fused_lm_head=True (TRL's SFTTrainer) computes another loss, which would bypass the selection; use "
                "tokensieve.integrations.trl.SelectiveSFTTrainer"
            )
        _refuse_mask_on_packed_rows(kwargs.get("attention_mask"), kwargs.get("position_ids"))
        if not handle.checked:
            handle.check()
        items = kwargs.pop("num_items_in_batch", None)
        kwargs.pop("logits_to_keep", None)
        kwargs.pop("return_dict", None)
        # With a cache, transformers no longer sees where packed documents end (it looks at position_ids).
        kwargs["use_cache"] = False
        if token_losses is not None:
            task = TokenLosses(labels, handle.transform, token_losses == "entropy")
            hidden_states = model.base_model(*args, **kwargs).last_hidden_state
            return model.get_output_embeddings()(hidden_states, task=task)

        loss_task = SelectiveLoss(
            labels,
            {name: column for name, column in columns.items() if column is not None},
            items,
            handle.policy.at(handle.step),
            handle.transform,
            handle.measure,
            handle.stats,
            handle.reference_checked,
        )
        if kwargs.get("output_router_logits") is None and adds_balance_loss(model):
            kwargs["output_router_logits"] = True
        if handle.filtered is not None:
            handle.filtered.begin(*labels.shape)
        outputs = model.base_model(*args, **kwargs)
        loss = model.get_output_embeddings()(outputs.last_hidden_state, task=loss_task)
        handle.reference_checked = loss_task.reference_checked
        assert loss_task.outcome is not None
        if handle.keep_selection:
            handle.last_selection = loss_task.outcome
        if handle.filtered is not None:
            # Position i carries the target of token i + 1; the last position of a row carries none.
            handle.filtered.choose(nn.functional.pad(loss_task.outcome[2], (0, 1)))
        auxiliary = auxiliary_loss(model, outputs, kwargs.get("attention_mask"))
        if auxiliary is None:
            return CausalLMOutputWithPast(loss=loss)
        return MoeCausalLMOutputWithPast(
            loss=loss + balance_coefficient(model) * auxiliary.to(loss.device),
            aux_loss=auxiliary,
            router_logits=outputs.router_logits,
        )


class _RefuseBypass:
    """Pre-hook of the backbone: in training, no other loss may be computed around the patched forward.

    TRL's SFTTrainer does that: it puts a forward of its own over ours, which calls the backbone itself.
    """

    def __init__(self, handle: SelectiveHandle) -> None:
        self.handle = handle

    def __call__(self, module: nn.Module, args: Any) -> None:
        handle = self.handle
        if handle.running or not (handle.model.training and torch.is_grad_enabled()):
            return
        if not isinstance(vars(handle.model)["forward"], _ModelForward):
            raise ValueError(
                "another forward was put over the patched one and trains the model without the selection (TRL's "
                "SFTTrainer does; use tokensieve.integrations.trl.SelectiveSFTTrainer)"
            )


class _HeadForward:
    """The head's forward: logits, or whatever `task` computes where the head's weight is at hand.

    It knows its head and nothing else, so that copies of the head alone (PEFT's modules_to_save) copy no model.
    """

    def __init__(self, head: nn.Linear) -> None:
        self.head = head
        self.original = head.forward

    def __call__(self, hidden_states: Tensor, task: SelectiveLoss | TokenLosses | None = None) -> Any:
        return self.original(hidden_states) if task is None else _run(task, self.head, hidden_states)


# The number of selected rows depends on data: a compiler would guess, break the graph, or compile anew at each step.
@torch.compiler.disable
def _run(task: SelectiveLoss | TokenLosses, head: nn.Linear, hidden_states: Tensor) -> Any:
    return task(head, hidden_states)


def _refuse_mask_on_packed_rows(attention_mask: Tensor | None, position_ids: Tensor | None) -> None:
    """Where packed documents end transformers sees from position_ids, but only if there is no mask."""
    if attention_mask is None or position_ids is None or attention_mask.dim() != 2:
        return
    inside = (attention_mask[:, 1:] != 0) & (attention_mask[:, :-1] != 0)
    if (inside & (position_ids[:, 1:] <= position_ids[:, :-1])).any():
        raise ValueError(
            "position_ids restart inside a row (packed documents) and there is an attention_mask: attention would "
            "cross documents without a word; leave attention_mask out"
        )


def _without_adapter(model: "PreTrainedModel | PeftModel") -> PreTrainedModel:
    unwrapped: Any = model
    if is_peft_available():
        from peft import PeftModel

        if isinstance(model, PeftModel):
            unwrapped = model.get_base_model()
    return unwrapped
