"""The arms of a comparison: which ones the figures draw and how, and the table that has them all.

Figures with fourteen lines are not read, so at most six arms get a colour, a dash pattern and a letter: the arm of
the headline, its two controls, then one of each other kind. Every arm is in the tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokensieve.report import comparison_words as written
from tokensieve.report.words import MISSING, count, fixed, percent

MOST_DRAWN = 6
"""The style sheet has this many line styles."""
_FIRST = ("clean", "mixed", "self", "weak")
_WORDS = {
    "clm": "Plain",
    "random": "Random",
    "slm": "Selective",
    "weak": "Weaker ref.",
    "self": "Self-ref.",
    "clean": "Clean text",
    "mixed": "Mixed in",
}
"""Kind of arm -> what stands at the end of its line."""


@dataclass(frozen=True)
class Style:
    """How an arm is drawn and called, everywhere on the page."""

    css: str
    """`a1` to `a6`; `rest` for arms that the figures leave out."""
    letter: str
    """What tells it apart where colours are not seen; empty for the rest."""
    label: str
    word: str
    """Its label cut short, for the end of a line."""


@dataclass(frozen=True)
class ArmRow:
    """One row of the table of arms, or the start's or the reference's."""

    css: str
    letter: str
    label: str
    main: bool
    changes: str
    note: str
    loss: str
    loss_span: str
    general: str
    general_span: str
    selected: str
    flops: str
    flops_notes: tuple[str, ...]
    """What of it went into the reference and the scoring."""
    seconds: tuple[str, str]
    """Shortest and longest over the seeds; the second empty where they are written alike."""
    memory: tuple[str, str]


def drawn(comparison: Mapping[str, Any]) -> dict[str, str]:
    """The arms that figures draw, most important first: key -> class in the style sheet."""
    arms: Mapping[str, Mapping[str, Any]] = comparison["arms"]
    main = comparison["main"]
    found = {main: "a1"} if main in arms else {}
    if "clm" in arms:
        found["clm"] = "a2"
    controls = [key for key, arm in arms.items() if arm["kind"] == "random"]
    same_ratio = [key for key in controls if main in arms and arms[key]["ratio"] == arms[main]["ratio"]]
    for key in (same_ratio or controls)[:1]:
        found[key] = "a3"
    others = [key for kind in _FIRST for key, arm in arms.items() if arm["kind"] == kind]
    others += sorted(
        (key for key, arm in arms.items() if arm["kind"] == "slm"),
        key=lambda key: main in arms and arms[key]["ratio"] != arms[main]["ratio"],
    )
    free = (css for css in ("a4", "a5", "a6", "a3", "a2", "a1") if css not in found.values())
    for key in [*others, *controls]:
        if len(found) < MOST_DRAWN and key not in found:
            found[key] = next(free)
    return found


def styles(comparison: Mapping[str, Any]) -> dict[str, Style]:
    """Key -> style of every arm, in the order of the JSON; letters run down the tables in the same order."""
    arms, found = comparison["arms"], drawn(comparison)
    letters = dict(zip((key for key in arms if key in found), "ABCDEF", strict=False))
    kinds = [arms[key]["kind"] for key in found]
    look = {}
    for key, arm in arms.items():
        word = _WORDS[arm["kind"]] + (f" {percent(arm['ratio'])}" if kinds.count(arm["kind"]) > 1 else "")
        look[key] = Style(found.get(key, "rest"), letters.get(key, ""), arm["label"], word)
    return look


def arm_rows(comparison: Mapping[str, Any], look: Mapping[str, Style], exponent: int) -> list[ArmRow]:
    """The untouched start, every arm in the order of the JSON, and the reference; FLOPs in 10^exponent."""
    rows = [_start_row(comparison)]
    for key, arm in comparison["arms"].items():
        measured = comparison["measured"]["arms"].get(key)
        flops = arm["flops"]
        notes = tuple(
            f"{name} {written.scaled(flops[name], exponent)}" for name in ("reference", "scoring") if flops[name]
        )
        rows.append(
            ArmRow(
                css=look[key].css,
                letter=look[key].letter,
                label=arm["label"],
                main=key == comparison["main"],
                changes=", ".join(
                    f"{name.removeprefix('train.selection.')}: {written.setting(value)}"
                    for name, value in arm["changes"].items()
                ),
                note="every token of the corpus" if key == "clm" else "",
                loss=fixed(arm["target_loss"]["mean"]),
                loss_span=written.span(arm["target_loss"]),
                general=fixed(arm["general_loss"]["mean"]) if arm["general_loss"] else MISSING,
                general_span=written.span(arm["general_loss"]),
                selected=count(arm["tokens_selected"]["mean"]),
                flops=written.scaled(flops["total"], exponent),
                flops_notes=notes,
                seconds=written.durations(measured["seconds"]) if measured else (MISSING, ""),
                memory=written.memories(measured["peak_memory"]) if measured else (MISSING, ""),
            )
        )
    if comparison["reference"] is not None:
        rows.append(_reference_row(comparison, exponent))
    return rows


def target_rows(comparison: Mapping[str, Any], group: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Label and, by text of a group (`targets` or `general`), mean and interval of each arm, start and reference."""
    names = [text["name"] for text in comparison[group]]
    start, reference = comparison["start"], comparison["reference"]
    rows = [("Untouched start", [(fixed(start[group].get(name)), "") for name in names])]
    for arm in comparison["arms"].values():
        rows.append(
            (arm["label"], [(fixed(arm[group][name]["mean"]), written.span(arm[group][name])) for name in names])
        )
    if reference is not None and reference.get(group):
        rows.append(("Reference model", [(fixed(reference[group].get(name)), "") for name in names]))
    return rows


def _start_row(comparison: Mapping[str, Any]) -> ArmRow:
    first = next((arm["curve"][0] for arm in comparison["arms"].values() if arm["curve"]), None)
    general = first["general_loss"] if first else None
    return ArmRow(
        css="start",
        letter="",
        label="Untouched start",
        main=False,
        changes="",
        note="before any training",
        loss=fixed(comparison["start"]["target_loss"]),
        loss_span="",
        general=fixed(general["mean"]) if general else MISSING,
        general_span="",
        selected="0",
        flops="0",
        flops_notes=(),
        seconds=(MISSING, ""),
        memory=(MISSING, ""),
    )


def _reference_row(comparison: Mapping[str, Any], exponent: int) -> ArmRow:
    reference = comparison["reference"]
    return ArmRow(
        css="reference",
        letter="",
        label="Reference model",
        main=False,
        changes="",
        note="clean text only; it scored the corpus",
        loss=fixed(reference["target_loss"]),
        loss_span="",
        general=MISSING,
        general_span="",
        selected=count(reference["tokens"]),
        flops=written.scaled(reference["flops"], exponent),
        flops_notes=(),
        # The stages' times stand at the foot of the page; the reference is trained once, not once a seed.
        seconds=(MISSING, ""),
        memory=(MISSING, ""),
    )
