"""The arms of a recipe: models that are compared.

They share initialisation, data order, steps and evaluation, and differ in the selection policy alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import PreTrainedModel

from tokensieve.corpus.run_stores import open_tokens, store_mirror
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.token_classes import frequency_classes, token_classes
from tokensieve.corpus.windows import Column, Windows
from tokensieve.errors import UserError
from tokensieve.machine import peak_memory, reset_peak_memory
from tokensieve.online import reference_columns
from tokensieve.recipe import Recipe, dump
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reference.store import ScoreStore, corpus_identity
from tokensieve.selection import SelectionPolicy
from tokensieve.stage import Stage, is_main_process
from tokensieve.training.held_out import held_out_windows
from tokensieve.training.loop import RESUMABLE, Run, remove_checkpoints
from tokensieve.training.models import describe_model
from tokensieve.training.reference import load_reference, reference_numbers, target_identity
from tokensieve.training.saving import save_steps
from tokensieve.training.setup import (
    arm_steps,
    load,
    open_general,
    open_targets,
    run_tokenizer,
    train_with_card,
    windows_for,
)

ARM_MANIFEST = "run.json"

console = Console(highlight=False)


def train_arms(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Train every arm of the recipe that is not finished.

    Returns:
        arm -> what its run.json holds: the numbers of `loop.train`, and `model`.

    Raises:
        UserError: missing stage before this one, folder of another recipe, or anything `loop.train` raises.
    """
    return {
        arm: train_arm(recipe, arm, arm_policy(recipe, arm), recipe.folder / "models" / arm)
        for arm in recipe.train.arms
    }


def train_arm(
    recipe: Recipe,
    arm: str,
    policy: SelectionPolicy,
    folder: Path,
    *,
    name: str | None = None,
    text: str = "corpus",
    probe: np.ndarray | None = None,
    by_frequency: bool = False,
) -> dict[str, Any]:
    """Train one arm, unless it is finished.

    Args:
        recipe: what all arms share.
        arm: clm, random or slm: how its model card describes it.
        policy: what it selects.
        folder: receives the model, `run.json` and `metrics.jsonl`.
        name: what messages call it; default: the arm.
        text: the token store it is trained on.
        probe: windows of the corpus to leave out of the training and to measure along the way.
        by_frequency: also count what is kept by how common a token is, for which the whole corpus is read.

    Returns:
        What run.json holds: the numbers of `loop.train`, and `model`.

    Raises:
        UserError: as `train_arms`.
    """
    scores = open_scores(recipe)
    steps, per_step = arm_steps(recipe)
    online = recipe.score.online and bool(reference_columns(policy))
    on_corpus = text == "corpus"
    store = open_tokens(recipe, text)
    inputs = {
        **own_inputs(recipe, policy, store),
        "scores": None if scores is None or not on_corpus else scores.inputs,
        "reference": reference_numbers(recipe)["digest"] if online else None,
        "reference_dtype": recipe.score.dtype if online else None,
        "targets": target_identity(recipe),
        "evaluations": recipe.evaluation.count,
        "trainer": recipe.train.trainer,
    }
    # Runs of an earlier version had neither.
    if recipe.evaluation.general:
        inputs["general"] = {name: corpus_identity(found) for name, found in open_general(recipe).stores.items()}
    if probe is not None:
        inputs["probe"] = probe.tolist()
    stage = Stage(folder, ARM_MANIFEST, inputs)
    if not stage.finished:
        if is_main_process():
            console.print(f"{name or arm}: {steps:,} steps of {per_step:,} tokens")
        with stage.running(resumable=RESUMABLE):
            reset_peak_memory()
            tokenizer = run_tokenizer(recipe)
            if on_corpus:
                windows = training_windows(recipe, probe)
                classes = {"class": token_classes(tokenizer)}
                if by_frequency:
                    classes["frequency"] = frequency_classes(store)
            else:
                windows, classes = windows_for(recipe, store, steps * per_step, {}), None
            run = Run(
                folder=folder,
                model=load(recipe, recipe.model),
                tokenizer=tokenizer,
                windows=windows,
                steps=steps,
                tokens_per_step=per_step,
                policy=policy,
                options=recipe.train.trainer,
                place="train.trainer",
                targets=open_targets(recipe),
                evaluations=recipe.evaluation.count,
                seed=recipe.seed,
                classes=classes,
                general=open_general(recipe) if recipe.evaluation.general else None,
                probe=None if probe is None else probe_windows(recipe, probe),
                reference=open_reference(recipe) if online else None,
                reference_autocast=reference_autocast(recipe),
                name=name or arm,
                save_at=save_steps(recipe.train.save_at, per_step, steps),
            )
            reference = reference_numbers(recipe)["name"] if online or scores is not None else "none"
            numbers = train_with_card(recipe, run, arm, recipe.model, reference)
            stage.finish(**numbers, model=describe_model(run.model), peak_memory=peak_memory())
    remove_checkpoints(folder, recipe.train.trainer)
    return stage.outputs


