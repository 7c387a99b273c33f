"""Soft weights: every candidate is trained on, the better ones more.

w = sigmoid((score - tau) / temperature), with tau such that the weights of a unit sum to the number that a hard
choice keeps there. As the temperature goes to 0 the weights become the hard choice (tied candidates at its edge
share what is left); as it grows they become `ratio` everywhere. Not in the paper, which names reweighting as
future work.
"""

import torch
from torch import Tensor

from tokensieve.selection.topk import lay_out, rank, share_of

_HALVINGS = 64


def soft_weights(scores: Tensor, valid: Tensor, ratio: float, temperature: float, scope: str = "microbatch") -> Tensor:
    """Weights of all candidates, summing to floor(ratio * valid + 0.5) in every unit.

    Args:
        scores: [B, T], higher = more weight; values at invalid positions are ignored.
        valid: [B, T] bool, the candidates.
        ratio: mean weight, in (0, 1].
        temperature: above 0, in units of the score.
        scope: `sequence`, `microbatch` or `global`, as in `select_tokens`.

    Returns:
        float64 [B, T] in [0, 1]; 0 where there is no candidate. Equal scores of a unit get equal weights.

    Raises:
        ValueError: a valid score is NaN or infinite (on any rank, under `global`), or shapes differ.
    """
    units = lay_out(scores, valid, scope)
    return units.back(soft_share(units.scores, units.valid, ratio, temperature))


def soft_share(scores: Tensor, valid: Tensor, ratio: float, temperature: float) -> Tensor:
    """The weights of rows that are units by themselves: [U, M] in, float64 [U, M] out."""
    if torch.isinf(scores).logical_and(valid).any():
        raise ValueError("a candidate's score is infinite: soft weights need finite scores")
    if scores.shape[1] == 0:
        return scores.double()
    scores = scores.double().masked_fill(~valid, 0)
    order, counts = rank(scores, valid)
    keep = share_of(counts, ratio)
    # tau lies near the edge of the hard choice. With margin = log(M) + 1: at (first dropped - margin) the k + 1
    # best alone weigh more than k, at (last kept + margin) all together weigh less.
    last_kept = scores.gather(1, order.gather(1, (keep - 1).clamp(min=0)))
    first_dropped = scores.gather(1, order.gather(1, torch.minimum(keep, (counts - 1).clamp(min=0))))
    # Counted from the edge, so that tau keeps its digits at a tiny temperature.
    scaled = (scores - last_kept) / temperature
    margin = torch.tensor(float(scores.shape[1]), dtype=torch.float64, device=scores.device).log() + 1
    low = ((first_dropped - last_kept) / temperature).clamp(min=-1e300) - margin
    high = margin.expand_as(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        heavy = (torch.sigmoid(scaled - middle) * valid).sum(dim=1, keepdim=True) > keep
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    weights = torch.sigmoid(scaled - high)
    weights = torch.where(keep == 0, 0.0, torch.where(keep == counts, 1.0, weights))
    return weights * valid
