"""From a policy and a batch's columns to the choice and, where the policy asks for them, the weights.

The loss of a step is sum(weights * loss) / (ratio * candidates). Weights are None where the choice says it all:
1 where selected, 0 elsewhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tokensieve.selection.policy import SelectionPolicy
from tokensieve.selection.scores import TokenColumns, compute_score, need_column
from tokensieve.selection.soft import soft_share
from tokensieve.selection.topk import lay_out, refuse_nan, select_tokens, top_share


class Selection(NamedTuple):
    """What a policy chose."""

    selected: Tensor
    """bool [B, T]: the hard choice, which statistics count."""
    weights: Tensor | None
    """float64 [B, T], 0 where there is no candidate; None for 1 where selected and 0 elsewhere."""


def apply_policy(policy: SelectionPolicy, columns: TokenColumns, valid: Tensor) -> Selection:
    """The policy's choice among the valid tokens.

    With `alpha` below 1 the weights are alpha * w + (1 - alpha) * ratio at every candidate, w being the choice or
    the soft weights: divided by ratio * candidates, that is alpha * (the selective loss) + (1 - alpha) * (the mean
    loss of all candidates).

    Args:
        policy: of one step; call `policy.at(step)` first if it follows steps.
        columns: [B, T] each; those that `policy.columns` names, and the live loss or entropy if the scores read it.
        valid: [B, T] bool, the candidates.

    Raises:
        ValueError: the policy follows steps, a column is missing or has another shape, or a candidate's score is
            NaN (under `global` and `document` every rank raises if one of them has it).
    """
    if policy.follows_steps:
        raise ValueError("the policy follows steps: apply policy.at(step), the policy of the step that is running")
    valid = valid.bool()
    if policy.selects_everything:
        return Selection(valid, None)
    if policy.temperature is not None:
        units = lay_out(_score(policy, policy.score, columns), valid, policy.scope)
        selected = units.back(top_share(units.scores, units.valid, policy.ratio))
        weights = units.back(soft_share(units.scores, units.valid, policy.ratio, policy.temperature))
    else:
        selected = _choose(policy, columns, valid)
        if policy.alpha == 1:
            return Selection(selected, None)
        weights = selected.double()
    return Selection(selected, policy.alpha * weights + (1 - policy.alpha) * policy.ratio * valid.double())


def _choose(policy: SelectionPolicy, columns: TokenColumns, valid: Tensor) -> Tensor:
    if policy.score == "mask":
        mask = need_column(columns.selection_mask, "mask", "selection_mask")
        _same_shape("selection_mask", mask, valid)
        return mask.bool() & valid
    if policy.threshold is not None:
        scores = _score(policy, policy.score, columns)
        _same_shape("the score", scores, valid)
        refuse_nan(scores[valid])
        return (scores > policy.threshold) & valid
    shares = [(part.score, part.ratio) for part in policy.parts] or [(policy.score, policy.ratio)]
    choices = [
        select_tokens(_score(policy, score, columns), valid, ratio, policy.scope, columns.document_ids)
        for score, ratio in shares
    ]
    stacked = torch.stack(choices)
    return stacked.any(dim=0) if policy.score == "union" else stacked.all(dim=0)


def _score(policy: SelectionPolicy, name: str, columns: TokenColumns) -> Tensor:
    return compute_score(name, columns, policy.seed, policy.reference_loss_cap)


def _same_shape(name: str, column: Tensor, valid: Tensor) -> None:
    # Broadcasting would give one row's values to all of them.
    if column.shape != valid.shape:
        raise ValueError(f"{name} has shape {tuple(column.shape)} and valid {tuple(valid.shape)}; they must be equal")
