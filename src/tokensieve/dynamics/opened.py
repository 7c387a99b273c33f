"""A finished analysis, opened again: which kind every token of its text is."""

import numpy as np

from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.measuring import LOSSES_MANIFEST, held_out_text
from tokensieve.dynamics.running import CATEGORIES_FILE
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe
from tokensieve.reference.store import corpus_identity
from tokensieve.stage import first_difference, read_manifest


def classified_windows(recipe: Recipe) -> tuple[Windows, np.ndarray]:
    """The windows that `tokensieve dynamics` measured, and the kind of each token.

    Returns:
        The windows, and uint8 [samples, T]: numbers of `categories.CATEGORIES`, 255 where a token is no candidate.

    Raises:
        UserError: `tokensieve dynamics` has not run, or ran on other text.
    """
    folder = recipe.folder / recipe.dynamics.name
    path = folder / CATEGORIES_FILE
    if not path.exists():
        raise UserError(f"{path}: no token dynamics here; run `tokensieve dynamics` first")
    windows = held_out_text(recipe).windows
    measured = read_manifest(folder / "losses" / LOSSES_MANIFEST)["inputs"]["corpus"]
    kinds = np.fromfile(path, dtype=np.uint8)
    if first_difference(measured, corpus_identity(windows.store)) or len(kinds) != len(windows) * windows.length:
        raise UserError(f"{path}: made for other text than this recipe's; run `tokensieve dynamics` again")
    return windows, kinds.reshape(len(windows), windows.length)
