"""The held-out text whose tokens are followed: windows of the corpus that training did not see, or text of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from tokensieve.corpus.order import middles
from tokensieve.corpus.run_stores import make_tokens, open_tokens
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.checkpoints import Runs
from tokensieve.errors import UserError
from tokensieve.evaluation.overlap import find_overlap, overlap_warnings
from tokensieve.recipe import Recipe, dump
from tokensieve.reference.store import corpus_identity
from tokensieve.stage import read_manifest
from tokensieve.training.arms import needs_reference
from tokensieve.training.held_out import dynamics_windows, unread_windows, windows_for_tokens
from tokensieve.training.reference import REFERENCE_MANIFEST, reference_numbers

_ENOUGH = 0.9
"""Share of the wanted tokens below which a reader is told that there are fewer."""


@dataclass(frozen=True)
class Text:
    """The held-out text."""

    windows: Windows
    description: str
    warnings: tuple[str, ...]

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """What its losses belong to: the very windows, in their context."""
        order = self.windows.order
        return {
            "corpus": corpus_identity(self.windows.store),
            "windows": [len(order), xxhash.xxh3_128_hexdigest(order.astype("<i8").tobytes())],
            "context": dump(recipe.context),
        }


def held_out_text(recipe: Recipe, runs: Runs) -> Text:
    """The windows that are measured.

    Raises:
        UserError: the text is missing or too short, or training (or the reference's) has read the whole corpus.
    """
    section, length = recipe.dynamics, recipe.context.length
    count = windows_for_tokens(section.tokens, length)
    if section.sources:
        store = make_tokens(recipe, f"{section.name}/text", section.sources)
        told = f"held-out text of its own: {', '.join(source.label for source in section.sources)}"
        order = _spread(np.arange(Windows(store, length).n_windows), count)
    else:
        store = open_tokens(recipe)
        if section.hold_out:
            _check_reference(recipe)
            told, order = "windows of the corpus, held out of training", dynamics_windows(recipe, store)
        elif section.checkpoints:
            told = "windows of the corpus; whether these models were trained on them is not known here"
            order = _spread(np.arange(Windows(store, length).n_windows), count)
        else:
            told = "windows of the corpus that training did not come to"
            order = _spread(_unread(recipe, store, runs), count)
    warnings = []
    if len(order) < _ENOUGH * count:
        warnings.append(
            f"dynamics.tokens asks for {section.tokens:,} tokens, and there are about {len(order) * (length - 1):,}: "
            f"shares are the less certain"
        )
    return Text(Windows(store, length, document_mask=recipe.context.document_mask, order=order), told, tuple(warnings))


def overlap_of(recipe: Recipe, text: Text) -> list[str]:
    """Warnings about text of its own that also stands in the training text; the corpus's windows need none."""
    if not recipe.dynamics.sources:
        return []
    names = ["corpus", *(["clean"] if recipe.reference.sources else [])]
    training = [open_tokens(recipe, name) for name in names]
    return overlap_warnings(find_overlap({"dynamics": text.windows.store}, training), "text")


def _spread(windows: np.ndarray, count: int) -> np.ndarray:
    return windows[middles(len(windows), min(count, len(windows)))]


def _unread(recipe: Recipe, store: TokenStore, runs: Runs) -> np.ndarray:
    unread = unread_windows(recipe, store, runs.tokens_seen)
    if recipe.reference.on_corpus and needs_reference(recipe):
        # A self-reference has read the corpus in the same order.
        unread = np.intersect1d(unread, unread_windows(recipe, store, int(reference_numbers(recipe)["tokens"])))
    if len(unread) == 0:
        raise UserError(
            f"{store.folder}: training has read every window of the corpus; name held-out text under "
            f"dynamics.sources, or set dynamics.hold_out: true and train in another `out`"
        )
    return unread


def _check_reference(recipe: Recipe) -> None:
    """A self-reference must have left the same text out."""
    manifest: Path = recipe.reference_folder / REFERENCE_MANIFEST
    if not (recipe.reference.on_corpus and needs_reference(recipe) and manifest.exists()):
        return
    there = read_manifest(manifest)["inputs"].get("held_out")
    if there != recipe.dynamics.tokens:
        raise UserError(
            f"{manifest}: the reference was trained on the corpus with held_out {there}, not {recipe.dynamics.tokens}: "
            f"it has read the text; remove it and what follows, and train again"
        )
