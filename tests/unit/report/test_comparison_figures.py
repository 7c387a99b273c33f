"""Where the marks of the comparison's figures go, which arms they draw, and how its numbers are written."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokensieve.report.comparison as comparison_module
from tokensieve.report import comparison_words as written
from tokensieve.report.charts import line_chart
from tokensieve.report.comparison_arms import MOST_DRAWN, drawn, styles
from tokensieve.report.comparison_curves import equal_panels
from tokensieve.report.comparison_figures import MOST_SETS, over_time_figure, split_figure, sweep_figure
from tokensieve.report.comparison_intervals import differences
from tokensieve.report.comparison_kept import groupings

SAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "comparison.json").read_text(encoding="utf-8"))
TEMPLATES = Path(comparison_module.__file__).parent / "templates"
MAIN = SAMPLE["main"]
LOOK = styles(SAMPLE)


def test_the_main_arm_and_its_controls_are_drawn_first() -> None:
    found = drawn(SAMPLE)
    assert list(found.items())[:3] == [(MAIN, "a1"), ("clm", "a2"), ("random-0.6", "a3")]
    assert len(found) == MOST_DRAWN == len(set(found.values()))
    assert {SAMPLE["arms"][key]["kind"] for key in found} >= {"clean", "mixed", "self"}


def test_letters_run_down_the_table_and_words_tell_drawn_arms_apart() -> None:
    lettered = [style for style in LOOK.values() if style.letter]
    assert [style.letter for style in lettered] == list("ABCDEF")
    assert len({style.word for style in lettered}) == 6
    few = {**SAMPLE, "arms": {key: SAMPLE["arms"][key] for key in ("clm", MAIN, "slm-excess_loss-0.4")}}
    assert [style.word for style in styles(few).values()] == ["Plain", "Selective 60\u202f%", "Selective 40\u202f%"]


def test_without_a_main_arm_something_is_drawn_all_the_same() -> None:
    few = {**SAMPLE, "main": None, "arms": {key: SAMPLE["arms"][key] for key in ("random-0.4", "clean", "clm")}}
    assert drawn(few) == {"clm": "a2", "random-0.4": "a3", "clean": "a4"}


def test_an_interval_lies_where_its_numbers_say() -> None:
    row = {
        **SAMPLE["differences"][0], "arm": MAIN, "other": "clm", "unit": "nats", "estimate": -0.02, "low": -0.03,
        "high": -0.01, "per_seed": [-0.02], "detectable": 0.005, "verdict": "better",
    }  # fmt: skip
    plot = differences("k", "t", [row, {**row, "estimate": 0.01, "low": 0.0, "high": 0.02, "per_seed": []}], LOOK)
    assert plot is not None and plot.level is not None and (plot.left, plot.right) == ("better", "worse")
    first, second = plot.rows
    assert None not in (first.low, first.at, first.high)
    assert 0 < first.low < first.at < first.high < plot.level < second.at < 100  # type: ignore[operator]
    assert second.low == plot.level
    # One scale for all rows: a difference twice as far lies twice as far.
    assert plot.level - first.at == pytest.approx(2 * (plot.level - first.high), abs=0.02)  # type: ignore[operator]
    assert first.unseen is not None and first.unseen[0] + first.unseen[1] / 2 == pytest.approx(plot.level, abs=0.02)
    zero = next(tick for tick in plot.ticks if float(tick.label.replace("−", "-")) == 0)
    assert zero.at == pytest.approx(plot.level, abs=0.02)


def test_more_accuracy_is_better_and_counted_in_points() -> None:
    rows = [row for row in SAMPLE["differences"] if row["unit"] == "accuracy"][:2]
    plot = differences("k", "t", rows, LOOK)
    assert plot is not None and (plot.left, plot.right) == ("worse", "better")
    assert plot.rows[0].value == f"{100 * rows[0]['estimate']:+.1f}".replace("-", "−")


def test_seeds_are_asked_for_once_and_only_where_nothing_was_found() -> None:
    row = {**SAMPLE["differences"][0], "verdict": "undecided", "sentence": "no difference", "seeds_needed": {"0.01": 9}}

    def note(**changes: Any) -> str:
        plot = differences("k", "t", [{**row, **changes}], LOOK)
        assert plot is not None
        return plot.rows[0].note

    assert note().endswith("4 times in 5; 0.01 nats would take about 9 seeds")
    assert note(seeds_needed={"0.01": None}).endswith("0.01 nats would take more documents")
    assert note(sentence="to see 0.01 nats it would need about 9 seeds").endswith("4 times in 5")
    assert note(verdict="better").endswith("4 times in 5")
    assert note(low=None, detectable=None, seeds_needed={"0.01": None}) == ""


def test_four_panels_share_the_loss_and_differ_in_effort() -> None:
    panels = equal_panels(SAMPLE, LOOK)
    assert panels is not None and panels.cut and len(panels.charts) == 4 and len(panels.bands) == 3
    assert len({chart.y_ticks for chart in panels.charts}) == 1
    marks = [chart.mark.label for chart in panels.charts if chart.mark]
    shares = [part["share"] for part in SAMPLE["arms"][MAIN]["to_plain"].values()]
    shares.append(SAMPLE["measured"]["arms"][MAIN]["to_plain_seconds"]["share"])
    assert marks == [f"{100 * share:.0f}\u202f%" for share in shares]

    def start(number: int) -> float:
        path = next(line.path for line in panels.charts[number].lines if line.arm == "a1")
        return float(re.findall(r"M(\S+) ", path)[0])

    # The reference and the scoring are paid before the first step, so in FLOPs and seconds the curve starts late.
    assert start(0) == start(1) == 0 and start(2) > 300 and start(3) > 300


def test_the_ticks_of_the_time_are_round_in_its_unit() -> None:
    panels = equal_panels(SAMPLE, LOOK)
    assert panels is not None and panels.charts[3].title.endswith("in minutes")
    assert [tick.label for tick in panels.charts[3].x_ticks] == ["0", "20", "40"]


def test_labels_at_the_ends_of_lines_never_cover_each_other() -> None:
    curves = {f"a{i}": [(0.0, 2.0), (100.0, 1.0 + i / 1000)] for i in range(1, 7)}
    names = dict.fromkeys(curves, "x")
    chart = line_chart("k", "t", curves, x_range=(0, 100), y_range=(1, 2), labels=names, short=names)
    tops = sorted(end.top for end in chart.ends)
    assert all(below - above > 6.9 for above, below in zip(tops, tops[1:], strict=False))
    assert max(tops) <= 100.1
    # The lowest line has the lowest label.
    assert [end.arm for end in sorted(chart.ends, key=lambda end: -end.top)] == list(curves)


def test_bands_and_whiskers_span_their_intervals() -> None:
    spans = {"a1": [(0.0, 4.0, 8.0), (100.0, 5.0, 7.0)]}
    curves = {"a1": [(0.0, 6.0), (100.0, 6.0)]}
    chart = line_chart(
        "k", "t", curves, x_range=(0, 100), y_range=(4, 8), labels={"a1": "x"}, bands=spans, whiskers=spans
    )
    line = chart.lines[0]
    assert line.band == "M0 0L1000 125L1000 375L0 500Z"
    assert line.whiskers == "M0 500L0 0M1000 375L1000 125" and line.dots == "M0 250h0M1000 250h0"


def test_the_sweep_has_a_panel_for_each_score_with_ticks_at_its_ratios() -> None:
    figure = sweep_figure(SAMPLE)
    assert figure is not None and [chart.title for chart in figure.charts] == [
        "Score: excess loss",
        "Score: reference loss",
    ]
    assert [tick.label for tick in figure.charts[0].x_ticks] == ["40\u202f%", "60\u202f%", "80\u202f%"]
    assert all(chart.level is not None for chart in figure.charts)
    point = SAMPLE["sweep"][0]["points"][1]
    assert figure.tables[0][2][1][:2] == ("60\u202f%", f"{point['slm']['mean']:.3f}")


def test_a_sweep_with_holes_and_one_seed_is_drawn() -> None:
    sweep = copy.deepcopy(SAMPLE["sweep"][:1])
    sweep[0]["plain"] = sweep[0]["points"][0]["random"] = None
    for point in sweep[0]["points"]:
        point["slm"] |= {"low": None, "high": None}
    figure = sweep_figure({**SAMPLE, "sweep": sweep})
    assert figure is not None and figure.charts[0].level is None
    assert [line.dots.count("M") for line in figure.charts[0].lines] == [3, 2]


def test_selected_and_unselected_tokens_have_a_panel_each() -> None:
    figure = split_figure(SAMPLE, LOOK)
    assert figure is not None and [chart.title for chart in figure.charts] == ["Selected tokens", "Unselected tokens"]
    ends = {line.arm: float(line.path.split(" ")[-1]) for line in figure.charts[1].lines}
    assert ends["a1"] < ends["a2"]  # higher on the page: selection's loss on unselected tokens is worse


@pytest.mark.parametrize("number", [1, 2, 6, 9])
def test_sets_of_tokens_are_shaded_from_early_to_late(number: int) -> None:
    one = SAMPLE["over_time"]["sets"][0]
    sets = [{**one, "at": 1000 * (i + 1)} for i in range(number)]
    figure = over_time_figure({**SAMPLE, "over_time": {"arm": MAIN, "sets": sets}})
    assert figure is not None
    shades = [line.arm for line in figure.charts[0].lines]
    assert shades == sorted(set(shades)) and len(shades) == min(number, MOST_SETS)
    assert figure.charts[0].ends[-1].short == f"{number}k"


def test_bars_show_what_was_kept_and_the_arms_own_ratio() -> None:
    found = groupings(SAMPLE, LOOK)
    assert [group.key for group in found] == ["source", "region", "class", "frequency", "position"]
    counted = SAMPLE["arms"][MAIN]["keep_rates"]["region"][0]
    bar = next(bar for bar in found[1].rows[0].bars if bar.css == "a1")
    assert bar.percent == round(100 * counted["kept"] / counted["tokens"], 2) and bar.ratio == 60
    assert len(found[1].heads) == 1 + sum(arm["keep_rates"] is not None for arm in SAMPLE["arms"].values())


def test_many_kinds_are_cut_to_the_largest_and_all_stay_in_the_table() -> None:
    comparison = copy.deepcopy(SAMPLE)
    rows = [{"name": f"s{i}", "tokens": 1000 + i, "kept": 500} for i in range(40)] + [
        {"name": "none", "tokens": 0, "kept": 0}
    ]
    for arm in comparison["arms"].values():
        if arm["keep_rates"]:
            arm["keep_rates"]["source"] = rows
    group = groupings(comparison, styles(comparison))[0]
    assert [row.name for row in group.rows][:2] == ["s39", "s38"] and group.left_out == 29 and len(group.table) == 41
    assert group.table[-1][1] == "–"


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (written.difference(-0.0214, "nats"), "−0.021"),
        (written.difference(-0.0004, "nats"), "0.000"),
        (written.difference(0.0123, "accuracy"), "+1.2"),
        (written.difference(None, "nats"), "–"),
        (written.size(0.0123, "accuracy"), "1.2 points"),
        (written.p_value(0.00001), "below 0.001"),
        (written.p_value(0.0414), "0.041"),
        (written.memory(2_841_000_000), "2.84 GB"),
        (written.memory(31_000_000), "31 MB"),
        (written.power_of_ten(15), "10¹⁵"),
        (written.scaled(5.5678e14, 12), "557"),
        (written.setting(["a", 1]), '["a", 1]'),
        (written.setting("a"), "a"),
        (written.sentence("better than x"), "Better than x."),
        (written.no_interval([1.0, 2.0]), "one document: no interval"),
    ],
)
def test_numbers_are_written_for_people(shown: str, wanted: str) -> None:
    assert shown == wanted


@given(st.floats(1e-3, 1e27))
def test_a_power_of_ten_leaves_one_to_three_digits_before_the_point(value: float) -> None:
    exponent = written.exponent_of([value, 0.0])
    assert exponent % 3 == 0 and 0.999 <= value / 10.0**exponent < 1001


def palette(theme: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("style.css", "comparison.css"):
        blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / name).read_text(encoding="utf-8"), re.DOTALL)
        for block in blocks[: 1 if theme == "light" else 2]:
            found |= dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_arms_have_enough_contrast_as_text_and_as_lines(theme: str) -> None:
    colours = palette(theme)
    page = luminance(colours["page"])
    names = [*(f"a{i}" for i in range(1, 7)), "better", "worse", "undecided", *(f"t{i}" for i in range(1, 7))]
    for name in names:
        low, high = sorted((luminance(colours[name]), page))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_the_style_sheet_draws_every_arm_differently() -> None:
    style = (TEMPLATES / "comparison.css").read_text(encoding="utf-8")
    for letter in "at":
        dashes = dict(re.findall(rf"path\.({letter}\d) \{{ stroke-dasharray: ([\d ]+);", style))
        assert len(set(dashes.values())) == len(dashes) >= 4
