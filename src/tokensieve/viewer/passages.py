"""What the viewer shows: passages with columns of numbers, one entry a token.

Page, terminal and notebook all start from these; none of them computes a loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Model:
    """A model whose losses are shown."""

    key: str
    """Names its columns."""
    kind: Literal["student", "reference"]
    label: str
    """What the reader knows it by, for example `models/slm`."""


@dataclass(frozen=True)
class Passage:
    """Consecutive tokens. Every column is [tokens]."""

    source: int
    """Number of its source."""
    place: str
    """Where it stands, for example `document 3 of shard 00000`."""
    ids: np.ndarray
    """Token ids, int64."""
    pieces: tuple[str, ...]
    """The text of each token; joined, the passage. Empty for a token that a later one completes to a character."""
    losses: Mapping[str, np.ndarray]
    """Model key -> float16, nats: the loss of predicting this token; NaN where it is no candidate."""
    entropies: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Model key -> float16, nats: the entropy of the distribution that predicted this token."""
    regions: np.ndarray | None = None
    """Region numbers, uint8."""
    categories: np.ndarray | None = None
    """Numbers of `dynamics.categories.CATEGORIES`, uint8; 255: unknown."""
    documents: np.ndarray | None = None
    """Numbers of documents, int64, for scope `document`; None: one document."""

    @property
    def candidates(self) -> np.ndarray:
        """Which tokens could be selected, bool: those that every model has a loss for."""
        return np.logical_and.reduce([~np.isnan(column) for column in self.losses.values()])


@dataclass(frozen=True)
class View:
    """Everything that is shown."""

    title: str
    models: tuple[Model, ...]
    """Students and references in the order in which they are offered; at least one."""
    sources: tuple[str, ...]
    passages: tuple[Passage, ...]
    regions: tuple[str, ...] | None = None
    """Region names by number."""
    ratio: float = 0.6
    """Where the slider starts."""
    score: str = "excess_loss"
    scope: Literal["global", "sequence", "document"] = "global"
    colour: str | None = None
    """What the page colours by at first: a key of `templates/colours.js`, such as `category`; None: by excess."""
    compare: bool = False
    """Start with the first two models side by side."""
    notes: tuple[str, ...] = ()
    """What a reader must know, one sentence each."""
