"""Intervals on an axis, row by row: differences around zero (a forest plot), or levels such as accuracies.

The rows are HTML with the numbers beside them, so that they wrap on a phone and are read aloud; only the drawing
between them is placed here, in percent of the axis.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokensieve.report import comparison_words as written
from tokensieve.report.charts import Tick, ticks
from tokensieve.report.comparison_arms import Style
from tokensieve.report.words import MISSING, fixed, is_number


@dataclass(frozen=True)
class Interval:
    """One row: its words, its numbers, and where they lie on the axis in percent."""

    css: str
    letter: str
    name: str
    text: str
    """A sentence, or empty."""
    note: str
    """What this experiment could have seen, or empty."""
    verdict: str
    """`better`, `worse`, `undecided`, or empty where nothing is judged."""
    value: str
    span: str
    at: float | None
    low: float | None
    high: float | None
    seeds: tuple[float, ...] = ()
    unseen: tuple[float, float] | None = None
    """From and width of the strip of differences too small to be found."""


@dataclass(frozen=True)
class Plot:
    """Rows on one axis."""

    key: str
    title: str
    note: str
    rows: tuple[Interval, ...]
    ticks: tuple[Tick, ...]
    level: float | None
    """Where the line lies that the rows are held against."""
    left: str
    """What lies on the left of the level, and on its right."""
    right: str


def differences(
    key: str,
    title: str,
    found: Sequence[Mapping[str, Any]],
    look: Mapping[str, Style],
    note: str = "",
    texts: bool = False,
) -> Plot | None:
    """A forest plot of paired differences of one unit; None without any.

    Args:
        key: prefix of element ids.
        title: what the rows have in common.
        found: entries of `differences`.
        look: arm -> how it is drawn and called.
        note: what is said below the title.
        texts: whether the rows name the text they were measured on.
    """
    if not found:
        return None
    unit = found[0]["unit"]
    names = ("estimate", "low", "high")
    values = [0.0, *(row[name] for row in found for name in names), *(x for row in found for x in row["per_seed"])]
    known = [value for value in values if is_number(value)]
    # The strips of what could not be seen are shown whole where they leave most of the axis to the intervals.
    strips = [row["detectable"] for row in found if is_number(row["detectable"])]
    strips = [width for width in strips if width <= 0.3 * (max(known) - min(known))]
    axis = _Axis([*values, *strips, *(-width for width in strips)])
    scale = 100.0 if unit == "accuracy" else 1.0
    ours = {row["arm"] for row in found}
    # Where every row is the same arm's, it is named once.
    common = look[found[0]["arm"]].label if len(ours) == 1 else None
    title = f"{title}: {common}" if common else title
    rows = tuple(_difference(row, look, axis, texts, common) for row in found)
    better_low = unit != "accuracy"
    return Plot(
        key=key,
        title=title,
        note=note,
        rows=rows,
        ticks=axis.ticks(scale),
        level=axis.place(0.0),
        left="better" if better_low else "worse",
        right="worse" if better_low else "better",
    )


def levels(
    key: str,
    title: str,
    found: Mapping[str, Mapping[str, float | None]],
    look: Mapping[str, Style],
    *,
    start: float | None,
    note: str,
) -> Plot:
    """Shares with their intervals by arm, against the untouched start's: the accuracies of one task."""
    values = [start, *(interval[name] for interval in found.values() for name in ("mean", "low", "high"))]
    axis = _Axis(values)
    rows = tuple(
        Interval(
            css=look[arm].css,
            letter=look[arm].letter,
            name=look[arm].label,
            text="",
            note="",
            verdict="",
            value=written.share(interval["mean"]),
            span=written.percent_span(interval),
            at=axis.place(interval["mean"]),
            low=axis.place(interval["low"]),
            high=axis.place(interval["high"]),
        )
        for arm, interval in found.items()
    )
    return Plot(key, title, note, rows, axis.ticks(100.0, "\u202f%"), axis.place(start), "", "more right answers")


