"""At equal what: the same losses against tokens seen, tokens selected, FLOPs and seconds, and what it took to be level.

Selection looks best against selected tokens and worst against FLOPs or seconds, where the reference's training and
the scoring are paid before the first step: a decision needs all four.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokensieve.report import comparison_words as written
from tokensieve.report.charts import Chart, Points, Spans, line_chart, loss_range, ticks
from tokensieve.report.comparison_arms import Style
from tokensieve.report.words import MISSING, count, fixed, is_number, percent

BANDS = ("a1", "a2", "a3")
"""The arm of the headline and its two controls have their intervals drawn; more bands would hide each other."""
_LATE = 0.4
"""Panels show losses from this share of the run on: the first fall would flatten all that follows."""


@dataclass(frozen=True)
class Panels:
    """The four panels, and what their caption has to say."""

    charts: tuple[Chart, ...]
    cut: bool
    """Whether the beginning of the curves lies above the panels."""
    bands: tuple[str, ...]
    """Labels of the arms whose intervals are drawn."""


@dataclass(frozen=True)
class Reach:
    """What one arm needed to reach plain training's final loss, as shares of plain training's own."""

    css: str
    letter: str
    label: str
    tokens: str
    selected: str
    flops: str
    seconds: str


def equal_panels(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> Panels | None:
    """Target loss against four measures of effort; None if nothing was evaluated during training."""
    arms = {key: comparison["arms"][key] for key, style in look.items() if style.letter and _curve(comparison, key)}
    if not arms:
        return None
    plain = comparison["arms"].get("clm")
    level = plain["target_loss"]["mean"] if plain else None
    late = [
        point["target_loss"]["mean"]
        for arm in arms.values()
        for point in arm["curve"]
        if point["tokens_seen"] >= _LATE * arm["curve"][-1]["tokens_seen"]
    ]
    every = [point["target_loss"]["mean"] for arm in arms.values() for point in arm["curve"]]
    late, every = ([value for value in values if is_number(value)] for values in (late, every))
    if not late:
        return None
    cut = max(every) - min(every) > 1.5 * (max(late) - min(late))
    y_range = loss_range([*(late if cut else every), *([level] if is_number(level) else [])])
    charts = []
    for measure in _measures(comparison, arms):
        curves: dict[str, Points] = {}
        bands: dict[str, Spans] = {}
        for key, arm in arms.items():
            efforts = measure.of(key)
            points = [(x, p["target_loss"]) for x, p in zip(efforts, arm["curve"], strict=False) if is_number(x)]
            drawn = [(x, y["mean"]) for x, y in points if is_number(y["mean"])]
            if not drawn:
                continue
            curves[look[key].css] = drawn
            spans = [(x, y["low"], y["high"]) for x, y in points if is_number(y["low"]) and is_number(y["high"])]
            if look[key].css in BANDS and spans:
                bands[look[key].css] = spans
        if not curves:
            continue
        longest = max(points[-1][0] for points in curves.values()) or 1.0
        charts.append(
            line_chart(
                f"equal-{measure.key}",
                measure.title,
                curves,
                x_range=(0.0, longest),
                y_range=y_range,
                level=level,
                mark=_mark(comparison, measure, level),
                labels={style.css: style.word for style in look.values()},
                short={style.css: style.letter for style in look.values()},
                bands=bands,
                x_ticks=[measure.unit_size * x for x in ticks(0.0, longest / measure.unit_size, most=4)],
                x_text=measure.write,
                description=_describe(curves, look, measure),
            )
        )
    banded = tuple(style.label for style in look.values() if style.css in BANDS)
    intervals = any(is_number(arm["target_loss"]["low"]) for arm in arms.values())
    return Panels(tuple(charts), cut, banded if intervals else ())


def reach_rows(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> list[Reach]:
    """One row for each arm whose way to plain training's final loss was measured."""
    rows = []
    for key, style in look.items():
        found = comparison["arms"][key]["to_plain"]
        if found is None:
            continue
        measured = comparison["measured"]["arms"].get(key)
        seconds = written.reached(measured["to_plain_seconds"]) if measured else MISSING
        tokens, selected, flops = (written.reached(found[name]) for name in ("tokens", "selected", "flops"))
        rows.append(Reach(style.css, style.letter, style.label, tokens, selected, flops, seconds))
    return rows


