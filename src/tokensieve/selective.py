"""`handle = make_selective(model, policy)`: any causal LM becomes a selective one, in place.

Two forwards of the model *instance* are patched. `model.forward(..., labels, reference_loss)` runs the
backbone and then **calls** `lm_head(hidden, labels=..., ...)`; the head returns the loss. Going through
modules, and never reading the head's weight from outside, is what keeps this right under every sharding
engine: they gather weights in module hooks. No logits of all tokens exist at any time.

Selection acts only while `model.training`: in eval mode, or without labels, the model behaves as before.
Shapes: B rows, T positions, D width, V vocabulary. `labels[i]`, like every column, belongs to predicting
token i; the shift happens here.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from tokensieve.causal_head import check_head, head_transform, linear_head
from tokensieve.head import IGNORE, HeadTransform, summed_loss, token_losses
from tokensieve.selection import SelectionPolicy, TokenColumns, apply_policy

COLUMNS = (
    "reference_loss",
    "reference_entropy",
    "history_loss",
    "selection_mask",
    "token_index",
    "document_ids",
)
_FLOAT_COLUMNS = ("reference_loss", "reference_entropy", "history_loss")


class NonFiniteLossError(FloatingPointError):
    """A loss is NaN or infinite. `token_index` [n, T] holds the rows of the batch, if the batch had the column."""

    def __init__(self, token_index: Tensor | None) -> None:
        super().__init__("the loss is NaN or infinite")
        self.token_index = token_index


@dataclass
class SelectionStats:
    """Sums since the last reset, of this process.

    Losses are known only for forwards that ran the first pass ("measured"): always for scores that read the
    live loss and for ratio 1, else while `handle.measure` is set.
    """

    sums: Tensor | None = None

    _NAMES = ("valid", "selected", "measured_valid", "measured_selected", "loss", "loss_selected")

    def add(self, *values: Tensor) -> None:
        """Add the six sums, in the order of `_NAMES`; stays on the device, no synchronisation."""
        new = torch.stack([value.detach().double() for value in values])
        self.sums = new if self.sums is None else self.sums + new

    def read(self) -> dict[str, float]:
        """The sums by name: counts of tokens, and losses summed in nats."""
        values = [0.0] * len(self._NAMES) if self.sums is None else self.sums.tolist()
        return dict(zip(self._NAMES, values, strict=True))

    def reset(self) -> None:
        """Start again from zero."""
        self.sums = None


@dataclass(eq=False)
class SelectiveHandle:
    """What `make_selective` returns: the patched model, its statistics, and the way back."""

    model: PreTrainedModel
    policy: SelectionPolicy
    transform: HeadTransform
    original_forward: Callable[..., Any]
    """The model's forward before the patch."""
    stats: SelectionStats = field(default_factory=SelectionStats)
    measure: bool = False
    """Compute losses of unselected tokens too, where the policy alone would not (set it on logging steps)."""
    keep_selection: bool = False
    """Keep the last forward's choice in `last_selection`."""
    last_selection: tuple[Tensor | None, Tensor, Tensor] | None = None
    """(token_index, valid, selected), each [B, T-1], of the last training forward."""
    checked: bool = False

    def token_losses(self, labels: Tensor, *, entropy: bool = False, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Loss of every token of a batch, through the model's own forward, so right under any sharding.

        Args:
            labels: [B, T]; entry i belongs to predicting token i, -100 is left out.
            entropy: also the entropy of the model's next-token distribution at each label.
            inputs: `input_ids`, `position_ids`, ...; columns are ignored.

        Returns:
            losses and entropies (or None), float32 [B, T] in nats; 0 where the label is -100 and at position 0.
        """
        with torch.no_grad():
            return self.model(labels=labels, token_losses="entropy" if entropy else "loss", **inputs)

    def check(self) -> None:
        """Refuse a head that our loss does not reproduce (see `causal_head.check_head`)."""
        check_head(self.model, self.transform, self.original_forward)
        self.checked = True

    def remove(self) -> None:
        """Undo the patch; the model is again what it was, bit for bit."""
        del self.model.forward
        del linear_head(self.model).forward


def make_selective(model: PreTrainedModel, policy: SelectionPolicy) -> SelectiveHandle:
    """Patch a causal LM in place so that its training loss is the selective loss (Rho-1, eq. 5).

    The loss is sum over selected tokens / (ratio * num_items_in_batch); the stock Trainer counts
    `num_items_in_batch` over accumulation steps and ranks, without it the live labels of the forward count.

    Args:
        model: any transformers causal LM with a linear head. Its training forward then takes the policy's
            columns ([B, T], entry i belongs to predicting token i): float32, float16, or int16 holding the
            bits of float16; bfloat16 is refused, because it changes 1 % of the choices.
        policy: what to select. `ratio=1` is ordinary training.

    Raises:
        TypeError: the model has no linear head or no separate backbone.
        ValueError: the model is patched already, its head does something this head cannot reproduce (the
            message gives the difference), or it adds an auxiliary loss.
    """
    head = linear_head(model)
    if "forward" in vars(model):
        raise ValueError("the model's forward is patched already; call handle.remove() first")
    if model.base_model is model:
        raise TypeError(f"{type(model).__name__} has no backbone separate from its head")
    if getattr(model.config, "output_router_logits", False):
        raise ValueError(
            "config.output_router_logits adds an auxiliary loss that this head does not carry; set it false"
        )
    handle = SelectiveHandle(model, policy, head_transform(model.config), model.forward)
    if not any(parameter.is_meta for parameter in model.parameters()):
        handle.check()
    model.forward = _ModelForward(handle)
    head.forward = _HeadForward(handle, head.forward)  # type: ignore[method-assign,assignment]
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

    def __call__(self, *args: Any, labels: Tensor | None = None, token_losses: str | None = None, **kwargs: Any) -> Any:
        columns = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        model = self.handle.model
        if labels is None or not (model.training or token_losses):
            return self.handle.original_forward(*args, labels=labels, **kwargs)
        if kwargs.get("fused_lm_head"):
            raise ValueError(
                "fused_lm_head=True (TRL's SFTTrainer) computes another loss; it would bypass the selection"
            )
        if not self.handle.checked:
            self.handle.check()
        columns = {name: column for name, column in columns.items() if column is not None}
        count = kwargs.pop("num_items_in_batch", None)
        kwargs.pop("logits_to_keep", None)
        kwargs.pop("return_dict", None)
        # With a cache, transformers no longer sees where packed documents end (it looks at position_ids).
        kwargs["use_cache"] = False
        hidden_states = model.base_model(*args, **kwargs).last_hidden_state
        if token_losses is not None:
            return linear_head(model)(hidden_states, labels=labels, token_losses=token_losses)
        loss = linear_head(model)(hidden_states, labels=labels, columns=columns, num_items_in_batch=count)
        return CausalLMOutputWithPast(loss=loss)


class _HeadForward:
    """The head's forward: logits without labels, the selective loss with them."""

    def __init__(self, handle: SelectiveHandle, original: Any) -> None:
        self.handle = handle
        self.original = original

    def __call__(
        self,
        hidden_states: Tensor,
        labels: Tensor | None = None,
        columns: dict[str, Tensor] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        token_losses: str | None = None,
    ) -> Any:
        if labels is None:
            return self.original(hidden_states)
        if token_losses is not None:
            return _losses_like_labels(self.handle, hidden_states, labels, entropy=token_losses == "entropy")
        return _selective_loss(self.handle, hidden_states, labels, columns or {}, num_items_in_batch)


def _selective_loss(
    handle: SelectiveHandle,
    hidden_states: Tensor,
    labels: Tensor,
    columns: dict[str, Tensor],
    num_items_in_batch: Tensor | int | None,
) -> Tensor:
    head, policy = linear_head(handle.model), handle.policy
    hidden_BTD = hidden_states[:, :-1]
    labels_BT = labels[:, 1:].to(hidden_BTD.device)
    for name, column in columns.items():
        if column.shape != labels.shape:
            raise ValueError(
                f"{name} has shape {tuple(column.shape)}; it must be that of labels, {tuple(labels.shape)}"
            )
    shifted = {name: _decode(name, column)[:, 1:] for name, column in columns.items()}
    valid = labels_BT != IGNORE
    options: dict[str, Any] = {"bias": head.bias, "transform": handle.transform}

    # ratio 1 selects everything, so the second pass alone yields all losses.
    everything = policy.ratio == 1 and not policy.parts and policy.score != "mask"
    losses_BT = entropy_BT = None
    if policy.needs_live_loss or (handle.measure and not everything):
        losses_BT, entropy_BT = _valid_losses(handle, hidden_BTD, labels_BT, "current_entropy" in policy.scores)
        finite_B = torch.isfinite(losses_BT).all(dim=1)
        if not finite_B.all():
            raise NonFiniteLossError(shifted["token_index"][~finite_B] if "token_index" in shifted else None)

    inputs = {name: column for name, column in shifted.items() if name != "document_ids"}
    selected = apply_policy(policy, TokenColumns(loss=losses_BT, entropy=entropy_BT, **inputs), valid)
    total = summed_loss(hidden_BTD[selected], head.weight, labels_BT[selected], **options)
    if not torch.isfinite(total.detach()):
        raise NonFiniteLossError(shifted.get("token_index"))
    _record(handle, valid, selected, losses_BT, total, everything, shifted.get("token_index"))
    # A step whose every label is masked has nothing to train on: its loss is 0, not 0 / 0.
    items = num_items_in_batch if num_items_in_batch is not None else valid.sum()
    return total / (policy.ratio * torch.as_tensor(items, device=total.device).clamp(min=1))


def _valid_losses(
    handle: SelectiveHandle, hidden_BTD: Tensor, labels_BT: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """First pass: losses (and entropies) where there is a label, 0 elsewhere; the shift has been done."""
    head = linear_head(handle.model)
    # Candidates alone go through the head.
    valid = labels_BT != IGNORE
    result = token_losses(
        hidden_BTD.detach()[valid],
        head.weight.detach(),
        labels_BT[valid],
        bias=head.bias,
        transform=handle.transform,
        entropy=entropy,
    )
    columns = result if entropy else (result,)
    full = [torch.zeros(valid.shape, dtype=column.dtype, device=valid.device) for column in columns]
    for target, column in zip(full, columns, strict=True):
        target[valid] = column
    return full[0], full[1] if entropy else None


def _losses_like_labels(
    handle: SelectiveHandle, hidden_states: Tensor, labels: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """[B, T] losses aligned with labels: shift, compute, shift back."""
    shifted = _valid_losses(handle, hidden_states[:, :-1], labels[:, 1:].to(hidden_states.device), entropy)
    losses, entropies = (None if column is None else F.pad(column, (1, 0)) for column in shifted)
    assert losses is not None
    return losses, entropies


def _record(
    handle: SelectiveHandle,
    valid: Tensor,
    selected: Tensor,
    losses: Tensor | None,
    total: Tensor,
    everything: bool,
    token_index: Tensor | None,
) -> None:
    valid_count, selected_count, zero = valid.sum(), selected.sum(), total.new_zeros(())
    if everything:
        handle.stats.add(valid_count, selected_count, valid_count, selected_count, total, total)
    elif losses is None:
        handle.stats.add(valid_count, selected_count, zero, zero, zero, zero)
    else:
        sums = losses.sum(dtype=torch.float64), losses[selected].sum(dtype=torch.float64)
        handle.stats.add(valid_count, selected_count, valid_count, selected_count, *sums)
    if handle.keep_selection:
        handle.last_selection = (token_index, valid, selected)


def _decode(name: str, column: Tensor) -> Tensor:
    """A loss column as float32; int16 holds the bits of float16 (FSDP2 casts floats to bfloat16 on the way in)."""
    if name not in _FLOAT_COLUMNS:
        return column
    if column.dtype == torch.int16:
        return column.view(torch.float16).float()
    if column.dtype in (torch.float32, torch.float16, torch.float64):
        return column if column.dtype == torch.float64 else column.float()
    raise TypeError(f"{name} is {column.dtype}: use float32, float16, or int16 holding the bits of float16")
