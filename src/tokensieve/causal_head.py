"""The output layer of a transformers causal LM: its linear map, its scale and soft cap, and a check of both.

A head that does anything our loss does not reproduce would be mis-trained in silence; the check compares token
losses with the model's own logits once and refuses with the difference.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from tokensieve.head import HeadTransform
from tokensieve.selective_loss import TokenLosses

_BALANCE = "load_balancing_loss_func"
_LARGE = 60.0
"""Twice the usual soft cap."""


def linear_head(model: PreTrainedModel) -> nn.Linear:
    """The model's output layer (PEFT's trainable copy of it, if there is one).

    Raises:
        TypeError: it is not a torch.nn.Linear.
    """
    head: Any = model.get_output_embeddings()
    if is_peft_available():
        from peft.utils import ModulesToSaveWrapper

        if isinstance(head, ModulesToSaveWrapper):
            head = head.modules_to_save[head.active_adapters[0]]
    if head is None:
        raise TypeError(f"{type(model).__name__} has no output layer: give the model with its head (...ForCausalLM)")
    if not isinstance(head, nn.Linear):
        raise TypeError(
            f"the head of {type(model).__name__} is {type(head).__module__}.{type(head).__name__}, not "
            f"torch.nn.Linear (an adapter on the head: leave it out of target_modules, or put it into modules_to_save)"
        )
    return head


def linear_heads(model: PreTrainedModel) -> list[nn.Linear]:
    """The output layer; with PEFT also its original, which runs while adapters are off, and every trainable copy."""
    head: Any = model.get_output_embeddings()
    if is_peft_available():
        from peft.utils import ModulesToSaveWrapper

        if isinstance(head, ModulesToSaveWrapper):
            return [head.original_module, *head.modules_to_save.values()]
    return [head]


def head_transform(config: Any) -> HeadTransform:
    """Scale and soft cap by the names that transformers' configurations give them."""
    config = config.get_text_config()
    scale = 1.0
    if getattr(config, "logit_scale", None) is not None:
        scale *= config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        scale /= config.logits_scaling
    softcap = getattr(config, "final_logit_softcapping", None)
    if softcap is None:
        softcap = getattr(config, "logits_soft_cap", None)  # RecurrentGemma
    return HeadTransform(scale=scale, softcap=softcap)


def without_adapter(model: Any) -> Any:
    """The causal LM inside PEFT's wrapper, or the model itself."""
    if is_peft_available():
        from peft import PeftModel

        if isinstance(model, PeftModel):
            return model.get_base_model()
    return model


def adds_balance_loss(model: PreTrainedModel) -> bool:
    """Whether the model's configuration asks for the load-balancing loss of a mixture of experts."""
    return bool(getattr(model.config, "output_router_logits", False))


def balance_coefficient(model: PreTrainedModel) -> float:
    """What a mixture of experts multiplies its load-balancing loss by."""
    coefficient: Any = model.router_aux_loss_coef
    return float(coefficient)


def auxiliary_loss(model: PreTrainedModel, outputs: Any, attention_mask: Tensor | None) -> Tensor | None:
    """The load-balancing loss of a mixture of experts, as the model's own forward computes it, without coefficient.

    Args:
        model: the causal LM.
        outputs: of its backbone.
        attention_mask: [B, T] of the batch, or None.

    Returns:
        A scalar, or None if the backbone returned no router logits (`output_router_logits` is off).
    """
    if outputs.get("router_logits") is None:
        return None
    # transformers gives each mixture of experts its own function, in the file of the model.
    modules = (sys.modules[cls.__module__] for cls in type(model).__mro__)
    function = next(vars(module)[_BALANCE] for module in modules if _BALANCE in vars(module))
    return function(outputs.router_logits, model.num_experts, model.num_experts_per_tok, attention_mask)


