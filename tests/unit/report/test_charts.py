"""Where lines, ticks and marks go."""

import copy
import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tokensieve.report.charts import MOST_POINTS, line_chart, loss_range, ticks
from tokensieve.report.figures import target_charts, training_charts

SAMPLE = json.loads((Path(__file__).parent / "sample.json").read_text(encoding="utf-8"))


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) ([\d.-]+)", path)]


def test_points_are_placed_from_left_to_right_and_high_losses_on_top() -> None:
    chart = line_chart("c", "t", {"slm": [(0, 8.0), (50, 6.0), (100, 4.0)]}, x_range=(0, 100), y_range=(4, 8))
    assert places(chart.lines[0].path) == [(0, 0), (500, 250), (1000, 500)]


def test_mark_and_level_outside_the_ranges_are_left_out() -> None:
    curves = {"slm": [(0.0, 8.0), (100.0, 4.0)]}
    inside = line_chart("c", "t", curves, x_range=(0, 100), y_range=(4, 8), level=6, mark=(25, 5, "25 %"))
    assert (inside.level, inside.mark and (inside.mark.left, inside.mark.top)) == (50, (25, 75))
    outside = line_chart("c", "t", curves, x_range=(50, 100), y_range=(4, 8), level=3, mark=(25, 5, "25 %"))
    assert outside.level is None and outside.mark is None


def test_long_curves_are_thinned_and_keep_both_ends() -> None:
    points = [(float(i), 5.0) for i in range(10_001)]
    chart = line_chart("c", "t", {"clm": points}, x_range=(0, 10_000), y_range=(4, 6))
    drawn = places(chart.lines[0].path)
    assert len(drawn) <= MOST_POINTS + 1 and chart.stride == 26
    assert (drawn[0][0], drawn[-1][0]) == (0, 1000)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e12), st.integers(2, 6))
def test_ticks_are_few_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    values = ticks(low, high, most)
    assert len(values) <= most + 1
    assert all(low - 1e-6 * span - 1e-9 <= value <= high + 1e-6 * span + 1e-9 for value in values)


def test_ticks_are_round() -> None:
    assert ticks(0, 620_000, 4) == [0, 200_000, 400_000, 600_000]
    assert ticks(5.5, 6.2, 5) == [5.6, 5.8, 6.0, 6.2]


def test_a_range_is_never_empty() -> None:
    low, high = loss_range([5.0, 5.0])
    assert low < 5.0 < high


def test_target_figure_shows_all_arms_the_reference_and_the_crossing() -> None:
    whole, late = target_charts(SAMPLE)
    assert [line.arm for line in whole.lines] == ["clm", "random", "slm"]
    assert whole.level is not None and whole.mark is not None and whole.mark.label == "73\u202f%"
    assert "Selective training goes from 8.410 to 5.527 nats" in whole.description
    # Enlarged: the arms' last points lie further apart than on the whole.
    assert spread(late) > 3 * spread(whole)


def spread(chart: object) -> float:
    ends = [places(line.path)[-1][1] for line in chart.lines]  # type: ignore[attr-defined]
    return max(ends) - min(ends)


def test_selected_and_unselected_losses_have_panels_of_their_own_without_the_plain_arm() -> None:
    charts = training_charts(SAMPLE)
    drawn = [[line.arm for line in chart.lines] for chart in charts]
    assert drawn == [["clm", "random", "slm"], ["random", "slm"], ["random", "slm"]]
    # One scale for all panels.
    assert len({chart.y_ticks for chart in charts}) == 1


def test_a_run_without_curves_has_no_figures() -> None:
    report = copy.deepcopy(SAMPLE)
    for arm in report["arms"].values():
        arm["target_curve"], arm["train_curve"] = [[0, float("nan")]], []
    assert target_charts(report) == [] and training_charts(report) == []
