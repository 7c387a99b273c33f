"""A finished analysis, opened again: which kind every token of its text is."""

import json

import numpy as np

from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.checkpoints import find_checkpoints
from tokensieve.dynamics.measuring import LOSSES_MANIFEST
from tokensieve.dynamics.running import CATEGORIES_FILE
from tokensieve.dynamics.text import held_out_text
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe
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
    text = held_out_text(recipe, find_checkpoints(recipe))
    windows, wanted = text.windows, text.identity(recipe)
    made = read_manifest(folder / "losses" / LOSSES_MANIFEST)["inputs"]
    kinds = np.fromfile(path, dtype=np.uint8)
    different = first_difference({name: made.get(name) for name in wanted}, json.loads(json.dumps(wanted)))
    if different is not None or len(kinds) != len(windows) * windows.length:
        raise UserError(f"{path}: made for other text than this recipe's; run `tokensieve dynamics` again")
    return windows, kinds.reshape(len(windows), windows.length)
