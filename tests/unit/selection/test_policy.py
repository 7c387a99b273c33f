"""A policy says what it needs, resolves steps, and refuses what contradicts itself, naming field, value and cure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.selection import Part, SelectionPolicy

PARTS = (Part("reference_loss", 0.5), Part("reference_entropy", 0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score": "excess"}, "score 'excess' is not one of excess_loss, "),
        ({"scope": "batch"}, "scope 'batch' is not one of global, microbatch, sequence, document"),
        ({"ratio": 0.0}, "ratio must be in (0, 1], not 0.0"),
        ({"ratio": 1.2}, "ratio must be in (0, 1], not 1.2"),
        ({"ratio": float("nan")}, "ratio must be in (0, 1], not nan"),
        ({"score": "union"}, "score 'union' with 0 parts: intersection and union take exactly two parts"),
        ({"parts": PARTS}, "score 'excess_loss' with 2 parts: intersection and union take exactly two parts"),
        ({"parts": PARTS[:1]}, "score 'excess_loss' with 1 parts: intersection and union take exactly two parts"),
        ({"reference_loss_cap": 0.0}, "reference_loss_cap must be above 0 and finite, not 0.0; leave it out"),
        ({"reference_loss_cap": 3.0, "score": "random"}, "reference_loss_cap=3.0 has no meaning for score 'random'"),
        ({"threshold": float("inf")}, "threshold must be a finite number, not inf"),
        ({"temperature": -1.0}, "temperature must be above 0 and finite, not -1.0; leave it out"),
        ({"alpha": 0.0}, "alpha must be in (0, 1], not 0.0; 1 trains on the selected tokens alone"),
        ({"alpha": 1.5}, "alpha must be in (0, 1], not 1.5"),
        ({"warmup_steps": -1}, "warmup_steps must be a whole number of steps from 0, not -1"),
        ({"warmup_steps": True}, "warmup_steps must be a whole number of steps from 0, not True"),
        ({"ratio_schedule": ((0, 0.5), (5, 0.7))}, "ratio_schedule ends at 0.7 and ratio is 0.6: make them equal"),
        ({"ratio_schedule": ((5, 0.5), (5, 0.6))}, "ratio_schedule: steps must increase, not 5, 5"),
        ({"ratio_schedule": ((-1, 0.6),)}, "ratio_schedule: a step must be a whole number of steps from 0, not -1"),
        ({"ratio_schedule": ((3, 1.6),)}, "ratio_schedule: ratio at step 3 must be in (0, 1], not 1.6"),
        ({"ratio_schedule": ((3,),)}, "ratio_schedule: a point is (step, ratio), not (3,)"),
        ({"threshold": 0.5, "score": "mask"}, "threshold=0.5 does not go with score 'mask': leave one of them out"),
        ({"threshold": 0.5, "score": "union", "parts": PARTS}, "threshold=0.5 does not go with score 'union'"),
        ({"threshold": 0.5, "temperature": 1.0}, "threshold=0.5 does not go with temperature: leave"),
        ({"threshold": 0.5, "ratio_schedule": ((0, 0.6),)}, "threshold=0.5 does not go with ratio_schedule: leave"),
        ({"threshold": 0.5, "scope": "document"}, "scope='document' does not go with threshold: leave"),
        ({"score": "mask", "scope": "document"}, "scope='document' does not go with score 'mask': leave"),
        ({"temperature": 1.0, "score": "mask"}, "temperature=1.0 does not go with score 'mask': leave"),
        ({"temperature": 1.0, "score": "union", "parts": PARTS}, "temperature=1.0 does not go with score 'union'"),
        ({"temperature": 1.0, "scope": "document"}, "temperature=1.0 does not go with scope 'document': leave"),
        ({"score": "mask", "ratio_schedule": ((0, 0.6),)}, "ratio_schedule=((0, 0.6),) does not go with score 'mask'"),
        ({"score": "union", "parts": PARTS, "ratio_schedule": ((0, 0.6),)}, "does not go with score 'union'"),
    ],
)
def test_policies_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError) as error:
        SelectionPolicy(**values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("score", "ratio", "message"),
    [
        ("union", 0.5, "score of a part 'union' is not one of excess_loss"),
        ("random", 0.0, "ratio must be in"),
    ],
)
def test_a_part_is_a_simple_score_with_a_share(score, ratio, message):
    with pytest.raises(ValueError, match=message):
        Part(score, ratio)


def test_lists_make_the_same_policy_as_tuples():
    listed = SelectionPolicy(ratio_schedule=[[0, 1.0], [9, 0.6]])  # type: ignore[arg-type,list-item]
    assert listed == SelectionPolicy(ratio_schedule=((0, 1.0), (9, 0.6)))
    assert hash(listed) == hash(SelectionPolicy(ratio_schedule=((0, 1.0), (9, 0.6))))


@pytest.mark.parametrize(
    ("values", "everything", "live"),
    [
        ({}, False, True),
        ({"ratio": 1.0}, True, False),
        ({"ratio": 1.0, "temperature": 0.5, "alpha": 0.5}, True, False),
        ({"score": "reference_loss"}, False, False),
        ({"score": "current_entropy"}, False, True),
        ({"score": "history_loss"}, False, True),
        ({"score": "mask", "ratio": 1.0}, False, False),
        # A ratio of 1 is the divisor alone in these.
        ({"ratio": 1.0, "threshold": 0.0}, False, True),
        ({"ratio": 1.0, "threshold": 0.0, "score": "random"}, False, False),
        ({"ratio": 1.0, "score": "union", "parts": (Part("current_loss", 0.5), PARTS[0])}, False, True),
        ({"ratio": 1.0, "score": "union", "parts": PARTS}, False, False),
        # What holds at some step holds of the whole.
        ({"ratio": 1.0, "ratio_schedule": ((0, 0.5), (9, 1.0))}, False, True),
        ({"ratio": 1.0, "ratio_schedule": ((0, 1.0), (9, 1.0))}, True, False),
    ],
)
def test_a_policy_knows_whether_it_selects_and_needs_the_live_loss(values, everything, live):
    policy = SelectionPolicy(**values)
    assert policy.selects_everything == everything
    assert policy.needs_live_loss == live


@pytest.mark.parametrize(
    ("values", "columns"),
    [
        ({}, ("reference_loss",)),
        ({"scope": "document"}, ("reference_loss", "document_ids")),
        ({"score": "current_loss", "scope": "document"}, ("document_ids",)),
        ({"score": "current_loss"}, ()),
        ({"score": "union", "parts": PARTS}, ("reference_loss", "reference_entropy")),
        ({"score": "random"}, ("token_index",)),
        ({"score": "mask"}, ("selection_mask",)),
        ({"ratio": 1.0}, ()),
        ({"ratio": 1.0, "threshold": 0.0}, ("reference_loss",)),
    ],
)
def test_columns_are_what_the_choice_reads(values, columns):
    assert SelectionPolicy(**values).columns == columns


def test_warm_up_is_plain_training_and_then_the_policy_itself():
    policy = SelectionPolicy("mask", 0.4, alpha=0.5, warmup_steps=3, seed=7)
    assert policy.follows_steps
    for step in range(3):
        plain = policy.at(step)
        assert plain.selects_everything and plain.ratio == 1 and plain.alpha == 1 and plain.columns == ()
        assert not plain.follows_steps and not plain.needs_live_loss
    assert policy.at(3) == SelectionPolicy("mask", 0.4, alpha=0.5, seed=7)


def test_a_schedule_is_straight_between_its_points_and_constant_outside():
    policy = SelectionPolicy(ratio=0.5, ratio_schedule=((10, 1.0), (20, 0.6), (40, 0.5)))
    found = {step: policy.at(step).ratio for step in (0, 10, 15, 20, 30, 40, 10**9)}
    assert found == pytest.approx({0: 1.0, 10: 1.0, 15: 0.8, 20: 0.6, 30: 0.55, 40: 0.5, 10**9: 0.5})
    assert policy.at(20).ratio == 0.6 and policy.at(40).ratio == 0.5
    assert not policy.at(15).follows_steps


def test_warm_up_comes_before_the_schedule_which_counts_from_the_first_step():
    policy = SelectionPolicy(ratio=0.5, warmup_steps=4, ratio_schedule=((0, 0.9), (8, 0.5)))
    assert [policy.at(step).ratio for step in (0, 3, 4, 6)] == pytest.approx([1.0, 1.0, 0.7, 0.6])


@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(0.01, 1.0)), min_size=1, max_size=6, unique_by=lambda p: p[0]),
    st.integers(0, 600),
)
def test_every_step_of_a_schedule_is_a_valid_policy_between_its_neighbours(points, step):
    points = sorted(points)
    policy = SelectionPolicy(ratio=points[-1][1], ratio_schedule=tuple(points))
    ratios = [r for _, r in points]
    assert min(ratios) <= policy.at(step).ratio <= max(ratios)
    for at, ratio in points:
        assert policy.at(at).ratio == ratio


def test_a_policy_that_follows_steps_refuses_an_unknown_step_and_others_need_none():
    with pytest.raises(ValueError, match="set handle.step"):
        SelectionPolicy(warmup_steps=1).at(None)
    with pytest.raises(ValueError, match="step must be a whole number of steps from 0, not -1"):
        SelectionPolicy(warmup_steps=1).at(-1)
    fixed = SelectionPolicy()
    assert fixed.at(None) is fixed and fixed.at(5) is fixed
