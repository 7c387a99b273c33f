"""The trained models of a recipe: the reference, and the arms that are compared.

All of them go through `loop.train`. Arms share initialisation, data order, steps and evaluation; they differ
in the selection policy alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer, vocabulary_size
from tokensieve.corpus.windows import Windows, sample_order
from tokensieve.errors import UserError
from tokensieve.evaluation.target_loss import Targets, pooled
from tokensieve.recipe import ModelSection, Recipe, dump
from tokensieve.reference.store import ScoreStore, corpus_identity
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.stage import Stage, is_main_process, read_json
from tokensieve.training.arguments import steps_for, tokens_per_step
from tokensieve.training.card import model_card
from tokensieve.training.loop import RESUMABLE, Run, remove_checkpoints, train
from tokensieve.training.models import describe_model, load_model

REFERENCE_MANIFEST = "reference.json"
ARM_MANIFEST = "run.json"

_REFERENCE_EVALUATIONS = 2
"""Half way and at the end: nobody compares the reference's curve with anything."""

console = Console(highlight=False)


def train_reference(recipe: Recipe) -> dict[str, Any]:
    """Train the reference on the clean text, or measure the one that exists.

    Returns:
        What reference.json holds: `name`, `tokens`, `seconds`, `targets`, `target_loss`, ...

    Raises:
        UserError: missing stage before this one, folder of another recipe, or anything `loop.train` raises.
    """
    section, folder = recipe.reference, recipe.folder / "reference"
    shared = {"evaluation": dump(recipe.evaluation), "context": dump(recipe.context)}
    if section.existing is not None:
        stage = Stage(folder, REFERENCE_MANIFEST, {"existing": section.existing, **shared})
        if not stage.finished:
            with stage.running():
                losses = _measure(recipe, load_reference(recipe))
                stage.finish(name=section.existing, tokens=0, seconds=0.0, **losses)
        return stage.outputs
    base = section.model or recipe.model
    clean = TokenStore(recipe.folder / "clean")
    inputs = {
        "model": dump(base),
        "clean": corpus_identity(clean),
        "epochs": section.epochs,
        "tokens": section.tokens,
        "trainer": section.trainer,
        "seed": recipe.seed,
        **shared,
    }
    stage = Stage(folder, REFERENCE_MANIFEST, inputs)
    if not stage.finished:
        per_step = tokens_per_step(section.trainer, recipe.context.length, "reference.trainer")
        one_pass = Windows(clean, recipe.context.length).n_windows * recipe.context.length
        steps = steps_for(section.tokens or (section.epochs or 0) * one_pass, per_step, "reference")
        with stage.running(resumable=RESUMABLE):
            run = Run(
                **_shared_settings(recipe, "reference", base),
                windows=_windows(recipe, clean, steps * per_step, {}),
                steps=steps,
                tokens_per_step=per_step,
                policy=SelectionPolicy(ratio=1),
                evaluations=_REFERENCE_EVALUATIONS,
                options=section.trainer,
                place="reference.trainer",
            )
            numbers = _train(recipe, run, "reference", base, "none")
            stage.finish(name=str(folder), tokens=numbers["tokens_seen"], **numbers)
            remove_checkpoints(run)
    return stage.outputs


def load_reference(recipe: Recipe) -> PreTrainedModel:
    """The finished reference model of a recipe.

    Raises:
        UserError: it was not trained yet, or cannot be loaded.
    """
    if recipe.reference.existing is not None:
        return _load(recipe, ModelSection(name=recipe.reference.existing))
    manifest = recipe.folder / "reference" / REFERENCE_MANIFEST
    if not manifest.exists() or not read_json(manifest)["finished"]:
        raise UserError(f"{manifest}: no finished reference model here; run `tokensieve reference` first")
    return _load(recipe, ModelSection(name=str(recipe.folder / "reference")))


