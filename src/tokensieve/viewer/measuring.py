"""Losses and entropies of the models that are shown: run one after the other, one in memory at a time."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from tokensieve.corpus.tokenizers import check_vocabulary, open_tokenizer, tokenizer_digest
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.errors import UserError
from tokensieve.evaluation.window_losses import as_stored, window_losses
from tokensieve.recipe import ContextSection, ModelSection
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import SelectiveHandle, make_selective
from tokensieve.training.models import check_section, load_model
from tokensieve.training.setup import on_device
from tokensieve.viewer.passages import Model
from tokensieve.viewer.progress import bar

ModelLike = str | os.PathLike[str] | PreTrainedModel
"""A model folder, a Hub id, or a model that is loaded already."""


@dataclass(frozen=True)
class Runnable:
    """A model that is run for the view."""

    shown: Model
    open: Callable[[], PreTrainedModel]
    autocast: torch.dtype | None = None
    """Type of its forward pass; None: that of the weights."""


@dataclass(frozen=True)
class Columns:
    """What was measured under one model, float16 [windows, T] each, NaN where there is no label."""

    losses: np.ndarray
    entropies: np.ndarray | None


def measure(models: Sequence[Runnable], windows: Windows, batch_size: int) -> dict[str, Columns]:
    """Run every model over the windows.

    Args:
        models: what to run; a model that somebody loaded stays where it is, and is as before afterwards.
        windows: in the order of the rows.
        batch_size: windows per forward pass.

    Returns:
        Model key -> its columns.

    Raises:
        UserError: a model cannot be loaded, its loss cannot be reproduced, or it is not finite.
    """
    found = {}
    blank = _blank(windows) if models else 0
    for model in models:
        with bar(model.shown.label, len(windows), "windows") as advance, _opened(model) as handle:
            try:
                losses, entropies = window_losses(
                    handle, windows, batch_size, entropy=True, autocast=model.autocast, advance=advance
                )
                if int(np.isnan(losses).sum()) != blank:
                    raise ValueError("a loss is NaN")
                found[model.shown.key] = Columns(as_stored(losses), None if entropies is None else as_stored(entropies))
            except ValueError as error:
                raise UserError(f"{model.shown.label}: cannot be measured: {error}") from error
    return found


def runnable(
    what: ModelLike,
    shown: Model,
    tokenizer: PreTrainedTokenizerBase,
    context: ContextSection,
    *,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    autocast: torch.dtype | None = None,
) -> Runnable:
    """A model by folder, Hub id or as an object, checked when it is opened.

    Args:
        what: the model.
        shown: what the page calls it.
        tokenizer: of the text; a tokenizer beside the model must be the same, id by id.
        context: its length must not exceed the model's.
        dtype: of the weights.
        trust_remote_code: run Python code that comes with the model.
        autocast: type of the forward pass.
    """
    if isinstance(what, PreTrainedModel):

        def given() -> PreTrainedModel:
            rows: Any = what.get_input_embeddings().weight
            check_vocabulary(tokenizer, len(rows), shown.label)
            return what

        return Runnable(shown, given, autocast)
    name = os.fspath(what)
    section = ModelSection(name=name, dtype=dtype, trust_remote_code=trust_remote_code)  # type: ignore[arg-type]

    def load() -> PreTrainedModel:
        check_same_tokenizer(name, tokenizer, trust_remote_code)
        return on_device(load_model(section, tokenizer, context, seed=0))

    return Runnable(shown, load, autocast)


def check_same_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, trust_remote_code: bool = False) -> None:
    """Refuse a model whose own tokenizer gives other ids: equal size is not equal ids.

    Raises:
        UserError: it does.
    """
    own = own_tokenizer(name, trust_remote_code)
    if own is None:
        return
    there, here = tokenizer_digest(own), tokenizer_digest(tokenizer)
    if there != here:
        raise UserError(
            f"{name}: the tokenizer beside this model gives other ids than the text's (digest {there} there, {here} "
            f"here); losses can only be compared token by token: choose models that share a tokenizer"
        )


def own_tokenizer(name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model, or None.

    Raises:
        UserError: there is no such model, or its tokenizer cannot be loaded.
    """
    check_section(ModelSection(name=name, trust_remote_code=trust_remote_code), 2)
    described = cached_file(
        name,
        "tokenizer_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if described is None else open_tokenizer(name, trust_remote_code=trust_remote_code)


def longest_context(what: ModelLike, trust_remote_code: bool = False) -> int | None:
    """Positions that a model has, None if its configuration names none.

    Raises:
        UserError: there is no such model.
    """
    if isinstance(what, PreTrainedModel):
        config = what.config
    else:
        name = os.fspath(what)
        check_section(ModelSection(name=name, trust_remote_code=trust_remote_code), 2)
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    # Models without positions of their own (state space models, ALiBi) name no longest length.
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def label_of(what: ModelLike) -> str:
    """What a reader knows a model by."""
    if isinstance(what, PreTrainedModel):
        return what.config.name_or_path or type(what).__name__
    return os.fspath(what)


def named(kind: str, labels: Sequence[str]) -> list[Model]:
    """Models of a kind with keys of their own; equal labels get a number."""
    found: list[Model] = []
    for i, label in enumerate(labels):
        before = labels[:i].count(label)
        shown = f"{label} ({before + 1})" if before else label
        found.append(Model(f"{kind}{i}", kind, shown))  # type: ignore[arg-type]
    return found


@contextmanager
def _opened(model: Runnable) -> Iterator[SelectiveHandle]:
    opened = model.open()
    try:
        handle = make_selective(opened, SelectionPolicy(ratio=1))
    except (TypeError, ValueError) as error:
        raise UserError(f"{model.shown.label}: cannot be measured: {error}") from error
    try:
        yield handle
    finally:
        handle.remove()
        del handle, opened
        gc.collect()


def _blank(windows: Windows) -> int:
    """Positions without a label."""
    parts = range(0, len(windows), 64)
    rows = [list(range(begin, min(begin + 64, len(windows)))) for begin in parts]
    return sum(int((windows.__getitems__(part)["labels"] == IGNORED).sum()) for part in rows)