@torch.no_grad()
def check_head(model: PreTrainedModel, transform: HeadTransform, forward: Callable[..., Any]) -> None:
    """Compare our losses with those of the model's own logits, and with its own loss, on a few tokens.

    The model is put in eval mode and back; the random state is left as it was. The head has been patched: it is
    called, not read, since its weight may be sharded.

    Args:
        model: with materialised weights.
        transform: what is assumed to stand between the linear map and the softmax.
        forward: the model's own forward, unpatched.

    Raises:
        ValueError: they differ by more than the rounding of the model's type; the message gives the difference.
    """
    device = linear_head(model).weight.device
    rows, length = 2, 8
    embedding: Any = model.get_input_embeddings()
    vocabulary = min(linear_head(model).out_features, embedding.num_embeddings)
    ids = torch.arange(rows * length, device=device).view(rows, length) * 7919 % vocabulary
    options: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if adds_balance_loss(model):
        options["output_router_logits"] = True
    head = model.get_output_embeddings()
    with _undisturbed(model, device):
        largest = forward(**options).logits.abs().max()
        # The logits of a fresh model are small, and there a soft cap does nothing that could be seen.
        factor = (_LARGE / largest.clamp(min=1e-3)).clamp(min=1)
        hook = head.register_forward_pre_hook(lambda _, args: (args[0] * factor.to(args[0].dtype), *args[1:]))
        try:
            own = forward(labels=ids, **options)
            outputs = model.base_model(**options)
            losses, _ = head(outputs.last_hidden_state, task=TokenLosses(ids, transform, entropy=False).run)
        finally:
            hook.remove()
        auxiliary = auxiliary_loss(model, outputs, None)
    logits, ours = own.logits[:, :-1].flatten(0, 1).double(), losses[:, 1:].flatten().double()
    theirs = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
    # The model rounds its logits to its own type; a loss moves by at most twice that.
    allowed = 1e-4 + 4 * torch.finfo(own.logits.dtype).eps * logits.abs().max()
    difference = (ours - theirs).abs().max()
    if not difference <= allowed:
        raise ValueError(
            f"the head of {type(model).__name__} does more than scale, bias and soft cap: token losses differ by "
            f"{difference:.3g} nats from those of its own logits (allowed {allowed:.1g}); training would be wrong"
        )
    mean = ours.mean() if auxiliary is None else ours.mean() + balance_coefficient(model) * auxiliary.double()
    difference = (mean - own.loss.double()).abs()
    if not difference <= allowed:
        raise ValueError(
            f"the loss of {type(model).__name__} is more than cross-entropy and load balancing: its own loss differs "
            f"by {difference:.3g} from ours (allowed {allowed:.1g}); training would lose the rest"
        )


@torch.no_grad()
def check_document_mask(model: PreTrainedModel, length: int, rows: int = 1) -> None:
    """Make sure that attention stays inside documents when positions restart and no mask is given.

    Two documents share a row; the first one's tokens are changed, and the second one's hidden states must not
    move. transformers builds the mask from position_ids for most architectures, but not for all. The model is put
    in eval mode and back.

    Args:
        model: with materialised weights.
        length: of the row, in tokens, at least 2.
        rows: of the batch; FlashAttention sees documents in a batch of one row alone.

    Raises:
        ValueError: they move.
    """
    half = length // 2
    device = linear_head(model).weight.device
    first = torch.arange(length, device=device).expand(rows, length) % 7 + 2
    second = first.clone()
    second[:, :half] += 3
    positions = torch.cat([torch.arange(half, device=device), torch.arange(length - half, device=device)])
    positions = positions.expand(rows, length)
    try:
        with _undisturbed(model, device):
            states = [
                model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, half:]
                for ids in (first, second)
            ]
    except TypeError as error:
        raise ValueError(f"{type(model).__name__} takes no position_ids to keep documents apart") from error
    difference = (states[0] - states[1]).abs().max().item()
    scale = states[0].abs().max().item()
    if difference > 1e-3 * scale:
        raise ValueError(
            f"attention of {type(model).__name__} crosses documents in a packed row (hidden states move by "
            f"{difference:.2g})"
        )


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module has the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _undisturbed(model: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """Eval mode without autocast; afterwards modes and random state are what they were."""
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autocast(device.type, enabled=False),
        eval_mode(model),
    ):
        yield
