"""The figures of an analysis as files: drawings that are readable alone, and their numbers as CSV beside them.

A drawing takes its colours and dashes from the style sheets of the pages, so that a figure looks the same in the
page and in a slide. They are written out, because few programs other than browsers know variables; and every drawing
brings its own background, light or dark, because nobody knows what it will be put on.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from tokensieve.report.dynamics_drawing import Figure
from tokensieve.report.dynamics_figures import figures
from tokensieve.report.dynamics_groups import FILE, HEADS, group_rows, groupings
from tokensieve.report.dynamics_kinds import KINDS
from tokensieve.report.dynamics_look import run_styles
from tokensieve.report.dynamics_text import HEADS as TOKEN_HEADS
from tokensieve.report.dynamics_text import token_rows
from tokensieve.report.rendering import environment, source, write_whole

FOLDER = "figures"
"""Where the page expects the files, beside itself."""
SHEETS = ("style.css", "comparison.css", "dynamics.css")
WIDTH, _NARROW = 1020, 760
_PLOT, _ALONE = 0.32, 0.56
"""Size of a plot, and of one that is alone, in the units of its chart (1000 x 500)."""
_AROUND = 102
"""Height of a panel's labels."""
_LETTER = 7.0
"""Mean width of a letter of the legend."""
_VARIABLE = re.compile(r"--([\w-]+): (#\w+);")
_RULE = re.compile(r"svg (?:path)?\.(\w+) \{ ([^}]*) \}")


def write_figures(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every figure as an SVG file and its numbers as CSV beside it.

    Args:
        found: what `dynamics.json` holds, in format 1.
        folder: where they go; made if need be. The page links them in a folder `FOLDER` beside itself.

    Returns:
        What was written, in the order of the page. Figures without data are left out; 11, 13 and 14 are text, so only
        their lists of tokens are written, with each token's text as a JSON string.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(name: str, text: str) -> None:
        write_whole(text, folder / name)
        written.append(folder / name)

    for figure in figures(found, run_styles(found)).values():
        write(f"{figure.key}.svg", drawing(figure, found["title"]))
        write(f"{figure.key}.csv", table(figure.heads, figure.rows))
    rows = group_rows(found)
    if rows:
        if groupings(found):
            write(f"{FILE}.svg", bars(found))
        write(f"{FILE}.csv", table(HEADS, rows))
    for key, tokens in token_rows(found).items():
        write(f"{key}.csv", table(TOKEN_HEADS[key], tokens))
    return written


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with one line of column names; what nobody knows is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()


def drawing(figure: Figure, subtitle: str) -> str:
    """One figure as an SVG document."""
    columns = min(2, len(figure.charts))
    width, plot = (WIDTH, _PLOT) if columns > 1 else (_NARROW, _ALONE)
    height = 500 * plot + _AROUND
    entries = [(css, f"{figure.short.get(css, '')} {name}".strip()) for css, name in figure.names.items()]
    if figure.level:
        entries.append(("reference", figure.level))
    legend, bottom = _flow(entries, width)
    top = bottom + 20
    rows = -(-len(figure.charts) // columns)
    panels = [
        (chart, (i % columns) * width // 2, top + (i // columns) * height) for i, chart in enumerate(figure.charts)
    ]
    return _render(
        "dynamics-figure.svg.j2",
        figure=figure,
        subtitle=_short(subtitle, 70),
        legend=legend,
        panels=panels,
        plot=plot,
        short=_short,
        size=(width, round(top + rows * height + 16)),
    )


def bars(found: Mapping[str, Any]) -> str:
    """The shares of the kinds by group as an SVG document."""
    return _render(
        "dynamics-groups.svg.j2", subtitle=_short(found["title"], 60), groupings=groupings(found), short=_short
    )


def _render(template: str, *, plot: float = 1.0, **parts: Any) -> str:
    light, dark, rules = _looks(plot)
    return (
        _templates().get_template(template).render(light=light, dark=dark, rules=rules, plot=plot, kinds=KINDS, **parts)
    )


@cache
def _templates() -> Environment:
    return environment()


@cache
def _looks(plot: float) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Colours in light and in dark by name, and the rules of dashes and widths by class."""
    templates = _templates()
    light: dict[str, str] = {}
    dark: dict[str, str] = {}
    rules: dict[str, str] = {}
    for name in SHEETS:
        text = source(templates, name)
        blocks = re.findall(r":root \{(.*?)\n *\}", text, flags=re.DOTALL)
        light |= _VARIABLE.findall(blocks[0])
        dark |= _VARIABLE.findall(blocks[1])
        for css, rule in _RULE.findall(text):
            dashes = re.search(r"stroke-dasharray: ([\d. ]+);", rule)
            width = re.search(r"stroke-width: ([\d.]+);", rule)
            # A plot is drawn in the units of its chart and made smaller as a whole; its strokes are not meant to be.
            parts = [f"stroke-width:{float(width[1]) / plot:.1f}"] if width else []
            if dashes:
                parts.append(f"stroke-dasharray:{' '.join(f'{float(n) / plot:.1f}' for n in dashes[1].split())}")
            rules[css] = ";".join(parts)
    return light, dark, rules


def _flow(entries: Sequence[tuple[str, str]], most: float) -> tuple[list[tuple[str, str, float, float]], float]:
    """Places of the legend's entries, line by line, and where it ends."""
    x, y, placed = 24.0, 84.0, []
    for css, name in entries:
        width = 52 + _LETTER * min(len(name), 60)
        if x > 24 and x + width > most - 24:
            x, y = 24.0, y + 22
        placed.append((css, name, x, y))
        x += width
    return placed, y if placed else 62.0


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
