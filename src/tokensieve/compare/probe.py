"""The probe: windows of the corpus that no arm trains on, and the loss of each of their tokens along every run.

Losses in the training logs belong to each arm's own choice of tokens, so they cannot be compared between arms. Here
all arms are measured on the same tokens. The paper's figures 6 and 8 come from it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokensieve.compare.arms import Arm
from tokensieve.compare.runs import ArmRuns
from tokensieve.corpus.windows import IGNORED
from tokensieve.evaluation.selected_over_time import followed, highest, spread
from tokensieve.training.arms import probe_windows
from tokensieve.training.metrics import PROBE


def split(arms: Sequence[ArmRuns], main: Arm, probe: np.ndarray) -> dict[str, Any] | None:
    """Figure 6: losses of selected and of unselected tokens along the run, for every arm on the same tokens.

    Which tokens count as selected is decided once for each seed, before training: the ratio of the main arm, by the
    excess of the untouched start over the reference. A choice by an arm's own later losses would favour that arm.

    Args:
        arms: trained on the corpus.
        main: decides the ratio and the reference.
        probe: numbers of the windows.

    Returns:
        The schema's `split`, means over the seeds; None if all of the probe's tokens are on one side.
    """
    tokens = 0
    ratio = main.policy.ratio
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for item in arms:
        rows = []
        for run in item.runs:
            live, reference = _live(main, run.seed, probe)
            tokens = int(live.sum())
            losses = _losses(item.arm, run.seed, live, [line["step"] for line in run.evaluations])
            chosen = highest(losses[0] - reference, ratio)
            if chosen.all() or not chosen.any():
                return None  # a probe of a few tokens
            rows.append(followed(losses, [chosen, ~chosen]))
        seen = [line["tokens_seen"] for line in item.runs[0].evaluations]
        means = np.mean(np.array(rows), axis=0)
        curves[item.arm.key] = {
            name: [[tokens, float(loss)] for tokens, loss in zip(seen, values, strict=True)]
            for name, values in zip(("selected", "unselected"), means, strict=True)
        }
    return {"tokens": tokens, "selected_share": ratio, "arms": curves}


def over_time(item: ArmRuns, probe: np.ndarray, most: int = 5) -> dict[str, Any] | None:
    """Figure 8: the tokens that the main arm would select at each of its checkpoints, and their loss all along.

    Args:
        item: the main arm.
        probe: numbers of the windows.
        most: sets of tokens, spread evenly over the evaluations.

    Returns:
        The schema's `over_time`, means over the seeds; None for a score other than excess loss.
    """
    policy = item.arm.policy
    if policy.score != "excess_loss":
        return None  # a score that does not follow the model selects the same tokens at every checkpoint
    cap = np.inf if policy.reference_loss_cap is None else policy.reference_loss_cap
    evaluations = item.runs[0].evaluations
    at = spread(1, len(evaluations) - 1, most)
    seen = [line["tokens_seen"] for line in evaluations]
    curves = np.zeros((len(at), len(evaluations)))
    for run in item.runs:
        live, reference = _live(item.arm, run.seed, probe)
        losses = _losses(item.arm, run.seed, live, [line["step"] for line in run.evaluations])
        chosen = [highest(losses[checkpoint] - np.minimum(reference, cap), policy.ratio) for checkpoint in at]
        if not all(tokens.any() for tokens in chosen):
            return None
        curves += followed(losses, chosen)
    curves /= len(item.runs)
    return {
        "arm": item.arm.key,
        "sets": [
            {"at": seen[checkpoint], "curve": [[tokens, float(loss)] for tokens, loss in zip(seen, row, strict=True)]}
            for checkpoint, row in zip(at, curves, strict=True)
        ],
    }


def _live(arm: Arm, seed: int, probe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of the probe count, bool [windows, T], and the losses of the seed's reference there, [N]."""
    windows = probe_windows(arm.run(seed), probe)
    batch = windows.__getitems__(list(range(len(windows))))
    live = (batch["labels"] != IGNORED).numpy()
    return live, batch["reference_loss"].numpy().view(np.float16)[live].astype(np.float64)


def _losses(arm: Arm, seed: int, live: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Losses of the probe's tokens at each evaluation, [evaluations, N]."""
    folder = arm.folder(seed) / PROBE
    return np.array([np.load(folder / f"{step}.npy", allow_pickle=False)[live] for step in steps], dtype=np.float64)
