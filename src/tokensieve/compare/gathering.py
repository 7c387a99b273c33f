"""comparison.json: everything a comparison came to, from the manifests and measurements of its finished runs.

What depends on the clock or the machine stands under `measured`; all else is the same however often the comparison
was interrupted. The report shows nothing that is not in it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tokensieve import __version__
from tokensieve.compare import probe, stages
from tokensieve.compare.arm_results import arm_result, measured, sweep
from tokensieve.compare.arms import COMPARE_FOLDER, Arm, main_arm
from tokensieve.compare.cells import TASKS_MANIFEST
from tokensieve.compare.differences import differences, headline, judged_tasks
from tokensieve.compare.matching import check_matched
from tokensieve.compare.runs import ArmRuns, read_runs, reference_cost, to_plain
from tokensieve.corpus.run_stores import open_tokens
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, Source, dump
from tokensieve.results import run_warnings
from tokensieve.stage import first_difference, read_manifest
from tokensieve.training.reference import reference_numbers

FORMAT = 1
_AXES = ("tokens", "selected", "flops")
_OWN_INPUTS = {
    "corpus": ("policy", "scores"),
    "clean": ("policy", "scores", "corpus"),
    "mixed": ("policy", "scores", "corpus"),
}
"""What run.json may hold of an arm's own, by the text it is trained on."""


