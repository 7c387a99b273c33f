"""Which arms are compared with which, on which text, and what each comparison says.

Every selecting arm stands against plain training and against random selection of the same ratio; the main selective
arm also against the arms that do without selection, or with another reference. Runs are paired by seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensieve.compare.arms import Arm
from tokensieve.compare.runs import ArmRuns, Run
from tokensieve.compare.statistics import Difference, DocumentSums, accuracy_interval, paired_difference, seeds_needed
from tokensieve.compare.verdicts import Unit, answer, sentence

TARGET, GENERAL = "target", "general"
_TOO_MANY = 0.25
"""A larger share of the target documents in the training text: the loss there measures memory."""
_SIZES = {"nats": 0.01, "accuracy": 0.01}
"""What `seeds_needed` is told for: nats a token, share of items."""


@dataclass(frozen=True)
class Judged:
    """One arm against another on one text or task."""

    arm: str
    other: str
    text: str
    """`target` or `general` (all such texts as one), the name of one of several, or a task's."""
    unit: Unit
    found: Difference
    sentence: str

    def plain(self) -> dict[str, Any]:
        """An entry of the schema's `differences`."""
        size = _SIZES[self.unit]
        return {
            "arm": self.arm,
            "other": self.other,
            "text": self.text,
            "unit": self.unit,
            **self.found.plain(),
            "seeds_needed": {f"{size:g}": seeds_needed(self.found, size)},
            "sentence": self.sentence,
        }


def differences(found: Mapping[str, ArmRuns], main: Arm | None) -> list[Judged]:
    """Every comparison of the report: target text, general text, single targets where there are several, tasks."""
    judged = []
    for ours, theirs in _pairs(found, main):
        for text, unit in _texts(ours.runs[0]):
            judged.append(_judge(ours, theirs, text, unit))
    return judged


def headline(
    judged: Sequence[Judged],
    found: Mapping[str, ArmRuns],
    main: Arm | None,
    reaches: Mapping[str, Any] | None,
    overlap: Mapping[str, Any],
) -> dict[str, str]:
    """The schema's `answer`: the main arm on the target text.

    Args:
        judged: all differences.
        found: all arms.
        main: the arm it is about.
        reaches: the main arm's `to_plain`.
        overlap: target text in the training text, by target: what a verdict on it is worth.
    """
    if main is None:
        nothing = "This comparison has no selective arm, so it says nothing of selection."
        return {"verdict": "undecided", "lead": "Selection was not tried", "sentence": nothing}
    controls = {
        found[item.other].arm.kind: item.found for item in judged if item.arm == main.key and item.text == TARGET
    }
    label = main.phrase[0].upper() + main.phrase[1:]
    shares = {axis: None if reaches is None else reaches[axis]["share"] for axis in ("tokens", "flops")}
    told: dict[str, str] = answer(
        controls.get("clm"), controls.get("random"), label=label, share=shares["tokens"], flops=shares["flops"]
    )
    for kind in ("clean", "mixed"):
        without = controls.get(kind)
        if without is not None and without.verdict == "worse":
            item = next(item for item in judged if item.found is without)
            told["lead"] += f"; {found[item.other].arm.phrase} helps more"
            told["sentence"] += f" But it was {item.sentence}: where that text suffices, train on it."
    mostly = sum(text["documents_mostly"] for text in overlap.values())
    documents = sum(text["documents"] for text in overlap.values())
    if mostly:
        told["sentence"] += (
            f" {mostly} of {documents} target documents stand mostly in the training text: see the warnings."
        )
        if mostly >= _TOO_MANY * documents:
            told["verdict"], told["lead"] = "undecided", "Nothing can be said: the target text was trained on"
    return told


def judged_tasks(
    found: Mapping[str, ArmRuns], start: Mapping[str, Any], reference: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The schema's `tasks`: accuracies by arm; what differs is among the differences."""
    return [
        {
            "name": name,
            "metric": measured["metric"],
            "items": len(measured["items"]),
            "kind": measured["kind"],
            "arms": {key: accuracy_interval([run.tasks[name] for run in item.runs]) for key, item in found.items()},
            "start": measured["value"],
            "reference": reference[name]["value"] if name in reference else None,
        }
        for name, measured in start.items()
    ]


def _pairs(found: Mapping[str, ArmRuns], main: Arm | None) -> Iterator[tuple[ArmRuns, ArmRuns]]:
    plain = found.get("clm")
    by_lot = {item.arm.policy.ratio: item for item in found.values() if item.arm.kind == "random"}
    for item in found.values():
        if plain is not None and item is not plain:
            yield item, plain
        if item.arm.kind != "random" and item.arm.selects and item.arm.policy.ratio in by_lot:
            yield item, by_lot[item.arm.policy.ratio]
    if main is not None:
        for other in found.values():
            if other.arm.kind in ("clean", "mixed", "weak", "self") and other.arm.key != main.key:
                yield found[main.key], other


def _texts(run: Run) -> Iterator[tuple[str, Unit]]:
    targets, general = run.numbers["targets"], run.numbers.get("general", {})
    yield TARGET, "nats"
    for name in targets if len(targets) > 1 else ():
        yield name, "nats"
    if general:
        yield GENERAL, "nats"
    for name in general if len(general) > 1 else ():
        yield name, "nats"
    for name in run.tasks:
        yield name, "accuracy"


def _judge(ours: ArmRuns, theirs: ArmRuns, text: str, unit: Unit) -> Judged:
    sums = [[_sums(run, text, unit) for run in item.runs] for item in (ours, theirs)]
    found = paired_difference(sums[0], sums[1], lower_is_better=unit == "nats", items=unit == "accuracy")
    told = sentence(found, theirs.arm.phrase, unit=unit, size=_SIZES[unit])
    return Judged(ours.arm.key, theirs.arm.key, text, unit, found, told)


def _sums(run: Run, text: str, unit: Unit) -> DocumentSums:
    """The sums of a task, of one text, or of all target or general texts as one."""
    if unit == "accuracy":
        return run.tasks[text]
    names = {TARGET: "targets", GENERAL: "general"}
    parts = [run.documents[name] for name in run.numbers[names[text]]] if text in names else [run.documents[text]]
    return DocumentSums(
        np.concatenate([part.sums_D for part in parts]), np.concatenate([part.counts_D for part in parts])
    )
