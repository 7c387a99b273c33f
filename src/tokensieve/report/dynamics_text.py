"""Example text of an analysis: each token's kind, whether it was kept, and its tendency to be kept over training.

The paper's figure 11 colours tokens by kind, 13 by what was selected, 14 by the tendency to be selected at four
moments. Colour is never the only sign: every kind and every level has an underline of its own, and a title in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tokensieve.report.dynamics_drawing import Cell, exact
from tokensieve.report.dynamics_kinds import KINDS
from tokensieve.report.passages import visible

MOMENTS = ("0\u202f%", "33\u202f%", "66\u202f%", "100\u202f%")
"""Of training, as in the paper."""
LEVELS = ("least likely", "unlikely", "middling", "likely", "most likely")
"""Fifths of all candidates by their score, from the lowest."""
_KINDS = {kind.key: kind for kind in KINDS}
HEADS = {
    "figure-11": ("passage", "place", "position", "text", "category"),
    "figure-13": ("passage", "place", "position", "text", "kept"),
    "figure-14": ("passage", "place", "position", "text", "at_0", "at_33", "at_66", "at_100"),
}
"""Files of token lists: their columns."""


@dataclass(frozen=True)
class Token:
    """One token, ready to be put in a `span`."""

    html: Markup
    css: str
    title: str


@dataclass(frozen=True)
class View:
    """One passage in one colouring."""

    title: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Example:
    """One passage in every colouring that there are data for."""

    place: str
    views: tuple[View, ...]
    """By kind, and by what was kept."""
    moments: tuple[View, ...]
    """By tendency, at four moments; empty where nobody knows it."""


def examples(found: Mapping[str, Any]) -> list[Example]:
    """Every passage, laid out."""
    return [_example(example) for example in found["examples"]]


def token_rows(found: Mapping[str, Any]) -> dict[str, list[tuple[Cell, ...]]]:
    """Rows of the token lists by file; a file without anything to say is left out."""
    rows: dict[str, list[tuple[Cell, ...]]] = {key: [] for key in HEADS}
    for number, example in enumerate(found["examples"], 1):
        for position, token in enumerate(example["tokens"]):
            place = (number, exact(example["place"]), position, exact(token["text"]))
            rows["figure-11"].append((*place, token["category"]))
            kept = token["kept"]
            rows["figure-13"].append((*place, None if kept is None else str(kept).lower()))
            rows["figure-14"].append((*place, *(token["tendency"] or (None,) * len(MOMENTS))))
    return {key: found_here for key, found_here in rows.items() if any(row[4] is not None for row in found_here)}


def _example(example: Mapping[str, Any]) -> Example:
    tokens = example["tokens"]
    views = []
    if any(token["category"] for token in tokens):
        views.append(View("The four kinds", tuple(_by_kind(token) for token in tokens)))
    if any(token["kept"] is not None for token in tokens):
        kept, decided = (sum(token["kept"] is value for token in tokens) for value in (True, False))
        title = f"Kept at the end: {kept} of {kept + decided} tokens"
        views.append(View(title, tuple(_by_fate(token) for token in tokens)))
    moments: tuple[View, ...] = ()
    if any(token["tendency"] for token in tokens):
        moments = tuple(
            View(f"After {moment} of training", tuple(_by_level(token, i) for token in tokens))
            for i, moment in enumerate(MOMENTS)
        )
    return Example(example["place"], tuple(views), moments)


def _by_kind(token: Mapping[str, Any]) -> Token:
    if token["category"] is None:
        return _plain(token)
    kind = _KINDS[token["category"]]
    return _marked(token, kind.css, f"{kind.sign} {kind.name}")


def _by_fate(token: Mapping[str, Any]) -> Token:
    if token["kept"] is None:
        return _plain(token)
    return _marked(token, "kept-on" if token["kept"] else "kept-off", "kept" if token["kept"] else "left out")


def _by_level(token: Mapping[str, Any], moment: int) -> Token:
    if token["tendency"] is None:
        return _plain(token)
    level = token["tendency"][moment]
    return _marked(token, f"v{level}", f"{LEVELS[level]} to be kept")


def _plain(token: Mapping[str, Any]) -> Token:
    return _marked(token, "o", "not a candidate: the first token of a window or document")


def _marked(token: Mapping[str, Any], css: str, title: str) -> Token:
    # The edge between tokens would stand alone at the start of the next line.
    return Token(visible(token["text"]), css + (" e" if token["text"].endswith("\n") else ""), title)
