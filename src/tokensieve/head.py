"""Token losses and the selective loss, without ever holding the logits of all tokens.

Two passes. The first computes every token's loss in chunks of rows, without gradient; it also scores
corpora, so that live and reference losses come from one code path. After the selection the second pass
computes loss and gradient of the selected rows only. In units of V*D a token this costs 2 + 6k where the
ordinary head costs 6, and it is exact.

Why the second pass is our own and not `torch.nn.functional.linear_cross_entropy`: the latter rounds losses
to the input type, accumulates the weight gradient over chunks in the weight's type, ignores autocast and
knows no soft cap. One function here does all heads.

Shapes: N rows (tokens), D width, V vocabulary. `labels[i]` is the target of `hidden_states[i]`: the caller
has shifted.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class HeadTransform:
    """What stands between the head's linear map and the softmax: softcap(scale * (h W^T + b))."""

    scale: float = 1.0
    """Cohere's logit_scale; Granite's 1 / logits_scaling."""
    softcap: float | None = None
    """Gemma 2's final_logit_softcapping: c * tanh(x / c)."""


PLAIN = HeadTransform()


@torch.no_grad()
def token_losses(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    transform: HeadTransform = PLAIN,
    entropy: bool = False,
    chunk_rows: int | None = None,
) -> Any:
    """Cross-entropy of every token, nats, without keeping logits.

    Args:
        hidden_states: [N, D].
        weight: [V, D].
        labels: [N] int64; -100 gives loss 0.
        bias: [V] or None.
        transform: scale and soft cap of the logits.
        entropy: also return the entropy of the predicted distribution, nats.
        chunk_rows: rows per chunk; default `default_chunk_rows(V)`.

    Returns:
        [N] losses in float32 (float64 for float64 inputs); with `entropy` a pair (losses, entropies).
    """
    hidden, matrix, offset = _in_type(_compute_type(hidden_states, weight), hidden_states, weight, bias)
    wide = _wide(matrix)
    losses = torch.zeros(labels.shape, dtype=wide, device=labels.device)
    entropies = torch.zeros_like(losses) if entropy else None
    with _no_autocast(hidden):
        product = _Product(matrix, wide)
        for rows in _chunks(len(labels), chunk_rows or default_chunk_rows(len(matrix))):
            logits = _transform(product.logits(hidden[rows], offset), transform)
            log_z = logits.logsumexp(dim=1)
            target = logits.gather(1, labels[rows].clamp(min=0)[:, None])[:, 0]
            losses[rows] = (log_z - target).masked_fill(labels[rows] == IGNORE, 0)
            if entropies is not None:
                # H = log Z - E[logit]
                entropies[rows] = log_z - (logits.sub(log_z[:, None]).exp_().mul_(logits)).sum(dim=1)
    return losses if entropies is None else (losses, entropies)


def summed_loss(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    transform: HeadTransform = PLAIN,
    chunk_rows: int | None = None,
) -> Tensor:
    """Sum of the cross-entropies of the rows given, nats, differentiable.

    Gradients are computed chunk by chunk in the forward pass and accumulated in float32 (float64 for
    float64 inputs). Peak memory beside the inputs: one chunk of logits and the weight's gradient.

    Args:
        hidden_states: [N, D], N may be 0 (the result then carries zero gradients).
        weight: [V, D].
        labels: [N] int64, without -100.
        bias: [V] or None.
        transform: scale and soft cap of the logits.
        chunk_rows: rows per chunk; default `default_chunk_rows(V)`.
    """
    compute_type = _compute_type(hidden_states, weight)
    with _no_autocast(hidden_states):
        return _SummedLoss.apply(hidden_states, weight, bias, labels, transform, chunk_rows, compute_type)


