"""The viewer for those on a server: passages in colour, or with marks where there is no colour.

Selection is the project's own, over all passages of the view together. Text of a corpus is shown as text: whatever a
terminal would obey (control and escape characters, bidirectional controls) is spelled out.
"""

from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokensieve.errors import UserError
from tokensieve.report.words import fixed, percent, printable
from tokensieve.selection import TokenColumns, compute_score, select_tokens
from tokensieve.viewer.collecting import NEEDS
from tokensieve.viewer.passages import Model, Passage, View

QUANTITIES = ("excess", "student", "reference", "entropy")
MARKS, PLAIN_MARKS = ("⟦", "⟧"), ("{{", "}}")
"""Around kept tokens where there is no colour; the second where the terminal cannot write the first."""

_EXCESS_LEVELS, _LEVELS = (0.25, 0.75, 1.5, 3.0), (0.5, 1.5, 3.0, 6.0)
"""Nats at which the colour deepens: of excess on both sides of zero."""
_ABOVE = ("", "on #fff0e0", "on #ffd9b0", "on #ffb870", "on #f08a30")
_BELOW = ("", "on #e8f0fc", "on #cfe0f8", "on #a8c8f0", "on #78a8e0")
_INK = "black"


def terminal_view(
    view: View,
    console: Console,
    *,
    ratio: float | None = None,
    score: str | None = None,
    passages: int = 3,
    quantity: str = "excess",
) -> None:
    """Print passages, evenly spread over the view, and the share that is kept of all of it by source and region.

    Args:
        view: what to show; the first student and the first reference are compared.
        console: where; without colour kept tokens stand between marks.
        ratio: share to keep; default: the view's.
        score: by which; default: the view's.
        passages: how many.
        quantity: what the colour says: `excess`, `student` or `reference` (their loss) or `entropy`.

    Raises:
        UserError: a score or quantity that the view has no numbers for, or a ratio outside (0, 1].
    """
    ratio = view.ratio if ratio is None else ratio
    if not 0 < ratio <= 1:
        raise UserError(f"ratio must be above 0 and at most 1, not {ratio}")
    score = view.score if score is None else score
    kept = select(view, ratio, score)
    if quantity == "excess" and not all(_first(view, kind) for kind in ("student", "reference")):
        quantity = "student" if _first(view, "student") else "reference"
    numbers = [_quantity(view, passage, quantity) for passage in view.passages]
    coloured = console.is_terminal and not console.no_color and console.color_system is not None
    marks = MARKS if _writes(console, "".join(MARKS)) else PLAIN_MARKS

    def say(text: str, style: str = "") -> None:
        console.print(Text(_writable(console, printable(text)), style, overflow="fold"), highlight=False)

    say(view.title, "bold")
    for note in view.notes:
        say(note, "dim")
    console.print(_legend(console, view, quantity, ratio, score, None if coloured else marks), highlight=False)
    for i in np.unique(np.linspace(0, len(view.passages) - 1, max(1, passages)).round().astype(int)):
        passage = view.passages[i]
        console.print()
        say(f"{view.sources[passage.source]} · {passage.place}", "bold")
        shown = _passage(console, passage, kept[i], numbers[i], quantity, None if coloured else marks)
        console.print(shown, highlight=False)
    console.print()
    _print_shares(console, view, kept)


def select(view: View, ratio: float, score: str) -> list[np.ndarray]:
    """What is kept of each passage, bool [tokens]: `selection.select_tokens` over the whole view.

    Raises:
        UserError: the view has no numbers for the score.
    """
    widest = max(len(passage.ids) for passage in view.passages)
    shape = (len(view.passages), widest)
    valid = np.zeros(shape, dtype=bool)
    columns = {name: np.zeros(shape, dtype=np.float32) for name in _column_names(score)}
    documents = np.zeros(shape, dtype=np.int64)
    for row, passage in enumerate(view.passages):
        size = len(passage.ids)
        valid[row, :size] = passage.candidates
        if passage.documents is not None:
            documents[row, :size] = passage.documents
        for name, column in columns.items():
            found = _column(view, passage, name)
            # A candidate without this number (no loss is without, an entropy may be) cannot be ranked.
            valid[row, :size] &= ~np.isnan(found)
            column[row, :size] = np.nan_to_num(found)
    scores = compute_score(score, TokenColumns(**{name: torch.from_numpy(c) for name, c in columns.items()}))
    chosen = select_tokens(scores, torch.from_numpy(valid), ratio, view.scope, torch.from_numpy(documents)).numpy()
    return [chosen[row, : len(passage.ids)] for row, passage in enumerate(view.passages)]


def _column_names(score: str) -> list[str]:
    if score not in NEEDS:
        raise UserError(f"unknown score {score!r}; the viewer knows {', '.join(NEEDS)}")
    live = {"loss": "loss", "entropy": "entropy"}
    return [live[what] if kind == "student" else f"reference_{what}" for kind, what in NEEDS[score]]


