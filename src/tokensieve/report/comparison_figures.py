"""The figures that follow the paper's: loss by ratio (9), by what was selected (6), of tokens selected earlier (8).

And the loss on general text, which selection may let rise. Each is left out where the comparison has no data for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokensieve.report import comparison_words as written
from tokensieve.report.charts import Chart, Points, line_chart, loss_range
from tokensieve.report.comparison_arms import Style
from tokensieve.report.words import count, fixed, is_number, percent

MOST_SETS = 6
"""The style sheet has this many shades for tokens selected at different times."""
_SWEEP = {"slm": "a1", "random": "a3"}
SWEEP_NAMES = {"a1": "Selective", "a3": "Random"}


@dataclass(frozen=True)
class Figure:
    """Panels with one legend, and the tables behind them."""

    charts: tuple[Chart, ...]
    names: Mapping[str, str]
    """Class -> name, for the legend."""
    tables: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]
    """Caption, column heads and rows."""


def sweep_figure(comparison: Mapping[str, Any]) -> Figure | None:
    """Final target loss by ratio, a panel for each score, on one scale."""
    sweeps = [sweep for sweep in comparison["sweep"] if sweep["points"]]
    if not sweeps:
        return None
    plain = sweeps[0]["plain"]
    level = plain["mean"] if plain else None
    found = [(sweep, {css: _by_ratio(sweep["points"], kind) for kind, css in _SWEEP.items()}) for sweep in sweeps]
    values = [v for _, by in found for points in by.values() for _, i in points for v in i.values() if is_number(v)]
    if not values:
        return None
    y_range = loss_range([*values, *([level] if is_number(level) else [])])
    ratios = sorted({point["ratio"] for sweep in sweeps for point in sweep["points"]})
    room = 0.1 * (ratios[-1] - ratios[0]) or 0.05
    charts, tables = [], []
    for number, (sweep, by) in enumerate(found):
        # Whiskers side by side are told apart; the shift is a hundredth of the axis.
        shift = {"a1": -0.05 * room, "a3": 0.05 * room}
        curves = {css: [(x + shift[css], i["mean"]) for x, i in points] for css, points in by.items() if points}
        whiskers = {css: [(x + shift[css], *_ends(i)) for x, i in points] for css, points in by.items() if points}
        title = f"Score: {sweep['score'].replace('_', ' ')}"
        charts.append(
            line_chart(
                f"sweep-{number}",
                title,
                curves,
                x_range=(ratios[0] - room, ratios[-1] + room),
                y_range=y_range,
                level=level,
                whiskers=whiskers,
                x_ticks=ratios,
                x_text=percent,
                description=_describe_sweep(by, level),
            )
        )
        rows = tuple(
            (percent(point["ratio"]), *(text for kind in _SWEEP for text in _mean_and_span(point[kind])))
            for point in sweep["points"]
        )
        tables.append((title, ("Ratio", "Selective", "Interval", "Random", "Interval"), rows))
    names = {css: SWEEP_NAMES[css] for css in _SWEEP.values() if any(by[css] for _, by in found)}
    return Figure(tuple(charts), names, tuple(tables))


def split_figure(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> Figure | None:
    """Loss on the tokens that the start's excess loss selects, and on the others: two panels, each with its scale."""
    split = comparison["split"]
    if split is None:
        return None
    charts, tables = [], []
    keys = [key for key in look if look[key].letter and key in split["arms"]]
    for side, title in (("selected", "Selected tokens"), ("unselected", "Unselected tokens")):
        curves = {look[key].css: _finite(split["arms"][key][side]) for key in keys}
        chart = _by_tokens(f"split-{side}", title, curves, look)
        if chart:
            charts.append(chart)
            tables.append(_table(title, {look[key].label: split["arms"][key][side] for key in keys}))
    return Figure(tuple(charts), _names(look, keys), tuple(tables)) if charts else None