def own_inputs(recipe: Recipe, policy: SelectionPolicy, store: TokenStore) -> dict[str, Any]:
    """What decides which tokens a run sees, which it selects, and which of its models are saved: a part of run.json."""
    inputs = {
        "seed": recipe.seed,
        "tokens": recipe.train.tokens,
        "context": dump(recipe.context),
        "policy": dump(policy),
        "model": dump(recipe.model),
        "corpus": corpus_identity(store),
    }
    # Runs of an earlier version had neither.
    if recipe.train.save_at:
        inputs["save_at"] = list(recipe.train.save_at)
    if recipe.dynamics.hold_out:
        inputs["held_out"] = recipe.dynamics.tokens
    return inputs


def arm_policy(recipe: Recipe, arm: str) -> SelectionPolicy:
    """The policy of an arm: the recipe's, a random choice of the same share, or everything.

    `random` keeps what decides how much is trained on and when (ratio, scope, alpha, warm-up, schedule), and drops
    what only says which tokens: parts, threshold, temperature and cap. For policies whose ratio is the divisor alone
    it draws the ratio that the recipe names.
    """
    policy = replace(recipe.train.selection, seed=recipe.seed)
    if arm == "slm":
        return policy
    if arm == "random":
        return replace(policy, score="random", parts=(), threshold=None, temperature=None, reference_loss_cap=None)
    return SelectionPolicy(ratio=1, seed=recipe.seed)


def open_scores(recipe: Recipe) -> ScoreStore | None:
    """The score store that the recipe's policy reads, or None if it reads none.

    Raises:
        UserError: missing, damaged, or made by another reference, for another corpus or context.
    """
    if not needs_scores(recipe):
        return None
    name = f"scores/{recipe.score.name}"
    mirror = store_mirror(recipe, name, SCORES_MANIFEST)
    if mirror is not None:
        mirror.fetch()
    scores = ScoreStore(recipe.folder / name, open_tokens(recipe), recipe.context, mirror)
    wanted = {
        "reference": reference_numbers(recipe)["digest"],
        "dtype": recipe.score.dtype,
        "carried_over": recipe.score.carry_over,
    }
    there = {**scores.inputs, "carried_over": "carried_over" in scores.inputs}
    for key, here in wanted.items():
        if there.get(key) != here:
            what = f"made by another reference than {recipe.reference_folder} (digest"
            if key != "reference":
                what = f"belongs to another recipe ({'score.carry_over' if key == 'carried_over' else 'score.dtype'}"
            raise UserError(
                f"{scores.folder}: {what} {there.get(key)} there, {here} here); run `tokensieve score RECIPE "
                f"score.name=ANOTHER` and train with that name, or remove the folder and score again"
            )
    return scores


def training_windows(recipe: Recipe, held_out: np.ndarray | None = None) -> Windows:
    """The windows of the arms in training order, with the columns that the policy reads.

    Args:
        recipe: the run.
        held_out: numbers of windows that are not among them, besides those of `dynamics.hold_out`.
    """
    steps, per_step = arm_steps(recipe)
    held_out = held_out_windows(recipe, held_out)
    scores = open_scores(recipe)
    needed = recipe.train.selection.columns
    columns: Mapping[str, Sequence[Column]] = {}
    if scores is not None:
        names = reference_columns(recipe.train.selection)
        columns = {name: scores.column(name.removeprefix("reference_")) for name in names}
    windows = windows_for(recipe, open_tokens(recipe), steps * per_step, columns, held_out)
    windows.document_ids = "document_ids" in needed
    return windows


def probe_windows(recipe: Recipe, numbers: np.ndarray) -> Windows:
    """Windows of the corpus by number, in the order of their numbers; with the reference's loss if it is stored."""
    scores = open_scores(recipe)
    columns = {} if scores is None else {"reference_loss": scores.column("loss")}
    return Windows(
        open_tokens(recipe),
        recipe.context.length,
        document_mask=recipe.context.document_mask,
        columns=columns,
        order=np.sort(numbers),
    )


def needs_reference(recipe: Recipe) -> bool:
    """Whether the recipe's policy reads anything that the reference computes, stored or online."""
    return bool(reference_columns(recipe.train.selection))


def needs_scores(recipe: Recipe) -> bool:
    """Whether training reads a score store: what the policy reads of the reference was stored, not online."""
    return needs_reference(recipe) and not recipe.score.online


def open_reference(recipe: Recipe) -> PreTrainedModel:
    """The finished reference, for online mode.

    Raises:
        UserError: not there, or not the weights that `reference.json` names.
    """
    model = load_reference(recipe)
    found, wanted = weights_digest(model), reference_numbers(recipe)["digest"]
    if found != wanted:
        raise UserError(
            f"{recipe.reference_folder}: the reference's weights have changed since it was made (digest {found}, "
            f"not {wanted}); restore them, or remove the folder and run `tokensieve reference` again"
        )
    return model


def reference_autocast(recipe: Recipe) -> torch.dtype | None:
    """Autocast type of the online reference: what scoring would have used."""
    return torch.bfloat16 if recipe.score.dtype == "bfloat16" else None
