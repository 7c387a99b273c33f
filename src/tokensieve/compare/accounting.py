"""What an arm costs in FLOPs, by formula.

FLOPs come from the formulas of `planning/costs.py`, the ones that `tokensieve plan` prints; the tests compare them
with `torch.utils.flop_counter`. They count the matrix products of model, backward pass and selective head, and the
causal half of attention, whatever the attention kernel does. Left out, since they are no part of a method or below a
hundredth of it: element-wise work, the optimizer's step, the evaluations, the first pass that a logging step adds to
an arm whose choice needs none, and that a window of T tokens has T - 1 targets.
"""

import math

import numpy as np

from tokensieve.head import default_chunk_rows
from tokensieve.planning.costs import forward_flops, head_units, training_flops
from tokensieve.planning.shape import ModelShape
from tokensieve.selection import SelectionPolicy


def run_flops(
    shape: ModelShape,
    policy: SelectionPolicy,
    length: int,
    tokens_per_step: int,
    steps: int,
    recompute: bool = False,
    micro_tokens: int | None = None,
) -> np.ndarray:
    """FLOPs of a training run, warm-up and schedule of the ratio included.

    Args:
        shape: the model.
        policy: what the run selects by; one that selects everything is plain training.
        length: window length T in tokens.
        tokens_per_step: of one optimizer step, on all devices.
        steps: optimizer steps of the run.
        recompute: whether activation checkpointing runs the backbone's forward pass twice.
        micro_tokens: tokens of one forward pass of one device. Given, the rows that the first pass of the head leaves
            for the second are counted as that much cheaper (see `head.py`; heads with a soft cap leave none); else
            none are, as in `tokensieve plan`, where a micro-step is many chunks.

    Returns:
        [steps + 1] float64: FLOPs spent after each step, 0 first. Reference and scoring are not in it.
    """
    kept = 0.0 if micro_tokens is None else _kept_share(shape, micro_tokens)
    # From here on the policy is the same at every step.
    settled = max([policy.warmup_steps, *(step for step, _ in policy.ratio_schedule)])
    units = np.full(steps, head_units(policy, kept))
    for step in range(min(settled, steps)):
        units[step] = head_units(policy.at(step), kept)
    spent = np.zeros(steps + 1)
    backbone = training_flops(shape, length, 0.0, recompute)
    np.cumsum(tokens_per_step * (backbone + units * shape.head), out=spent[1:])
    return spent


def reference_flops(shape: ModelShape, length: int, tokens: int, recompute: bool = False) -> float:
    """FLOPs of training a reference on `tokens` tokens, all of them back-propagated."""
    return training_flops(shape, length, recompute=recompute) * tokens


def scoring_flops(shape: ModelShape, length: int, tokens: int) -> float:
    """FLOPs of a reference's pass over `tokens` tokens of corpus, in windows of `length`."""
    return forward_flops(shape, length) * tokens


def _kept_share(shape: ModelShape, micro_tokens: int) -> float:
    """Share of a micro-step's rows that are in the last chunk of the first pass."""
    size = default_chunk_rows(shape.vocabulary)
    return (micro_tokens - size * (math.ceil(micro_tokens / size) - 1)) / micro_tokens