def train_arms(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Train every arm of the recipe that is not finished.

    Returns:
        arm -> what its run.json holds: the numbers of `loop.train`, and `model`.

    Raises:
        UserError: missing stage before this one, folder of another recipe, or anything `loop.train` raises.
    """
    corpus, policy = TokenStore(recipe.folder / "corpus"), recipe.train.selection
    columns = score_columns(recipe, corpus)
    per_step = tokens_per_step(recipe.train.trainer, recipe.context.length, "train.trainer")
    steps = steps_for(recipe.train.tokens, per_step, "train.tokens")
    windows = _windows(recipe, corpus, steps * per_step, columns)
    results = {}
    for arm in recipe.train.arms:
        inputs = {
            "policy": dump(arm_policy(recipe, arm)),
            "model": dump(recipe.model),
            "corpus": corpus_identity(corpus),
            "scores": recipe.score.name if columns else None,
            "tokens": recipe.train.tokens,
            "trainer": recipe.train.trainer,
            "context": dump(recipe.context),
            "evaluation": dump(recipe.evaluation),
            "seed": recipe.seed,
        }
        stage = Stage(recipe.folder / "models" / arm, ARM_MANIFEST, inputs)
        if not stage.finished:
            if is_main_process():
                console.print(f"{arm}: {steps:,} steps of {per_step:,} tokens")
            with stage.running(resumable=RESUMABLE):
                run = Run(
                    **_shared_settings(recipe, f"models/{arm}", recipe.model),
                    windows=windows,
                    steps=steps,
                    tokens_per_step=per_step,
                    policy=arm_policy(recipe, arm),
                    evaluations=recipe.evaluation.count,
                    options=recipe.train.trainer,
                    place="train.trainer",
                    count_regions=True,
                )
                base = recipe.model
                reference = str(recipe.reference.existing or recipe.folder / "reference") if columns else "none"
                numbers = _train(recipe, run, arm, base, reference)
                stage.finish(**numbers, model=describe_model(run.model), score=policy.score)
                remove_checkpoints(run)
        results[arm] = stage.outputs
    return results


def arm_policy(recipe: Recipe, arm: str) -> SelectionPolicy:
    """The policy of an arm: the recipe's, a random choice of the same share, or everything."""
    policy = replace(recipe.train.selection, seed=recipe.seed)
    if arm == "slm":
        return policy
    if arm == "random":
        return SelectionPolicy("random", policy.ratio, policy.scope, seed=recipe.seed)
    return SelectionPolicy(ratio=1, seed=recipe.seed)


def score_columns(recipe: Recipe, corpus: TokenStore) -> Mapping[str, Sequence[np.ndarray]]:
    """The stored columns that the recipe's policy reads, one array a shard; empty if it reads none."""
    names = [name for name in recipe.train.selection.columns if name.startswith("reference_")]
    if not names:
        return {}
    scores = ScoreStore(recipe.folder / "scores" / recipe.score.name, corpus, recipe.context)
    return {name: scores.column(name.removeprefix("reference_")) for name in names}


def training_windows(recipe: Recipe, corpus: TokenStore) -> Windows:
    """The windows of the arms in training order."""
    per_step = tokens_per_step(recipe.train.trainer, recipe.context.length, "train.trainer")
    steps = steps_for(recipe.train.tokens, per_step, "train.tokens")
    return _windows(recipe, corpus, steps * per_step, score_columns(recipe, corpus))


def warn_of_weak_reference(recipe: Recipe) -> str | None:
    """Compare reference and untrained student on the target text; the text of a warning, or None.

    Selection keeps what the reference predicts better than the student. A reference that is no better on
    the text one wants makes the ranking noise (Rho-1; rows of failed replications).

    Raises:
        UserError: the stages before are not finished.
    """
    if not recipe.evaluation.targets or not needs_scores(recipe):
        return None
    score_columns(recipe, TokenStore(recipe.folder / "corpus"))  # says which stage is missing
    reference = read_json(recipe.folder / "reference" / REFERENCE_MANIFEST)["outputs"]
    student = _measure(recipe, _load(recipe, recipe.model))
    if reference["target_loss"] < student["target_loss"]:
        return None
    return (
        f"the reference is no better than the untrained student on the target text ({reference['target_loss']:.3f} "
        f"against {student['target_loss']:.3f} nats a token): its scores will not point at what you want; "
        f"train it longer, or on text nearer to the target"
    )


def needs_scores(recipe: Recipe) -> bool:
    """Whether the recipe's policy reads anything that the reference computed."""
    return any(name.startswith("reference_") for name in recipe.train.selection.columns)


def _train(recipe: Recipe, run: Run, arm: str, base: ModelSection, reference: str) -> dict[str, Any]:
    from tokensieve import __version__

    numbers = train(run)
    facts = {
        **numbers,
        "arm": arm,
        "base": base.name or f"a fresh {describe_model(run.model)['description']}",
        "reference": reference,
        "score": run.policy.score if run.policy.ratio < 1 or run.policy.parts else "none (all tokens)",
        "ratio": run.policy.ratio,
        "scope": run.policy.scope,
        "context": recipe.context.length,
        "document_mask": recipe.context.document_mask,
        "seed": recipe.seed,
        "version": __version__,
    }
    if is_main_process():
        (run.folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    return numbers


def _shared_settings(recipe: Recipe, folder: str, model: ModelSection) -> dict[str, Any]:
    return {
        "folder": recipe.folder / folder,
        "model": _load(recipe, model),
        "tokenizer": open_tokenizer(recipe.folder / "tokenizer", trust_remote_code=recipe.tokenizer_code_trusted),
        "targets": _targets(recipe),
        "seed": recipe.seed,
    }


def _load(recipe: Recipe, section: ModelSection) -> PreTrainedModel:
    tokenizer: PreTrainedTokenizerBase = open_tokenizer(
        recipe.folder / "tokenizer", trust_remote_code=recipe.tokenizer_code_trusted
    )
    return load_model(
        section,
        vocab_size=vocabulary_size(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        length=recipe.context.length,
        seed=recipe.seed,
    )


def _windows(recipe: Recipe, store: TokenStore, tokens: int, columns: Mapping[str, Sequence[np.ndarray]]) -> Windows:
    length = recipe.context.length
    order = sample_order(store, length, tokens // length, seed=recipe.seed)
    return Windows(store, length, document_mask=recipe.context.document_mask, columns=columns, order=order)


def _targets(recipe: Recipe) -> Targets | None:
    section = recipe.evaluation
    if not section.targets:
        return None
    stores = {target.label: TokenStore(recipe.folder / "targets" / target.label) for target in section.targets}
    return Targets(stores, recipe.context.length, recipe.context.document_mask, section.batch_size)


def _measure(recipe: Recipe, model: PreTrainedModel) -> dict[str, Any]:
    """Target losses of a model as it is: {"targets": ..., "target_loss": ..., "target_bits_per_byte": ...}."""
    targets = _targets(recipe)
    if targets is None:
        return {"targets": {}}
    handle = make_selective(model, SelectionPolicy(ratio=1))
    losses = targets.evaluate(handle)
    handle.remove()
    whole = pooled(losses)
    return {
        "targets": {name: item.plain() for name, item in losses.items()},
        "target_loss": whole.loss,
        "target_bits_per_byte": whole.bits_per_byte,
    }