def difference_table(found: Iterable[Mapping[str, Any]], look: Mapping[str, Style]) -> list[list[str]]:
    """All numbers of the differences, a row for each: see the template for the columns."""
    return [
        [
            f"{look[row['arm']].label} against {look[row['other']].label}",
            row["text"],
            written.difference(row["estimate"], row["unit"]),
            written.difference(row["low"], row["unit"]),
            written.difference(row["high"], row["unit"]),
            written.p_value(row["p"]),
            ", ".join(written.difference(value, row["unit"]) for value in row["per_seed"]),
            _plain(row["seed_sd"], row["unit"]),
            _plain(row["document_error"], row["unit"]),
            fixed(row["effect_size"], 1),
            _plain(row["detectable"], row["unit"]),
            ", ".join(f"{wanted}: {seeds}" for wanted, seeds in _needed(row)) or MISSING,
        ]
        for row in found
    ]


class _Axis:
    """Places values between the least and the greatest, with a little room on both sides."""

    def __init__(self, values: Iterable[float | None]) -> None:
        known = [value for value in values if is_number(value)] or [0.0]
        low, high = min(known), max(known)
        room = 0.06 * (high - low) or 0.01
        self.low, self.high = low - room, high + room

    def place(self, value: float | None) -> float | None:
        """Percent from the left."""
        return round(100 * (value - self.low) / (self.high - self.low), 2) if is_number(value) else None

    def ticks(self, scale: float, unit: str = "") -> tuple[Tick, ...]:
        found = ticks(scale * self.low, scale * self.high, most=5)
        step = found[1] - found[0] if len(found) > 1 else 1.0
        digits = next((n for n in range(6) if abs(round(step, n) - step) < 1e-9), 6)
        return tuple(
            Tick(round(100 * (x / scale - self.low) / (self.high - self.low), 2), fixed(x, digits) + unit)
            for x in found
        )


def _difference(
    row: Mapping[str, Any], look: Mapping[str, Style], axis: _Axis, texts: bool, common: str | None
) -> Interval:
    unit = row["unit"]
    unseen = None
    if is_number(row["detectable"]):
        left, right = axis.place(-row["detectable"]), axis.place(row["detectable"])
        assert left is not None and right is not None
        left, right = max(left, 0.0), min(right, 100.0)
        unseen = (left, round(right - left, 2))
    ends = [written.difference(row[end], unit) for end in ("low", "high")]
    against = f"against {look[row['other']].label}"
    name = against if common else f"{look[row['arm']].label} {against}"
    # One seed alone is the mean itself.
    placed = (axis.place(value) for value in row["per_seed"] if len(row["per_seed"]) > 1)
    return Interval(
        css=look[row["arm"]].css,
        letter=look[row["arm"]].letter,
        name=name + (f" on {row['text']}" if texts else ""),
        text=written.sentence(row["sentence"]),
        note=_seen(row),
        verdict=row["verdict"],
        value=written.difference(row["estimate"], unit),
        span=written.no_interval(row["per_seed"]) if MISSING in ends else f"{ends[0]} to {ends[1]}",
        at=axis.place(row["estimate"]),
        low=axis.place(row["low"]),
        high=axis.place(row["high"]),
        seeds=tuple(place for place in placed if place is not None),
        unseen=unseen,
    )


def _seen(row: Mapping[str, Any]) -> str:
    """The smallest difference that would have been found, and the seeds that smaller ones would take."""
    parts = []
    if is_number(row["detectable"]):
        parts.append(f"A true difference of {written.size(row['detectable'], row['unit'])} would be found 4 times in 5")
    # The sentence of an undecided comparison says it already.
    if row["verdict"] == "undecided" and "seeds" not in row["sentence"]:
        parts += [f"{wanted} would take {seeds}" for wanted, seeds in _needed(row)]
    return "; ".join(parts)


def _needed(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Difference and the seeds that it would take; one seed says nothing about others."""
    found = []
    for wanted, seeds in (row["seeds_needed"] or {}).items():
        size = f"{100 * float(wanted):g} points" if row["unit"] == "accuracy" else f"{wanted} nats"
        if seeds is not None:
            found.append((size, f"about {seeds} seeds"))
        elif row["low"] is not None:
            found.append((size, "more documents"))
    return found


def _plain(value: float | None, unit: str) -> str:
    return fixed(100 * value, 1) if unit == "accuracy" and is_number(value) else fixed(value, 4)
