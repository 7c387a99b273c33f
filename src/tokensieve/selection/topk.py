"""Exact top-k over valid tokens, by rank.

Ranks, not thresholds: a threshold keeps more or fewer tokens as soon as scores tie, and scores tie often
in low precision. Padding never enters the ranking. k = floor(ratio * valid + 0.5) in every unit.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from tokensieve.selection.policy import SelectionPolicy
from tokensieve.selection.scores import TokenColumns, compute_score


def select_tokens(scores: Tensor, valid: Tensor, ratio: float, scope: str = "microbatch") -> Tensor:
    """Choose the highest-scoring share of the valid tokens.

    Args:
        scores: [B, T] float, higher = kept; values at invalid positions are ignored.
        valid: [B, T] bool, the candidates.
        ratio: share of the candidates kept, in (0, 1].
        scope: the unit that is ranked: `sequence` (each row), `microbatch` (all rows given), or `global`
            (the rows of all ranks of the default process group; every rank must call).

    Returns:
        [B, T] bool with exactly floor(ratio * valid + 0.5) true in each unit; ties go to the lower index
        (lower rank first under `global`).

    Raises:
        ValueError: a valid score is NaN, or the scope is unknown.
    """
    if torch.isnan(scores).logical_and(valid).any():
        raise ValueError("a candidate's score is NaN: its loss or reference loss is NaN, or it was never scored")
    if scope == "sequence":
        return _top_share(scores, valid, ratio)
    if scope == "microbatch" or (scope == "global" and not _several_ranks()):
        return _top_share(scores.reshape(1, -1), valid.reshape(1, -1), ratio).view_as(valid)
    if scope == "global":
        return _top_share_of_all_ranks(scores, valid, ratio)
    raise ValueError(f"unknown scope {scope!r}")


def apply_policy(policy: SelectionPolicy, columns: TokenColumns, valid: Tensor) -> Tensor:
    """The policy's choice among the valid tokens: bool, shape of `valid` [B, T]."""
    if policy.score == "mask":
        chosen = columns.selection_mask
        if chosen is None:
            raise ValueError("score 'mask' needs the column selection_mask, which the batch does not have")
        return chosen.bool() & valid
    if policy.parts:
        first, second = (
            select_tokens(compute_score(part.score, columns, policy.seed), valid, part.ratio, policy.scope)
            for part in policy.parts
        )
        return first & second if policy.score == "intersection" else first | second
    if policy.ratio == 1:
        return valid
    return select_tokens(compute_score(policy.score, columns, policy.seed), valid, policy.ratio, policy.scope)


def _top_share(scores: Tensor, valid: Tensor, ratio: float) -> Tensor:
    """Rows of [U, M] are the units."""
    counts = valid.sum(dim=1, keepdim=True)
    keep = torch.floor(counts.double() * ratio + 0.5).long()
    # Two stable sorts: by score, then valid ones first. A sentinel value for invalid tokens could tie
    # with a real score; this order cannot.
    by_score = torch.sort(scores, dim=1, descending=True, stable=True).indices
    valid_first = torch.sort(valid.gather(1, by_score).byte(), dim=1, descending=True, stable=True).indices
    order = by_score.gather(1, valid_first)
    kept = torch.arange(scores.shape[1], device=scores.device).expand_as(order) < keep
    return torch.zeros_like(valid).scatter(1, order, kept)


def _several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _top_share_of_all_ranks(scores: Tensor, valid: Tensor, ratio: float) -> Tensor:
    """Gather every rank's tokens (ranks may hold different numbers), rank them once, keep one's own slice."""
    size = torch.tensor([scores.numel()], device=scores.device)
    sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    width = int(torch.cat(sizes).max())
    padded_scores = scores.new_zeros(width)
    padded_scores[: scores.numel()] = scores.reshape(-1).masked_fill(~valid.reshape(-1), 0)
    padded_valid = torch.zeros(width, dtype=torch.uint8, device=scores.device)
    padded_valid[: scores.numel()] = valid.reshape(-1)
    all_scores = [torch.zeros_like(padded_scores) for _ in sizes]
    all_valid = [torch.zeros_like(padded_valid) for _ in sizes]
    dist.all_gather(all_scores, padded_scores)
    dist.all_gather(all_valid, padded_valid)
    chosen = _top_share(torch.cat(all_scores)[None], torch.cat(all_valid)[None].bool(), ratio)[0]
    start = dist.get_rank() * width
    return chosen[start : start + scores.numel()].view_as(valid)
