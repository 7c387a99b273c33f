"""Where the four kinds are found: their shares in every source, region and class of token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokensieve.report.dynamics_kinds import KINDS, share
from tokensieve.report.words import MISSING, is_number

GROUPINGS = (
    ("source", "By source"),
    ("region", "By region of the text"),
    ("class", "By class of token"),
)
MOST_ROWS = 12
"""More groups than this are in the data alone."""
FILE = "kinds-by-group"
HEADS = ("grouping", "group", "tokens", "category", "share")


@dataclass(frozen=True)
class Bar:
    """The share of one kind in one group, and the kind's share of everything."""

    css: str
    percent: float
    label: str
    overall: float
    described: str


@dataclass(frozen=True)
class Group:
    """One source, region or class."""

    name: str
    tokens: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Grouping:
    """One way to sort tokens."""

    key: str
    title: str
    groups: tuple[Group, ...]
    left_out: int
    scale: float
    """The share at the end of every bar's track, in percent."""


def groupings(found: Mapping[str, Any]) -> list[Grouping]:
    """Every grouping that has at least two groups, largest groups first."""
    laid_out = []
    for key, title in GROUPINGS:
        by = _by_group(found, key)
        if len(by) < 2:
            continue
        names = sorted(by, key=lambda name: -by[name]["tokens"])
        shown = names[:MOST_ROWS]
        overall = {kind.key: found["categories"][kind.key]["share"] for kind in KINDS}
        highest = max([*overall.values(), *(s for name in shown for s in by[name]["shares"].values() if is_number(s))])
        scale = min(1.0, max(0.05, highest))
        groups = tuple(
            Group(
                name,
                f"{by[name]['tokens']:,}",
                tuple(
                    _bar(
                        kind.css, f"{kind.sign} {kind.name}", by[name]["shares"].get(kind.key), overall[kind.key], scale
                    )
                    for kind in KINDS
                ),
            )
            for name in shown
        )
        laid_out.append(Grouping(key, title, groups, len(names) - len(shown), 100 * scale))
    return laid_out


def group_rows(found: Mapping[str, Any]) -> list[tuple[str | float, ...]]:
    """All numbers, a row for each group and kind: see `HEADS`."""
    return [
        (key, row["name"], row["tokens"], kind.key, row["share"])
        for key, _ in GROUPINGS
        for kind in KINDS
        for row in found["categories"][kind.key]["by"].get(key, ())
    ]


def group_tables(found: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, heads and rows of every grouping, also of those that have no bars."""
    tables = []
    for key, title in GROUPINGS:
        by = _by_group(found, key)
        rows = [
            (name, f"{row['tokens']:,}", *(share(row["shares"].get(kind.key)) for kind in KINDS))
            for name, row in by.items()
        ]
        if rows:
            tables.append((title, ("Group", "Tokens", *(kind.sign for kind in KINDS)), rows))
    return tables


def _by_group(found: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    by: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        for row in found["categories"][kind.key]["by"].get(key, ()):
            group = by.setdefault(row["name"], {"tokens": row["tokens"], "shares": {}})
            group["shares"][kind.key] = row["share"]
    return by


def _bar(css: str, name: str, value: float | None, overall: float, scale: float) -> Bar:
    percent = round(100 * value / scale, 2) if is_number(value) else 0.0
    label = share(value) if is_number(value) else MISSING
    return Bar(css, percent, label, round(100 * overall / scale, 2), f"{name}: {label}, of all {share(overall)}")
