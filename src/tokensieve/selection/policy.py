"""What to select: one frozen description, checked when it is made.

A policy is plain data: recipes write it, manifests store it. What changes while training runs (a warm-up of
plain training, a ratio that follows a schedule) is resolved by `SelectionPolicy.at`, so that everything
downstream sees one fixed policy.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

SCORES = (
    "excess_loss",
    "reference_loss",
    "reference_entropy",
    "current_loss",
    "current_entropy",
    "history_loss",
    "random",
    "mask",
)
COMBINATIONS = ("intersection", "union")
SCOPES = ("global", "microbatch", "sequence", "document")

NEEDS_LIVE_LOSS = frozenset({"excess_loss", "current_loss", "history_loss"})
NEEDS_LIVE_ENTROPY = frozenset({"current_entropy"})
_COLUMN_OF = {
    "excess_loss": "reference_loss",
    "reference_loss": "reference_loss",
    "reference_entropy": "reference_entropy",
    "history_loss": "history_loss",
    "random": "token_index",
    "mask": "selection_mask",
}


@dataclass(frozen=True)
class Part:
    """One half of an intersection or union."""

    score: str
    """One of the simple scores."""
    ratio: float
    """Its own share of the candidates, in (0, 1]."""

    def __post_init__(self) -> None:
        _check_choice("score of a part", self.score, SCORES)
        _check_ratio("ratio", self.ratio)


@dataclass(frozen=True)
class SelectionPolicy:
    """Which tokens are back-propagated (Rho-1, eq. 3-5; the paper leaves scope and ties open).

    Raises ValueError, naming field, value and cure, for a value outside its range and for fields that exclude
    each other.
    """

    score: str = "excess_loss"
    """A simple score, or `intersection` / `union` of two `parts` (the paper's self-reference)."""
    ratio: float = 0.6
    """Share of the candidates kept, in (0, 1], floor(ratio * candidates + 0.5) of each unit; also the divisor of the
    loss. For `mask`, `intersection`, `union` and `threshold` it is the divisor alone (and for scope `document` the most
    that is kept): name the share you expect, the log reports what was kept."""
    scope: Literal["global", "microbatch", "sequence", "document"] = "global"
    """Which candidates are ranked together: one micro-step of all ranks, of one rank, or one row. `document`:
    the fragments of documents in one micro-step of all ranks, by mean score, kept whole while they fit."""
    parts: tuple[Part, ...] = ()
    """The two halves of `intersection` and `union`."""
    seed: int = 0
    """Seed of the `random` score."""
    reference_loss_cap: float | None = None
    """`excess_loss` alone: at most this much reference loss is subtracted, in nats. A token that the reference
    finds very hard is then not passed over for that reason alone."""
    threshold: float | None = None
    """Keep the candidates whose score is above this number, in units of the score, instead of a share."""
    temperature: float | None = None
    """Soft weights instead of a hard choice: sigmoid((score - tau) / temperature), in units of the score, with
    tau such that the weights sum to the number a hard choice keeps in the same unit."""
    alpha: float = 1.0
    """Blend: alpha * selected + (1 - alpha) * all, in (0, 1]."""
    warmup_steps: int = 0
    """Optimizer steps of plain training before selection starts."""
    ratio_schedule: tuple[tuple[int, float], ...] = ()
    """Points (optimizer step, ratio) from the start of training; straight lines between them, constant outside.
    The last ratio must be `ratio`."""

    def __post_init__(self) -> None:
        # Lists are accepted and stored as tuples: a policy stays hashable, and equals the one read from a file.
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "ratio_schedule", tuple(tuple(point) for point in self.ratio_schedule))
        for part in self.parts:
            if not isinstance(part, Part):
                raise TypeError(f"parts holds {part!r}: use Part(score=..., ratio=...)")
        _check_choice("score", self.score, SCORES + COMBINATIONS)
        _check_choice("scope", self.scope, SCOPES)
        _check_ratio("ratio", self.ratio)
        if (self.score in COMBINATIONS) != (len(self.parts) == 2) or (self.parts and len(self.parts) != 2):
            raise ValueError(
                f"score {self.score!r} with {len(self.parts)} parts: intersection and union take exactly two parts, "
                f"other scores none"
            )
        if self.reference_loss_cap is not None:
            _check_above_zero("reference_loss_cap", self.reference_loss_cap)
            if "excess_loss" not in self.scores:
                raise ValueError(
                    f"reference_loss_cap={self.reference_loss_cap} has no meaning for score {self.score!r}: "
                    f"use excess_loss, or leave it out"
                )
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be a finite number, not {self.threshold}")
        if self.temperature is not None:
            _check_above_zero("temperature", self.temperature)
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {self.alpha}; 1 trains on the selected tokens alone")
        _check_step("warmup_steps", self.warmup_steps)
        self._check_schedule()
        self._check_together()

    @property
    def scores(self) -> tuple[str, ...]:
        """The simple scores that are computed."""
        return tuple(part.score for part in self.parts) or (self.score,)

    @property
    def follows_steps(self) -> bool:
        """Whether the policy depends on the optimizer step; `at` resolves it."""
        return self.warmup_steps > 0 or bool(self.ratio_schedule)

    @property
    def selects_everything(self) -> bool:
        """Whether every candidate is kept with weight 1 at every step: ordinary training."""
        if self.parts or self.score == "mask" or self.threshold is not None:
            return False
        return all(ratio == 1 for ratio in (self.ratio, *(ratio for _, ratio in self.ratio_schedule)))

    @property
    def needs_live_loss(self) -> bool:
        """Whether the choice depends on the current model (at any step): if not, the first pass is skipped."""
        live = NEEDS_LIVE_LOSS | NEEDS_LIVE_ENTROPY
        return not self.selects_everything and any(score in live for score in self.scores)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the batch columns that the choice reads (at any step)."""
        if self.selects_everything:
            return ()
        needed = [_COLUMN_OF[score] for score in self.scores if score in _COLUMN_OF]
        return tuple(dict.fromkeys(needed + ["document_ids"] * (self.scope == "document")))

    def at(self, step: int | None) -> "SelectionPolicy":
        """The policy of one optimizer step: ratio resolved, no warm-up and no schedule left.

        Args:
            step: the optimizer step that is running, from 0; None is enough for a policy that never changes.

        Returns:
            During the warm-up a policy that selects everything and reads no column.

        Raises:
            ValueError: the policy follows steps and the step is unknown or negative.
        """
        if not self.follows_steps:
            return self
        if step is None:
            raise ValueError(
                "the policy follows steps (warmup_steps or ratio_schedule) and the step is unknown: set handle.step to "
                "the optimizer step that is running, from 0, before each step"
            )
        _check_step("step", step)
        if step < self.warmup_steps:
            return SelectionPolicy(ratio=1.0, seed=self.seed)
        return replace(self, ratio=self._ratio_at(step), warmup_steps=0, ratio_schedule=())

    def _ratio_at(self, step: int) -> float:
        points = self.ratio_schedule
        if not points or step >= points[-1][0]:
            return self.ratio
        if step <= points[0][0]:
            return points[0][1]
        after = next(i for i, (begin, _) in enumerate(points) if begin > step)
        (begin, first), (end, last) = points[after - 1], points[after]
        ratio = first + (last - first) * (step - begin) / (end - begin)
        # Rounding must not carry it past either end, least of all above 1.
        return min(max(ratio, min(first, last)), max(first, last))

    def _check_schedule(self) -> None:
        steps = []
        for point in self.ratio_schedule:
            if len(point) != 2:
                raise ValueError(f"ratio_schedule: a point is (step, ratio), not {point}")
            _check_step("ratio_schedule: a step", point[0])
            _check_ratio(f"ratio_schedule: ratio at step {point[0]}", point[1])
            steps.append(point[0])
        if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            raise ValueError(f"ratio_schedule: steps must increase, not {', '.join(map(str, steps))}")
        if steps and self.ratio_schedule[-1][1] != self.ratio:
            raise ValueError(
                f"ratio_schedule ends at {self.ratio_schedule[-1][1]} and ratio is {self.ratio}: make them equal"
            )

    def _check_together(self) -> None:
        """Refuse fields that would contradict each other, instead of ignoring one of them."""
        mask, parts, document = self.score == "mask", bool(self.parts), self.scope == "document"
        soft, schedule, fixed = self.temperature is not None, bool(self.ratio_schedule), self.threshold is not None
        name = f"score {self.score!r}"
        _exclude("threshold", self.threshold, {name: mask or parts, "temperature": soft, "ratio_schedule": schedule})
        _exclude("temperature", self.temperature, {name: mask or parts, "scope 'document'": document})
        _exclude("ratio_schedule", self.ratio_schedule or None, {name: mask or parts})
        # These two rank nothing.
        _exclude("scope", self.scope if document else None, {"score 'mask'": mask, "threshold": fixed})


def _exclude(field: str, value: Any, others: dict[str, bool]) -> None:
    for other, given in others.items():
        if value is not None and given:
            raise ValueError(f"{field}={value!r} does not go with {other}: leave one of them out")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def _check_ratio(name: str, ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise ValueError(f"{name} must be in (0, 1], not {ratio}")


def _check_above_zero(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, not {value}; leave it out to turn it off")


def _check_step(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of steps from 0, not {value!r}")
