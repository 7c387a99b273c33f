"""The reference model of a recipe: trained on the clean text, or a given one that is measured.

Whatever it is, `reference.json` binds it by the digest of its weights, and says how it and the untrained student
do on the target text: selection keeps what the reference predicts better than the student, so a reference
that is no better makes the ranking noise.
"""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection, Recipe, dump
from tokensieve.reference.scoring import weights_digest
from tokensieve.reference.store import corpus_identity
from tokensieve.selection import SelectionPolicy
from tokensieve.stage import Stage, read_json
from tokensieve.training.arguments import steps_for, tokens_per_step
from tokensieve.training.loop import RESUMABLE, Run, read_metrics, remove_checkpoints
from tokensieve.training.setup import load, measure, open_targets, run_tokenizer, train_with_card, windows_for

REFERENCE_MANIFEST = "reference.json"
_EVALUATIONS = 2
"""Half way and at the end: nobody compares the reference's curve with anything."""


def train_reference(recipe: Recipe) -> dict[str, Any]:
    """Train the reference on the clean text, or measure the one that exists.

    Returns:
        What reference.json holds: `name`, `digest` of the weights, `tokens`, `seconds`, `targets`, `target_loss`,
        `student_target_loss` (of the untrained student), ...

    Raises:
        UserError: missing stage before this one, folder of another recipe, or anything `loop.train` raises.
    """
    section, folder = recipe.reference, recipe.folder / "reference"
    shared = {
        "targets": target_identity(recipe),
        "context": dump(recipe.context),
        "student": dump(recipe.model),
    }
    if section.existing is not None:
        stage = Stage(folder, REFERENCE_MANIFEST, {"existing": section.existing, **shared})
        if not stage.finished:
            with stage.running():
                model = load_reference(recipe)
                digest = weights_digest(model)
                numbers = {**measure(recipe, model), "student_target_loss": _student_loss(recipe)}
                stage.finish(name=section.existing, digest=digest, tokens=0, seconds=0.0, **numbers)
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
                folder=folder,
                model=load(recipe, base),
                tokenizer=run_tokenizer(recipe),
                windows=windows_for(recipe, clean, steps * per_step, {}),
                steps=steps,
                tokens_per_step=per_step,
                policy=SelectionPolicy(ratio=1),
                options=section.trainer,
                place="reference.trainer",
                targets=open_targets(recipe),
                evaluations=_EVALUATIONS,
                seed=recipe.seed,
            )
            numbers = train_with_card(recipe, run, "reference", base, "none")
            # Before its first step a reference that starts where the student starts is the student.
            same = base == recipe.model
            numbers["student_target_loss"] = (
                read_metrics(folder)[0].get("target_loss") if same else _student_loss(recipe)
            )
            digest = weights_digest(run.model)
            stage.finish(name=str(folder), digest=digest, tokens=numbers["tokens_seen"], **numbers)
    remove_checkpoints(folder, section.trainer)
    return stage.outputs


def load_reference(recipe: Recipe) -> PreTrainedModel:
    """The finished reference model of a recipe.

    Raises:
        UserError: it was not trained yet, or cannot be loaded.
    """
    base = recipe.reference.model or recipe.model
    if recipe.reference.existing is not None:
        return load(recipe, replace(base, name=recipe.reference.existing, fresh=None, revision="main"))
    reference_numbers(recipe)
    return load(recipe, replace(base, name=str(recipe.folder / "reference"), fresh=None, revision="main"))


def reference_numbers(recipe: Recipe) -> dict[str, Any]:
    """What reference.json holds.

    Raises:
        UserError: the reference is not finished.
    """
    path = recipe.folder / "reference" / REFERENCE_MANIFEST
    if not path.exists() or not read_json(path)["finished"]:
        raise UserError(f"{path}: no finished reference model here; run `tokensieve reference` first")
    return read_json(path)["outputs"]


def weak_reference_warning(recipe: Recipe) -> str | None:
    """The text of a warning if the reference is no better than the untrained student on the target text."""
    numbers = reference_numbers(recipe)
    reference, student = numbers.get("target_loss"), numbers.get("student_target_loss")
    if reference is None or student is None or reference < student:
        return None
    return (
        f"the reference is no better than the untrained student on the target text ({reference:.3f} against "
        f"{student:.3f} nats a token): its scores will not point at what you want; train it longer, or on text "
        f"nearer to the target"
    )


def target_identity(recipe: Recipe) -> dict[str, Any]:
    """The evaluation sets by content."""
    targets = open_targets(recipe)
    return {} if targets is None else {name: corpus_identity(store) for name, store in targets.stores.items()}


def _student_loss(recipe: Recipe) -> float | None:
    student: ModelSection = recipe.model
    return measure(recipe, load(recipe, student)).get("target_loss")
