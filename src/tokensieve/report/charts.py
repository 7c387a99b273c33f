"""Line charts: where the lines, ticks and marks of a figure go.

A chart is one SVG of lines, stretched over whatever width the page has (its strokes keep their width), with
labels in HTML around it: text stays readable on a phone and follows the page's colours in light and dark.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokensieve.report.words import ARM_NAMES, count, fixed, is_number, unit_of

Points = Sequence[tuple[float, float]]
Spans = Sequence[tuple[float, float, float]]
"""Intervals along a line: x, low and high."""

WIDTH, HEIGHT = 1000, 500
"""The SVG's own units; the style sheet decides the size on the screen."""
_LABEL_WIDTH, _LABEL_HEIGHT = 30.0, 7.0
"""Room for a label at a line's end, in percent of the plot."""
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
    """Its class in the style sheet."""
    path: str
    band: str = ""
    """The area between the ends of its intervals."""
    whiskers: str = ""
    """The same as single strokes."""
    dots: str = ""
    """Its points, where each is a measurement of its own."""


@dataclass(frozen=True)
class End:
    """A label where a line ends, moved a little where another stands."""

    arm: str
    left: float
    top: float
    short: str
    label: str


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
    ends: tuple[End, ...] = ()
    """Labels at the lines' ends, beside or in place of a legend."""
    x_label: str = ""
    """What the axis below counts; empty where the caption says it."""
    y_label: str = ""


def line_chart(
    key: str,
    title: str,
    curves: Mapping[str, Points],
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    level: float | None = None,
    mark: tuple[float, float, str] | None = None,
    labels: Mapping[str, str] = ARM_NAMES,
    short: Mapping[str, str] | None = None,
    bands: Mapping[str, Spans] | None = None,
    whiskers: Mapping[str, Spans] | None = None,
    x_ticks: Sequence[float] | None = None,
    x_text: Callable[[float], str] | None = None,
    description: str | None = None,
    x_label: str = "",
    y_label: str = "",
) -> Chart:
    """Place curves of (tokens seen, nats a token) in the given ranges.

    Args:
        key: prefix of element ids.
        title: what the figure shows.
        curves: arm -> points with rising x.
        x_range: least and greatest number of tokens.
        y_range: least and greatest loss.
        level: the loss of a level line, such as the reference's.
        mark: tokens, loss and label of a point to mark; left out where it lies outside the ranges.
        labels: arm -> what the page calls it.
        short: arm -> a letter or word for the end of its line; without it the ends have no labels.
        bands: arm -> intervals drawn as an area.
        whiskers: arm -> intervals drawn as strokes; such an arm's points are drawn as dots as well.
        x_ticks: where the ticks go; by default at round values.
        x_text: how a value of x is written; by default as a count.
        description: for those who cannot see the lines; by default where each starts and ends.
        x_label: what the axis below counts.
        y_label: what the axis on the left measures.
    """
    stride = max([1, *(math.ceil(len(points) / MOST_POINTS) for points in curves.values())])
    bands, whiskers = bands or {}, whiskers or {}

    def left(x: float) -> float:
        return (x - x_range[0]) / (x_range[1] - x_range[0])

    def top(y: float) -> float:
        return (y_range[1] - y) / (y_range[1] - y_range[0])

    def place(x: float, y: float) -> str:
        return f"{_short(left(x) * WIDTH)} {_short(top(y) * HEIGHT)}"

    def draw(arm: str, points: Points) -> Line:
        thinned = [*points[:-1:stride], points[-1]]
        # A line of no length still shows as a dot, because its ends are round.
        path = "M" + "L".join(place(x, y) for x, y in thinned) + ("h0" if len(points) == 1 else "")
        band, strokes = bands.get(arm, ()), whiskers.get(arm, ())
        around = [place(x, high) for x, _, high in band] + [place(x, low) for x, low, _ in reversed(band)]
        return Line(
            arm,
            path,
            band="M" + "L".join(around) + "Z" if around else "",
            whiskers="".join(f"M{place(x, low)}L{place(x, high)}" for x, low, high in strokes),
            dots="".join(f"M{place(x, y)}h0" for x, y in points) if arm in whiskers else "",
        )

    placed = mark and Mark(round(100 * left(mark[0]), 2), round(100 * top(mark[1]), 2), mark[2])
    x_values, y_values = x_ticks or ticks(*x_range, most=4), ticks(*y_range, most=5)
    unit = unit_of(x_range[1])
    decimals = max(0, -math.floor(math.log10(y_values[1] - y_values[0]) + 1e-9)) if len(y_values) > 1 else 2
    ends = {arm: (100 * left(points[-1][0]), 100 * top(points[-1][1])) for arm, points in curves.items() if points}
    return Chart(
        key=key,
        title=title,
        description=_describe(curves, labels, level) if description is None else description,
        lines=tuple(draw(arm, points) for arm, points in curves.items() if points),
        x_ticks=tuple(Tick(round(100 * left(x), 2), x_text(x) if x_text else count(x, unit)) for x in x_values),
        y_ticks=tuple(Tick(round(100 * top(y), 2), fixed(y, decimals)) for y in y_values),
        level=round(100 * top(level), 2) if is_number(level) and 0 <= top(level) <= 1 else None,
        mark=placed if mark is not None and 0 <= left(mark[0]) <= 1 and 0 <= top(mark[1]) <= 1 else None,
        stride=stride,
        ends=tuple(End(arm, round(x, 2), round(y, 2), short[arm], labels[arm]) for arm, (x, y) in _apart(ends).items())
        if short
        else (),
        x_label=x_label,
        y_label=y_label,
    )


def _apart(ends: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Move labels (percent from left and top) up or down until none covers another."""
    groups: list[list[str]] = []
    for arm in sorted(ends, key=lambda arm: ends[arm]):
        if groups and ends[arm][0] - ends[groups[-1][-1]][0] < _LABEL_WIDTH:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    moved: dict[str, tuple[float, float]] = {}
    for group in groups:
        group.sort(key=lambda arm: ends[arm][1])
        # Down from the top, each at least a line below the one before; then up from the bottom by the same rule.
        tops: list[float] = []
        for arm in group:
            tops.append(max([ends[arm][1], *(top + _LABEL_HEIGHT for top in tops[-1:])]))
        excess = max(0.0, tops[-1] - max(100.0, ends[group[-1]][1]))
        for i in reversed(range(len(group))):
            below = tops[i + 1] - _LABEL_HEIGHT if i + 1 < len(group) else tops[i] - excess
            tops[i] = min(tops[i], below)
        moved |= {arm: (ends[arm][0], top) for arm, top in zip(group, tops, strict=True)}
    return {arm: moved[arm] for arm in ends}


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


def _describe(curves: Mapping[str, Points], labels: Mapping[str, str], level: float | None) -> str:
    parts = [
        f"{labels[arm]} goes from {fixed(points[0][1])} to {fixed(points[-1][1])} nats a token "
        f"over {count(points[-1][0] - points[0][0])} tokens."
        for arm, points in curves.items()
        if points
    ]
    if is_number(level):
        parts.append(f"The reference model stands at {fixed(level)}.")
    return " ".join(parts)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
