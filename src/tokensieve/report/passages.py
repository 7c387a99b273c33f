"""Passages of text, token by token, as the page shows them.

A token's colour says how far the student's loss lies above the reference's (its excess loss, Rho-1 eq. 3);
an underline says that it was kept, so that colour is never the only sign. The text stays the text: spaces and
line ends are drawn by the style sheet around the real characters, so that it can be selected and copied.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from tokensieve.report.words import fixed, is_number, printable, signed

LEVELS = (0.25, 0.75, 1.5, 3.0)
"""Excess losses, in nats, at which the colour deepens, above and below zero."""

_WHITESPACE = re.compile(r"( +|\t|\r?\n)")


@dataclass(frozen=True)
class Token:
    """One token, ready to be put in a `span`."""

    html: Markup
    css: str
    title: str


@dataclass(frozen=True)
class Passage:
    """One passage and what was kept of it."""

    source: str
    tokens: tuple[Token, ...]
    candidates: int
    kept: int
    decided: bool
    """Whether the run kept anything apart at all: without a selective arm nothing is marked."""


def passage(found: Mapping[str, Any]) -> Passage:
    """Lay out one entry of the report's `passages`."""
    tokens: Sequence[Mapping[str, Any]] = found["tokens"]
    return Passage(
        source=found["source"],
        tokens=tuple(_token(token) for token in tokens),
        candidates=sum(is_number(token["student"]) and is_number(token["reference"]) for token in tokens),
        kept=sum(token["kept"] is True for token in tokens),
        decided=any(token["kept"] is not None for token in tokens),
    )


def level(excess: float) -> str:
    """The colour class of an excess loss: n4 ... n1, z, p1 ... p4."""
    depth = sum(abs(excess) >= bound for bound in LEVELS)
    return "z" if depth == 0 else f"{'p' if excess > 0 else 'n'}{depth}"


def visible(text: str) -> Markup:
    """Escaped text with its white space wrapped, so that the style sheet can draw it quietly."""
    pieces = []
    for piece in _WHITESPACE.split(text):
        if piece.startswith(" "):
            pieces.append(Markup("<i>{}</i>").format(piece))
        elif piece == "\t":
            pieces.append(Markup('<i class="tab">\t</i>'))
        elif piece.endswith("\n"):
            pieces.append(Markup('<i class="end">{}</i>').format(printable(piece[:-1])) + "\n")
        else:
            pieces.append(escape(printable(piece)))
    return Markup("").join(pieces)


def _token(token: Mapping[str, Any]) -> Token:
    student, reference, kept = token["student"], token["reference"], token["kept"]
    html = visible(token["text"])
    # The edge between tokens would stand alone at the start of the next line.
    ends_line = " e" if token["text"].endswith("\n") else ""
    if not (is_number(student) and is_number(reference)):
        return Token(html, "o" + ends_line, "not a candidate: the first token of a window or document")
    excess = student - reference
    fate = {True: " · kept", False: " · left out", None: ""}[kept]
    title = f"student {fixed(student, 2)} · reference {fixed(reference, 2)} · excess {signed(excess)}{fate}"
    return Token(html, level(excess) + (" k" if kept else "") + ends_line, title)
