"""Exact counts by rank, whatever the ties, the padding and the scope."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.selection import Part, SelectionPolicy, TokenColumns, apply_policy, select_tokens


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    # Few distinct values: ties are the rule in low precision.
    values = draw(
        st.lists(st.sampled_from([-1e30, -2.0, 0.0, 0.5, 3.0]), min_size=rows * length, max_size=rows * length)
    )
    valid = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    return torch.tensor(values).view(rows, length), torch.tensor(valid).view(rows, length)


def expected_count(valid: int, ratio: float) -> int:
    return math.floor(valid * ratio + 0.5)


@given(batches(), st.floats(0.01, 1.0))
def test_exact_count_per_unit_and_only_valid_tokens(batch, ratio):
    scores, valid = batch
    whole = select_tokens(scores, valid, ratio, "microbatch")
    assert whole.sum() == expected_count(int(valid.sum()), ratio)
    assert not (whole & ~valid).any()
    rows = select_tokens(scores, valid, ratio, "sequence")
    assert rows.sum(dim=1).tolist() == [expected_count(int(row.sum()), ratio) for row in valid]
    assert not (rows & ~valid).any()


@given(batches(), st.floats(0.01, 1.0))
def test_no_dropped_token_scores_above_a_kept_one_and_ties_go_to_the_lower_index(batch, ratio):
    scores, valid = batch
    kept = select_tokens(scores, valid, ratio, "microbatch").flatten()
    flat, candidates = scores.flatten().tolist(), valid.flatten().nonzero()[:, 0].tolist()
    ranked = sorted(candidates, key=lambda i: (-flat[i], i))
    assert kept.nonzero()[:, 0].tolist() == sorted(ranked[: int(kept.sum())])


def test_global_without_ranks_is_the_microbatch():
    scores, valid = torch.randn(3, 7), torch.rand(3, 7) > 0.3
    assert torch.equal(select_tokens(scores, valid, 0.4, "global"), select_tokens(scores, valid, 0.4, "microbatch"))


def test_nan_of_a_candidate_is_refused_and_of_padding_ignored():
    scores = torch.tensor([[1.0, float("nan"), 2.0]])
    with pytest.raises(ValueError, match="NaN"):
        select_tokens(scores, torch.ones(1, 3, dtype=torch.bool), 0.5)
    kept = select_tokens(scores, torch.tensor([[True, False, True]]), 0.5)
    assert kept.tolist() == [[False, False, True]]


def test_intersection_and_union_use_one_ratio_each():
    columns = TokenColumns(
        reference_loss=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        reference_entropy=torch.tensor([[4.0, 1.0, 2.0, 3.0]]),
    )
    valid = torch.ones(1, 4, dtype=torch.bool)
    parts = (Part("reference_loss", 0.5), Part("reference_entropy", 0.75))
    both = apply_policy(SelectionPolicy("intersection", 0.5, parts=parts), columns, valid)
    either = apply_policy(SelectionPolicy("union", 0.5, parts=parts), columns, valid)
    assert both.tolist() == [[False, True, False, False]]
    assert either.tolist() == [[True, True, True, True]]


def test_mask_is_taken_as_it_is_but_never_outside_the_candidates():
    columns = TokenColumns(selection_mask=torch.tensor([[True, True, False]]))
    kept = apply_policy(SelectionPolicy("mask", 0.5), columns, torch.tensor([[False, True, True]]))
    assert kept.tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"score": "excess"}, "excess_loss"),
        ({"ratio": 0.0}, "ratio must be in"),
        ({"ratio": 1.2}, "ratio must be in"),
        ({"scope": "batch"}, "scope"),
        ({"score": "union"}, "two parts"),
        ({"parts": (Part("random", 0.5), Part("mask", 0.5))}, "two parts"),
    ],
)
def test_policies_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SelectionPolicy(**values)
