"""One self-contained HTML page from a run's `report.json`: no network, no script needed, light and dark.

The page computes nothing but layout: every number on it stands in the report. Its text comes from anybody's
corpus, so everything is escaped, and a content security policy allows no address and no script but our own.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokensieve.report import words
from tokensieve.report.figures import target_charts, training_charts
from tokensieve.report.passages import LEVELS, passage
from tokensieve.report.rendering import environment, source, write_whole


@dataclass(frozen=True)
class Row:
    """One row of the table of arms."""

    key: str
    name: str
    note: str
    loss: str
    bits: str
    seen: str
    trained: str
    share: str
    seconds: str
    best: bool


@dataclass(frozen=True)
class GateRow:
    """One target in the table that compares the reference with the untrained student."""

    name: str
    note: str
    reference: str
    student: str
    student_ahead: str
    correlation: str
    better: bool


@dataclass(frozen=True)
class Bar:
    """How much of a region one arm kept."""

    arm: str
    name: str
    percent: float
    label: str


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the page for one run, whole or not at all.

    Args:
        report: what `report.json` holds.
        path: where the HTML goes; its folder exists.

    Raises:
        OSError: the file cannot be written.
        KeyError: the report lacks a field.
    """
    write_whole(render(report), path)


def render(report: Mapping[str, Any]) -> str:
    """Return the page as HTML text."""
    templates = environment()
    style, script = (source(templates, name) for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return templates.get_template("report.html.j2").render(
        report=report,
        verdict=words.verdict(report),
        arm_names={arm: name for arm, name in words.ARM_NAMES.items() if arm in report["arms"]},
        rows=_rows(report),
        gate=words.gate(report),
        gate_rows=_gate_rows(report),
        facts=_facts(report),
        target_charts=target_charts(report),
        training_charts=training_charts(report),
        regions=_regions(report),
        passages=[passage(found) for found in report["passages"]],
        levels=LEVELS,
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
    )


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few numbers that stand in large type: value and meaning."""
    arms, facts = report["arms"], []
    for other, name in (("clm", "plain training"), ("random", "random selection")):
        if "slm" in arms and other in arms:
            ours, theirs = arms["slm"]["target_loss"], arms[other]["target_loss"]
            if words.is_number(ours) and words.is_number(theirs):
                meaning = f"nats a token against {name} (below zero is better)"
                facts.append((words.signed(ours - theirs, 3), meaning))
    if "slm" in arms and "clm" in arms and facts:
        reached, ahead = report["tokens_to_clm"], arms["slm"]["target_loss"] <= arms["clm"]["target_loss"]
        if reached is None and not ahead:
            facts.append(("never", "reached plain training’s final loss"))
        elif reached is not None and ahead:
            share = words.percent(reached / arms["clm"]["tokens_seen"])
            facts.append((share, "of the tokens were enough for plain training’s final loss"))
    facts.append((words.percent(report["ratio"]), "of the tokens kept when selecting"))
    return facts


def _rows(report: Mapping[str, Any]) -> list[Row]:
    arms, reference = report["arms"], report["reference"]
    notes = {"clm": "every token", "random": "same share, by lot", "slm": "chosen by score"}
    losses = [arm["target_loss"] for arm in arms.values() if words.is_number(arm["target_loss"])]
    rows = []
    for key, name in words.ARM_NAMES.items():
        if key not in arms:
            continue
        arm = arms[key]
        seen, trained = arm["tokens_seen"], arm["tokens_selected"]
        rows.append(
            Row(
                key=key,
                name=name,
                note=notes[key],
                loss=words.fixed(arm["target_loss"]),
                bits=words.fixed(arm["bits_per_byte"]),
                seen=words.count(seen),
                trained=words.count(trained),
                share=words.percent(trained / seen) if seen else "",
                seconds=words.duration(arm["seconds"]),
                best=len(losses) > 1 and arm["target_loss"] == min(losses),
            )
        )
    if reference is None:
        return rows
    tokens = reference["tokens"] or None
    rows.append(
        Row(
            key="reference",
            name="Reference model",
            note="clean text only",
            loss=words.fixed(reference["target_loss"]),
            bits=words.MISSING,
            seen=words.count(tokens),
            trained=words.count(tokens),
            share=words.percent(1.0) if tokens else "",
            seconds=words.duration(reference["seconds"] if tokens else None),
            best=False,
        )
    )
    return rows


def _gate_rows(report: Mapping[str, Any]) -> list[GateRow]:
    gate = None if report["reference"] is None else report["reference"]["gate"]
    if gate is None or gate["pooled"] is None:
        return []
    found = list(gate["targets"].items())
    if len(found) > 1:
        found.append(("All targets", gate["pooled"]))
    return [
        GateRow(
            name=name,
            note=f"{words.count(numbers['tokens'])} tokens",
            reference=words.fixed(numbers["reference_loss"]),
            student=words.fixed(numbers["student_loss"]),
            student_ahead=words.percent(numbers["negative_excess"]),
            correlation=words.fixed(numbers["correlation"], 2),
            better=numbers["reference_loss"] < numbers["student_loss"],
        )
        for name, numbers in found
    ]


def _regions(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    regions = report["regions"] or []
    total = sum(region["tokens"] for region in regions)
    laid_out = []
    for region in regions:
        kept = {arm: region["kept"][arm] for arm in ("slm", "random") if arm in region["kept"]}
        bars = [
            Bar(arm, words.ARM_NAMES[arm], round(100 * share, 2), words.percent(share))
            for arm, share in kept.items()
            if words.is_number(share)
        ]
        share = words.percent(region["tokens"] / total) if total else words.MISSING
        laid_out.append({"name": region["name"], "tokens": region["tokens"], "share": share, "bars": bars})
    return laid_out
