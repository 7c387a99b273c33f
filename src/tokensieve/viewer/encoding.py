"""A view as JSON for the page: columns as base64 of few bytes a token, so that 100,000 tokens stay below 3 MB.

Whole numbers (ids, lengths, documents) are unsigned LEB128: seven bits a byte, least significant first, the eighth bit
says that another byte follows. Losses and entropies are the bits of little-endian float16, as in the score store.
"""

import base64
from typing import Any

import numpy as np

from tokensieve.viewer.passages import Passage, View

FORMAT = 1


def page_data(view: View) -> dict[str, Any]:
    """Plain JSON data; `templates/data.js` reads it.

    Returns:
        The view's fields; of each passage `text` (the pieces joined), `lengths` (UTF-16 code units of each piece),
        and its columns as strings.
    """
    return {
        "format": FORMAT,
        "title": view.title,
        "notes": list(view.notes),
        "ratio": view.ratio,
        "score": view.score,
        "scope": view.scope,
        "colour": view.colour,
        "compare": view.compare,
        "models": [{"key": model.key, "kind": model.kind, "label": model.label} for model in view.models],
        "sources": list(view.sources),
        "regions": None if view.regions is None else list(view.regions),
        "passages": [_passage(passage) for passage in view.passages],
    }


def _passage(passage: Passage) -> dict[str, Any]:
    # A JavaScript string counts characters beyond U+FFFF twice.
    lengths = np.array([len(piece.encode("utf-16-le")) // 2 for piece in passage.pieces], dtype=np.int64)
    found: dict[str, Any] = {
        "source": passage.source,
        "place": passage.place,
        "tokens": len(passage.ids),
        "text": "".join(passage.pieces),
        "lengths": _whole(lengths),
        "ids": _whole(passage.ids),
        "losses": {key: _halves(column) for key, column in passage.losses.items()},
        "entropies": {key: _halves(column) for key, column in passage.entropies.items()},
    }
    for name, column in (("regions", passage.regions), ("categories", passage.categories)):
        if column is not None:
            found[name] = _text(column.astype(np.uint8).tobytes())
    if passage.documents is not None and len(passage.documents):
        found["documents"] = _whole(passage.documents - passage.documents.min())
    return found


def _halves(column: np.ndarray) -> str:
    return _text(column.astype("<f2").tobytes())


def _whole(numbers: np.ndarray) -> str:
    """Unsigned LEB128 of whole numbers from 0."""
    left = np.asarray(numbers, dtype=np.uint64)
    if len(left) == 0:
        return ""
    columns, more = [], np.ones(len(left), dtype=bool)
    kept = []
    while more.any():
        following = left >> np.uint64(7)
        columns.append((left & np.uint64(127)) | np.where(following > 0, np.uint64(128), np.uint64(0)))
        kept.append(more)
        left, more = following, following > 0
    digits, inside = np.stack(columns, axis=1).astype(np.uint8), np.stack(kept, axis=1)
    return _text(digits[inside].tobytes())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
