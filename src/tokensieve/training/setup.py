"""From a recipe to the parts of a training run: model, windows, targets, steps; and the checks before anything runs.

The reference and the arms share all of it, which is what makes them comparable.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tokensieve import __version__
from tokensieve.corpus.run_stores import open_tokens
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.corpus.windows import Column, Windows, sample_order
from tokensieve.errors import UserError
from tokensieve.evaluation.target_loss import Targets
from tokensieve.recipe import ModelSection, Recipe, Source
from tokensieve.selection import SelectionPolicy
from tokensieve.stage import is_main_process
from tokensieve.training.arguments import steps_for, tokens_per_step
from tokensieve.training.card import model_card
from tokensieve.training.loop import Run, train
from tokensieve.training.models import check_section, describe_model, load_model
from tokensieve.training.saving import save_steps


def check_recipe(recipe: Recipe) -> None:
    """Refuse what could only fail after hours: Trainer options, budgets, a context above the model's.

    Raises:
        UserError: the first thing found.
    """
    steps, per_step = arm_steps(recipe)
    save_steps(recipe.train.save_at, per_step, steps)
    warmup = recipe.train.selection.warmup_steps
    if warmup >= steps:
        raise UserError(
            f"train.selection.warmup_steps: {warmup} steps of plain training, and an arm has only {steps}; lower it, "
            f"or raise train.tokens"
        )
    check_section(recipe.model, recipe.context.length)
    if recipe.score.carry_over and recipe.reference.existing is None:
        raise UserError(
            "score.carry_over: a reference that is trained here shares the corpus's tokenizer; remove carry_over, or "
            "name a model under reference.existing"
        )
    if recipe.reference.existing is None:
        per_step = tokens_per_step(recipe.reference.trainer, recipe.context.length, "reference.trainer")
        if recipe.reference.tokens is not None:
            steps_for(recipe.reference.tokens, per_step, "reference.tokens")
    if recipe.reference.model is not None:
        check_section(recipe.reference.model, recipe.context.length)


def arm_steps(recipe: Recipe) -> tuple[int, int]:
    """Optimizer steps of each arm, and the tokens that one step sees."""
    per_step = tokens_per_step(recipe.train.trainer, recipe.context.length, "train.trainer")
    return steps_for(recipe.train.tokens, per_step, "train.tokens"), per_step


def run_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer that `tokensieve tokenize` made.

    Raises:
        UserError: it has not run yet.
    """
    folder = recipe.folder / "tokenizer"
    if not folder.is_dir():
        raise UserError(f"{folder}: no tokenizer here; run `tokensieve tokenize` first")
    return open_tokenizer(folder, trust_remote_code=recipe.tokenizer_code_trusted)


def load(recipe: Recipe, section: ModelSection) -> PreTrainedModel:
    """A model of the recipe, checked against its tokenizer and context (see `models.load_model`)."""
    return load_model(section, run_tokenizer(recipe), recipe.context, recipe.seed)


def windows_for(
    recipe: Recipe,
    store: TokenStore,
    tokens: int,
    columns: Mapping[str, Sequence[Column]],
    held_out: np.ndarray | None = None,
) -> Windows:
    """`tokens` tokens of a store in training order, without the windows that are held out."""
    length = recipe.context.length
    order = sample_order(store, length, tokens // length, seed=recipe.seed, held_out=held_out)
    return Windows(store, length, document_mask=recipe.context.document_mask, columns=columns, order=order)


def open_targets(recipe: Recipe) -> Targets | None:
    """The evaluation sets, or None if the recipe names none."""
    return _open_texts(recipe, recipe.evaluation.targets) if recipe.evaluation.targets else None


def open_general(recipe: Recipe) -> Targets:
    """The held-out texts of other kinds."""
    return _open_texts(recipe, recipe.evaluation.general)


def _open_texts(recipe: Recipe, sources: Sequence[Source]) -> Targets:
    stores = {source.label: open_tokens(recipe, f"targets/{source.label}") for source in sources}
    return Targets(stores, recipe.context.length, recipe.context.document_mask, recipe.evaluation.batch_size)


def _more_of(policy: SelectionPolicy) -> str:
    """The policy's fields beyond score, ratio and scope that differ from their defaults: `alpha=0.9, ...`."""
    told = ("score", "ratio", "scope", "seed")
    found = {item.name: getattr(policy, item.name) for item in fields(policy) if item.name not in told}
    defaults = {item.name: item.default for item in fields(policy)}
    return ", ".join(f"{name}={value}" for name, value in found.items() if value != defaults[name])


def on_device(model: PreTrainedModel) -> PreTrainedModel:
    """The model on the accelerator, if there is one; under torchrun on the one of this rank."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert device is not None
    if device.type != "cpu" and "LOCAL_RANK" in os.environ:
        device = torch.device(device.type, int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count())
    return model.to(device)  # type: ignore[arg-type]


def train_with_card(recipe: Recipe, run: Run, arm: str, base: ModelSection, reference: str) -> dict[str, Any]:
    """`loop.train`, then the model card beside the model; returns the run's numbers."""
    numbers = train(run)
    selecting = not run.policy.selects_everything
    facts = {
        **numbers,
        "arm": arm,
        "base": base.name or f"a fresh {describe_model(run.model)['description']}",
        "reference": reference,
        "score": run.policy.score if selecting else "none (all tokens)",
        "ratio": run.policy.ratio,
        "scope": run.policy.scope,
        "options": _more_of(run.policy),
        "context": recipe.context.length,
        "document_mask": recipe.context.document_mask,
        "seed": recipe.seed,
        "version": __version__,
    }
    if is_main_process():
        (run.folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    return numbers
