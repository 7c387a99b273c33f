"""The page of `tokensieve dynamics`: which tokens learn, which never do, and what selection did to each kind.

Like the other pages it is one self-contained file that computes nothing but layout: every number on it stands in
`dynamics.json`. It needs no script, and its content security policy allows none.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokensieve.report import dynamics_kinds as kinds
from tokensieve.report.dynamics_drawing import Figure
from tokensieve.report.dynamics_figures import figures
from tokensieve.report.dynamics_files import FOLDER, SHEETS
from tokensieve.report.dynamics_files import write_figures as write_figures
from tokensieve.report.dynamics_groups import FILE, group_tables, groupings
from tokensieve.report.dynamics_look import inline, run_styles
from tokensieve.report.dynamics_text import LEVELS, examples, token_rows
from tokensieve.report.rendering import environment, source, write_whole
from tokensieve.report.words import MISSING, fixed, is_number

FORMAT = 1
"""The format of `dynamics.json` that this page shows."""
_PARTS = {
    "figure-2": ("2|2a", "Figure 2 (mean loss of the four kinds): no kind has a loss at any checkpoint"),
    "figure-2bc": ("2b|2c", "Figures 2b and 2c (tokens that fluctuate): the analysis has no examples of them"),
    "kept": ("", "What selection kept of each kind: no run of this analysis selects by a score"),
    "figure-6": ("6", "Figure 6 (selected and unselected tokens): the analysis has no losses of them"),
    "figure-7": ("7", "Figure 7 (accuracy against loss): the run has no task accuracies"),
    "figure-8": ("8", "Figure 8 (tokens selected early and late): no run of this analysis selects"),
    "figure-9": ("9", "Figure 9 (which ratio): there is no comparison of several ratios beside it"),
    "figure-11": ("11", "Figure 11 (tokens by kind): the analysis has no example text"),
    "figure-13": ("13", "Figure 13 (tokens that were kept): the analysis has no example text with what was kept"),
    "figure-14": ("14", "Figure 14 (tendency to be kept): the analysis has no example text with scores over training"),
}
"""What may be missing: the figure's number, as the reasons in `not_shown` name it, and what to say where none does."""


def write_dynamics(found: Mapping[str, Any], path: Path) -> None:
    """Write the page of one analysis, whole or not at all.

    Args:
        found: what `dynamics.json` holds, in format 1.
        path: where the HTML goes; its folder exists. It links what `write_figures` puts into `figures` beside it.

    Raises:
        OSError: the file cannot be written.
        ValueError: the analysis has another format.
        KeyError: the analysis lacks a field.
    """
    write_whole(render_dynamics(found), path)


def render_dynamics(found: Mapping[str, Any]) -> str:
    """Return the page as HTML text."""
    if found["format"] != FORMAT:
        raise ValueError(f"this page shows format {FORMAT} of dynamics.json, not {found['format']}")
    templates = environment()
    drawn = figures(found, run_styles(found))
    lists = token_rows(found)
    grouped = groupings(found)
    return templates.get_template("dynamics.html.j2").render(
        found=found,
        kinds=kinds.KINDS,
        lead=kinds.lead(found),
        bars=kinds.shares(found),
        rows=kinds.rows(found),
        fluctuation_rows=kinds.fluctuation_rows(found),
        runs=list(found["runs"].values()),
        share=kinds.share,
        inline=inline,
        figures=drawn,
        tables={key: _table(figure) for key, figure in drawn.items()},
        groupings=grouped,
        group_tables=group_tables(found),
        group_file=FILE,
        folder=FOLDER,
        examples=examples(found),
        lists=lists,
        levels=LEVELS,
        not_shown=_not_shown(found, {*drawn, *lists}),
        sections=_sections(found, drawn, bool(grouped)),
        recipe=json.dumps(found["recipe"], indent=2),
        style=Markup("".join(source(templates, name) for name in SHEETS)),
    )


def _sections(found: Mapping[str, Any], drawn: Mapping[str, Figure], grouped: bool) -> list[tuple[str, str]]:
    """Id and title of the sections that this page has, in order."""
    every = [
        ("kinds", "The four kinds of tokens", True),
        ("trajectories", "How their losses moved", "figure-2" in drawn or "figure-2bc" in drawn),
        ("groups", "Where they are found", grouped),
        ("selection", "What selection did to them", {"kept", "figure-6"} & set(drawn)),
        ("accuracy", "Loss and accuracy", "figure-7" in drawn),
        ("over-time", "Tokens selected early and late", "figure-8" in drawn),
        ("sweep", "Which ratio?", "figure-9" in drawn),
        ("examples", "See the tokens", found["examples"]),
        ("not-shown", "Not shown", True),
        ("method", "How this was made", True),
    ]
    return [(key, title) for key, title, shown in every if shown]


def _not_shown(found: Mapping[str, Any], shown: set[str]) -> list[str]:
    """The reasons the analysis gives, and a plain one for every missing part that it says nothing about."""
    reasons = [(reason[:1].upper() + reason[1:]).replace("`", "") for reason in found["not_shown"]]
    given = " ".join(reasons)
    for key, (number, text) in _PARTS.items():
        pattern = rf"(?i)\bfigures?\b[^.:]*\b(?:{number})\b" if number else r"(?i)how often each \w+ was kept"
        if key not in shown and not re.search(pattern, given):
            reasons.append(text)
    return reasons


def _table(figure: Figure) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of a figure's numbers, as the page writes them."""
    heads = tuple(head.replace("_", " ") for head in figure.heads)
    return heads, [
        tuple(_cell(head, cell) for head, cell in zip(figure.heads, row, strict=True)) for row in figure.rows
    ]


def _cell(head: str, cell: str | float | None) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, str):
        return next((f"{kind.sign} {kind.name}" for kind in kinds.KINDS if kind.key == cell), cell)
    if not is_number(cell):
        return MISSING
    if head in {"tokens_seen", "selected_at", "checkpoint", "at", "example"}:
        return f"{cell:,.0f}"
    return f"{cell:g}" if head == "ratio" else fixed(cell, 4)
