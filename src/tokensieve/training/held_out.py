"""Windows of the corpus that training does not see, so that losses on them are of new text.

Which ones is a function of the corpus alone, the same for every arm and seed.
"""

import numpy as np

from tokensieve.corpus.order import sample_order, spread
from tokensieve.corpus.run_stores import open_tokens
from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe

_LARGEST_SHARE = 0.5
"""Of a source's windows: whoever holds out more has mistaken the corpus for a test set."""


def held_out_windows(recipe: Recipe, others: np.ndarray | None = None) -> np.ndarray | None:
    """Numbers of the windows that no arm is trained on: those of `dynamics.hold_out`, and others.

    Raises:
        UserError: the corpus is too small for `dynamics.tokens`.
    """
    if not recipe.dynamics.hold_out:
        return others
    store = open_tokens(recipe)
    wanted = dynamics_windows(recipe, store)
    return wanted if others is None else np.union1d(wanted, others)


def dynamics_windows(recipe: Recipe, store: TokenStore) -> np.ndarray:
    """As many windows as `dynamics.tokens` needs, spread evenly over each source by its size.

    Raises:
        UserError: the corpus is too small.
    """
    length, tokens = recipe.context.length, recipe.dynamics.tokens
    there = int(store.windows_per_shard(length).sum())
    count = windows_for_tokens(tokens, length)
    chosen = spread(store, length, count, largest_share=_LARGEST_SHARE) if there else None
    if chosen is None or len(chosen) < 0.9 * count:
        raise UserError(
            f"dynamics.tokens: {tokens:,} tokens cannot be held out of {store.folder}, which has "
            f"{there * length:,} in windows of {length}; lower dynamics.tokens, or name text under dynamics.sources"
        )
    return chosen


def windows_for_tokens(tokens: int, length: int) -> int:
    """Windows that hold so many predicted tokens: the first of a window is predicted from nothing."""
    return -(-tokens // (length - 1))


def unread_windows(recipe: Recipe, store: TokenStore, tokens_seen: int) -> np.ndarray:
    """Numbers of the windows that were not among the first tokens of the training order, in order; perhaps none.

    Args:
        recipe: whose order it is.
        store: the corpus.
        tokens_seen: how many tokens were.
    """
    length = recipe.context.length
    order = sample_order(store, length, tokens_seen // length, seed=recipe.seed, held_out=held_out_windows(recipe))
    there = int(store.windows_per_shard(length).sum())
    return np.setdiff1d(np.arange(there), order % there)