def default_chunk_rows(vocabulary: int) -> int:
    """Rows whose float32 logits take about 1 GiB at most: the power of two nearest 2**28 / V in [256, 4096]."""
    return min(4096, max(256, 2 ** round(28 - math.log2(vocabulary))))


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        transform: HeadTransform,
        chunk_rows: int | None,
        compute_type: torch.dtype,
    ) -> Tensor:
        ctx.types = hidden_states.dtype, weight.dtype, None if bias is None else bias.dtype
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        hidden, matrix, offset = _in_type(compute_type, hidden_states, weight, bias)
        wide = _wide(matrix)
        product = _Product(matrix, wide)
        grad_hidden = torch.zeros(hidden.shape, dtype=wide, device=hidden.device) if need_hidden else None
        grad_weight = torch.zeros(matrix.shape, dtype=wide, device=hidden.device) if need_weight else None
        grad_bias = torch.zeros(len(matrix), dtype=wide, device=hidden.device) if need_bias else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for rows in _chunks(len(labels), chunk_rows or default_chunk_rows(len(matrix))):
            logits = product.logits(hidden[rows], offset)
            capped = _transform(logits, transform)
            log_z = capped.logsumexp(dim=1, keepdim=True)
            target = labels[rows][:, None]
            total += (log_z - capped.gather(1, target)).sum()
            # d loss / d capped = softmax - one hot
            slope = None if transform.softcap is None else 1 - (capped / transform.softcap).square_()
            grad = capped.sub_(log_z).exp_()
            grad.scatter_add_(1, target, grad.new_full((1, 1), -1.0).expand_as(target))
            if slope is not None:
                grad *= slope
            if transform.scale != 1.0:
                grad *= transform.scale
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0)
            grad = grad.to(matrix.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = product.backward_hidden(grad)
            if grad_weight is not None:
                product.add_backward_weight(grad_weight, grad, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grads = [
            None if grad is None else (grad * grad_output).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return (*grads, None, None, None, None)


class _Product:
    """Products with the head's weight, whose results are `wide` on every device.

    CUDA multiplies half-precision inputs into float32 outputs. The CPU has no such product: there logits are
    computed from widened inputs, since a loss must not be rounded, while the two gradients are rounded once, as
    the model's own head would round them.
    """

    def __init__(self, weight: Tensor, wide: torch.dtype) -> None:
        self.mixed = weight.is_cuda and weight.dtype != wide
        self.wide = wide
        self.narrow_weight = weight
        self.weight = weight if self.mixed else weight.to(wide)

    def logits(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """[n, D] -> [n, V] in `wide`."""
        if self.mixed:
            logits = torch.mm(hidden, self.weight.T, out_dtype=self.wide)
        else:
            logits = hidden.to(self.wide) @ self.weight.T
        return logits if bias is None else logits.add_(bias)

    def backward_hidden(self, grad: Tensor) -> Tensor:
        """[n, V] in the weight's type -> [n, D]."""
        if self.mixed:
            return torch.mm(grad, self.weight, out_dtype=self.wide)
        return grad @ self.narrow_weight

    def add_backward_weight(self, total: Tensor, grad: Tensor, hidden: Tensor) -> None:
        """Add grad^T hidden to total [V, D]."""
        if self.mixed:
            total += torch.mm(grad.T, hidden, out_dtype=self.wide)
        elif grad.dtype == self.wide:
            total.addmm_(grad.T, hidden)
        else:
            total += grad.T @ hidden


def _compute_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The type the model's own linear head would multiply in: autocast's, or the weight's."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _in_type(
    dtype: torch.dtype, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _no_autocast(tensor: Tensor) -> torch.autocast:
    # Inside autocast every product below would be rounded to half precision, losses included.
    return torch.autocast(tensor.device.type, enabled=False)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _transform(logits: Tensor, transform: HeadTransform) -> Tensor:
    if transform.scale != 1.0:
        logits = logits * transform.scale
    if transform.softcap is not None:
        logits = F.tanh(logits / transform.softcap) * transform.softcap
    return logits


def _chunks(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