def _column(view: View, passage: Passage, name: str) -> np.ndarray:
    kind = "reference" if name.startswith("reference_") else "student"
    model = _first(view, kind)
    found = passage.entropies if name.endswith("entropy") else passage.losses
    if model is None or model.key not in found:
        what = "entropies" if name.endswith("entropy") else "losses"
        raise UserError(f"the view has no {what} of a {kind}, which this score or quantity reads; choose another")
    return found[model.key].astype(np.float32)


def _quantity(view: View, passage: Passage, quantity: str) -> np.ndarray:
    if quantity == "excess":
        return _column(view, passage, "loss") - _column(view, passage, "reference_loss")
    names = {"student": "loss", "reference": "reference_loss"}
    names["entropy"] = "entropy" if _first(view, "student") else "reference_entropy"
    if quantity not in names:
        raise UserError(f"unknown quantity {quantity!r}; the terminal shows {', '.join(QUANTITIES)}")
    return _column(view, passage, names[quantity])


def _first(view: View, kind: str) -> Model | None:
    return next((model for model in view.models if model.kind == kind), None)


def _legend(
    console: Console, view: View, quantity: str, ratio: float, score: str, marks: tuple[str, str] | None
) -> Text:
    who = {kind: model.label for kind in ("student", "reference") if (model := _first(view, kind))}
    told = ", ".join(f"{kind} {label}" for kind, label in who.items())
    head = printable(f"{told} · {score}, {ratio:g} kept, scope {view.scope} · ")
    legend = Text(_writable(console, head), overflow="fold")
    if marks is not None:
        return legend.append(f"{marks[0]}kept{marks[1]} tokens stand between marks")
    legend.append("kept", "underline bold").append(_writable(console, f" tokens are underlined · {quantity} in nats:"))
    levels = _EXCESS_LEVELS if quantity == "excess" else _LEVELS
    below = [(f"≤ −{bound:g}", _BELOW[depth]) for depth, bound in enumerate(levels, 1)][::-1]
    above = [(f"≥ {bound:g}", _ABOVE[depth]) for depth, bound in enumerate(levels, 1)]
    for text, colour in (*(below if quantity == "excess" else ()), *above):
        legend.append(" ").append(_writable(console, f" {text} "), f"{_INK} {colour}")
    return legend


def _passage(
    console: Console,
    passage: Passage,
    kept: np.ndarray,
    numbers: np.ndarray,
    quantity: str,
    marks: tuple[str, str] | None,
) -> Text:
    found = Text(overflow="fold")
    inside = False
    for piece, is_kept, number in zip(passage.pieces, kept.tolist(), numbers.tolist(), strict=True):
        if marks and is_kept != inside:
            found.append(marks[0] if is_kept else marks[1])
            inside = is_kept
        style = "" if marks else _style(number, quantity) + (" underline bold" if is_kept else "")
        found.append(_writable(console, _lines(piece)), style.strip())
    if inside and marks:
        found.append(marks[1])
    return found


def _style(number: float, quantity: str) -> str:
    if np.isnan(number):
        return "dim"
    levels = _EXCESS_LEVELS if quantity == "excess" else _LEVELS
    depth = sum(abs(number) >= bound for bound in levels)
    colour = (_ABOVE if number > 0 else _BELOW)[depth]
    return f"{_INK} {colour}" if colour else ""


def _lines(piece: str) -> str:
    """A token's text, its line ends shown and kept, everything else that a terminal would obey spelled out."""
    return "↵\n".join(printable(part) for part in piece.split("\n"))


def _print_shares(console: Console, view: View, kept: Sequence[np.ndarray]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("", "kept", "candidates"):
        table.add_column(header, justify="left" if not header else "right")
    live = np.concatenate([passage.candidates for passage in view.passages])
    chosen = np.concatenate(kept)

    def row(name: str, inside: np.ndarray) -> None:
        count, most = int(chosen[inside].sum()), int(live[inside].sum())
        share = percent(count / most) if most else fixed(None)
        cells = (printable(name), share.replace("\u202f", " "), f"{most:,}")
        table.add_row(*(Text(_writable(console, cell)) for cell in cells))

    row("all passages", np.ones(len(live), dtype=bool))
    if len(view.sources) > 1:
        sources = np.concatenate([np.full(len(passage.ids), passage.source) for passage in view.passages])
        for number, name in enumerate(view.sources):
            row(f"source {name}", sources == number)
    if view.regions is not None:
        regions = np.concatenate(
            [
                np.full(len(passage.ids), 255) if passage.regions is None else passage.regions
                for passage in view.passages
            ]
        )
        for number, name in enumerate(view.regions):
            row(f"region {name}", regions == number)
    console.print(table)


def _writes(console: Console, text: str) -> bool:
    return _writable(console, text) == text


def _writable(console: Console, text: str) -> str:
    encoding = console.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
