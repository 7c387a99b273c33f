"""The page of `tokensieve compare`: what was compared, what came out, and how sure it is, for somebody who decides.

Like the page of a single run it is one self-contained file that computes nothing but layout: every number on it
stands in `comparison.json`. It needs no script at all, and its content security policy allows none.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokensieve.report import comparison_words as written
from tokensieve.report.comparison_arms import Style, arm_rows, styles, target_rows
from tokensieve.report.comparison_curves import curve_tables, equal_panels, reach_rows
from tokensieve.report.comparison_figures import general_figure, over_time_figure, split_figure, sweep_figure
from tokensieve.report.comparison_intervals import Plot, difference_table, differences, levels
from tokensieve.report.comparison_kept import Grouping, groupings
from tokensieve.report.rendering import environment, source, write_whole
from tokensieve.report.words import MISSING, count, is_number, percent

FORMAT = 1
"""The format of `comparison.json` that this page shows."""
_TONES = {"better": "good", "worse": "bad", "mixed": "open", "undecided": "open"}
_FEW_ROWS = 8
"""Longer lists of comparisons, and tables of more arms, are folded away."""


@dataclass(frozen=True)
class Fact:
    """One number in large type."""

    value: str
    meaning: str
    detail: str


@dataclass(frozen=True)
class Task:
    """One task: its accuracies, the differences between arms, and the table of both."""

    name: str
    plot: Plot
    forest: Plot | None
    table: list[tuple[str, str, str]]
    """Arm, mean accuracy and interval."""


def write_comparison(comparison: Mapping[str, Any], path: Path) -> None:
    """Write the page of one comparison, whole or not at all.

    Args:
        comparison: what `comparison.json` holds, in format 1.
        path: where the HTML goes; its folder exists.

    Raises:
        OSError: the file cannot be written.
        ValueError: the comparison has another format.
        KeyError: the comparison lacks a field.
    """
    write_whole(render_comparison(comparison), path)


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Return the page as HTML text."""
    if comparison["format"] != FORMAT:
        raise ValueError(f"this page shows format {FORMAT} of comparison.json, not {comparison['format']}")
    templates = environment()
    look = styles(comparison)
    exponent = written.exponent_of(arm["flops"]["total"] for arm in comparison["arms"].values())
    parts: dict[str, Any] = {
        "forests": _forests(comparison, look),
        "panels": equal_panels(comparison, look),
        "reach": reach_rows(comparison, look),
        "sweep": sweep_figure(comparison),
        "split": split_figure(comparison, look),
        "over_time": over_time_figure(comparison),
        "groupings": groupings(comparison, look),
        "general": general_figure(comparison, look),
        "tasks": _tasks(comparison, look),
    }
    return templates.get_template("comparison.html.j2").render(
        comparison=comparison,
        tone=_TONES[comparison["answer"]["verdict"]],
        facts=_facts(comparison),
        look=look,
        folded=_FEW_ROWS,
        difference_table=difference_table(comparison["differences"], look),
        rows=arm_rows(comparison, look, exponent),
        operations=written.power_of_ten(exponent),
        target_rows=target_rows(comparison, "targets"),
        general_rows=target_rows(comparison, "general"),
        names={style.css: style.label for style in look.values()},
        letters={style.css: style.letter for style in look.values() if style.letter},
        drawn_kept=_drawn_kept(parts["groupings"], look),
        numbers_of_curves=curve_tables(comparison, exponent),
        numbers_of_kept=[(group.title, group.heads, group.table) for group in parts["groupings"]],
        numbers_of_tasks=[(task.name, ("Arm", "Right answers", "Interval"), task.table) for task in parts["tasks"]],
        sections=_sections(comparison, parts),
        written=written,
        recipe=json.dumps(comparison["recipe"], indent=2),
        style=Markup(source(templates, "style.css") + source(templates, "comparison.css")),
        **parts,
    )


