"""What stands in the place of a selective model's two forwards, and what watches over them.

`make_selective` puts these objects on the model instance. They are objects and not closures, so that deepcopy
copies them with the model.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast, MoeCausalLMOutputWithPast

from tokensieve.causal_head import adds_balance_loss, auxiliary_loss, balance_coefficient, linear_head
from tokensieve.selective_loss import COLUMNS, SelectiveLoss, TokenLosses

if TYPE_CHECKING:
    from tokensieve.selective import SelectiveHandle

Task = Callable[[nn.Linear, Tensor], Any]
"""What to compute from the head and its input [B, T, D]."""


class ModelForward:
    """The model's forward. An object, not a closure, so that deepcopy follows the model."""

    def __init__(self, handle: "SelectiveHandle") -> None:
        self.handle = handle
        self.__signature__ = inspect.signature(handle.original_forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The selective loss in training mode with labels, token losses on request, else the model's own forward."""
        if self.handle.removed:
            return self.handle.original_forward(*args, **kwargs)
        # By name from here on: what an argument means must not depend on how it was given.
        kwargs = dict(**dict(zip(self.__signature__.parameters, args, strict=False)), **kwargs)
        self.handle.running = True
        try:
            return self._forward(**kwargs)
        finally:
            self.handle.running = False

    def _forward(self, labels: Tensor | None = None, token_losses: str | None = None, **kwargs: Any) -> Any:
        columns = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        handle, model = self.handle, self.handle.model
        if labels is None and columns and model.training and torch.is_grad_enabled():
            raise ValueError(
                f"{', '.join(columns)} without labels: the selective loss is computed where labels arrive, so a loss "
                "made from the logits would be the plain one; give labels to the model and use its .loss"
            )
        if labels is None or not (model.training or token_losses):
            outputs = handle.original_forward(labels=labels, **kwargs)
            if labels is not None and not handle.policy.selects_everything:
                _refuse_backward(outputs)
            return outputs
        if kwargs.get("fused_lm_head"):
            raise ValueError(
                "fused_lm_head=True (TRL's SFTTrainer) computes another loss, which would bypass the selection; use "
                "tokensieve.integrations.trl.SelectiveSFTTrainer"
            )
        if kwargs.get("shift_labels") is not None:
            raise ValueError(
                "shift_labels is not used: give labels as they are, entry i belonging to predicting token i"
            )
        if not handle.checked:
            handle.check()
        handle.check_packed_rows(*(kwargs.get(name) for name in ("position_ids", "attention_mask", "past_key_values")))
        items = kwargs.pop("num_items_in_batch", None)
        kwargs.pop("logits_to_keep", None)
        kwargs.pop("return_dict", None)
        # With a cache, transformers no longer sees where packed documents end (it looks at position_ids).
        kwargs["use_cache"] = False
        if token_losses is not None:
            task = TokenLosses(labels, handle.transform, token_losses == "entropy")
            hidden_states = model.base_model(**kwargs).last_hidden_state
            return model.get_output_embeddings()(hidden_states, task=task.run)

        if handle.reference is not None:
            # Before the student, while its activations take no memory.
            columns |= _reference_columns(handle, labels, columns, kwargs)
        loss_task = _begin(handle, labels, columns, items)
        if kwargs.get("output_router_logits") is None and adds_balance_loss(model):
            kwargs["output_router_logits"] = True
        outputs = model.base_model(**kwargs)
        loss = model.get_output_embeddings()(outputs.last_hidden_state, task=loss_task.run)
        _end(handle, loss_task)
        auxiliary = auxiliary_loss(model, outputs, kwargs.get("attention_mask"))
        if auxiliary is None:
            return CausalLMOutputWithPast(
                loss=loss, hidden_states=outputs.get("hidden_states"), attentions=outputs.get("attentions")
            )
        return MoeCausalLMOutputWithPast(
            loss=loss + balance_coefficient(model) * auxiliary.to(loss.device),
            aux_loss=auxiliary,
            router_logits=outputs.router_logits,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )


class RefuseBypass:
    """Pre-hook of the backbone: in training, no other loss may be computed around the patched forward.

    TRL's SFTTrainer does that: it puts a forward of its own over ours, which calls the backbone itself.
    """

    def __init__(self, handle: "SelectiveHandle") -> None:
        self.handle = handle

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Raises ValueError."""
        handle = self.handle
        if handle.running or not (handle.model.training and torch.is_grad_enabled()):
            return
        if not isinstance(vars(handle.model)["forward"], ModelForward):
            raise ValueError(
                "another forward was put over the patched one and trains the model without the selection (TRL's "
                "SFTTrainer does; use tokensieve.integrations.trl.SelectiveSFTTrainer)"
            )


class HeadForward:
    """The head's forward: logits, or whatever `task` computes where the head's weight is at hand.

    It knows its head and nothing else, so that copies of the head alone (PEFT's modules_to_save) copy no model.
    """

    def __init__(self, head: nn.Linear) -> None:
        self.head = head
        self.original = head.forward

    def __call__(self, hidden_states: Tensor, task: Task | None = None) -> Any:
        """[B, T, D] -> logits [B, T, V], or what the task returns."""
        return self.original(hidden_states) if task is None else _run(task, self.head, hidden_states)


@torch.compiler.disable
def _refuse_backward(outputs: Any) -> None:
    """In eval mode the loss is the model's own: whoever trains on it has forgotten model.train()."""
    loss = outputs[0]
    if loss.requires_grad:
        loss.register_hook(_raise_eval_mode)


def _raise_eval_mode(_: Tensor) -> None:
    raise ValueError(
        "this loss was computed in eval mode, where the model computes its own loss and selects nothing: call "
        "model.train() before training (from_pretrained returns a model in eval mode), or handle.remove() if the "
        "gradient of the model's own loss is wanted"
    )


# What changes from step to step (schedule, measuring, the first check of the reference) is hidden from compilers, which
# would take each value for a constant, and compile the whole forward anew when it changes.
@torch.compiler.disable
def _begin(
    handle: "SelectiveHandle", labels: Tensor, columns: dict[str, Tensor], items: Tensor | int | None
) -> SelectiveLoss:
    head = linear_head(handle.model)  # refuses an adapter that was put on the head since
    if not isinstance(vars(head).get("forward"), HeadForward):
        raise ValueError(
            "the head was replaced after make_selective (resize_token_embeddings, another adapter): call "
            "handle.remove() and make_selective again"
        )
    if handle.filtered is not None:
        handle.filtered.begin(*labels.shape)
    return SelectiveLoss(
        labels,
        {name: column for name, column in columns.items() if column is not None},
        items,
        handle.policy.at(handle.step),
        handle.transform,
        handle.measure,
        handle.stats,
        handle.reference_checked,
        handle.reference is not None,
    )


# A warm-up that ends would else be a reason to compile anew.
@torch.compiler.disable
def _reference_columns(
    handle: "SelectiveHandle", labels: Tensor, given: dict[str, Tensor], inputs: dict[str, Any]
) -> dict[str, Tensor]:
    """What the attached reference says of this micro-step: nothing while the policy reads nothing of it."""
    assert handle.reference is not None
    for name, column in given.items():
        if name.startswith("reference_") and column is not None:
            raise ValueError(
                f"the batch brings {name}, and a reference is attached that computes it: remove the column, or "
                f"detach_reference(handle)"
            )
    names = [name for name in handle.policy.at(handle.step).columns if name.startswith("reference_")]
    return handle.reference.columns(handle.model, names, labels, inputs)


@torch.compiler.disable
def _end(handle: "SelectiveHandle", task: SelectiveLoss) -> None:
    handle.reference_checked = task.reference_checked
    assert task.outcome is not None
    if handle.keep_selection:
        handle.last_selection = task.outcome
    if handle.filtered is not None:
        # Position i carries the target of token i + 1; the last position of a row carries none. Where everything is
        # selected this is plain training, whose backward is exact also in rows without a label.
        selected = nn.functional.pad(task.outcome[2], (0, 1))
        handle.filtered.choose(torch.ones_like(selected) if task.policy.selects_everything else selected)


# The number of selected rows depends on data: a compiler would guess, break the graph, or compile anew at each step.
@torch.compiler.disable
def _run(task: Task, head: nn.Linear, hidden_states: Tensor) -> Any:
    return task(head, hidden_states)
