"""The reference model of a recipe: trained on the clean text, or a given one.

Whatever it is, `reference.json` binds it by the digest of its weights and keeps the reference gate: how it and
the untrained student do on the target text, token by token (see `evaluation.reference_gate`). A reference with the
student's own weights is refused.
"""

import gc
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from transformers import PreTrainedModel

from tokensieve.corpus.run_stores import open_tokens
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.evaluation.reference_gate import (
    NO_TARGETS,
    OTHER_TOKENIZER,
    PairedLosses,
    compare_losses,
    gate_of,
    gate_warnings,
    pool,
    token_losses,
    unknown_gate,
)
from tokensieve.evaluation.target_loss import TargetLoss, Targets, pooled
from tokensieve.recipe import ModelSection, Recipe, dump
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.store import corpus_identity
from tokensieve.selection import SelectionPolicy
from tokensieve.stage import Stage, is_main_process, read_manifest
from tokensieve.training.arguments import steps_for, tokens_per_step
from tokensieve.training.held_out import held_out_windows
from tokensieve.training.loop import RESUMABLE, Run, remove_checkpoints
from tokensieve.training.models import load_model
from tokensieve.training.setup import load, on_device, open_targets, run_tokenizer, train_with_card, windows_for

REFERENCE_MANIFEST = "reference.json"
_GATE = 1
"""Version of the gate's numbers: a reference.json with others, or with none, belongs to another recipe."""
_EVALUATIONS = 1
"""Before the first step and at the end: nobody compares the reference's curve with anything."""


def train_reference(recipe: Recipe) -> dict[str, Any]:
    """Train the reference on the clean text, or take the one that exists; measure it against the student.

    Returns:
        What reference.json holds: `name`, `digest` of the weights, `student_digest`, `tokens`, `seconds`, `gate` (see
        `reference_gate.gate_of`), `targets`, `target_loss`, `target_bits_per_byte`, ...

    Raises:
        UserError: missing stage before this one, folder of another recipe, a reference with the student's own
            weights, or anything `loop.train` raises.
    """
    section, folder = recipe.reference, recipe.reference_folder
    if recipe.score.carry_over and section.existing is None:
        raise UserError(
            "score.carry_over: a reference that is trained here shares the corpus's tokenizer; remove carry_over, or "
            "name a model under reference.existing"
        )
    base = section.model or recipe.model
    shared = {
        "targets": target_identity(recipe),
        "context": dump(recipe.context),
        "student": dump(recipe.model),
        "seed": recipe.seed,
        "gate": _GATE,
    }
    if section.existing is not None:
        inputs = {"existing": section.existing, "dtype": base.dtype, "carry_over": recipe.score.carry_over, **shared}
        stage = Stage(folder, REFERENCE_MANIFEST, inputs)
        if not stage.finished:
            with stage.running():
                found = _measure(recipe, section.existing)
                stage.finish(name=section.existing, tokens=0, seconds=0.0, **found)
        return stage.outputs
    clean = open_tokens(recipe, recipe.clean_store)
    inputs = {
        "model": dump(base),
        "clean": corpus_identity(clean),
        "epochs": section.epochs,
        "tokens": section.tokens,
        "trainer": section.trainer,
        **shared,
    }
    if section.on_corpus and recipe.dynamics.hold_out:
        inputs["held_out"] = recipe.dynamics.tokens
    stage = Stage(folder, REFERENCE_MANIFEST, inputs)
    if not stage.finished:
        with stage.running(resumable=RESUMABLE):
            numbers = _train(recipe, clean, base)
            # The trained model and the optimizer, which the Trainer's cycles would keep on the device.
            gc.collect()
            found = _on_first_rank(lambda: _measure(recipe, str(folder)))
            stage.finish(**{**numbers, "name": str(folder), "tokens": numbers["tokens_seen"], **found})
    remove_checkpoints(folder, section.trainer)
    return stage.outputs


def _train(recipe: Recipe, clean: TokenStore, base: ModelSection) -> dict[str, Any]:
    """Train the reference into its folder; everything of the run is let go at the end."""
    section = recipe.reference
    steps, per_step = reference_steps(recipe)
    held_out = held_out_windows(recipe) if section.on_corpus else None
    run = Run(
        folder=recipe.reference_folder,
        model=load(recipe, base),
        tokenizer=run_tokenizer(recipe),
        windows=windows_for(recipe, clean, steps * per_step, {}, held_out),
        steps=steps,
        tokens_per_step=per_step,
        policy=SelectionPolicy(ratio=1),
        options=section.trainer,
        place="reference.trainer",
        targets=open_targets(recipe),
        evaluations=_EVALUATIONS,
        seed=recipe.seed,
    )
    return train_with_card(recipe, run, "reference", base, "none")


def reference_steps(recipe: Recipe) -> tuple[int, int]:
    """Optimizer steps of a reference that is trained here, and the tokens that one step sees."""
    section = recipe.reference
    per_step = tokens_per_step(section.trainer, recipe.context.length, "reference.trainer")
    tokens = section.tokens
    if tokens is None:
        clean = open_tokens(recipe, recipe.clean_store)
        one_pass = Windows(clean, recipe.context.length).n_windows * recipe.context.length
        tokens = int((section.epochs or 0) * one_pass)
    return steps_for(tokens, per_step, "reference"), per_step