def curve_tables(comparison: Mapping[str, Any], exponent: int) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """Caption, heads and rows of every arm's curve."""
    heads = ("Tokens seen", "Selected", f"FLOPs × {written.power_of_ten(exponent)}", "Seconds", "Loss", "Low", "High")
    tables: list[tuple[str, tuple[str, ...], list[list[str]]]] = []
    for key, arm in comparison["arms"].items():
        seconds = _seconds(comparison, key)
        rows = [
            [
                f"{point['tokens_seen']:,}",
                count(point["tokens_selected"]),
                written.scaled(point["flops"], exponent),
                fixed(seconds[i], 0) if i < len(seconds) else MISSING,
                fixed(point["target_loss"]["mean"], 4),
                fixed(point["target_loss"]["low"], 4),
                fixed(point["target_loss"]["high"], 4),
            ]
            for i, point in enumerate(arm["curve"])
        ]
        if rows:
            tables.append((arm["label"], heads, rows))
    return tables


@dataclass(frozen=True)
class _Measure:
    """One measure of effort."""

    key: str
    title: str
    unit: str
    of: Callable[[str], Sequence[float | None]]
    """Arm -> its effort at each evaluation."""
    write: Callable[[float], str]
    plain: float | None
    """Plain training's whole effort."""
    share: float | None
    """What the arm of the headline needed of it."""
    unit_size: float = 1.0
    """Ticks are round in multiples of this."""


def _measures(comparison: Mapping[str, Any], arms: Mapping[str, Any]) -> list[_Measure]:
    plain, main = comparison["arms"].get("clm"), comparison["arms"].get(comparison["main"])
    measured = comparison["measured"]["arms"]

    def points(name: str) -> Callable[[str], list[float]]:
        return lambda key: [point[name] for point in arms[key]["curve"]]

    def total(name: str) -> float | None:
        return plain["curve"][-1][name] if plain and plain["curve"] else None

    def part(name: str) -> float | None:
        return main["to_plain"][name]["share"] if main and main["to_plain"] else None

    def tokens(x: float) -> str:
        return count(x)

    exponent = written.exponent_of(p["flops"] for arm in arms.values() for p in arm["curve"])
    longest = max([x for key in arms for x in _seconds(comparison, key) if is_number(x)], default=0.0)
    unit, seconds = next(
        (u, s) for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if longest >= 2 * s or s == 1
    )
    to_plain = measured[comparison["main"]]["to_plain_seconds"] if comparison["main"] in measured else None
    plain_seconds = _seconds(comparison, "clm")
    operations = f"FLOPs with reference and scoring, in {written.power_of_ten(exponent)}"
    return [
        _Measure(
            "tokens", "Tokens seen", "tokens", points("tokens_seen"), tokens, total("tokens_seen"), part("tokens")
        ),
        _Measure(
            "selected",
            "Tokens selected",
            "tokens",
            points("tokens_selected"),
            tokens,
            total("tokens_selected"),
            part("selected"),
        ),
        _Measure(
            "flops",
            operations,
            "FLOPs",
            points("flops"),
            lambda x: written.scaled(x, exponent),
            total("flops"),
            part("flops"),
        ),
        _Measure(
            "seconds",
            f"Time with reference and scoring, in {unit}",
            unit,
            lambda key: _seconds(comparison, key),
            lambda x: f"{x / seconds:.3g}",
            plain_seconds[-1] if plain_seconds else None,
            to_plain["share"] if to_plain else None,
            unit_size=seconds,
        ),
    ]


def _mark(comparison: Mapping[str, Any], measure: _Measure, level: float | None) -> tuple[float, float, str] | None:
    if not is_number(measure.plain) or not is_number(measure.share) or not is_number(level):
        return None
    return measure.plain * measure.share, level, percent(measure.share)


def _curve(comparison: Mapping[str, Any], key: str) -> bool:
    return any(is_number(point["target_loss"]["mean"]) for point in comparison["arms"][key]["curve"])


def _seconds(comparison: Mapping[str, Any], key: str) -> Sequence[float | None]:
    measured = comparison["measured"]["arms"].get(key)
    return (measured["curve_seconds"] or ()) if measured else ()


def _describe(curves: Mapping[str, Points], look: Mapping[str, Style], measure: _Measure) -> str:
    names = {style.css: style.label for style in look.values() if style.letter}
    return " ".join(
        f"{names[css]} ends at {fixed(points[-1][1])} nats a token after {measure.write(points[-1][0])} {measure.unit}."
        for css, points in curves.items()
    )
