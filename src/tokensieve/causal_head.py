"""The output layer of a transformers causal LM: its linear map, its scale and soft cap, and a check of both.

A head that does anything our loss does not reproduce would be mis-trained in silence; the check compares token
losses with the model's own logits once and refuses with the difference.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from tokensieve.head import HeadTransform, token_losses


def linear_head(model: PreTrainedModel) -> nn.Linear:
    """The model's output layer.

    Raises:
        TypeError: it is not a torch.nn.Linear.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise TypeError(f"the head of {type(model).__name__} is {type(head).__name__}, not torch.nn.Linear")
    return head


def head_transform(config: Any) -> HeadTransform:
    """Scale and soft cap by the names that transformers' configurations give them."""
    config = config.get_text_config()
    scale = 1.0
    if getattr(config, "logit_scale", None) is not None:
        scale *= config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        scale /= config.logits_scaling
    return HeadTransform(scale=scale, softcap=getattr(config, "final_logit_softcapping", None))


@torch.no_grad()
def check_head(model: PreTrainedModel, transform: HeadTransform, forward: Callable[..., Any]) -> None:
    """Compare our token losses with those of the model's own logits on a few tokens.

    The model is put in eval mode and back; the random state is left as it was.

    Args:
        model: with materialised weights.
        transform: what is assumed to stand between the linear map and the softmax.
        forward: the model's own forward, unpatched.

    Raises:
        ValueError: they differ by more than the rounding of the model's type; the message gives the difference.
    """
    head = linear_head(model)
    device = head.weight.device
    rows, length = 2, 8
    ids = torch.arange(rows * length, device=device).view(rows, length) * 7919 % head.out_features
    training = model.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.eval()
        try:
            logits = forward(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1).double()
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        finally:
            model.train(training)
    targets = ids[:, 1:].flatten()
    ours = token_losses(hidden, head.weight, targets, bias=head.bias, transform=transform).double()
    theirs = F.cross_entropy(logits, targets, reduction="none")
    # The model rounds its logits to its own type; a loss moves by at most twice that.
    allowed = 1e-4 + 4 * torch.finfo(head.weight.dtype).eps * logits.abs().max()
    difference = (ours - theirs).abs().max()
    if not difference <= allowed:
        raise ValueError(
            f"the head of {type(model).__name__} does more than scale, bias and soft cap: token losses differ by "
            f"{difference:.3g} nats from those of its own logits (allowed {allowed:.1g}); training would be wrong"
        )


@torch.no_grad()
def check_document_mask(model: PreTrainedModel, length: int) -> None:
    """Make sure that attention stays inside documents when positions restart and no mask is given.

    Two documents share a row; the first one's tokens are changed, and the second one's hidden states must not
    move. transformers builds the mask from position_ids for most architectures, but not for all. The model is put
    in eval mode and back.

    Args:
        model: with materialised weights.
        length: of the row, in tokens, at least 2.

    Raises:
        ValueError: they move.
    """
    half = length // 2
    device = linear_head(model).weight.device
    first = torch.arange(length, device=device)[None] % 7 + 2
    second = first.clone()
    second[:, :half] += 3
    positions = torch.cat([torch.arange(half, device=device), torch.arange(length - half, device=device)])[None]
    training = model.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.eval()
        try:
            states = [
                model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, half:]
                for ids in (first, second)
            ]
        except TypeError as error:
            raise ValueError(f"{type(model).__name__} takes no position_ids to keep documents apart") from error
        finally:
            model.train(training)
    difference = (states[0] - states[1]).abs().max().item()
    scale = states[0].abs().max().item()
    if difference > 1e-3 * scale:
        raise ValueError(
            f"attention of {type(model).__name__} crosses documents in a packed row (hidden states move by "
            f"{difference:.2g})"
        )