def over_time_figure(comparison: Mapping[str, Any]) -> Figure | None:
    """The loss, over the whole run, of the tokens that were selected at each of several checkpoints."""
    found = comparison["over_time"]
    sets = [one for one in found["sets"] if _finite(one["curve"])] if found else []
    if not sets:
        return None
    if len(sets) > MOST_SETS:
        sets = [sets[round(i * (len(sets) - 1) / (MOST_SETS - 1))] for i in range(MOST_SETS)]
    shades = [f"t{1 + round(i * (MOST_SETS - 1) / max(1, len(sets) - 1))}" for i in range(len(sets))]
    curves = {css: _finite(one["curve"]) for css, one in zip(shades, sets, strict=True)}
    names = {css: f"selected at {count(one['at'])} tokens" for css, one in zip(shades, sets, strict=True)}
    short = {css: count(one["at"]) for css, one in zip(shades, sets, strict=True)}
    chart = line_chart(
        "over-time",
        "Loss of tokens selected at different times",
        curves,
        x_range=_tokens_range(curves),
        y_range=loss_range([y for points in curves.values() for _, y in points]),
        labels=dict.fromkeys(curves, ""),
        short=short,
        description=_describe(curves, names),
    )
    table = _table("Nats a token", {names[css]: one["curve"] for css, one in zip(shades, sets, strict=True)})
    return Figure((chart,), names, (table,))


def general_figure(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> Figure | None:
    """Loss on general text by tokens seen."""
    if not comparison["general"]:
        return None
    rows = {
        key: [
            (p["tokens_seen"], p["general_loss"]["mean"]) for p in comparison["arms"][key]["curve"] if p["general_loss"]
        ]
        for key, style in look.items()
        if style.letter
    }
    rows = {key: points for key, points in rows.items() if _finite(points)}
    chart = _by_tokens("general", "Loss on general text", {look[key].css: _finite(rows[key]) for key in rows}, look)
    if chart is None:
        return None
    return Figure((chart,), _names(look, rows), (_table("Nats a token", {look[key].label: rows[key] for key in rows}),))


def _by_tokens(key: str, title: str, curves: Mapping[str, Points], look: Mapping[str, Style]) -> Chart | None:
    curves = {css: points for css, points in curves.items() if points}
    if not curves:
        return None
    labels = {style.css: style.label for style in look.values() if style.letter}
    return line_chart(
        key,
        title,
        curves,
        x_range=_tokens_range(curves),
        y_range=loss_range([y for points in curves.values() for _, y in points]),
        labels={style.css: style.word for style in look.values() if style.letter},
        short={style.css: style.letter for style in look.values() if style.letter},
        description=_describe(curves, labels),
    )


def _by_ratio(points: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[float, Mapping[str, float]]]:
    found = [(point["ratio"], point[kind]) for point in points]
    return [(ratio, interval) for ratio, interval in sorted(found, key=lambda one: one[0]) if interval is not None]


def _ends(interval: Mapping[str, float | None]) -> tuple[float, float]:
    """The ends of an interval; the mean twice where one seed gave none."""
    low, high, mean = interval["low"], interval["high"], interval["mean"]
    assert mean is not None
    return (low, high) if is_number(low) and is_number(high) else (mean, mean)


def _mean_and_span(interval: Mapping[str, float | None] | None) -> tuple[str, str]:
    return fixed(interval["mean"] if interval else None), written.span(interval)


def _describe_sweep(by: Mapping[str, Sequence[tuple[float, Mapping[str, float]]]], level: float | None) -> str:
    parts = [
        f"{SWEEP_NAMES[css]}: " + ", ".join(f"{fixed(i['mean'])} at {percent(x)}" for x, i in points) + "."
        for css, points in by.items()
        if points
    ]
    return " ".join([*parts, f"Plain training stands at {fixed(level)}."] if is_number(level) else parts)


def _describe(curves: Mapping[str, Points], names: Mapping[str, str]) -> str:
    return " ".join(
        f"{names[css]}: from {fixed(points[0][1])} to {fixed(points[-1][1])} nats a token."
        for css, points in curves.items()
    )


def _table(
    caption: str, columns: Mapping[str, Sequence[Sequence[float | None]]]
) -> tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Curves side by side, by tokens seen."""
    at = sorted({row[0] for rows in columns.values() for row in rows if row[0] is not None})
    by = [{row[0]: row[1] for row in rows} for rows in columns.values()]
    rows = tuple((f"{x:,.0f}", *(fixed(column.get(x), 4) for column in by)) for x in at)
    return caption, ("Tokens seen", *columns), rows


def _names(look: Mapping[str, Style], keys: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    return {look[key].css: look[key].label for key in keys}


def _finite(rows: Sequence[Sequence[float | None]]) -> Points:
    return [(x, y) for x, y in rows if is_number(x) and is_number(y)]


def _tokens_range(curves: Mapping[str, Points]) -> tuple[float, float]:
    return 0.0, max([x for points in curves.values() for x, _ in points] + [1.0])
