"""Exact counts by rank, whatever the ties, the padding and the scope."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.selection import select_tokens


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and candidates, [B, T] from [0, 0] on."""
    rows, length = draw(st.integers(0, 4)), draw(st.integers(0, 12))
    # Few distinct values: ties are the rule in low precision. Extremes: no value is free to stand for padding.
    value = st.sampled_from([-math.inf, -1e30, -2.0, 0.0, 0.5, 3.0, math.inf])
    values = draw(st.lists(value, min_size=rows * length, max_size=rows * length))
    valid = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    return torch.tensor(values).view(rows, length), torch.tensor(valid, dtype=torch.bool).view(rows, length)


def expected_count(valid: int, ratio: float) -> int:
    return math.floor(valid * ratio + 0.5)


@given(batches(), st.floats(0.01, 1.0))
def test_exact_count_per_unit_and_only_valid_tokens(batch, ratio):
    scores, valid = batch
    whole = select_tokens(scores, valid, ratio, "microbatch")
    assert whole.dtype == torch.bool and whole.shape == valid.shape
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


@given(batches(), st.floats(0.01, 1.0), st.randoms(use_true_random=False), st.sampled_from(["microbatch", "sequence"]))
def test_permuting_rows_permutes_the_choice_up_to_ties(batch, ratio, random, scope):
    scores, valid = batch
    order = list(range(len(scores)))
    random.shuffle(order)
    before, after = (select_tokens(scores[rows], valid[rows], ratio, scope) for rows in (slice(None), order))
    # Up to ties: the same scores are kept, and equally often.
    assert sorted(scores[before].tolist()) == sorted(scores[order][after].tolist())
    distinct = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
    before, after = (select_tokens(distinct[rows], valid[rows], ratio, scope) for rows in (slice(None), order))
    assert torch.equal(before[order], after)


@given(batches(), st.floats(0.01, 1.0))
def test_what_stands_at_ignored_positions_is_neither_ranked_nor_counted(batch, ratio):
    scores, valid = batch
    expected = select_tokens(scores, valid, ratio, "microbatch")
    for padding in (-1e30, 0.0, 1e30, math.inf, -math.inf, math.nan):
        filled = scores.masked_fill(~valid, padding)
        for scope in ("microbatch", "sequence"):
            assert torch.equal(select_tokens(filled, valid, ratio, scope), select_tokens(scores, valid, ratio, scope))
    assert expected.sum() == expected_count(int(valid.sum()), ratio)


def test_low_precision_scores_keep_the_exact_count():
    # 4096 excess losses of small spread have few distinct values in bfloat16; a threshold would keep too many.
    scores = (0.04 * torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)) + 1).to(torch.bfloat16)
    assert scores.unique().numel() < 100
    kept = select_tokens(scores, torch.ones_like(scores, dtype=torch.bool), 0.6)
    assert kept.sum() == 2458
    assert (scores >= scores[kept].min()).sum() > 2458  # so the cut lies inside a tie


def test_a_count_above_what_half_precision_can_count_is_exact():
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        scores = torch.zeros(3, 1001, dtype=dtype)
        assert select_tokens(scores, torch.ones(3, 1001, dtype=torch.bool), 0.3).sum() == 901


def test_more_than_two_to_the_24_tokens_are_ranked_exactly():
    tokens = 2**24 + 4
    scores = (torch.arange(tokens)[None] % 4).half()  # a quarter each of 0, 1, 2, 3
    kept = select_tokens(scores, torch.ones(1, tokens, dtype=torch.bool), 0.25)
    assert kept.sum() == 2**22 + 1
    assert torch.equal(kept, scores == 3)


def test_the_cut_is_at_a_rank_and_not_between_two_values():
    # The interpolated 50 % quantile of these is 0.5, above which one token of four lies.
    scores = torch.tensor([[0.0, 0.0, 0.5, 9.0]])
    kept = select_tokens(scores, torch.ones(1, 4, dtype=torch.bool), 0.5)
    assert kept.tolist() == [[False, False, True, True]]


def test_global_without_ranks_is_the_microbatch():
    scores, valid = torch.randn(3, 7), torch.rand(3, 7) > 0.3
    assert torch.equal(select_tokens(scores, valid, 0.4, "global"), select_tokens(scores, valid, 0.4, "microbatch"))


def test_the_scope_is_what_it_is_called():
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0]])
    valid = torch.ones(2, 4, dtype=torch.bool)
    assert select_tokens(scores, valid, 0.5, "microbatch").tolist() == [[True] * 4, [False] * 4]
    assert select_tokens(scores, valid, 0.5, "sequence").tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]
    # `sequence` alone does not change with the layout of the batch.
    alone = [select_tokens(scores[i : i + 1], valid[:1], 0.5, "sequence") for i in (0, 1)]
    assert torch.equal(torch.cat(alone), select_tokens(scores, valid, 0.5, "sequence"))


def test_nan_of_a_candidate_is_refused_and_of_padding_ignored():
    scores = torch.tensor([[1.0, float("nan"), 2.0]])
    ids = torch.zeros(1, 3, dtype=torch.int64)
    for scope in ("global", "microbatch", "sequence", "document"):
        with pytest.raises(ValueError, match="NaN"):
            select_tokens(scores, torch.ones(1, 3, dtype=torch.bool), 0.5, scope, ids)
        select_tokens(scores, torch.tensor([[True, False, True]]), 0.5, scope, ids)
    kept = select_tokens(scores, torch.tensor([[True, False, True]]), 0.5)
    assert kept.tolist() == [[False, False, True]]


def test_inputs_of_any_layout_and_whole_number_type():
    scores = torch.randint(-3, 3, (7, 5), generator=torch.Generator().manual_seed(1))
    valid = torch.rand(7, 5, generator=torch.Generator().manual_seed(2)) < 0.7
    ids = torch.arange(35).view(7, 5) // 2
    for scope in ("microbatch", "sequence", "document"):
        expected = select_tokens(scores.t().contiguous().float(), valid.t().contiguous(), 0.4, scope, ids.view(5, 7))
        for given_valid in (valid.t(), valid.t().long(), valid.t().to(torch.uint8)):
            assert torch.equal(select_tokens(scores.t(), given_valid, 0.4, scope, ids.view(5, 7)), expected)
    # float32 would tie these two.
    close = torch.tensor([[2**24, 2**24 + 1]])
    assert select_tokens(close, torch.ones(1, 2), 0.5).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.ones(3), 0.5), r"scores has shape \(2, 3\) and valid \(3,\)"),
        ((torch.zeros(3), torch.ones(3), 0.5), r"both must be \[B, T\]"),
        ((torch.zeros(1, 3), torch.ones(1, 3), 1.5), r"ratio must be in \(0, 1\], not 1.5"),
        ((torch.zeros(1, 3), torch.ones(1, 3), 0.5, "row"), "scope 'row' ranks no single tokens: use sequence"),
        ((torch.zeros(1, 3), torch.ones(1, 3), 0.5, "document"), "scope 'document' needs document_ids"),
        ((torch.zeros(1, 3), torch.ones(1, 3), 0.5, "document", torch.zeros(3)), r"document_ids has shape \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_tokens(*arguments)
