"""What selection kept of each kind of token: bars by source, region, class, frequency and position."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokensieve.report.comparison_arms import Style
from tokensieve.report.words import count, is_number, percent

_GROUPINGS = (
    ("source", "By source"),
    ("region", "By region of the text"),
    ("class", "By class of token"),
    ("frequency", "By how common the token is"),
    ("position", "By position in the window"),
)
_MOST_ROWS = 12
"""More kinds than this are in the table below alone."""


@dataclass(frozen=True)
class KeptBar:
    """One arm's share of one kind of token."""

    css: str
    letter: str
    name: str
    percent: float
    label: str
    ratio: float
    """Where the mark of the arm's own ratio stands, in percent."""


@dataclass(frozen=True)
class KeptRow:
    """One kind of token."""

    name: str
    tokens: str
    bars: tuple[KeptBar, ...]


@dataclass(frozen=True)
class Grouping:
    """One way to sort tokens into kinds."""

    key: str
    title: str
    rows: tuple[KeptRow, ...]
    left_out: int
    """Kinds that the table alone shows."""
    heads: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    """Kind, then the share kept by every selecting arm."""


def groupings(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> list[Grouping]:
    """Every grouping that some arm counted, with bars for the arms that the figures draw."""
    arms = {key: comparison["arms"][key] for key in look if comparison["arms"][key]["keep_rates"]}
    found = []
    for group, title in _GROUPINGS:
        counted = {key: arm["keep_rates"][group] for key, arm in arms.items() if arm["keep_rates"].get(group)}
        if not counted:
            continue
        by = {key: {row["name"]: row for row in rows} for key, rows in counted.items()}
        kinds = list(dict.fromkeys(row["name"] for rows in counted.values() for row in rows))
        if len(kinds) < 2:
            continue  # of one kind of all tokens, each arm kept its ratio
        # Frequency and position have an order of their own; the rest goes by size once there is too much of it.
        shown = kinds
        if len(kinds) > _MOST_ROWS:
            shown = sorted(kinds, key=lambda kind: -_tokens(by, kind))[:_MOST_ROWS]
        drawn = [key for key in counted if look[key].letter]
        rows = tuple(
            KeptRow(
                kind,
                count(_tokens(by, kind)),
                tuple(_bar(look[key], arms[key]["ratio"], by[key][kind]) for key in drawn if _any(by[key].get(kind))),
            )
            for kind in shown
        )
        table = tuple((kind, *(percent(_share(by[key].get(kind))) for key in counted)) for kind in kinds)
        heads = ("Kind", *(look[key].label for key in counted))
        found.append(Grouping(group, title, rows, len(kinds) - len(shown), heads, table))
    return found


def _tokens(by: Mapping[str, Mapping[str, Mapping[str, Any]]], kind: str) -> int:
    return max(rows[kind]["tokens"] for rows in by.values() if kind in rows)


def _any(row: Mapping[str, Any] | None) -> bool:
    return row is not None and row["tokens"] > 0


def _share(row: Mapping[str, Any] | None) -> float | None:
    return row["kept"] / row["tokens"] if row is not None and row["tokens"] else None


def _bar(style: Style, ratio: float, row: Mapping[str, Any]) -> KeptBar:
    share = _share(row)
    assert is_number(share)
    return KeptBar(style.css, style.letter, style.label, round(100 * share, 2), percent(share), round(100 * ratio, 2))