def _sections(comparison: Mapping[str, Any], parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Id and title of the sections that this page has, in order."""
    every = [
        ("differences", "Differences, and how sure they are", comparison["differences"]),
        ("arms", "The arms side by side", True),
        ("equal", "At equal what?", parts["panels"] or parts["reach"]),
        ("sweep", "Which ratio?", parts["sweep"]),
        ("split", "Selected and unselected tokens", parts["split"]),
        ("over-time", "Tokens selected early and late", parts["over_time"]),
        ("kept", "What was kept", parts["groupings"]),
        ("general", "What was forgotten", comparison["general"]),
        ("tasks", "Tasks", parts["tasks"]),
        ("fair", "Was the comparison fair?", True),
        ("read", "How to read this", True),
        ("made", "How this was made", True),
    ]
    return [(key, title) for key, title, shown in every if shown]


def _facts(comparison: Mapping[str, Any]) -> list[Fact]:
    """The few numbers that most readers will remember, with what they mean."""
    arms, main = comparison["arms"], comparison["main"]
    facts = []
    for kind, name in (("random", "random selection"), ("clm", "plain training")):
        for row in comparison["differences"]:
            if row["arm"] == main and row["text"] == "target" and arms[row["other"]]["kind"] == kind:
                ends = [written.difference(row[end], row["unit"]) for end in ("low", "high")]
                detail = written.no_interval(row["per_seed"])
                if MISSING not in ends:
                    detail = f"{percent(row['confidence'])} interval: " + "\u00a0to\u00a0".join(ends)
                value = written.difference(row["estimate"], row["unit"])
                facts.append(Fact(value, f"nats a token against {name}; below zero is better", detail))
    found = arms[main]["to_plain"] if main in arms else None
    if found is not None:
        text = "of plain training’s tokens were enough for its final loss"
        detail = f"and {written.reached(found['flops'])} of its FLOPs, reference and scoring included"
        if found["tokens"]["share"] is None:
            text, detail = "reached plain training’s final loss", ""
        facts.append(Fact(written.reached(found["tokens"]), text, detail))
    seeds = len(comparison["seeds"])
    text = "seed" if seeds == 1 else "seeds"
    facts.append(
        Fact(f"{seeds} × {len(arms)}", f"{text} × arms", f"each trained on {count(comparison['tokens'])} tokens")
    )
    return facts


def _forests(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> dict[str, Plot | None]:
    """Forest plots by name: the main arm’s and the other arms’ on target and on general text; None without rows."""
    main, rows = comparison["main"], comparison["differences"]
    single = {text["name"] for text in comparison["targets"]}

    def pick(texts: Collection[str], of_main: bool) -> list[Mapping[str, Any]]:
        return [
            row for row in rows if row["unit"] == "nats" and row["text"] in texts and (row["arm"] == main) is of_main
        ]

    return {
        "main": differences("forest-main", "The main question", pick({"target"}, True), look),
        "others": differences("forest-others", "The other arms", pick({"target"}, False), look),
        "single": differences("forest-single", "Target by target", pick(single, True), look, texts=True),
        "general": differences("forest-general", "The main arm on general text", pick({"general"}, True), look),
        "general_others": differences("forest-general-others", "The other arms", pick({"general"}, False), look),
    }


def _drawn_kept(found: list[Grouping], look: Mapping[str, Style]) -> list[str]:
    """Classes of the arms that have bars, in the figures' order."""
    bars = {bar.css for grouping in found for row in grouping.rows for bar in row.bars}
    return [style.css for style in look.values() if style.letter and style.css in bars]


def _tasks(comparison: Mapping[str, Any], look: Mapping[str, Style]) -> list[Task]:
    """Every task with the accuracies of the arms that the figures draw."""
    found = []
    for number, task in enumerate(comparison["tasks"]):
        name, arms = task["name"], task["arms"]
        drawn = {key: arms[key] for key in look if look[key].letter and key in arms}
        found_here = [row for row in comparison["differences"] if row["text"] == name and row["unit"] == "accuracy"]
        # Those of other arms are among the numbers of all differences; without a main arm all are shown.
        controls = {key for key, arm in comparison["arms"].items() if arm["kind"] in ("clm", "random")}
        ours = [row for row in found_here if row["arm"] == comparison["main"]]
        rows = [row for row in ours if row["other"] in controls] or ours or found_here
        table = [(look[key].label, written.share(i["mean"]), written.percent_span(i)) for key, i in arms.items()]
        note = f"{task['items']:,} items, {task['kind']}, {task['metric']}."
        known = (("Untouched start", task["start"]), ("Reference model", task["reference"]))
        table += [(label, written.share(value), "") for label, value in known if is_number(value)]
        found.append(
            Task(
                name=name,
                plot=levels(f"task-{number}", name, drawn, look, start=task["start"], note=note),
                forest=differences(
                    f"forest-task-{number}", f"{name}: differences", rows, look, "In percentage points."
                ),
                table=table,
            )
        )
    return found
