"""The second pass: loss and gradients of the weighted rows, chunk by chunk, in one autograd function.

Shapes: N rows (tokens), n rows of one chunk, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokensieve.head_chunk import HeadTransform, Product, exponentials_, in_type, scaled_as, transform_, wide_type


@dataclass
class KeptChunk:
    """The last chunk of a first pass, from which the second pass goes on without computing its logits again."""

    rows: Tensor
    """[n] ascending row numbers."""
    exponentials: Tensor | None
    """[n, V] exp(logit - largest logit of the row); None once it has been used up."""
    sums: Tensor
    """[n] of the exponentials."""
    losses: Tensor
    """[n] nats."""


@dataclass
class Plan:
    """What `SummedLoss` needs beside the tensors it differentiates."""

    labels: Tensor
    weights: Tensor
    transform: HeadTransform
    size: int
    compute_type: torch.dtype
    with_gradient: bool
    kept: KeptChunk | None


class SummedLoss(torch.autograd.Function):
    """hidden states [N, D], weight [V, D], bias [V] or None, plan -> the weighted sum of losses, a scalar."""

    @staticmethod
    def forward(  # noqa: D102 (autograd's own protocol)
        ctx: Any, hidden_states: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan
    ) -> Tensor:
        ctx.types = hidden_states.dtype, weight.dtype, None if bias is None else bias.dtype
        hidden, matrix, offset = in_type(plan.compute_type, hidden_states, weight, bias)
        wide = wide_type(matrix)
        product = Product(matrix, offset, wide)
        labels, weights = plan.labels, plan.weights.to(wide)
        wanted = [plan.with_gradient and need for need in ctx.needs_input_grad[:3]]
        shapes = hidden.shape, matrix.shape, (len(matrix),)
        grads = [
            torch.zeros(shape, dtype=wide, device=hidden.device) if want else None
            for want, shape in zip(wanted, shapes, strict=True)
        ]
        total = torch.zeros((), dtype=wide, device=hidden.device)

        def differentiate(chunk: Tensor, exponentials: Tensor, sums: Tensor, slope: Tensor | None) -> None:
            # d total / d logits = w * (softmax - one hot), times the slopes of soft cap and scale
            factor = weights[chunk] * plan.transform.scale
            grad = exponentials.mul_((factor / sums)[:, None])
            grad.scatter_add_(1, labels[chunk][:, None], -factor[:, None])
            if slope is not None:
                grad *= slope
            if grads[2] is not None:
                grads[2] += grad.sum(dim=0)
            grad = grad.to(matrix.dtype)
            if grads[0] is not None:
                grads[0][chunk] = product.backward_hidden(grad).to(wide)
            if grads[1] is not None:
                product.add_backward_weight(grads[1], grad, hidden[chunk])

        rows = (weights != 0).nonzero()[:, 0]
        if plan.kept is not None:
            rows, inside = rows[rows < plan.kept.rows[0]], (weights[plan.kept.rows] != 0).nonzero()[:, 0]
            assert plan.kept.exponentials is not None
            # Small pieces on a CPU, where they cost nothing, so that the copies stay small beside the chunk.
            for piece in inside.split(max(1, plan.size // (4 if hidden.is_cuda else 16))):
                chunk = plan.kept.rows[piece]
                total += (weights[chunk] * plan.kept.losses[piece]).sum()
                differentiate(chunk, plan.kept.exponentials[piece], plan.kept.sums[piece], None)
            plan.kept.exponentials = None
        for chunk in rows.split(plan.size):
            logits = transform_(product.logits(hidden[chunk], min(plan.size, len(rows))), plan.transform)
            cap = plan.transform.softcap
            slope = None if cap is None else (logits / cap).square_().neg_().add_(1)
            losses, sums = exponentials_(logits, labels[chunk])
            total += (weights[chunk] * losses).sum()
            differentiate(chunk, logits, sums, slope)
            del logits, slope
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 (autograd's own protocol)
        # A copy costs as much memory as the weight's gradient, and on a CPU the time to get it; it is made only where
        # this backward may run again (retain_graph).
        in_place = not torch._C._autograd._get_current_graph_task_keep_graph()
        grads = [
            None if grad is None else scaled_as(grad, grad_output, dtype, in_place=in_place)
            for grad, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return (*grads, None)
