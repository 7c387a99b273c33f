"""A view of texts that are given with models: each text is one document, long ones become several windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.pieces import text_pieces
from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.viewer.choosing import PASSAGES, most_tokens
from tokensieve.viewer.collecting import start_score
from tokensieve.viewer.measuring import (
    ModelLike,
    Runnable,
    label_of,
    longest_context,
    measure,
    named,
    own_tokenizer,
    runnable,
)
from tokensieve.viewer.passages import Passage, View

LENGTH = 1024
"""Tokens of a window, where neither the caller nor a model says less."""


@dataclass(frozen=True)
class TextWindows:
    """Texts as rows for `window_losses`, padded at the end, where no token before can see it."""

    rows: Sequence[np.ndarray]
    """Token ids of each window, int64."""

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(len(row) for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids`, `labels` and `position_ids`, int64 [B, T], as `Windows` makes them."""
        ids = np.zeros((len(indices), self.length), dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        for row, i in enumerate(indices):
            ids[row, : len(self.rows[i])] = self.rows[i]
            labels[row, 1 : len(self.rows[i])] = self.rows[i][1:]
        positions = np.tile(np.arange(self.length), (len(indices), 1))
        batch = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return {name: torch.from_numpy(value) for name, value in batch.items()}


def view_text(
    texts: Sequence[str],
    students: Sequence[ModelLike],
    references: Sequence[ModelLike] = (),
    *,
    names: Sequence[str] | None = None,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    length: int | None = None,
    passages: int = PASSAGES,
    ratio: float = 0.6,
    batch_size: int = 8,
    trust_remote_code: bool = False,
) -> View:
    """Run models over texts. Joined, the pieces of a text's passages are the text.

    As in a corpus nothing is put before a text, and the first token of a window has no loss.

    Args:
        texts: documents.
        students: model folders, Hub ids or models.
        references: more of them; none is needed.
        names: what the page calls the texts; default: text 1, text 2, ...
        tokenizer: folder, Hub id or object; default: the one beside the first model.
        length: tokens of a window; default: 1024, or the fewest positions of a model if that is less.
        passages: windows that are measured and shown at most, from the beginning; and no more than a page holds.
        ratio: where the slider starts.
        batch_size: windows per forward pass.
        trust_remote_code: run Python code that comes with models.

    Raises:
        UserError: no text, no model, models of several tokenizers, or anything that loading and measuring raises.
    """
    given = [*students, *references]
    if not given:
        raise UserError("a text alone has no losses: name at least one model")
    reader = _tokenizer(tokenizer, given, trust_remote_code)
    if length is None:
        longest = [longest_context(what, trust_remote_code) for what in given]
        length = min([LENGTH, *(most for most in longest if most is not None)])
    context = ContextSection(length, document_mask=False)
    shown = [
        *named("student", [label_of(what) for what in students]),
        *named("reference", [label_of(what) for what in references]),
    ]
    models = [
        runnable(what, model, reader, context, trust_remote_code=trust_remote_code)
        for what, model in zip(given, shown, strict=True)
    ]
    return view_texts(
        texts, models, reader, context.length, names=names, passages=passages, ratio=ratio, batch_size=batch_size
    )


def view_texts(
    texts: Sequence[str],
    models: Sequence[Runnable],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    names: Sequence[str] | None = None,
    passages: int = PASSAGES,
    ratio: float = 0.6,
    score: str = "excess_loss",
    batch_size: int = 8,
    notes: Sequence[str] = (),
) -> View:
    """The same with models and tokenizer that are ready; `length` is that of a window.

    Raises:
        UserError: no text, a text without two tokens in a row, or a model that cannot be measured.
    """
    names = list(names or (f"text {i + 1}" for i in range(len(texts))))
    rows: list[np.ndarray] = []
    parts: list[tuple[int, str, list[str]]] = []
    for number, (name, text) in enumerate(zip(names, texts, strict=True)):
        try:
            ids, pieces = text_pieces(tokenizer, text)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        for begin in range(0, len(ids), length):
            end = min(begin + length, len(ids))
            place = name if len(ids) <= length else f"{name}, tokens {begin} to {end - 1}"
            rows.append(np.array(ids[begin:end], dtype=np.int64))
            parts.append((number, place, pieces[begin:end]))
    if not any(len(row) > 1 for row in rows):
        raise UserError("the text has no token with another one before it, so nothing has a loss; give more text")
    whole, most = len(rows), max(1, min(passages, most_tokens(len(models)) // min(length, max(map(len, rows)))))
    rows, parts = rows[:most], parts[:most]
    cut = [f"The first {most} windows of {whole} are shown; --passages and --length decide."] if most < whole else []
    # It needs no more of Windows than these rows have.
    found = measure(models, cast(Windows, TextWindows(rows)), batch_size)
    shown_passages = tuple(
        Passage(
            source=number,
            place=place,
            ids=row,
            pieces=tuple(pieces),
            losses={model.shown.key: found[model.shown.key].losses[i, : len(row)] for model in models},
            entropies={
                key: column.entropies[i, : len(row)] for key, column in found.items() if column.entropies is not None
            },
        )
        for i, ((number, place, pieces), row) in enumerate(zip(parts, rows, strict=True))
    )
    shown = tuple(model.shown for model in models)
    start, other = start_score(score, shown, {key for key, column in found.items() if column.entropies is not None})
    several = [f"Windows of {length} tokens: the first token of each is seen without context."]
    return View(
        title=names[0] if len(names) == 1 else f"{len(names)} texts",
        models=shown,
        sources=tuple(names),
        passages=shown_passages,
        ratio=ratio,
        score=start,
        notes=(
            *notes,
            *([other] if other and score != "excess_loss" else []),
            *cut,
            *(several if len(rows) > len(texts) else []),
        ),
    )


def _tokenizer(
    given: str | PreTrainedTokenizerBase | None, models: Sequence[ModelLike], trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    if isinstance(given, str):
        return open_tokenizer(given, trust_remote_code=trust_remote_code)
    if given is not None:
        return given
    for what in models:
        name = label_of(what)
        found = own_tokenizer(name, trust_remote_code) if isinstance(what, str) or hasattr(what, "__fspath__") else None
        if found is not None:
            return found
    raise UserError(f"{label_of(models[0])}: there is no tokenizer beside this model; name one with tokenizer")
