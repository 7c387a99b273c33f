"""What to select: one frozen description, checked when it is made."""

from dataclasses import dataclass
from typing import Literal

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
SCOPES = ("global", "microbatch", "sequence")

NEEDS_LIVE_LOSS = frozenset({"excess_loss", "current_loss", "history_loss"})
NEEDS_LIVE_ENTROPY = frozenset({"current_entropy"})


@dataclass(frozen=True)
class Part:
    """One half of an intersection or union."""

    score: str
    """One of the simple scores."""
    ratio: float
    """Its own share of the candidates, in (0, 1]."""

    def __post_init__(self) -> None:
        _check_choice("score", self.score, SCORES)
        _check_ratio(self.ratio)


@dataclass(frozen=True)
class SelectionPolicy:
    """Which tokens are back-propagated (Rho-1, eq. 3-5; the paper leaves scope and ties open).

    Raises ValueError for a value outside its range.
    """

    score: str = "excess_loss"
    """A simple score, or `intersection` / `union` of two `parts` (the paper's self-reference)."""
    ratio: float = 0.6
    """Share of the candidates kept, in (0, 1]; also the divisor of the loss. For `mask`, `intersection`
    and `union` it is the divisor alone: name the share you expect, the log reports what was kept."""
    scope: Literal["global", "microbatch", "sequence"] = "global"
    """Which candidates are ranked together: one micro-step of all ranks, of one rank, or one row."""
    parts: tuple[Part, ...] = ()
    """The two halves of `intersection` and `union`."""
    seed: int = 0
    """Seed of the `random` score."""

    def __post_init__(self) -> None:
        _check_choice("score", self.score, SCORES + COMBINATIONS)
        _check_choice("scope", self.scope, SCOPES)
        _check_ratio(self.ratio)
        if (self.score in COMBINATIONS) != (len(self.parts) == 2):
            raise ValueError(f"score {self.score!r}: intersection and union take exactly two parts, other scores none")

    @property
    def scores(self) -> tuple[str, ...]:
        """The simple scores that are computed."""
        return tuple(part.score for part in self.parts) or (self.score,)

    @property
    def needs_live_loss(self) -> bool:
        """Whether the choice depends on the current model: if not, the first pass is skipped."""
        return self.ratio < 1 and any(score in NEEDS_LIVE_LOSS | NEEDS_LIVE_ENTROPY for score in self.scores)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the batch columns the scores read."""
        needed = {
            "excess_loss": "reference_loss",
            "reference_loss": "reference_loss",
            "reference_entropy": "reference_entropy",
            "history_loss": "history_loss",
            "random": "token_index",
            "mask": "selection_mask",
        }
        return tuple(dict.fromkeys(needed[score] for score in self.scores if score in needed))


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], not {ratio}")
