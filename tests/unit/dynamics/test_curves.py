"""Means, fluctuation, figure 6 and the fit of figure 7, against numbers made by hand."""

import math

import numpy as np
import pytest

from tokensieve.dynamics.categories import UNKNOWN, classify
from tokensieve.dynamics.curves import around_lines, axis, course, fit_accuracy, split
from tokensieve.dynamics.trajectories import Checkpoint, Trajectory
from tokensieve.evaluation.selected_over_time import followed, highest, spread

NAN = float("nan")


def run(losses: list[list[float]], tokens: list[int | None] | None = None) -> Trajectory:
    """A run from one row of losses a checkpoint."""
    seen = tokens or [100 * (i + 1) for i in range(len(losses))]
    points = tuple(Checkpoint(f"c{i}", count) for i, count in enumerate(seen))
    return Trajectory(points, tuple(np.array(row, dtype=np.float16) for row in losses))


CATEGORIES = np.array([0, 1, UNKNOWN, 1, 3], dtype=np.uint8)
RUN = run([[4, 1, NAN, 2, 1], [3, 2, NAN, 2, 2], [2, 1, NAN, 2, 3]])


def test_means_are_over_the_tokens_of_a_category_and_empty_ones_have_none() -> None:
    found = course(RUN, CATEGORIES)
    assert found.loss == [2, 2.25, 2]
    assert found.by_category == {
        "high_to_low": [4, 3, 2],
        "low_to_low": [1.5, 2, 1.5],
        "high_to_high": None,
        "low_to_high": [1, 2, 3],
    }


def test_fluctuation_is_the_distance_from_the_own_line_the_range_and_the_share_of_large_ranges() -> None:
    found = course(RUN, CATEGORIES).fluctuation
    # 1, 2, 1 lies around its flat line at 4/3 by 1/3, 2/3, 1/3; 2, 2, 2 lies on its own.
    around = math.sqrt((1 / 9 + 4 / 9 + 1 / 9) / 3) / 2
    # A range of exactly 1 nat is not above it.
    assert found["low_to_low"] == pytest.approx({"around_line": around, "range": 0.5, "strong": 0})
    assert found["high_to_low"] == pytest.approx({"around_line": 0, "range": 2, "strong": 1}, abs=1e-12)
    assert found["high_to_high"] is None
    assert around_lines(RUN, CATEGORIES) == pytest.approx([0, 2 * around, NAN, 0, 0], abs=1e-7, nan_ok=True)


def test_the_line_is_the_least_squares_line_of_polyfit() -> None:
    draw = np.random.default_rng(0)
    losses = draw.exponential(2, (7, 90)).astype(np.float16)
    found = around_lines(run(losses.tolist()), np.zeros(90, dtype=np.uint8))
    residuals = np.polyfit(np.arange(7), losses.astype(np.float64), 1, full=True)[1]
    assert found == pytest.approx(np.sqrt(residuals / 7), rel=1e-6)


@pytest.mark.parametrize("C", [1, 2])
def test_one_or_two_checkpoints_have_means_but_no_fluctuation(C: int) -> None:
    found = course(run([[1, 2], [3, 4]][:C]), np.array([1, 1], dtype=np.uint8))
    assert found.by_category["low_to_low"] == [1.5, 3.5][:C]
    assert found.fluctuation["low_to_low"] is None


@pytest.mark.parametrize("block", [1, 3, 64, 999, 1000])
def test_the_size_of_the_blocks_changes_nothing(block: int) -> None:
    draw = np.random.default_rng(1)
    losses = draw.exponential(2, (4, 1000)).astype(np.float16)
    losses[:, draw.random(1000) < 0.3] = np.nan
    made = Trajectory(RUN.checkpoints + (Checkpoint("last", 1),), tuple(losses))
    of = classify(made.losses).of
    whole, parts = course(made, of), course(made, of, block)
    for key, means in whole.by_category.items():
        assert parts.by_category[key] == pytest.approx(means, rel=1e-12)
        assert parts.fluctuation[key] == pytest.approx(whole.fluctuation[key], rel=1e-12)
    assert around_lines(made, of, block).tolist() == pytest.approx(around_lines(made, of).tolist(), nan_ok=True)


