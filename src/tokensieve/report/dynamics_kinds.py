"""The four kinds of tokens: what they are called, the sentence that opens the page, and the table that compares them.

The names of the paper say in which direction the loss moved, not how high it was: tokens called L→H start as high as
those called H→L. So every kind has plain words beside its sign, and both stand wherever it appears.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokensieve.report.dynamics_look import inline
from tokensieve.report.words import MISSING, fixed, is_number, percent, signed


@dataclass(frozen=True)
class Kind:
    """One kind, the same everywhere on the page."""

    key: str
    """As in `dynamics.json`."""
    css: str
    sign: str
    name: str
    clause: str
    """What happened to its tokens, in the sentence that opens the page."""
    tokens: str
    """What that sentence calls them."""
    meaning: str
    mark: str
    """How its tokens are underlined, so that colour is never the only sign."""


KINDS = (
    Kind(
        "high_to_low",
        "hl",
        "H→L",
        "learned",
        "were learned",
        "learned tokens",
        "The loss fell: training taught the model this.",
        "solid underline",
    ),
    Kind(
        "low_to_low",
        "ll",
        "L→L",
        "known already",
        "were known already",
        "known ones",
        "The loss stayed low: there was little left to learn.",
        "no underline",
    ),
    Kind(
        "high_to_high",
        "hh",
        "H→H",
        "never learned",
        "were never learned",
        "never learned ones",
        "The loss stayed high: noise, or too hard for this model.",
        "dotted underline",
    ),
    Kind(
        "low_to_high",
        "lh",
        "L→H",
        "got worse",
        "got worse",
        "worsened ones",
        "The loss rose: predicted worse than before.",
        "double underline",
    ),
)


@dataclass(frozen=True)
class Part:
    """A kind's part of one bar."""

    css: str
    sign: str
    percent: float
    label: str


@dataclass(frozen=True)
class Shares:
    """One bar of four parts."""

    name: str
    parts: tuple[Part, ...]
    description: str


@dataclass(frozen=True)
class Moved:
    """Mean loss at the first and the last checkpoint of one run."""

    ends: str
    change: str


@dataclass(frozen=True)
class Row:
    """One kind's row of the table."""

    kind: Kind
    share: str
    tokens: str
    paper_shares: tuple[tuple[str, str], ...]
    moved: tuple[Moved, ...]
    """By run."""
    paper_moved: Moved
    fluctuation: Mapping[str, str] | None
    """Keys as in `dynamics.json`; None where the kind is empty."""
    kept: str
    kept_first: str


def share(value: float | None) -> str:
    """A share in whole percent, but never written as none where there is some."""
    return "under 1\u202f%" if is_number(value) and 0 < value < 0.005 else percent(value)


def lead(found: Mapping[str, Any]) -> str:
    """What was found, in one sentence: the shares of the four kinds, and what selection did to them."""
    categories = found["categories"]
    total = f"{found['text']['tokens']:,}"
    parts = [f"{share(categories[kind.key]['share'])} {kind.clause} ({kind.sign})" for kind in KINDS]
    sentence = f"Of {total} tokens {', '.join(parts[:-1])} and {parts[-1]}"
    selection = found["selection"]
    if selection is None:
        return sentence + "; this analysis has no selection to hold against them."
    kept = [
        f"{share(rates[-1])} of the {kind.tokens}"
        for kind in KINDS
        if (rates := selection["kept"][kind.key]) and is_number(rates[-1])
    ]
    if not kept:
        return sentence + "."
    joined = " and ".join([", ".join(kept[:-1]), kept[-1]]) if len(kept) > 1 else kept[0]
    return f"{sentence}; selection, which keeps {share(selection['ratio'])} of all, kept {joined}.{_effect(found)}"


def _effect(found: Mapping[str, Any]) -> str:
    """On which kinds the selecting run ended furthest from the one that decides the kinds."""
    runs = found["runs"]
    first, arm = next(iter(runs)), found["selection"]["arm"]
    ends = {
        kind: (found["trajectories"][first][kind.key], found["trajectories"].get(arm, {}).get(kind.key))
        for kind in KINDS
    }
    by = {
        kind: after[-1] - before[-1]
        for kind, (before, after) in ends.items()
        if before and after and is_number(before[-1]) and is_number(after[-1])
    }
    if arm == first or not by:
        return ""
    lowest, highest = min(by, key=lambda kind: by[kind]), max(by, key=lambda kind: by[kind])
    parts = [
        f"{fixed(abs(by[kind]), 2)} nats {'lower' if by[kind] < 0 else 'higher'} on the {kind.tokens}"
        for kind in dict.fromkeys((lowest, highest))
    ]
    return f" {runs[arm]['label']} ended {' and '.join(parts)} than {inline(runs[first]['label'])}."


def shares(found: Mapping[str, Any]) -> list[Shares]:
    """Bars of the shares: here, and in the models of the paper."""
    categories = found["categories"]
    bars = {"Here": {kind.key: categories[kind.key]["share"] for kind in KINDS}}
    for model in categories[KINDS[0].key]["paper"]:
        bars[f"Paper: {model}"] = {kind.key: categories[kind.key]["paper"][model] for kind in KINDS}
    drawn = []
    for name, values in bars.items():
        parts = tuple(Part(k.css, k.sign, round(100 * values[k.key], 2), share(values[k.key])) for k in KINDS)
        described = ", ".join(f"{k.sign} {k.name} {share(values[k.key])}" for k in KINDS)
        drawn.append(Shares(name, parts, f"{name}: {described}"))
    return drawn


def rows(found: Mapping[str, Any]) -> list[Row]:
    """The table of the kinds."""
    classifying = next(iter(found["runs"]))
    return [_row(found, kind, classifying) for kind in KINDS]


def fluctuation_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Run, kind and the three measures, for every run."""
    return [
        (found["runs"][arm]["label"], f"{kind.sign} {kind.name}", *_fluctuation(by[kind.key]).values())
        if by[kind.key]
        else (found["runs"][arm]["label"], f"{kind.sign} {kind.name}", MISSING, MISSING, MISSING)
        for arm, by in found["fluctuation"].items()
        for kind in KINDS
    ]


def _row(found: Mapping[str, Any], kind: Kind, classifying: str) -> Row:
    category = found["categories"][kind.key]
    kept = found["selection"]["kept"][kind.key] if found["selection"] else None
    measured = found["fluctuation"][classifying][kind.key]
    return Row(
        kind=kind,
        share=share(category["share"]),
        tokens=f"{category['tokens']:,}",
        paper_shares=tuple((model, share(value)) for model, value in category["paper"].items()),
        moved=tuple(_moved(found["trajectories"][arm][kind.key]) for arm in found["runs"]),
        paper_moved=_moved(found["paper_trajectories"][kind.key]),
        fluctuation=_fluctuation(measured) if measured else None,
        kept=share(kept[-1]) if kept else MISSING,
        kept_first=share(kept[0]) if kept else MISSING,
    )


def _fluctuation(measured: Mapping[str, float]) -> dict[str, str]:
    return {
        "around_line": fixed(measured["around_line"], 2),
        "range": fixed(measured["range"], 2),
        "strong": share(measured["strong"]),
    }


def _moved(losses: Sequence[float | None] | None) -> Moved:
    if not losses:
        return Moved(MISSING, "")
    first, last = losses[0], losses[-1]
    change = signed(last - first) if is_number(first) and is_number(last) else ""
    return Moved(f"{fixed(first, 2)} → {fixed(last, 2)}", change)
