"""From a policy and columns to the choice and its weights."""

import pytest
import torch

from tokensieve.selection import Part, SelectionPolicy, TokenColumns, apply_policy, select_tokens, soft_weights

VALID = torch.tensor([[True, True, True, True, False]])
COLUMNS = TokenColumns(
    loss=torch.tensor([[8.0, 5.0, 0.5, 1.0, 9.0]]),
    entropy=torch.tensor([[6.0, 4.0, 0.1, 2.0, 9.0]]),
    reference_loss=torch.tensor([[8.1, 1.0, 0.2, 6.0, 0.0]]),
    reference_entropy=torch.tensor([[6.5, 1.5, 0.2, 4.0, 0.0]]),
    history_loss=torch.tensor([[8.0, 9.0, 0.7, 1.0, 99.0]]),
    selection_mask=torch.tensor([[False, True, False, True, True]]),
    token_index=torch.arange(5)[None],
    document_ids=torch.tensor([[0, 0, 1, 1, 1]]),
)


def chosen(**values) -> list[int]:
    selected, weights = apply_policy(SelectionPolicy(**values), COLUMNS, VALID)
    assert weights is None and selected.dtype == torch.bool
    return selected[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("score", "best"),
    [
        ("excess_loss", [1, 2]),
        ("reference_loss", [1, 2]),
        ("reference_entropy", [1, 2]),
        ("current_loss", [0, 1]),
        ("current_entropy", [0, 1]),
        ("history_loss", [1, 2]),
        ("mask", [1, 3]),
    ],
)
def test_every_score_keeps_the_high_half_of_hand_made_tokens(score, best):
    assert chosen(score=score, ratio=0.5) == best


def test_a_cap_brings_back_what_only_the_reference_finds_hard():
    # 8.0 - min(8.1, 2) = 6.0 is now above 5.0 - 1.0 = 4.0.
    assert chosen(ratio=0.25) == [1]
    assert chosen(ratio=0.25, reference_loss_cap=2.0) == [0]


def test_intersection_and_union_use_one_ratio_each():
    parts = (Part("reference_loss", 0.5), Part("current_loss", 0.5))
    assert chosen(score="intersection", ratio=0.5, parts=parts) == [1]
    assert chosen(score="union", ratio=0.5, parts=parts) == [0, 1, 2]


def test_parts_select_also_under_a_ratio_of_1_which_is_the_divisor_alone():
    parts = (Part("reference_loss", 0.25), Part("current_loss", 0.25))
    assert chosen(score="union", ratio=1.0, parts=parts) == [0, 2]


def test_a_threshold_keeps_what_is_above_it_and_nothing_at_it():
    # Excess: -0.1, 4.0, 0.3, -5.0, and 9.0 where there is no candidate.
    assert chosen(threshold=0.0, ratio=1.0) == [1, 2]
    assert chosen(threshold=4.0) == []
    assert chosen(threshold=-10.0) == [0, 1, 2, 3]


def test_excess_below_zero_is_ranked_and_never_clamped():
    # Clamped at 0 the first and the last would tie, and the first is not the third best by its place alone.
    columns = TokenColumns(loss=torch.tensor([[1.0, 2.0, 1.0]]), reference_loss=torch.tensor([[6.0, 1.0, 1.5]]))
    selected = apply_policy(SelectionPolicy(ratio=0.66), columns, torch.ones(1, 3, dtype=torch.bool)).selected
    assert selected.tolist() == [[False, True, True]]


@pytest.mark.parametrize("values", [{"threshold": 0.0}, {"ratio": 0.5}, {"ratio": 0.5, "temperature": 1.0}])
def test_nan_of_a_candidate_is_refused_by_every_kind_of_choice(values):
    loss = COLUMNS.loss.clone()
    loss[0, 4] = torch.nan
    policy = SelectionPolicy("current_loss", **values)
    apply_policy(policy, TokenColumns(loss=loss), VALID)  # no candidate stands there
    loss[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        apply_policy(policy, TokenColumns(loss=loss), VALID)


def test_a_ratio_of_1_keeps_every_candidate_and_reads_nothing():
    for values in ({}, {"temperature": 1.0}, {"alpha": 0.5}, {"scope": "document"}):
        selected, weights = apply_policy(SelectionPolicy(ratio=1.0, **values), TokenColumns(), VALID)
        assert torch.equal(selected, VALID) and weights is None


def test_mask_is_taken_as_it_is_but_never_outside_the_candidates():
    columns = TokenColumns(selection_mask=torch.tensor([[1, 1, 0]]))
    selected = apply_policy(SelectionPolicy("mask", 0.5), columns, torch.tensor([[False, True, True]])).selected
    assert selected.tolist() == [[False, True, False]]


def test_soft_weights_come_with_the_hard_choice():
    policy = SelectionPolicy("current_loss", 0.5, temperature=2.0)
    selected, weights = apply_policy(policy, COLUMNS, VALID)
    assert torch.equal(selected, select_tokens(COLUMNS.loss, VALID, 0.5))
    assert torch.equal(weights, soft_weights(COLUMNS.loss, VALID, 0.5, 2.0))


@pytest.mark.parametrize(
    "values",
    [
        {"ratio": 0.5},
        {"ratio": 0.5, "temperature": 1.0},
        {"ratio": 0.3, "threshold": 0.0},
        {"ratio": 0.5, "score": "mask"},
        {"ratio": 0.5, "scope": "document"},
        {"ratio": 0.9, "score": "union", "parts": (Part("random", 0.25), Part("current_loss", 0.25))},
    ],
)
def test_a_blend_is_alpha_times_the_selective_loss_and_the_rest_the_mean_of_all(values):
    loss, ratio, alpha = COLUMNS.loss.double(), values["ratio"], 0.7
    selected, hard = apply_policy(SelectionPolicy(**values), COLUMNS, VALID)
    blended_selected, weights = apply_policy(SelectionPolicy(**values, alpha=alpha), COLUMNS, VALID)
    assert torch.equal(selected, blended_selected)
    candidates = VALID.sum()
    term = ((selected if hard is None else hard) * loss).sum() / (ratio * candidates)
    expected = alpha * term + (1 - alpha) * loss[VALID].mean()
    assert ((weights * loss).sum() / (ratio * candidates)).item() == pytest.approx(expected.item())
    assert (weights[~VALID] == 0).all() and weights.dtype == torch.float64


def test_a_policy_that_follows_steps_must_be_resolved_first():
    with pytest.raises(ValueError, match=r"policy\.at\(step\)"):
        apply_policy(SelectionPolicy(warmup_steps=1), COLUMNS, VALID)


@pytest.mark.parametrize(
    ("values", "columns", "message"),
    [
        ({"score": "mask"}, TokenColumns(), "score 'mask' needs the column selection_mask"),
        ({"score": "mask"}, TokenColumns(selection_mask=torch.ones(5)), r"selection_mask has shape \(5,\)"),
        ({"score": "current_loss", "threshold": 0.0}, TokenColumns(loss=torch.ones(5)), r"has shape \(5,\)"),
        ({"score": "current_loss"}, TokenColumns(loss=torch.ones(5)), r"scores has shape \(5,\)"),
        ({"scope": "document", "score": "current_loss"}, TokenColumns(loss=torch.ones(1, 5)), "needs document_ids"),
    ],
)
def test_missing_and_misshapen_columns_are_named(values, columns, message):
    with pytest.raises(ValueError, match=message):
        apply_policy(SelectionPolicy(**values), columns, VALID)
