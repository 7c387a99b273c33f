"""What each arm came to, as comparison.json has it: losses, curves, costs, what was kept, and the sweep over ratios."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokensieve.compare import stages
from tokensieve.compare.arms import Arm
from tokensieve.compare.matching import changes
from tokensieve.compare.runs import ArmRuns, curve_of, seconds_of, to_plain
from tokensieve.compare.statistics import mean_interval
from tokensieve.machine import describe_hardware
from tokensieve.recipe import Recipe


def arm_result(item: ArmRuns, plain: ArmRuns | None, share: dict[str, Any] | None, seed: int) -> dict[str, Any]:
    """One entry of the schema's `arms`."""
    arm, runs = item.arm, item.runs
    numbers = [run.numbers for run in runs]
    training = float(np.mean([run.flops[-1] for run in runs]))
    flops = {"training": training, "reference": item.reference_flops, "scoring": item.scoring_flops}
    general = [found["general_loss"] for found in numbers if "general_loss" in found]
    return {
        "label": arm.label,
        "kind": arm.kind,
        "ratio": arm.policy.ratio,
        "score": arm.policy.score if arm.trained_as == "slm" else None,
        "scope": arm.policy.scope if arm.selects else None,
        "reference": arm.recipe.reference.name if arm.scored else None,
        "text": arm.text,
        "changes": {} if plain is None else changes(arm, plain.arm, seed),
        "target_loss": mean_interval(item.losses()),
        "bits_per_byte": mean_interval([found["target_bits_per_byte"] for found in numbers]),
        "targets": _by_text(numbers, "targets"),
        "general_loss": mean_interval(general) if general else None,
        "general": _by_text(numbers, "general"),
        "tokens_seen": numbers[0]["tokens_seen"],
        "tokens_selected": mean_interval([found["tokens_selected"] for found in numbers]),
        "flops": {**flops, "total": sum(flops.values())},
        "curve": curve_of(item),
        "seeds": [
            {
                "seed": run.seed,
                "target_loss": run.numbers["target_loss"],
                "targets": {name: text["loss"] for name, text in run.numbers["targets"].items()},
                "general": {name: text["loss"] for name, text in run.numbers.get("general", {}).items()},
                "tokens_selected": run.numbers["tokens_selected"],
            }
            for run in runs
        ],
        "to_plain": share,
        "keep_rates": _keep_rates(numbers) if arm.selects else None,
    }


def sweep(recipe: Recipe, found: dict[str, ArmRuns]) -> list[dict[str, Any]]:
    """Final loss by ratio, for each score (figure 9 of the paper)."""
    ratios = recipe.compare.ratios or ()
    if len(ratios) < 2:
        return []
    plain = mean_interval(found["clm"].losses()) if "clm" in found else None
    by_lot: dict[float, Any] = {}
    chosen: dict[str, dict[float, Any]] = {}
    for item in found.values():
        policy, losses = item.arm.policy, mean_interval(item.losses())
        if item.arm.kind == "random":
            by_lot[policy.ratio] = losses
        elif item.arm.kind == "slm":
            chosen.setdefault(policy.score, {})[policy.ratio] = losses
    return [
        {
            "score": score,
            "plain": plain,
            "points": [{"ratio": ratio, "slm": of.get(ratio), "random": by_lot.get(ratio)} for ratio in sorted(ratios)],
        }
        for score, of in chosen.items()
    ]


def measured(recipe: Recipe, arms: Sequence[Arm], found: dict[str, ArmRuns], plain: ArmRuns | None) -> dict[str, Any]:
    """The schema's `measured`: all that depends on the clock or the machine."""
    return {
        "hardware": describe_hardware(),
        "stages": stages.stage_seconds(recipe, arms),
        "arms": {
            key: {
                "seconds": [round(run.numbers["seconds"], 1) for run in item.runs],
                "peak_memory": [run.numbers["peak_memory"] for run in item.runs],
                "to_plain_seconds": None if plain is None or item is plain else to_plain(item, plain, "seconds"),
                "curve_seconds": seconds_of(item),
            }
            for key, item in found.items()
        },
    }


def _by_text(numbers: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    return {name: mean_interval([found[kind][name]["loss"] for found in numbers]) for name in numbers[0].get(kind, {})}


def _keep_rates(numbers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Candidates seen and kept, all seeds together."""
    sums: dict[str, dict[str, list[int]]] = {}
    for found in numbers:
        for grouping, rows in found["keep_rates"].items():
            for row in rows:
                counts = sums.setdefault(grouping, {}).setdefault(row["name"], [0, 0])
                counts[0] += row["tokens"]
                counts[1] += row["kept"]
    return {
        grouping: [{"name": name, "tokens": seen, "kept": kept} for name, (seen, kept) in rows.items()]
        for grouping, rows in sums.items()
    }
