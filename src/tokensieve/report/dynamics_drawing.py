"""What the figures of an analysis share: a figure with its numbers, and panels over checkpoints or tokens seen."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tokensieve.report.charts import Chart, Points, line_chart, loss_range, ticks
from tokensieve.report.dynamics_kinds import KINDS
from tokensieve.report.dynamics_look import Axis, Run
from tokensieve.report.words import fixed, is_number

NATS = "nats a token"
Cell = str | float | None


@dataclass(frozen=True)
class Figure:
    """Panels with one legend, and the numbers behind them."""

    key: str
    """Stem of its files, and its id on the page."""
    title: str
    paper: str
    """Which figure of the paper it corresponds to."""
    note: str
    """How to read it."""
    charts: tuple[Chart, ...]
    names: Mapping[str, str]
    """Class -> name, for the legend; empty where the ends of the lines say it all."""
    short: Mapping[str, str]
    """Class -> letter or sign."""
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """The numbers as they stand in `dynamics.json`."""
    level: str = ""
    """What the dotted line is; empty where there is none."""
    contexts: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    """Key of a chart -> class, letter, text before, token and text after, for lines that are tokens."""


def by_checkpoint(
    key: str,
    title: str,
    lines: Mapping[str, Points],
    axis: Axis,
    y_range: tuple[float, float],
    y_label: str,
    *,
    names: Mapping[str, str] | None = None,
    short: Mapping[str, str] | None = None,
    level: float | None = None,
    describe: Callable[[float], str] = fixed,
) -> Chart:
    """A panel over checkpoints: by default one line for each kind, with its sign and name at its end.

    Args:
        key: prefix of element ids.
        title: what the panel shows.
        lines: class -> points.
        axis: where the checkpoints lie.
        y_range: least and greatest value.
        y_label: what the lines measure.
        names: class -> words at the end of its line.
        short: class -> sign or letter there.
        level: where a level line lies.
        describe: how a value is written for those who cannot see the lines.
    """
    names = names or {kind.css: kind.name for kind in KINDS}
    short = short or {kind.css: kind.sign for kind in KINDS}
    last = axis.at[-1]
    described = " ".join(
        f"{short[css]} {names[css]}: from {describe(points[0][1])} to {describe(points[-1][1])}."
        for css, points in lines.items()
    )
    return line_chart(
        key,
        title,
        lines,
        x_range=(0.0, max(*axis.at, 1.0)) if axis.of_tokens else (1.0, max(last, 2.0)),
        y_range=y_range,
        level=level,
        labels=names,
        short=short,
        x_ticks=ticks(0.0, max(*axis.at, 1.0), most=5)
        if axis.of_tokens
        else [x for x in ticks(1.0, max(last, 2.0), most=6) if x == int(x)],
        x_text=None if axis.of_tokens else lambda x: f"{x:.0f}",
        description=described,
        x_label=axis.label,
        y_label=y_label,
    )


def by_arm(key: str, title: str, lines: Mapping[str, Points], look: Mapping[str, Run], x_label: str) -> Chart | None:
    """A panel of losses along training, one line for each run; None without points."""
    lines = {css: points for css, points in lines.items() if points}
    if not lines:
        return None
    described = " ".join(
        f"{name_of(look, css)}: from {fixed(points[0][1])} to {fixed(points[-1][1])} nats a token."
        for css, points in lines.items()
    )
    return line_chart(
        key,
        title,
        lines,
        x_range=seen_range(lines),
        y_range=loss_range([y for points in lines.values() for _, y in points]),
        labels={run.css: run.word for run in look.values()},
        short={run.css: run.letter for run in look.values()},
        x_ticks=ticks(*seen_range(lines), most=5),
        description=described,
        x_label=x_label,
        y_label=NATS,
    )


def name_of(look: Mapping[str, Run], css: str) -> str:
    """What the run is called that is drawn in this class."""
    return next(run.label for run in look.values() if run.css == css)


def exact(text: str) -> str:
    """Text of a corpus as a JSON string: every character survives, and no program takes it for a formula."""
    return json.dumps(text)


def finite(rows: Sequence[Sequence[float | None]]) -> Points:
    """The points that have numbers."""
    return [(x, y) for x, y in rows if is_number(x) and is_number(y)]


def seen_range(lines: Mapping[str, Points]) -> tuple[float, float]:
    """From nothing to the most tokens seen."""
    return 0.0, max([x for points in lines.values() for x, _ in points] + [1.0])
