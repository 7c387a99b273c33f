"""The `dynamics` section of a recipe: which checkpoints `tokensieve dynamics` measures, and on what text."""

from dataclasses import dataclass

from tokensieve.recipe.checks import require, require_folder_name
from tokensieve.recipe.texts import Source

_TAKEN = ("clean", "compare", "corpus", "data", "mixed", "models", "scores", "targets", "tokenizer")


@dataclass(frozen=True)
class DynamicsSection:
    """Token losses over checkpoints, and the four kinds of tokens (Rho-1, section 2 and appendix D)."""

    name: str = "dynamics"
    """Folder under `out`; several analyses of one run live side by side."""
    tokens: int = 320_000
    """Held-out tokens that are measured; the paper's number."""
    hold_out: bool = False
    """Leave so many tokens of the corpus out of training, to be measured here. Decide before training. Without it (and
    without sources) what training happened not to read is measured."""
    sources: tuple[Source, ...] = ()
    """Or held-out text of its own."""
    arms: tuple[str, ...] | None = None
    """Which arms to measure; the first decides the categories. Default: all that have checkpoints, plain training
    first."""
    checkpoints: tuple[str, ...] = ()
    """Or model folders (or Hub ids) in the order of training, in place of the run's own."""
    change: float = 0.2
    """Fitted change of the loss, in nats, beyond which a token counts as learned or unlearned; the paper's."""
    level: float | None = None
    """Last loss, in nats, up to which an unchanged token counts as low. Default, as in the paper: the mean of the last
    checkpoint."""
    examples: int = 4
    """Passages shown in the report; 0 for none of the corpus's text."""

    def __post_init__(self) -> None:
        require_folder_name(self.name)
        require(self.name not in _TAKEN, f"name: {self.name} is another stage's folder; choose another")
        require(self.tokens >= 1, f"tokens must be at least 1, not {self.tokens}")
        require(not (self.hold_out and self.sources), "hold_out and sources exclude each other")
        require(not (self.arms and self.checkpoints), "arms and checkpoints exclude each other")
        require(self.arms is None or len(self.arms) > 0, "arms is empty: name at least one, or leave it out")
        require(len(set(self.arms or ())) == len(self.arms or ()), f"arms names one twice: {self.arms}; keep one")
        require(
            len(set(self.checkpoints)) == len(self.checkpoints),
            f"checkpoints names one twice: {', '.join(self.checkpoints)}; keep one",
        )
        require(
            len(self.checkpoints) != 1, "checkpoints names one model: a line needs at least two, in order of training"
        )
        require(0 <= self.change < float("inf"), f"change must be a number of nats from 0, not {self.change}")
        require(self.level is None or self.level > 0, f"level must be a number of nats above 0, not {self.level}")
        require(self.examples >= 0, f"examples must be at least 0, not {self.examples}")
