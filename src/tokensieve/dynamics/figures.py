"""The paper's figures 6, 7, 8, 13 and 14 as parts of dynamics.json, or in one sentence why there is none.

Each function returns the part, or None after it has added to `not_shown` what is missing and what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensieve.dynamics.categories import Categories
from tokensieve.dynamics.choices import choices, chooser, follows_the_model, tendencies
from tokensieve.dynamics.curves import fit_accuracy, split
from tokensieve.dynamics.trajectories import Measured
from tokensieve.recipe import Recipe
from tokensieve.training.arms import arm_policy


@dataclass(frozen=True)
class Selected:
    """What a policy keeps of the text."""

    selection: dict[str, Any]
    """How often each category is kept at each checkpoint."""
    last: np.ndarray
    """What is kept at the last checkpoint, bool [N]."""
    tendency: np.ndarray | None
    """Figure 14, see `tendencies`."""
    over_time: dict[str, Any] | None
    """Figure 8."""


def selected_part(
    measured: Measured, recipe: Recipe, arm: str | None, found: Categories, not_shown: list[str]
) -> Selected | None:
    """Apply the recipe's policy at every checkpoint of an arm (figures 8, 13, 14, and kept by category).

    Args:
        measured: the losses.
        recipe: has the policy: the control's for the arm `random`, else the selective one.
        arm: whose checkpoints decide; None where there is no selective run.
        found: the categories.
        not_shown: told what is missing.
    """
    what = "how often each category was kept, and figures 8, 13 and 14"
    if arm is None:
        not_shown.append(
            f"{what}: no selective run was measured; train the arm slm with several checkpoints (train.save_at), or "
            f"name it in dynamics.arms"
        )
        return None
    policy = arm_policy(recipe, "random" if arm == "random" else "slm")
    made = chooser(policy, measured)
    if isinstance(made, str):
        not_shown.append(f"{what}: {made}")
        return None
    run = measured.runs[arm]
    chosen = choices(made, run, found.of)
    over_time = None
    if not follows_the_model(policy):
        not_shown.append(
            f"tokens selected over time (figure 8): the score {policy.score} does not follow the model, so every "
            f"checkpoint selects the same tokens"
        )
    elif len(run.losses) < 2:
        not_shown.append("tokens selected over time (figure 8): the selective run has one checkpoint; measure more")
    else:
        over_time = {"arm": arm, "sets": chosen.over_time}
    tendency = tendencies(made, run, measured.start)
    if tendency is None:
        not_shown.append(
            f"tendency to be selected (figure 14): the policy {policy.score} has no one score that follows the model"
        )
    selection = {"arm": arm, "score": policy.score, "ratio": policy.ratio, "kept": chosen.kept}
    return Selected(selection, chosen.last, tendency, over_time)


def split_part(
    measured: Measured,
    recipe: Recipe,
    target_curves: Mapping[str, list[list[float]]],
    labels: Mapping[str, str],
    not_shown: list[str],
) -> dict[str, Any] | None:
    """Figure 6: losses of selected and of unselected tokens along every run, and on the target text.

    Args:
        measured: the losses.
        recipe: has the ratio.
        target_curves: arm -> [[tokens seen, target loss], ...].
        labels: arm -> what people call it.
        not_shown: told what is missing.
    """
    what = "selected and unselected tokens (figure 6)"
    if measured.reference is None:
        not_shown.append(
            f"{what}: there is no reference, whose losses would decide what counts as selected; measure a run whose "
            f"policy reads one (train.selection.score: excess_loss)"
        )
        return None
    arm, first = next(iter(measured.runs.items()))
    decided_by, start = "excess loss of the untouched start", measured.start
    if start is None:
        start = first.losses[0]
        decided_by = f"excess loss of the first checkpoint ({first.checkpoints[0].name}) of {labels[arm]}"
    ratio = recipe.train.selection.ratio
    sides = split(measured.runs, start, measured.reference, measured.candidates, ratio)
    if sides is None:
        not_shown.append(f"{what}: at ratio {ratio:g} all of the measured tokens are on one side")
        return None
    arms = sides.pop("arms")
    target = {key: [list(point) for point in curve] for key, curve in target_curves.items() if key in measured.runs}
    return {**sides, "decided_by": decided_by, "arms": arms, "target": target}


def accuracy_part(
    sides: Mapping[str, Any] | None,
    accuracies: Mapping[str, Sequence[float]] | None,
    tasks: Sequence[str],
    not_shown: list[str],
) -> dict[str, Any] | None:
    """Figure 7: accuracy against the loss of selected and of unselected tokens.

    Args:
        sides: figure 6.
        accuracies: arm -> mean accuracy at each of its checkpoints, from 0 to 1.
        tasks: names of the tasks.
        not_shown: told what is missing.
    """
    what = "accuracy against loss (figure 7)"
    if not accuracies or not any(accuracies.values()):
        not_shown.append(f"{what}: no task was measured at these checkpoints; name some under tasks")
        return None
    if sides is None:
        not_shown.append(f"{what}: it needs figure 6")
        return None
    arms: dict[str, list[dict[str, Any]]] = {}
    for arm, reached in accuracies.items():
        curves = sides["arms"][arm]
        arms[arm] = [
            {"tokens": x, "accuracy": accuracy, "selected": selected, "unselected": unselected}
            for (x, selected), (_, unselected), accuracy in zip(
                curves["selected"], curves["unselected"], reached, strict=True
            )
        ]
    points = [point for line in arms.values() for point in line]
    fit = {
        side: fit_accuracy([point[side] for point in points], [point["accuracy"] for point in points])
        for side in ("selected", "unselected")
    }
    return {"tasks": list(tasks), "arms": arms, "fit": fit}
