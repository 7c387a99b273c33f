"""How the runs of an analysis are drawn, and where their checkpoints lie on the axis of a figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokensieve.report.charts import Points
from tokensieve.report.words import ARM_NAMES, is_number

MOST_DRAWN = 6
"""The style sheet has this many line styles."""
_WORDS = {"clm": "Plain", "random": "Random", "slm": "Selective"}
"""Arm -> what stands at the end of its line."""


OWN_NAMES = frozenset([*ARM_NAMES.values(), "The checkpoints"])
"""Labels that are ours: in a sentence they lose their capital."""


@dataclass(frozen=True)
class Run:
    """How one run is drawn and called, everywhere on the page."""

    css: str
    """`a1` to `a6`; `rest` for runs that figures with all of them leave out."""
    letter: str
    label: str
    word: str
    """Its label cut short, for the end of a line."""


@dataclass(frozen=True)
class Axis:
    """Where checkpoints lie: at the tokens seen until then, or one after the other where nobody knows those."""

    at: tuple[float, ...]
    of_tokens: bool

    @property
    def label(self) -> str:
        """What the axis counts."""
        return "tokens seen" if self.of_tokens else "checkpoint"


def run_styles(found: Mapping[str, Any]) -> dict[str, Run]:
    """Every run of the analysis, and those that only the split or the accuracies have."""
    keys = list(found["runs"])
    split, accuracy = found["split"], found["accuracy"]
    for arms in ((split["arms"], split["target"]) if split else ()) + ((accuracy["arms"],) if accuracy else ()):
        keys += [arm for arm in arms if arm not in keys]
    selecting = found["selection"]["arm"] if found["selection"] else "slm"
    wanted = {selecting: "a1", "clm": "a2", "random": "a3"}
    free = [f"a{i}" for i in range(1, MOST_DRAWN + 1)]
    taken = {key: wanted[key] for key in keys if key in wanted}
    free = [css for css in free if css not in taken.values()]
    look: dict[str, Run] = {}
    for key in keys:
        css = taken.get(key) or (free.pop(0) if free else "rest")
        label = found["runs"][key]["label"] if key in found["runs"] else key
        letter = chr(ord("A") + len(look)) if css != "rest" else ""
        look[key] = Run(css, letter, label, _WORDS.get(key, label))
    return look


def inline(label: str) -> str:
    """A run's label within a sentence: our own names lose their capital, a user's stay as they are."""
    return label.lower() if label in OWN_NAMES else label


def counts_tokens(found: Mapping[str, Any], arms: Iterable[str]) -> bool:
    """Whether what is given along these runs lies at tokens seen, and not at the checkpoints' numbers."""
    return all(axis_of(found["runs"][arm]).of_tokens for arm in arms if arm in found["runs"])


def axis_of(run: Mapping[str, Any]) -> Axis:
    """The axis of one run's checkpoints."""
    seen = [checkpoint["tokens"] for checkpoint in run["checkpoints"]]
    known = [float(tokens) for tokens in seen if is_number(tokens)]
    if len(known) == len(seen):
        return Axis(tuple(known), True)
    return Axis(tuple(float(i) for i in range(1, len(seen) + 1)), False)


def along(axis: Axis, values: Sequence[float | None]) -> Points:
    """Points of one line, without those that have no value."""
    return [(x, y) for x, y in zip(axis.at, values, strict=True) if is_number(y)]
