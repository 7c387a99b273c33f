"""Exact top-k over valid tokens, by rank.

Ranks, not thresholds: a threshold keeps more or fewer tokens as soon as scores tie, and scores tie often
in low precision. Padding never enters the ranking, not even as a sentinel. k = floor(ratio * valid + 0.5) in
every unit.

`lay_out` brings a batch into units, one row each; what ranks or weights them (here and in soft.py) sees
[U, M] only. Under `global` the valid tokens of all ranks are gathered into one unit, so that every rank sees
the same numbers, comes to the same choice, and fails with the others if a score is unusable.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


def select_tokens(
    scores: Tensor, valid: Tensor, ratio: float, scope: str = "microbatch", document_ids: Tensor | None = None
) -> Tensor:
    """Choose the highest-scoring share of the valid tokens.

    Args:
        scores: [B, T], higher = kept; values at invalid positions are ignored.
        valid: [B, T] bool (or 0 and 1), the candidates.
        ratio: share of the candidates kept, in (0, 1].
        scope: the unit that is ranked: `sequence` (each row), `microbatch` (all rows given), `global`
            (the rows of all ranks of the default process group; every rank must call, with any number of rows),
            or `document` (as `global`, but whole fragments of documents are ranked by their mean score and kept
            until the next one would exceed the share; a fragment is a run of equal `document_ids` in one row).
        document_ids: [B, T] integers, for the scope `document`.

    Returns:
        [B, T] bool with exactly floor(ratio * valid + 0.5) true in each unit (at most so many under `document`);
        ties go to the lower index (lower rank first).

    Raises:
        ValueError: a valid score is NaN (on any rank: then every rank raises), shapes differ, `document_ids` is
            missing, or ratio or scope is none of those.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], not {ratio}")
    if scope == "document":
        if document_ids is None:
            raise ValueError("scope 'document' needs document_ids, [B, T] integers that change where a document does")
        return _whole_fragments(scores, valid, ratio, document_ids)
    units = lay_out(scores, valid, scope)
    return units.back(top_share(units.scores, units.valid, ratio))


class Units(NamedTuple):
    """Candidates as rows that are ranked by themselves."""

    scores: Tensor
    """[U, M], float."""
    valid: Tensor
    """[U, M], bool."""
    candidates: Tensor | None
    """[B, T] bool, where the single unit's values come from; None if the units are the batch's own rows."""
    own: slice
    """Where this rank's candidates lie in the single unit."""

    def back(self, values: Tensor) -> Tensor:
        """From [U, M] to [B, T]; 0 (false) where there is no candidate."""
        if self.candidates is None:
            return values
        batch = torch.zeros(self.candidates.shape, dtype=values.dtype, device=values.device)
        batch[self.candidates] = values[0, self.own]
        return batch


def lay_out(scores: Tensor, valid: Tensor, scope: str) -> Units:
    """The units of `sequence`, `microbatch` or `global`; arguments and errors as in `select_tokens`."""
    scores, valid = _as_batch(scores, valid)
    if scope == "sequence":
        refuse_nan(scores[valid])
        return Units(scores, valid, None, slice(0))
    if scope not in ("microbatch", "global"):
        raise ValueError(f"scope {scope!r} ranks no single tokens: use sequence, microbatch or global")
    flat, start = scores[valid], 0
    own = flat.numel()
    if scope == "global":
        (flat,), start = gather_ranks(flat)
    # After the gathering: all ranks see the NaN of one of them, and none waits for a rank that has left.
    refuse_nan(flat)
    return Units(flat[None], torch.ones_like(flat[None], dtype=torch.bool), valid, slice(start, start + own))


def top_share(scores: Tensor, valid: Tensor, ratio: float) -> Tensor:
    """The best floor(ratio * valid + 0.5) of each row of [U, M], as bool [U, M]."""
    order, counts = rank(scores, valid)
    kept = torch.arange(scores.shape[1], device=scores.device).expand_as(order) < share_of(counts, ratio)
    return torch.zeros_like(valid).scatter(1, order, kept)


def rank(scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Column numbers [U, M] from best to worst, invalid ones last; and the numbers of valid ones, [U, 1]."""
    # Two stable sorts: by score, then valid ones first. A sentinel value for invalid tokens could tie
    # with a real score; this order cannot.
    by_score = torch.sort(scores, dim=1, descending=True, stable=True).indices
    valid_first = torch.sort(valid.gather(1, by_score).byte(), dim=1, descending=True, stable=True).indices
    return by_score.gather(1, valid_first), valid.sum(dim=1, keepdim=True)


def share_of(counts: Tensor, ratio: float) -> Tensor:
    """floor(ratio * counts + 0.5), computed in float64: int64, shape of `counts`."""
    return torch.floor(counts.double() * ratio + 0.5).long()


def gather_ranks(*columns: Tensor) -> tuple[list[Tensor], int]:
    """Join columns over all ranks of the default process group, lower rank first.

    Args:
        columns: [n] tensors, of one length on each rank; n may differ between ranks and may be 0. Every rank
            must call, with the same number and types of columns.

    Returns:
        [sum of n] tensors, the same on every rank; and where this rank's entries begin in them.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return list(columns), 0
    length = torch.tensor([columns[0].numel()], device=columns[0].device)
    lengths = [torch.zeros_like(length) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, length)
    sizes = torch.cat(lengths).tolist()
    start = sum(sizes[: dist.get_rank()])
    if max(sizes) == 0:
        return list(columns), 0
    joined = []
    for column in columns:
        # Padded for the wire, and cut by the true sizes: the padding's value never matters.
        padded = torch.zeros(max(sizes), dtype=column.dtype, device=column.device)
        padded[: column.numel()] = column
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        joined.append(torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]))
    return joined, start


def refuse_nan(scores: Tensor) -> None:
    """Raise ValueError if a candidate's score is NaN."""
    if torch.isnan(scores).any():
        raise ValueError("a candidate's score is NaN: its loss or reference loss is NaN, or it was never scored")


def _whole_fragments(scores: Tensor, valid: Tensor, ratio: float, document_ids: Tensor) -> Tensor:
    scores, valid = _as_batch(scores, valid)
    if document_ids.shape != valid.shape:
        raise ValueError(f"document_ids has shape {tuple(document_ids.shape)} and valid {tuple(valid.shape)}")
    starts = torch.ones_like(valid)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    run = starts.flatten().cumsum(0)[valid.flatten()]
    # Runs without a candidate have vanished; the others are numbered from 0.
    _, fragment, counts = torch.unique_consecutive(run, return_inverse=True, return_counts=True)
    sums = torch.zeros(counts.shape, dtype=torch.float64, device=scores.device)
    means = sums.index_add(0, fragment, scores[valid].double()) / counts
    # Means travel, not scores: summed once, on one rank, they are the same number everywhere.
    (means, counts), start = gather_ranks(means, counts)
    refuse_nan(means)
    order = torch.sort(means, descending=True, stable=True).indices
    fits = counts[order].cumsum(0) <= share_of(counts.sum(), ratio)
    kept = torch.zeros_like(fits).scatter(0, order, fits)
    selected = torch.zeros_like(valid)
    selected[valid] = kept[start + fragment]
    return selected


def _as_batch(scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Check shapes; scores as float32 or float64 (whole numbers exactly) without gradient, valid as bool."""
    if scores.shape != valid.shape or scores.dim() != 2:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and valid {tuple(valid.shape)}; both must be [B, T], and equal"
        )
    scores = scores.detach()
    if not scores.is_floating_point():
        scores = scores.double()
    elif scores.dtype != torch.float64:
        scores = scores.float()
    return scores, valid.bool()
