"""What the output layer does to one chunk of rows, forwards and backwards, in float32 (or float64) on every device.

A loss must not be rounded to half precision, and gradients of chunks must not be summed in it.

Shapes: n rows of one chunk, D width, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of the weight's gradient that are computed at once where the product needs memory of its own.
VOCABULARY_BLOCK = 16_384


@dataclass(frozen=True)
class HeadTransform:
    """What stands between the head's linear map and the softmax: softcap(scale * (h W^T + b))."""

    scale: float = 1.0
    """Cohere's logit_scale; Granite's 1 / logits_scaling."""
    softcap: float | None = None
    """Gemma 2's final_logit_softcapping: c * tanh(x / c)."""


PLAIN = HeadTransform()


class Product:
    """The linear map of one head, and the two products of its backward.

    CUDA multiplies half-precision inputs into float32 outputs. The CPU has no such product: there logits are
    computed from widened inputs, since a loss must not be rounded, while the two gradients are rounded once, as
    the model's own head would round them.

    Args:
        weight: [V, D] in the type to multiply in.
        bias: [V] or None.
        wide: type of the results.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, wide: torch.dtype) -> None:
        self.mixed = weight.is_cuda and weight.dtype != wide
        self.wide = wide
        self.narrow_weight = weight
        self.weight = weight if self.mixed else weight.to(wide)
        self.bias = bias
        self._buffer: Tensor | None = None

    def logits(self, hidden: Tensor, most_rows: int) -> Tensor:
        """[n, D] -> [n, V] in `wide`, valid until the next call; `most_rows` is the largest n to come."""
        if self.mixed:
            logits = torch.mm(hidden, self.weight.T, out_dtype=self.wide)
        else:
            # One buffer for all chunks: on a CPU fresh memory costs as much as all that is done to the logits.
            if self._buffer is None:
                self._buffer = hidden.new_empty(most_rows, len(self.weight), dtype=self.wide)
            logits = torch.mm(hidden.to(self.wide), self.weight.T, out=self._buffer[: len(hidden)])
        return logits if self.bias is None else logits.add_(self.bias)

    def backward_hidden(self, grad: Tensor) -> Tensor:
        """[n, V] in the weight's type -> [n, D]."""
        if self.mixed:
            return torch.mm(grad, self.weight, out_dtype=self.wide)
        return grad @ self.narrow_weight

    def add_backward_weight(self, total: Tensor, grad: Tensor, hidden: Tensor) -> None:
        """Add grad^T hidden to total [V, D]."""
        if grad.dtype == self.wide:
            total.addmm_(grad.T, hidden)
            return
        for block in range(0, len(total), VOCABULARY_BLOCK):
            columns = slice(block, block + VOCABULARY_BLOCK)
            if self.mixed:
                total[columns] += torch.mm(grad[:, columns].T, hidden, out_dtype=self.wide)
            else:
                total[columns] += grad[:, columns].T @ hidden


def scaled_as(grad: Tensor, factor: Tensor, dtype: torch.dtype, *, in_place: bool) -> Tensor:
    """Multiply: grad * factor in `dtype`, without a whole copy in between; in place where that is allowed."""
    if grad.dtype == dtype:
        return grad.mul_(factor) if in_place else grad * factor
    result = torch.empty_like(grad, dtype=dtype)
    for start in range(0, len(grad), VOCABULARY_BLOCK):
        rows = slice(start, start + VOCABULARY_BLOCK)
        result[rows] = grad[rows] * factor
    return result


def compute_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The type the model's own linear head would multiply in: autocast's, or the weight's."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def in_type(
    dtype: torch.dtype, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The three tensors in `dtype`."""
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Inside autocast every product would be rounded to half precision, losses included."""
    return torch.autocast(tensor.device.type, enabled=False)


def wide_type(tensor: Tensor) -> torch.dtype:
    """float32, or float64 for float64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def transform_(logits: Tensor, transform: HeadTransform) -> Tensor:
    """softcap(scale * logits), in place."""
    if transform.scale != 1.0:
        logits.mul_(transform.scale)
    if transform.softcap is not None:
        logits.div_(transform.softcap).tanh_().mul_(transform.softcap)
    return logits


def exponentials_(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits [n, V] into exp(logit - largest of the row) in place; returns losses [n] and row sums [n]."""
    largest = logits.amax(dim=1, keepdim=True)
    target = logits.gather(1, labels[:, None])
    sums = logits.sub_(largest).exp_().sum(dim=1)
    # Both terms are >= 0: nothing cancels.
    return (largest - target)[:, 0] + sums.log(), sums


def entropies_of(exponentials: Tensor, sums: Tensor) -> Tensor:
    """H = log s - sum(e log e) / s, with e = exp(logit - largest): [n] nats."""
    # In pieces, because entr makes a copy.
    parts = [torch.special.entr(piece).sum(dim=1) for piece in exponentials.split(128)]
    return sums.log() + torch.cat(parts) / sums
