"""From windows of a token store to a view: the columns of stored and of live models, cut into passages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.pieces import token_pieces
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.categories import UNKNOWN
from tokensieve.recipe import ContextSection
from tokensieve.reference.store import ScoreStore
from tokensieve.viewer.choosing import Choice
from tokensieve.viewer.measuring import Runnable, measure
from tokensieve.viewer.passages import Model, Passage

NEEDS = {
    "excess_loss": (("student", "loss"), ("reference", "loss")),
    "current_loss": (("student", "loss"),),
    "current_entropy": (("student", "entropy"),),
    "reference_loss": (("reference", "loss"),),
    "reference_entropy": (("reference", "entropy"),),
}
"""Scores that the page can rank by, and what each reads of which kind of model; the first is preferred."""


@dataclass(frozen=True)
class Stored:
    """Losses (and entropies, if there are any) that are read from a score store, bit for bit."""

    shown: Model
    scores: ScoreStore


def collect(
    store: TokenStore,
    context: ContextSection,
    choice: Choice,
    tokenizer: PreTrainedTokenizerBase,
    models: Sequence[Stored | Runnable],
    batch_size: int,
    categories: np.ndarray | None = None,
) -> tuple[Passage, ...]:
    """The passages, in the order of the store.

    Args:
        store: the tokens.
        context: under which losses were, or are, computed.
        choice: which windows, and how much of each.
        tokenizer: turns ids into text.
        models: whose losses to show.
        batch_size: windows per forward pass.
        categories: numbers of training dynamics of the chosen windows, uint8 [P, T].

    Raises:
        UserError: anything that `measure` raises, or a damaged block of a store.
    """
    stored = [model for model in models if isinstance(model, Stored)]
    columns = {f"{name}/{m.shown.key}": m.scores.column(name) for m in stored for name in _columns(m)}
    windows = Windows(
        store,
        context.length,
        document_mask=context.document_mask,
        columns=columns,
        order=choice.windows,
        document_ids=True,
    )
    found = measure([model for model in models if isinstance(model, Runnable)], windows, batch_size)
    losses = {model.shown.key: found[model.shown.key].losses for model in models if model.shown.key in found}
    entropies = {key: item.entropies for key, item in found.items() if item.entropies is not None}
    passages = []
    for row in range(len(choice.windows)):
        start = int(choice.starts[row])
        part = slice(start, start + choice.length)
        window = {name: value.numpy() for name, value in windows[row].items()}
        own_losses = {key: column[row, part] for key, column in losses.items()}
        own_entropies = {key: column[row, part] for key, column in entropies.items()}
        for name in columns:
            kind, key = name.split("/", 1)
            (own_losses if kind == "loss" else own_entropies)[key] = window[name].view(np.float16)[part]
        ids = window["input_ids"][part]
        position = int(window["token_index"][start])
        documents = window["document_ids"][part]
        place = store.locate(position)
        shard = next(i for i, item in enumerate(store.shards) if item.name == place.shard)
        inside = position - store.shards[shard].start
        of_dynamics = None if categories is None else categories[row, part]
        passages.append(
            Passage(
                source=store.shards[shard].source,
                place=_place(int(documents[0]), int(documents[-1]), place.shard, place.offset),
                ids=ids,
                pieces=tuple(token_pieces(tokenizer, ids.tolist())),
                losses={model.shown.key: own_losses[model.shown.key] for model in models},
                entropies=own_entropies,
                regions=None if store.regions is None else store.shard_regions(shard)[inside : inside + len(ids)],
                categories=None if of_dynamics is None or (of_dynamics == UNKNOWN).all() else of_dynamics,
                documents=documents,
            )
        )
    return tuple(passages)


def start_score(wanted: str, models: Sequence[Model], entropies: set[str]) -> tuple[str, str | None]:
    """The score that the page starts with, and a sentence if it is not the wanted one.

    Args:
        wanted: a score of `selection`.
        models: that are shown.
        entropies: keys of those whose entropies are known.
    """
    there = {(model.kind, "loss") for model in models} | {(m.kind, "entropy") for m in models if m.key in entropies}
    if wanted in NEEDS and there.issuperset(NEEDS[wanted]):
        return wanted, None
    found = next(score for score, needs in NEEDS.items() if there.issuperset(needs))
    if wanted in NEEDS:
        return found, f"There is not everything that the score {wanted} reads, so this starts with {found}."
    return found, f"The run selects by {wanted}, which this view does not show; it starts with {found}."


def _columns(model: Stored) -> list[str]:
    return [name for name in ("loss", "entropy") if name in model.scores.columns]


def _place(first: int, last: int, shard: str, offset: int) -> str:
    documents = f"document {first}" if first == last else f"documents {first} to {last}"
    return f"{documents}, shard {shard}" + (f", from token {offset} of document {first}" if offset else "")
