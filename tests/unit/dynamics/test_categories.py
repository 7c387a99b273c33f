"""The four categories: hand-made lines, borders against exact fractions, and numpy.polyfit."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokensieve.dynamics.categories import CATEGORIES, UNKNOWN, classify, fitted_change
from tokensieve.errors import UserError

NAN = float("nan")
H2L, L2L, H2H, L2H = range(4)


def columns(tokens: Sequence[Sequence[float]]) -> list[np.ndarray]:
    """One float16 column a checkpoint, from one row of losses a token."""
    return [np.array(column, dtype=np.float16) for column in zip(*tokens, strict=True)]


def exact_change(losses: Sequence[float]) -> Fraction:
    """L_end - L_start of the least-squares line, in whole numbers."""
    C = len(losses)
    values = [Fraction(float(np.float16(loss))) for loss in losses]
    x_mean, y_mean = Fraction(C - 1, 2), sum(values) / C
    slope = sum((x - x_mean) * (y - y_mean) for x, y in enumerate(values))
    return slope / sum((x - x_mean) ** 2 for x in range(C)) * (C - 1)


def test_one_token_of_each_kind() -> None:
    losses = columns([[4, 3, 2], [0.5, 0.5, 0.5], [5, 5.1, 5], [1, 2, 3], [NAN, NAN, NAN]])
    found = classify(losses)
    assert found.of.tolist() == [H2L, L2L, H2H, L2H, UNKNOWN] and found.of.dtype == np.uint8
    assert (found.level, found.level_is_mean, found.counts) == ((2 + 0.5 + 5 + 3) / 4, True, (1, 1, 1, 1))


def test_the_line_decides_and_not_the_first_and_last_loss() -> None:
    # First and last loss are equal; the line falls by 1.6, then rises by as much.
    losses = columns([[3, 4, 2, 2, 3], [3, 2, 4, 4, 3], [3, 3, 3, 3, 3]])
    assert exact_change([3, 4, 2, 2, 3]) == Fraction(-4, 5)
    assert classify(losses).of.tolist()[:2] == [H2L, L2H]


def test_a_change_of_just_the_threshold_is_no_change() -> None:
    # With five checkpoints 0.4 * sum((x - 2) * loss): a half gives exactly one fifth.
    up, down = [1, 1, 1, 1.5, 1], [1, 1.5, 1, 1, 1]
    assert exact_change(up) == Fraction(1, 5) == -exact_change(down)
    steeper = [1, 1, 1, 1.5009765625, 1], [1, 1.5009765625, 1, 1, 1]
    found = classify(columns([up, down, *steeper]))
    assert found.of.tolist() == [L2L, L2L, L2H, H2L]
    # 1.5 * (6 / 30) is more than 0.3 in float64, 6 * 1.5 / 30 is not.
    assert classify(columns([[1, 1, 1, 1.75, 1]]), change=0.3).of.tolist() == [L2L]


def test_a_last_loss_of_just_the_level_is_low() -> None:
    losses = columns([[1, 1], [3, 3], [2, 2]])
    assert classify(losses).of.tolist() == [L2L, H2H, L2L]
    assert classify(losses, level=1.0).of.tolist() == [L2L, H2H, H2H]
    assert classify(losses, level=1.0).level_is_mean is False


def test_the_level_is_the_mean_of_the_last_checkpoint_alone() -> None:
    losses = columns([[9, 9, 9.0], [9, 9, 9], [0, 0, 0], [4, 4, 4]])
    assert classify(losses).level == 5.5
    # Two tokens that fall far: the mean of the last is 0.25, of all checkpoints it would be 4.1.
    losses = columns([[8, 0], [8, 0], [0.5, 0.5], [0.5, 0.5]])
    assert classify(losses).level == 0.25 and classify(losses).of.tolist() == [H2L, H2L, H2H, H2H]


def test_thresholds_are_settings() -> None:
    losses = columns([[3, 2], [2, 3], [2, 2]])
    assert classify(losses, change=0.5, level=2.5).of.tolist() == [H2L, L2H, L2L]
    assert classify(losses, change=1.0, level=2.5).of.tolist() == [L2L, H2H, L2L]


@pytest.mark.parametrize("C", [2, 3, 4, 14, 15, 16, 100])
def test_agrees_with_polyfit_whatever_the_number_of_checkpoints(C: int) -> None:
    draw = np.random.default_rng(C)
    losses = (draw.exponential(2, (C, 400)) * draw.random(400)).astype(np.float16)
    x = np.arange(C)
    slope, start = np.polyfit(x, losses.astype(np.float64), 1)
    ends = np.stack([start, slope * x[-1] + start])
    assert fitted_change(list(losses)) == pytest.approx(ends[1] - ends[0], abs=1e-11)
    by_polyfit = np.where(losses[-1] <= losses[-1].astype(float).mean(), L2L, H2H)
    by_polyfit[ends[1] - ends[0] < -0.2] = H2L
    by_polyfit[ends[1] - ends[0] > 0.2] = L2H
    assert classify(list(losses)).of.tolist() == by_polyfit.tolist()
    assert len(set(by_polyfit.tolist())) >= 3


NEAR = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 6e-8, 0.2, 0.1, 0.3, 11.0, 60000.0])


@settings(max_examples=200, deadline=None)
@example([[0.5, 1.0, 1.5]], 0.2)
@given(
    st.integers(2, 9).flatmap(lambda C: st.lists(st.lists(NEAR, min_size=C, max_size=C), min_size=1, max_size=5)),
    st.sampled_from([0.0, 0.2, 0.25, 0.3, 0.1, 1.0]),
)
def test_every_border_is_where_exact_fractions_put_it(tokens: list[list[float]], change: float) -> None:
    losses = columns(tokens)
    found = classify(losses, change=change)
    last = [Fraction(float(loss)) for loss in losses[-1]]
    mean = sum(last) / len(last)
    # The threshold is the decimal number that the user wrote.
    border = Fraction(str(change))
    for row, of, end in zip(tokens, found.of.tolist(), last, strict=True):
        fitted = exact_change(row)
        if fitted < -border:
            assert of == H2L
        elif fitted > border:
            assert of == L2H
        else:
            assert of == (L2L if end <= mean else H2H)


@pytest.mark.parametrize("block", [1, 2, 7, 99, 100, 101])
def test_the_size_of_the_blocks_changes_nothing(block: int) -> None:
    draw = np.random.default_rng(0)
    losses = draw.exponential(2, (5, 100)).astype(np.float16)
    losses[:, draw.random(100) < 0.2] = np.nan
    whole, parts = classify(list(losses)), classify(list(losses), block=block)
    assert parts.of.tolist() == whole.of.tolist()
    assert (parts.level, parts.counts) == (whole.level, whole.counts)
    assert sum(whole.counts) == (~np.isnan(losses[0])).sum() < 100


def test_memory_maps_are_read_as_they_are(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).exponential(2, (3, 50)).astype("<f2")
    for i, column in enumerate(losses):
        column.tofile(tmp_path / f"{i}.f16")
    mapped = [np.memmap(tmp_path / f"{i}.f16", dtype="<f2", mode="r") for i in range(3)]
    assert classify(mapped).of.tolist() == classify(list(losses)).of.tolist()


def test_the_names_are_in_the_order_of_the_numbers() -> None:
    assert CATEGORIES == ("high_to_low", "low_to_low", "high_to_high", "low_to_high")


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([[1.0, 2.0]], "at least two"),
        ([], "at least two"),
        ([[1.0, 2.0], [1.0]], "column 2 has 1 tokens and the first one 2"),
        ([[NAN, NAN], [NAN, NAN]], "no token of the measured text has a loss"),
        ([[1.0, NAN], [1.0, 2.0]], "column 2 holds 2.0 for token 1"),
        ([[1.0, 1.0], [1.0, NAN]], "column 2 holds nan for token 1"),
        ([[1.0, 1.0], [float("inf"), 1.0]], "column 2 holds inf for token 0"),
        ([[float("inf")], [float("inf")]], "column 1 holds inf for token 0"),
    ],
)
def test_columns_that_cannot_be_classified_are_refused(losses: list[list[float]], told: str) -> None:
    with pytest.raises(UserError, match=told):
        classify([np.array(column, dtype=np.float16) for column in losses], block=1)
