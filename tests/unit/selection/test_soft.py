"""Soft weights: they sum to the hard count, follow the scores, and tend to the hard choice."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.selection import select_tokens, soft_weights


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    rows, length = draw(st.integers(0, 3)), draw(st.integers(0, 12))
    value = st.one_of(st.sampled_from([-2.0, 0.0, 0.5]), st.floats(-1e4, 1e4), st.floats(-1e30, 1e30))
    values = draw(st.lists(value, min_size=rows * length, max_size=rows * length))
    valid = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    shape = (rows, length)
    return torch.tensor(values, dtype=torch.float64).view(shape), torch.tensor(valid, dtype=torch.bool).view(shape)


temperatures = st.sampled_from([1e-300, 1e-6, 0.01, 0.5, 1.0, 30.0, 1e6])


@given(batches(), st.floats(0.01, 1.0), temperatures)
def test_weights_of_a_unit_sum_to_what_a_hard_choice_keeps(batch, ratio, temperature):
    scores, valid = batch
    whole = soft_weights(scores, valid, ratio, temperature, "microbatch")
    assert whole.dtype == torch.float64 and whole.shape == valid.shape
    assert whole.sum().item() == pytest.approx(math.floor(int(valid.sum()) * ratio + 0.5), rel=0, abs=1e-9)
    rows = soft_weights(scores, valid, ratio, temperature, "sequence")
    expected = [math.floor(int(row.sum()) * ratio + 0.5) for row in valid]
    assert rows.sum(dim=1).tolist() == pytest.approx(expected, rel=0, abs=1e-9)
    for weights in (whole, rows):
        assert (weights[~valid] == 0).all()
        assert ((weights >= 0) & (weights <= 1)).all()


@given(batches(), st.floats(0.01, 1.0), temperatures)
def test_a_higher_score_never_weighs_less_and_equal_ones_weigh_the_same(batch, ratio, temperature):
    scores, valid = batch
    weights = soft_weights(scores, valid, ratio, temperature)[valid]
    by_score = torch.argsort(scores[valid])
    steps = weights[by_score].diff()
    assert (steps >= 0).all()
    assert (steps[scores[valid][by_score].diff() == 0] == 0).all()


@given(batches(), st.floats(0.01, 1.0))
def test_as_the_temperature_falls_the_weights_become_the_hard_choice(batch, ratio):
    _, valid = batch
    order = torch.randperm(valid.numel(), generator=torch.Generator().manual_seed(valid.numel()))
    scores = order.view(valid.shape).float()  # no ties
    for scope in ("microbatch", "sequence"):
        hard = select_tokens(scores, valid, ratio, scope).double()
        assert torch.allclose(soft_weights(scores, valid, ratio, 1e-3, scope), hard, atol=1e-9)


def test_ties_at_the_edge_share_what_is_left():
    weights = soft_weights(torch.tensor([[5.0, 1.0, 1.0, 1.0, 0.0]]), torch.ones(1, 5), 0.4, 1e-6)
    assert weights[0].tolist() == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3, 0.0])


def test_as_the_temperature_grows_the_weights_become_the_ratio():
    weights = soft_weights(torch.randn(1, 10), torch.ones(1, 10), 0.3, 1e9)
    assert weights[0].tolist() == pytest.approx([0.3] * 10)


def test_hand_made_weights():
    # Two scores, one to keep: tau lies in the middle of them.
    weights = soft_weights(torch.tensor([[3.0, 1.0]]), torch.ones(1, 2), 0.5, 2.0)
    assert weights[0].tolist() == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))])


def test_a_share_of_none_or_all_needs_no_tau():
    scores = torch.tensor([[0.0, 100.0, -100.0]])
    assert soft_weights(scores, torch.ones(1, 3), 0.1, 1.0).tolist() == [[0.0] * 3]
    assert soft_weights(scores, torch.ones(1, 3), 1.0, 1.0).tolist() == [[1.0] * 3]


def test_weights_are_constants_for_the_gradient():
    scores = torch.tensor([[1.0, 2.0]], requires_grad=True)
    assert not soft_weights(scores, torch.ones(1, 2), 0.5, 1.0).requires_grad


@pytest.mark.parametrize(("bad", "message"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
def test_scores_that_are_no_numbers_are_refused_where_they_count(bad, message):
    scores = torch.tensor([[1.0, bad, 0.0]])
    for scope in ("microbatch", "sequence"):
        with pytest.raises(ValueError, match=message):
            soft_weights(scores, torch.ones(1, 3), 0.5, 1.0, scope)
        weights = soft_weights(scores, torch.tensor([[1, 0, 1]]), 0.5, 1.0, scope)
        assert weights.sum().item() == pytest.approx(1.0)


def test_whole_documents_have_no_soft_weights():
    with pytest.raises(ValueError, match="scope 'document' ranks no single tokens"):
        soft_weights(torch.zeros(1, 3), torch.ones(1, 3), 0.5, 1.0, "document")
