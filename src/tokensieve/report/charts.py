"""Line charts: where the lines, ticks and marks of a figure go.

A chart is one SVG of lines, stretched over whatever width the page has (its strokes keep their width), with
labels in HTML around it: text stays readable on a phone and follows the page's colours in light and dark.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokensieve.report.words import ARM_NAMES, count, fixed, is_number, unit_of

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 1000, 500
"""The SVG's own units; the style sheet decides the size on the screen."""
MOST_POINTS = 400
"""More points than this on one line cannot be told apart; every n-th is drawn."""


@dataclass(frozen=True)
class Tick:
    """A place along an axis, in percent from the left or the top, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One arm's line."""

    arm: str
    path: str


@dataclass(frozen=True)
class Mark:
    """The point where one arm passes another's final loss."""

    left: float
    top: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything the template needs to draw one figure."""

    key: str
    """Unique on the page: the prefix of element ids."""
    title: str
    description: str
    """What a reader who cannot see the lines should know."""
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    level: float | None = None
    """Where the reference's dashed line lies, in percent from the top."""
    mark: Mark | None = None
    stride: int = 1
    """Every n-th point is drawn."""


def line_chart(
    key: str,
    title: str,
    curves: Mapping[str, Points],
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    level: float | None = None,
    mark: tuple[float, float, str] | None = None,
) -> Chart:
    """Place curves of (tokens seen, nats a token) in the given ranges.

    Args:
        key: prefix of element ids.
        title: what the figure shows.
        curves: arm -> points with rising x.
        x_range: least and greatest number of tokens.
        y_range: least and greatest loss.
        level: the reference's loss.
        mark: tokens, loss and label of a point to mark; left out where it lies outside the ranges.
    """
    stride = max([1, *(math.ceil(len(points) / MOST_POINTS) for points in curves.values())])

    def left(x: float) -> float:
        return (x - x_range[0]) / (x_range[1] - x_range[0])

    def top(y: float) -> float:
        return (y_range[1] - y) / (y_range[1] - y_range[0])

    def path(points: Points) -> str:
        thinned = [*points[:-1:stride], points[-1]]
        places = (f"{_short(left(x) * WIDTH)} {_short(top(y) * HEIGHT)}" for x, y in thinned)
        # A line of no length still shows as a dot, because its ends are round.
        return "M" + "L".join(places) + ("h0" if len(points) == 1 else "")

    placed = mark and Mark(round(100 * left(mark[0]), 2), round(100 * top(mark[1]), 2), mark[2])
    x_values, y_values = ticks(*x_range, most=4), ticks(*y_range, most=5)
    unit = unit_of(x_range[1])
    decimals = max(0, -math.floor(math.log10(y_values[1] - y_values[0]) + 1e-9)) if len(y_values) > 1 else 2
    return Chart(
        key=key,
        title=title,
        description=_describe(curves, level),
        lines=tuple(Line(arm, path(points)) for arm, points in curves.items() if points),
        x_ticks=tuple(Tick(round(100 * left(x), 2), count(x, unit)) for x in x_values),
        y_ticks=tuple(Tick(round(100 * top(y), 2), fixed(y, decimals)) for y in y_values),
        level=round(100 * top(level), 2) if is_number(level) and 0 <= top(level) <= 1 else None,
        mark=placed if mark is not None and 0 <= left(mark[0]) <= 1 and 0 <= top(mark[1]) <= 1 else None,
        stride=stride,
    )


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round values from low to high."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while (high - low) / step > most:
        # 1, 2, 5, 10, 20, ...
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def loss_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis around the given losses, with a little room and never empty."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - room, high + room


def _describe(curves: Mapping[str, Points], level: float | None) -> str:
    parts = [
        f"{ARM_NAMES[arm]} goes from {fixed(points[0][1])} to {fixed(points[-1][1])} nats a token "
        f"over {count(points[-1][0] - points[0][0])} tokens."
        for arm, points in curves.items()
        if points
    ]
    if is_number(level):
        parts.append(f"The reference model stands at {fixed(level)}.")
    return " ".join(parts)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