def _measure(recipe: Recipe, name: str) -> dict[str, Any]:
    """The gate: student and reference, as they lie on disk, one after the other over the target text.

    Raises:
        UserError: both have the same weights, or the same loss at every target token.
    """
    targets = None if recipe.score.carry_over else open_targets(recipe)
    student = load(recipe, recipe.model)
    student_digest = weights_digest(student)
    student_losses = [] if targets is None else list(token_losses(targets, on_device(student), "student"))
    del student
    reference = _load_reference(recipe)
    digest = weights_digest(reference)
    if digest == student_digest:
        raise _same_weights(recipe, name, digest, student_digest)
    bound = {"digest": digest, "student_digest": student_digest}
    if targets is None:
        reason = OTHER_TOKENIZER if recipe.score.carry_over else NO_TARGETS
        return {**bound, "gate": unknown_gate(reason), "targets": {}}
    found = compare_losses(student_losses, token_losses(targets, on_device(reference), "reference"))
    if pool(found).different == 0:
        raise _same_weights(recipe, name, digest, student_digest)
    return {**bound, "gate": gate_of(found), **_reference_losses(targets, found)}


def _reference_losses(targets: Targets, found: dict[str, PairedLosses]) -> dict[str, Any]:
    """The reference's losses in the form of every arm's: `targets`, `target_loss`, `target_bits_per_byte`."""
    losses = {
        target: TargetLoss(pair.reference_mean * pair.tokens, pair.tokens, store.tokens / store.bytes)
        for (target, store), pair in zip(targets.stores.items(), found.values(), strict=True)
    }
    whole = pooled(losses)
    return {
        "targets": {target: item.plain() for target, item in losses.items()},
        "target_loss": whole.loss,
        "target_bits_per_byte": whole.bits_per_byte,
    }


def _same_weights(recipe: Recipe, name: str, digest: str, student_digest: str) -> UserError:
    student = recipe.model.name or "the fresh model of the recipe"
    if recipe.reference.existing is not None:
        cure = "name another model under reference.existing, or train one on clean text (reference.sources)"
    else:
        cure = "training changed nothing: raise reference.trainer.learning_rate, or reference.tokens or epochs"
        # Nothing of value is lost, and without its checkpoints the stage removes the folder.
        if is_main_process():
            for checkpoint in recipe.reference_folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
    same = "the same weights" if digest == student_digest else "the same loss at every target token"
    return UserError(
        f"reference {name} (digest {digest}) and student {student} (digest {student_digest}) have {same}: no token's "
        f"loss can be in excess of its own; {cure}"
    )


def _on_first_rank(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do something on the first rank alone and give all ranks its result or its UserError.

    Engines that shard a model while it is loaded (FSDP's efficient loading) leave the other ranks without weights.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return work()
    box: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            box = [work()]
        except UserError as error:
            box = [error]
    dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], UserError):
        raise box[0]
    return box[0]


def load_reference(recipe: Recipe) -> PreTrainedModel:
    """The finished reference model of a recipe.

    Raises:
        UserError: it was not trained yet, or cannot be loaded.
    """
    if recipe.reference.existing is None:
        reference_numbers(recipe)
    return _load_reference(recipe)


def _load_reference(recipe: Recipe) -> PreTrainedModel:
    base = recipe.reference.model or recipe.model
    name = recipe.reference.existing or str(recipe.reference_folder)
    section = replace(base, name=name, fresh=None, revision="main")
    if recipe.score.carry_over:
        own = open_tokenizer(name, trust_remote_code=section.trust_remote_code)
        return load_model(section, own, recipe.context, recipe.seed)
    return load(recipe, section)


def reference_numbers(recipe: Recipe) -> dict[str, Any]:
    """What reference.json holds.

    Raises:
        UserError: the reference is not finished, or was not measured against the student as it is today.
    """
    path = recipe.reference_folder / REFERENCE_MANIFEST
    found = read_manifest(path) if path.exists() else None
    if found is None or not found["finished"]:
        raise UserError(f"{path}: no finished reference model here; run `tokensieve reference` first")
    if found["inputs"].get("gate") != _GATE:
        raise UserError(
            f"{path}: belongs to another recipe (gate is {found['inputs'].get('gate')!r} there, {_GATE} here); remove "
            f"{path.parent} and run `tokensieve reference` again"
        )
    return found["outputs"]


def reference_warnings(recipe: Recipe) -> list[str]:
    """What must be known of the finished reference before anyone trains on its scores."""
    return gate_warnings(reference_numbers(recipe)["gate"])


def target_identity(recipe: Recipe) -> dict[str, Any]:
    """The evaluation sets by content."""
    targets = open_targets(recipe)
    return {} if targets is None else {name: corpus_identity(store) for name, store in targets.stores.items()}