def gather(recipe: Recipe, arms: Sequence[Arm], held_out: np.ndarray | None, warnings: Sequence[str]) -> dict[str, Any]:
    """Read everything that was made, and put it together.

    Args:
        recipe: the user's.
        arms: whose runs are all finished.
        held_out: numbers of the probe's windows.
        warnings: found before anything ran.

    Raises:
        UserError: a run is damaged, or was made from something else than the others.
    """
    seeds = recipe.compare.seeds
    found = {arm.key: read_runs(arm, seeds) for arm in arms}
    _refuse_unmatched(list(found.values()))
    plain = found.get("clm")
    main = main_arm(recipe, arms)
    judged = differences(found, main)
    shares = {}
    for key, item in found.items():
        shares[key] = None if plain is None or item is plain else {x: to_plain(item, plain, x) for x in _AXES}
    overlap = stages.overlap(recipe)
    first = next(iter(found.values()))
    reaches = None if main is None else shares[main.key]
    with_reference = any(item.arm.scored for item in found.values())
    shown = next(stages.reference_recipes(recipe, arms), recipe)
    return {
        "format": FORMAT,
        "title": recipe.compare.title or f"Token selection compared: {Path(recipe.out).name}",
        "versions": {
            "tokensieve": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "recipe": dump(recipe),
        "answer": headline(judged, found, main, reaches, _of_targets(recipe, overlap)),
        "warnings": [
            *warnings,
            *_reference_warnings(recipe, arms),
            *stages.overlap_warnings_of(recipe, overlap),
            *_reach_warnings(found),
        ],
        "not_run": _not_run(recipe, arms, with_reference),
        "seeds": list(seeds),
        "tokens": first.runs[0].numbers["tokens_seen"],
        "varies": _varies(recipe, arms),
        "model": first.runs[0].numbers["model"],
        "targets": _texts(recipe, recipe.evaluation.targets),
        "general": _texts(recipe, recipe.evaluation.general),
        "main": None if main is None else main.key,
        "arms": {key: arm_result(item, plain, shares[key], seeds[0]) for key, item in found.items()},
        "start": _start(list(found.values())),
        "reference": _reference(shown) if with_reference else None,
        "differences": [item.plain() for item in judged],
        "sweep": sweep(recipe, found),
        "split": None
        if held_out is None or main is None or not main.scored
        else probe.split([item for item in found.values() if item.arm.text == "corpus"], main, held_out),
        "over_time": None
        if held_out is None or main is None or not main.scored
        else probe.over_time(found[main.key], held_out),
        "tasks": judged_tasks(found, *_untrained_tasks(recipe, with_reference)),
        "overlap": overlap,
        "matched": check_matched(arms, seeds),
        "measured": measured(recipe, arms, found, plain),
    }


def _reference_warnings(recipe: Recipe, arms: Sequence[Arm]) -> list[str]:
    """What must be known of every reference; each is told once."""
    found = [
        warning if variant.reference.name == recipe.reference.name else f"reference {variant.reference.name}: {warning}"
        for variant in (list(stages.reference_recipes(recipe, arms)) or [recipe])
        for warning in run_warnings(variant)
    ]
    return list(dict.fromkeys(found))


def _of_targets(recipe: Recipe, overlap: dict[str, Any]) -> dict[str, Any]:
    return {source.label: overlap["targets"][source.label] for source in recipe.evaluation.targets}


def _refuse_unmatched(found: Sequence[ArmRuns]) -> None:
    """What the runs were really made from, compared: a folder that was copied in from elsewhere is found here."""
    for i in range(len(found[0].runs)):
        wanted = found[0].runs[i].inputs
        for item in found[1:]:
            own = {*_OWN_INPUTS[item.arm.text], *_OWN_INPUTS[found[0].arm.text]}
            here, there = ({k: v for k, v in run.items() if k not in own} for run in (item.runs[i].inputs, wanted))
            different = first_difference(here, there)
            if different is not None:
                key, ours, theirs = different
                raise UserError(
                    f"{item.arm.folder(item.runs[i].seed)}: made with {key} {ours!r}, and arm {found[0].arm.key} with "
                    f"{theirs!r}: they cannot be compared; remove the folder and run `tokensieve compare` again"
                )
            for name, digest in item.runs[i].asked.items():
                if digest != found[0].runs[i].asked[name]:
                    raise UserError(
                        f"{item.arm.folder(item.runs[i].seed)}: task {name} asked other items than in arm "
                        f"{found[0].arm.key}: its data have changed; remove compare/*/seed-*/tasks and run again"
                    )


def _start(found: Sequence[ArmRuns]) -> dict[str, Any]:
    """The untouched start, mean over the seeds: all arms begin with it."""
    lines = [run.evaluations[0] for run in found[0].runs]

    def mean(prefix: str) -> dict[str, float]:
        names = [key.removeprefix(prefix) for key in lines[0] if key.startswith(prefix)]
        return {name: float(np.mean([line[prefix + name] for line in lines])) for name in names}

    return {
        "target_loss": float(np.mean([line["target_loss"] for line in lines])),
        "targets": mean("target_loss/"),
        "general": mean("general_loss/"),
    }


def _reference(recipe: Recipe) -> dict[str, Any]:
    numbers = reference_numbers(recipe)
    return {
        "target_loss": numbers.get("target_loss"),
        "targets": {name: text["loss"] for name, text in numbers["targets"].items()},
        "tokens": numbers["tokens"],
        "flops": reference_cost(recipe),
        "gate": numbers["gate"],
    }


def _texts(recipe: Recipe, sources: Sequence[Source]) -> list[dict[str, Any]]:
    stores = {source.label: open_tokens(recipe, f"targets/{source.label}") for source in sources}
    return [{"name": name, "documents": store.documents, "tokens": store.tokens} for name, store in stores.items()]


def _varies(recipe: Recipe, arms: Sequence[Arm]) -> list[str]:
    """What a seed changes."""
    varies = ["order of data"]
    if recipe.model.fresh is not None:
        varies.insert(0, "initialisation")
    if any(arm.kind == "random" for arm in arms):
        varies.append("random selection")
    if recipe.compare.reference_per_seed and any(arm.scored for arm in arms):
        varies.append("reference")
    return varies


def _not_run(recipe: Recipe, arms: Sequence[Arm], with_reference: bool) -> list[str]:
    kinds = {arm.kind for arm in arms}
    names = {
        "clm": "plain training",
        "random": "random selection",
        "slm": "selective training",
        "clean": "plain training on the clean text alone",
        "mixed": "the clean text mixed into the corpus",
        "weak": "a weaker reference",
        "self": "a reference trained on the corpus itself",
    }
    found = [f"{name} (compare.arms: {kind})" for kind, name in names.items() if kind not in kinds]
    if recipe.compare.ratios is None or len(recipe.compare.ratios) < 2:
        found.append("other ratios (compare.ratios)")
    if with_reference and not recipe.compare.reference_per_seed:
        found.append("another reference for each seed (compare.reference_per_seed): its luck is in no interval")
    if not recipe.evaluation.general:
        found.append("general text (evaluation.general): what was forgotten is not known")
    if not recipe.tasks:
        found.append("task accuracies (tasks): the paper's headline is accuracy, not loss")
    return found


def _reach_warnings(found: dict[str, ArmRuns]) -> list[str]:
    """A policy that keeps another share than its ratio has no control of its size."""
    warnings = []
    for key, item in found.items():
        policy = item.arm.policy
        kept = float(np.mean([run.numbers["ratio_kept"] for run in item.runs]))
        if item.arm.selects and not policy.follows_steps and abs(kept - policy.ratio) > 0.1 * policy.ratio:
            warnings.append(
                f"{key} kept {kept:.2f} of the candidates, not its ratio {policy.ratio:g}: no control has its size"
            )
    return warnings


def _untrained_tasks(recipe: Recipe, with_reference: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    if not recipe.tasks:
        return {}, {}
    folders = ["start", *(["reference"] if with_reference else [])]
    base = recipe.folder / COMPARE_FOLDER
    read = [read_manifest(base / name / "tasks" / TASKS_MANIFEST)["outputs"]["tasks"] for name in folders]
    return read[0], read[1] if with_reference else {}
