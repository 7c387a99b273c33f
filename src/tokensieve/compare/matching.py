"""Whether the arms of a comparison differ in nothing but their own setting.

Controls that are not matched have turned results around (another seed, other steps, another grid of evaluations).
So the recipes of all runs are compared key by key, and a difference that is not the arm's own is an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokensieve.compare.arms import Arm
from tokensieve.errors import UserError
from tokensieve.recipe import dump

_OWN = {
    "clm": ("train.selection.",),
    "random": ("train.selection.",),
    "slm": ("train.selection.",),
    "weak": ("train.selection.", "reference.", "score.name"),
    "self": ("train.selection.", "reference.", "score.name"),
    "clean": ("train.selection.", "text"),
    "mixed": ("train.selection.", "text"),
}
"""Prefixes of the keys that an arm of each kind may have of its own."""
_NOT_OF_A_RUN = ("out", "data_dir", "storage", "plan", "compare", "tasks")
"""Sections of a recipe that decide nothing in a training run."""


def settings(arm: Arm, seed: int) -> dict[str, Any]:
    """What decides an arm's run, by dotted key of its resolved recipe; `text` is the token store it is trained on."""
    recipe = arm.run(seed)
    data = {key: value for key, value in dump(recipe).items() if key not in _NOT_OF_A_RUN}
    data["train"] = {key: value for key, value in data["train"].items() if key != "arms"}
    data["train"]["selection"] = dump(arm.policy) | {"seed": seed}
    if not arm.scored:  # what it never reads is none of its settings
        del data["reference"], data["score"]
    return {**_flat(data), "text": arm.text}


def changes(arm: Arm, plain: Arm, seed: int) -> dict[str, Any]:
    """An arm's settings that differ from plain training's; a reference is named, not spelled out."""
    theirs = settings(plain, seed)
    found = {key: value for key, value in settings(arm, seed).items() if key not in theirs or theirs[key] != value}
    whole = {key: value for key, value in found.items() if not key.startswith(("reference.", "score."))}
    if arm.scored:
        whole["reference"] = arm.recipe.reference.name
    return whole


def check_matched(arms: Sequence[Arm], seeds: Sequence[int]) -> dict[str, Any]:
    """Compare all runs of each seed.

    Returns:
        The `matched` of comparison.json: keys that are equal in all arms, and the values of those that differ.

    Raises:
        UserError: two arms differ in something that is not their own setting.
    """
    for seed in seeds:
        found = {arm.key: settings(arm, seed) for arm in arms}
        for arm in arms:
            for other in arms:
                _refuse_other_differences(arm, other, found[arm.key], found[other.key])
    found = {arm.key: settings(arm, seeds[0]) for arm in arms}
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    differ = {}
    same = []
    for key in keys:
        reading = key.startswith(("reference.", "score."))
        values = {arm: values.get(key) for arm, values in found.items() if key in values or not reading}
        if all(value == next(iter(values.values())) for value in values.values()):
            same.append(key)
        else:
            differ[key] = values
    return {"same": same, "differ": differ}


def _refuse_other_differences(arm: Arm, other: Arm, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    allowed = (*_OWN[arm.kind], *_OWN[other.kind])
    for key in dict.fromkeys([*ours, *theirs]):
        # Only a reference is nothing to an arm that reads none.
        unread = key.startswith(("reference.", "score.")) and (key in ours) != (key in theirs)
        if ours.get(key) != theirs.get(key) and not unread and not key.startswith(allowed):
            values = f"{ours.get(key)!r} and {theirs.get(key)!r}"
            raise UserError(
                f"arms {arm.key} and {other.key} differ in {key} ({values}), which is not what either of them changes: "
                f"they cannot be compared"
            )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(data, dict) and (data or not prefix):
        return {key: value for name, inner in data.items() for key, value in _flat(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): data}
