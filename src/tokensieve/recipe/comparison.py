"""The `compare` section of a recipe: which arms, seeds and ratios `tokensieve compare` trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokensieve.recipe.checks import require, require_tokens
from tokensieve.selection.policy import SCORES

COMPARE_ARMS = ("clm", "random", "slm", "clean", "mixed", "weak", "self")
"""Plain training; random and selective at each ratio; plain training on the clean text; the clean text mixed in;
selective with a weaker reference; selective with a reference trained on the corpus itself."""
_UNSTORED = ("history_loss", "mask", "random")


@dataclass(frozen=True)
class CompareSection:
    """Arms x seeds under matched conditions."""

    title: str | None = None
    """Heads the report. Default: the name of `out`."""
    arms: tuple[str, ...] = ("clm", "random", "slm")
    """Of clm, random, slm, clean, mixed, weak and self. See docs/compare.md."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each arm is trained once with each: they decide data order, a fresh model's initialisation and random choices."""
    ratios: tuple[float, ...] | None = None
    """Ratios that random and selective training run at. Default: train.selection.ratio alone."""
    scores: tuple[str, ...] | None = None
    """Scores that selective training runs with. Default: train.selection.score alone."""
    reference_per_seed: bool = False
    """Train (and score with) one reference for each seed: its luck is then part of the intervals."""
    mixed_share: float | None = None
    """Share of the `mixed` arm's tokens that is clean text. Default: that of the clean text in all text."""
    weak_tokens: int | None = None
    """Tokens that the `weak` arm's reference is trained on. Default: a tenth of the reference's."""
    probe_windows: int = 64
    """Windows of the corpus that are held out: losses of selected and unselected tokens are measured there. (`mixed`
    reads the corpus anew, with the clean text, and may see them.)"""
    processes: int | None = None
    """Arms trained at once, one device each. Default: the number of accelerators, or 1."""

    def __post_init__(self) -> None:
        _require_set("arms", self.arms)
        for arm in self.arms:
            require(arm in COMPARE_ARMS, f"unknown arm {arm!r}; the arms are {', '.join(COMPARE_ARMS)}")
        require(len(self.arms) >= 2, f"arms names {self.arms[0]} alone: there is nothing to compare it with")
        _require_set("seeds", self.seeds)
        for seed in self.seeds:
            require(0 <= seed < 2**32, f"a seed must be from 0 to 2**32 - 1, not {seed}")
        if self.ratios is not None:
            _require_set("ratios", self.ratios)
            for ratio in self.ratios:
                require(0 < ratio < 1, f"a ratio must be above 0 and below 1, not {ratio:g}: 1 is the arm clm")
        if self.scores is not None:
            _require_set("scores", self.scores)
            for score in self.scores:
                known = [name for name in SCORES if name not in _UNSTORED]
                require(score in known, f"unknown score {score!r}; the scores are {', '.join(known)}")
        share = self.mixed_share
        require(share is None or 0 < share < 1, f"mixed_share must be in (0, 1), not {share}")
        if self.weak_tokens is not None:
            require_tokens(self.weak_tokens)
        require(self.probe_windows >= 1, f"probe_windows must be at least 1, not {self.probe_windows}")
        require(self.processes is None or self.processes >= 1, f"processes must be at least 1, not {self.processes}")


def _require_set(name: str, values: Sequence[Any]) -> None:
    require(len(values) > 0, f"{name} is empty: name at least one, or leave it out")
    require(len(set(values)) == len(values), f"{name} names one twice: {', '.join(map(str, values))}; keep one")