def test_checkpoints_stand_at_their_tokens_or_all_at_their_numbers() -> None:
    losses = [[1.0], [2.0], [3.0]]
    assert axis(run(losses, [5, 7, 20])) == [5, 7, 20]
    assert axis(run(losses, [5, None, 20])) == [1, 2, 3]
    assert axis(run(losses, [0, 7, 20])) == [0, 7, 20]


def test_split_is_decided_by_the_excess_of_the_start_and_followed_in_every_run() -> None:
    live = np.array([True, True, False, True, True])
    start = np.array([4, 1, NAN, 3, 9], dtype=np.float16)
    reference = np.array([1, 1, NAN, 2, 9], dtype=np.float16)  # excess 3, 0, -, 1, 0
    other = run([[1, 2, NAN, 3, 4]], [50])
    found = split({"clm": RUN, "slm": other}, start, reference, live, 0.5)
    assert found == {
        "tokens": 4,
        "selected_share": 0.5,
        "arms": {
            "clm": {
                "selected": [[100, 3], [200, 2.5], [300, 2]],
                "unselected": [[100, 1], [200, 2], [300, 2]],
            },
            "slm": {"selected": [[50, 2]], "unselected": [[50, 3]]},
        },
    }
    assert split({"clm": RUN}, start, reference, live, 1.0) is None
    assert split({"clm": RUN}, start, reference, live, 0.1) is None


def test_ties_go_to_the_earlier_token_and_half_a_token_counts() -> None:
    assert highest(np.array([1.0, 2, 2, 2, 0]), 0.4).tolist() == [False, True, True, False, False]
    assert highest(np.array([1.0, 2, 3, 0, 0]), 0.5).sum() == 3
    many = np.random.default_rng(0).integers(0, 3, 1000).astype(float)
    assert np.flatnonzero(highest(many, 0.1)).tolist() == np.flatnonzero(many == 2)[:100].tolist()
    assert highest(np.array([-3.0, -1, -2]), 1 / 3).tolist() == [False, True, False]


def test_sets_are_followed_through_every_checkpoint_in_float64() -> None:
    sets = [np.array([True, False, True]), np.array([False, True, False])]
    rows = (np.array(row, dtype=np.float16) for row in ([1, 2, 3], [4, 8, 2048]))
    assert followed(rows, sets).tolist() == [[2, 1026], [2, 8]]


def test_numbers_are_spread_evenly_from_the_first_to_the_last() -> None:
    assert spread(0, 14, 5) == [0, 4, 7, 10, 14]
    assert spread(0, 2, 5) == [0, 1, 2]
    assert spread(0, 0, 5) == [0]
    assert spread(1, 10, 1) == [1]


def test_the_fit_finds_the_curve_that_the_points_lie_on() -> None:
    losses = [0.9, 1.0, 1.2, 1.5, 1.1]
    for a, c in ((-0.4, 1.8), (0.3, 0.8)):
        found = fit_accuracy(losses, [math.log(a * loss + c) for loss in losses])
        assert found == pytest.approx({"a": a, "c": c}, rel=1e-9)


def test_the_fit_is_the_best_in_the_accuracy_and_not_in_its_exponential() -> None:
    losses, accuracies = np.array([0.5, 1.0, 2.0, 3.0, 3.5]), np.array([0.9, 0.2, 0.35, 0.0, 0.3])
    found = fit_accuracy(losses.tolist(), accuracies.tolist())
    assert found is not None

    def error(a: float, c: float) -> float:
        return float(np.square(np.log(a * losses + c) - accuracies).sum())

    best = error(found["a"], found["c"])
    for da, dc in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (1e-3, -2e-3), (-1e-3, 2e-3)]:
        assert error(found["a"] + da, found["c"] + dc) > best
    slope, start = np.polyfit(losses, np.exp(accuracies), 1)
    assert error(slope, start) > best


def test_too_few_points_have_no_fit() -> None:
    assert fit_accuracy([1, 2], [0.1, 0.2]) is None
    assert fit_accuracy([1, 1, 1], [0.1, 0.2, 0.3]) is None
