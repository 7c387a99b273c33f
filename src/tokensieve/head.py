"""Token losses and the selective loss, without ever holding the logits of all tokens.

Two passes. The first computes every token's loss in chunks of rows, without gradient; it also scores
corpora, so that live and reference losses come from one code path. After the selection the second pass
computes loss and gradient of the selected rows only. In units of V*D a token this costs 2 + 6k where the
ordinary head costs 6, and it is exact. The first pass can keep its last chunk, whose memory it needs anyway;
selected rows in there cost 4 instead of 6, so a micro-step that fits into one chunk costs 2 + 4k in all.

Why the second pass is our own and not `torch.nn.functional.linear_cross_entropy`: the latter rounds losses
to the input type, accumulates the weight gradient over chunks in the weight's type, ignores autocast and
knows no soft cap. One function here does all heads.

Shapes: N rows (tokens), n rows of one chunk, D width, V vocabulary. `labels[i]` is the target of
`hidden_states[i]`: the caller has shifted.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokensieve.head_chunk import (
    PLAIN,
    HeadTransform,
    Product,
    compute_type,
    entropies_of,
    exponentials_,
    in_type,
    no_autocast,
    transform_,
    wide_type,
)
from tokensieve.head_gradient import KeptChunk, Plan, SummedLoss

IGNORE = -100


@dataclass
class FirstPass:
    """What is known of every token before the selection."""

    losses: Tensor
    """[N] nats, 0 where there was nothing to compute."""
    entropies: Tensor | None
    """[N] nats, or None if not asked for."""
    kept: KeptChunk | None
    correct: Tensor | None = None
    """[N] bool, whether the likeliest token is the label; False where there was nothing to compute."""


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
    """Cross-entropy of every token, nats, without keeping logits and without gradient.

    Args:
        hidden_states: [N, D].
        weight: [V, D].
        labels: [N] int64 in [0, V); -100 gives loss (and entropy) 0.
        bias: [V] or None.
        transform: scale and soft cap of the logits.
        entropy: also return the entropy of the predicted distribution, nats.
        chunk_rows: rows per chunk; default `default_chunk_rows(V)`.

    Returns:
        [N] losses in float32 (float64 for float64 inputs); with `entropy` a pair (losses, entropies).

    Raises:
        ValueError: shapes that do not fit together, or a label outside the vocabulary.
    """
    found = first_pass(
        hidden_states, weight, labels, bias=bias, transform=transform, entropy=entropy, chunk_rows=chunk_rows
    )
    return (found.losses, found.entropies) if entropy else found.losses


@torch.no_grad()
def first_pass(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    transform: HeadTransform = PLAIN,
    entropy: bool = False,
    correct: bool = False,
    chunk_rows: int | None = None,
    keep: bool = False,
) -> FirstPass:
    """`token_losses` with more on request.

    `correct`: whether the likeliest token is the label (a tie counts as right). `keep`: the last chunk, for
    `summed_loss` (not for soft-capped heads).
    """
    _check_shapes(hidden_states, weight, labels)
    rows = (labels != IGNORE).nonzero()[:, 0]
    hidden, matrix, offset = in_type(compute_type(hidden_states, weight), hidden_states, weight, bias)
    wide = wide_type(matrix)
    losses = torch.zeros(len(labels), dtype=wide, device=labels.device)
    entropies = torch.zeros_like(losses) if entropy else None
    rights = torch.zeros(len(labels), dtype=torch.bool, device=labels.device) if correct else None
    kept = None
    with no_autocast(hidden):
        product = Product(matrix, offset, wide)
        size = chunk_rows or default_chunk_rows(len(matrix))
        for chunk in rows.split(size):
            logits = transform_(product.logits(hidden[chunk], min(size, len(rows))), transform)
            losses[chunk], sums = exponentials_(logits, labels[chunk])
            if entropies is not None:
                entropies[chunk] = entropies_of(logits, sums)
            if rights is not None:
                # exp(logit - largest) is 1 for the largest alone.
                rights[chunk] = logits.gather(1, labels[chunk, None])[:, 0] == 1
            if keep and transform.softcap is None and len(rows) and chunk[-1] == rows[-1]:
                kept = KeptChunk(chunk, logits, sums, losses[chunk])
            del logits  # or the next chunk's logits would be made while these are still held
    return FirstPass(losses, entropies, kept, rights)


def summed_loss(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    token_weights: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    transform: HeadTransform = PLAIN,
    chunk_rows: int | None = None,
    kept: KeptChunk | None = None,
) -> Tensor:
    """Weighted sum of the tokens' cross-entropies, nats, differentiable in hidden states, weight and bias.

    Gradients are computed chunk by chunk in the forward pass and accumulated in float32 (float64 for
    float64 inputs). Tokens of weight 0 or label -100 cost nothing. Peak memory beside the inputs: one chunk of
    logits (and, for half-precision weights, of their gradient) and the weight's gradient; one more copy of that
    under `retain_graph`.

    Args:
        hidden_states: [N, D].
        weight: [V, D].
        labels: [N] int64 in [0, V); -100 has weight 0.
        token_weights: [N], bool or float; None weighs every token 1. No gradient flows into it.
        bias: [V] or None.
        transform: scale and soft cap of the logits.
        chunk_rows: rows per chunk; default `default_chunk_rows(V)`.
        kept: from `first_pass` of the same tensors; it is used up.

    Raises:
        ValueError: shapes that do not fit together, or a label outside the vocabulary.
    """
    _check_shapes(hidden_states, weight, labels)
    if token_weights is not None and token_weights.shape != labels.shape:
        raise ValueError(f"token_weights has shape {tuple(token_weights.shape)} and labels {tuple(labels.shape)}")
    weights = (labels != IGNORE) if token_weights is None else token_weights * (labels != IGNORE)
    size = chunk_rows or default_chunk_rows(len(weight))
    if transform.softcap is not None:
        size = max(1, size // 2)  # its slope takes a second buffer of the chunk's shape
    plan = Plan(
        labels, weights.detach(), transform, size, compute_type(hidden_states, weight), torch.is_grad_enabled(), kept
    )
    with no_autocast(hidden_states):
        return SummedLoss.apply(hidden_states, weight, bias, plan)


def default_chunk_rows(vocabulary: int) -> int:
    """Rows whose float32 logits take about 1 GiB at most: the power of two nearest 2**28 / V in [256, 4096]."""
    return min(4096, max(256, 2 ** round(28 - math.log2(vocabulary))))


def _check_shapes(hidden_states: Tensor, weight: Tensor, labels: Tensor) -> None:
    if hidden_states.dim() != 2 or weight.dim() != 2 or labels.shape != hidden_states.shape[:1]:
        raise ValueError(
            f"hidden_states [N, D], weight [V, D] and labels [N] are needed, not {tuple(hidden_states.shape)}, "
            f"{tuple(weight.shape)} and {tuple(labels.shape)}"
        )
    wrong = (labels >= len(weight)) | ((labels < 0) & (labels != IGNORE))
    if wrong.any():
        raise ValueError(
            f"label {int(labels[wrong][0])} is not in the vocabulary of {len(weight)} (and not {IGNORE}): were the "
            f"labels made with another tokenizer?"
        )
