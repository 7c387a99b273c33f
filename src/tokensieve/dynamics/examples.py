"""Tokens in context: passages by category, by choice and by tendency, and tokens that will not settle.

These are the figures 2b, 2c, 11, 13 and 14 of the paper. Which tokens are shown follows from the numbers by a rule
that is stated here, so that nobody can pick what looks good.
"""

import copy
import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.categories import CATEGORIES
from tokensieve.dynamics.trajectories import Trajectory

PASSAGE_TOKENS = 250
"""Tokens of a passage at most."""
FLUCTUATING = 3
"""Tokens that are shown of a category."""
BEFORE, AFTER = 24, 12
"""Tokens of context around one."""
_NONE = -1.0
"""Below every distance."""

Pieces = Callable[[Sequence[int]], list[str]]
"""The text of each token of a row; joined, the row's text."""


def example_passages(
    windows: Windows,
    categories: np.ndarray,
    pieces: Pieces,
    count: int,
    kept: np.ndarray | None = None,
    tendency: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Passages from little to much that was learned.

    The rule: a passage is the first 250 tokens of a window. Passages with at least half as many candidates as the
    fullest one are put in order of their share of H->L tokens (equal ones in the order of the text), and those that
    stand nearest to the quantiles 1/(count + 1), 2/(count + 1), ... are shown: for four, at 20, 40, 60 and 80 %.

    Args:
        windows: the text.
        categories: uint8 [N], from `classify`.
        pieces: makes text of ids.
        count: passages; fewer where there are fewer windows.
        kept: what is selected at the end, bool [N]; None: unknown.
        tendency: uint8 [4, N], from `tendencies`; None: unknown.

    Returns:
        The `examples` of dynamics.json.
    """
    if count == 0:
        return []
    T = windows.length
    shown = min(T, PASSAGE_TOKENS)
    rows = categories.reshape(-1, T)[:, :shown]
    candidates = (rows < len(CATEGORIES)).sum(axis=1)
    full = np.flatnonzero((candidates > 0) & (2 * candidates >= candidates.max()))
    if len(full) == 0:
        return []
    share = (rows[full] == CATEGORIES.index("high_to_low")).sum(axis=1) / candidates[full]
    order = full[np.argsort(share, kind="stable")]
    ranks = [round((len(order) - 1) * (i + 1) / (count + 1)) for i in range(count)]
    found = []
    for window in dict.fromkeys(order[ranks].tolist()):
        ids, place = _window(windows, window)
        texts = pieces(ids[:shown])
        tokens = []
        for i, text in enumerate(texts):
            at = window * T + i
            known = categories[at] < len(CATEGORIES)
            tokens.append(
                {
                    "text": text,
                    "category": CATEGORIES[categories[at]] if known else None,
                    "kept": bool(kept[at]) if known and kept is not None else None,
                    "tendency": tendency[:, at].tolist() if known and tendency is not None else None,
                }
            )
        found.append({"place": place, "tokens": tokens})
    return found


def fluctuating(
    windows: Windows,
    trajectory: Trajectory,
    categories: np.ndarray,
    distances: np.ndarray,
    pieces: Pieces,
    count: int = FLUCTUATING,
) -> dict[str, list[dict[str, Any]]]:
    """Tokens that do not settle although their line is flat.

    The rule: of the tokens of L->L, and of H->H, those with the largest root mean square distance from their own line
    are shown, at most one a window and one a document (the earlier one of equals).

    Args:
        windows: the text.
        trajectory: the run that was classified.
        categories: uint8 [N], from `classify`.
        distances: float32 [N], from `around_lines`.
        pieces: makes text of ids.
        count: tokens of each category; fewer where there are fewer documents.

    Returns:
        The `fluctuating` of dynamics.json.
    """
    T = windows.length
    with_documents = copy.copy(windows)
    with_documents.document_ids = True
    found: dict[str, list[dict[str, Any]]] = {}
    for key in ("low_to_low", "high_to_high"):
        own = np.where(categories == CATEGORIES.index(key), distances, _NONE).reshape(-1, T)
        best = own.max(axis=1)
        # A heap of windows by their best token: the largest distance first, then the earlier window.
        heap = [(-float(best[window]), window) for window in np.flatnonzero(best > _NONE).tolist()]
        heapq.heapify(heap)
        found[key] = []
        used: list[int] = []
        while heap and len(found[key]) < count:
            _, window = heapq.heappop(heap)
            i = int(own[window].argmax())
            batch = with_documents[window]
            documents = batch["document_ids"].numpy()
            if documents[i] in used:
                own[window, np.isin(documents, used)] = _NONE
                if own[window].max() > _NONE:
                    heapq.heappush(heap, (-float(own[window].max()), window))
                continue
            used.append(int(documents[i]))
            losses = [float(column[window * T + i]) for column in trajectory.losses]
            found[key].append({**_in_context(pieces(batch["input_ids"].tolist()), i), "losses": losses})
    return found


def _in_context(texts: list[str], i: int) -> dict[str, str]:
    """The token's text and its surroundings; a token that is part of a character is shown with the others of it."""
    first = last = i
    # A character's text stands at its last token.
    while not texts[last] and last + 1 < len(texts):
        last += 1
    return {
        "token": "".join(texts[first : last + 1]),
        "before": "".join(texts[max(0, first - BEFORE) : first]),
        "after": "".join(texts[last + 1 : last + 1 + AFTER]),
    }


def _window(windows: Windows, number: int) -> tuple[list[int], str]:
    """Ids of a window, and where it stands."""
    batch = windows[number]
    place = windows.store.locate(int(batch["token_index"][0]) % windows.store.tokens)
    return batch["input_ids"].tolist(), f"{place.source}, document {place.document} of shard {place.shard}"
