"""What the arms share, made once before any of them is trained: stores, references, scores, overlap, probe.

These are the stages of `tokensieve run`, for each reference that the arms name, and two of the comparison's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve import pipeline
from tokensieve.compare.arms import COMPARE_FOLDER, Arm
from tokensieve.corpus.order import spread
from tokensieve.corpus.run_stores import make_tokens, open_tokens
from tokensieve.errors import UserError
from tokensieve.evaluation.overlap import find_overlap, overlap_warnings
from tokensieve.evaluation.tasks import check_tasks
from tokensieve.recipe import Recipe, save_recipe
from tokensieve.reference.store import corpus_identity
from tokensieve.stage import Stage, read_manifest
from tokensieve.training.arms import needs_scores
from tokensieve.training.setup import check_recipe, open_general, open_targets

OVERLAP_MANIFEST = "overlap.json"
MIXED = "mixed"
_LEAST_OF_SOURCE = 10
"""A source of fewer windows gives none to the probe."""
_LARGEST_PROBE = 0.1
"""The probe's share of a source's windows, at most."""


def check_request(recipe: Recipe, arms: Sequence[Arm]) -> list[str]:
    """Refuse what cannot be compared, before anything runs.

    Returns:
        Warnings about what can be compared and will say little.

    Raises:
        UserError: the first thing found.
    """
    if not recipe.evaluation.targets:
        raise UserError("compare needs text to measure on: name held-out text under evaluation.targets")
    names = [source.label for source in (*recipe.evaluation.targets, *recipe.evaluation.general)]
    for name in ("target", "general"):
        if name in names and len(names) > 1:
            raise UserError(f"evaluation: a text is called {name!r}, as the report calls all such text; give it a name")
    for task in recipe.tasks:
        if task.label in names:
            raise UserError(f"tasks: {task.label} is also the name of a held-out text; give one of them another name")
    kinds = {arm.kind for arm in arms}
    if recipe.reference.name in (MIXED, COMPARE_FOLDER, *({"weak", "self"} & kinds)):
        raise UserError(f"reference.name: {recipe.reference.name} is a folder of the comparison's own; choose another")
    if recipe.compare.reference_per_seed and recipe.reference.existing is not None:
        raise UserError("compare.reference_per_seed: reference.existing is one model, whatever the seed; remove one")
    if recipe.score.online:
        raise UserError("score.online: compare scores the corpus once for all arms; set it to false")
    for arm in arms:
        check_recipe(arm.recipe)
    check_tasks(recipe.tasks, context=(recipe.model.fresh or {}).get("max_position_embeddings"))
    warnings = []
    count = len(recipe.compare.seeds)
    if count < 3:
        cure = "name at least 3 under compare.seeds"
        if count == 1:
            warnings.append(f"one seed: nothing here says how much of a difference is chance; {cure}")
        else:
            warnings.append(f"{count} seeds: intervals from so few are very wide; {cure}")
    if not kinds & {"slm", "weak", "self"}:
        warnings.append("no selective arm: this comparison says nothing of selection; add slm to compare.arms")
    for control, why in (
        ("clm", "whether selection is better than ordinary training cannot be said"),
        ("random", "whether it matters which tokens are kept cannot be said"),
    ):
        if control not in kinds:
            warnings.append(f"no arm {control}: {why}; add it to compare.arms")
    return warnings


def make_shared(recipe: Recipe, arms: Sequence[Arm]) -> None:
    """Token stores, references and scores of all arms and seeds; what is finished is left alone."""
    pipeline.tokenize(recipe)
    if any(arm.text == MIXED for arm in arms):
        make_tokens(recipe, MIXED, mixed_sources(recipe))
    for variant in reference_recipes(recipe, arms):
        pipeline.reference(variant)
        pipeline.score(variant)
    # The last variant's lies there now.
    save_recipe(recipe, recipe.folder / "recipe.yaml")


def reference_recipes(recipe: Recipe, arms: Sequence[Arm]) -> Iterator[Recipe]:
    """One recipe for each reference and its scores: those that arms select by, and the one of the recipe itself.

    The latter decides which tokens are candidates in the arms that select by none.
    """
    seeds = recipe.compare.seeds if recipe.compare.reference_per_seed else recipe.compare.seeds[:1]
    done: set[tuple[str, str]] = set()
    for arm in arms:
        for seed in seeds:
            # With one reference for all seeds, it is that of the recipe's own seed.
            run = arm.run(seed) if recipe.compare.reference_per_seed else arm.recipe
            name = (run.reference.name, run.score.name)
            if needs_scores(run) and name not in done:
                done.add(name)
                yield run


def mixed_sources(recipe: Recipe) -> tuple[Any, ...]:
    """The corpus's sources and the clean text's, weighted so that the clean text has its share of the tokens."""
    corpus, clean = open_tokens(recipe), open_tokens(recipe, "clean")
    share = mixed_share(recipe)
    weighted = corpus.sources[0].weight is not None
    weights = [source.weight if weighted else source.tokens for source in corpus.sources]
    of_corpus = [
        replace(source, weight=(1 - share) * float(weight or 0) / sum(float(w or 0) for w in weights))
        for source, weight in zip(recipe.corpus.sources, weights, strict=True)
    ]
    of_clean = [
        replace(source, weight=share * found.tokens / clean.tokens, regions_field=None, name=f"clean-{source.label}")
        for source, found in zip(recipe.reference.sources, clean.sources, strict=True)
    ]
    return (*of_corpus, *of_clean)


def mixed_share(recipe: Recipe) -> float:
    """Share of the `mixed` arm's tokens that is clean text."""
    if recipe.compare.mixed_share is not None:
        return recipe.compare.mixed_share
    corpus, clean = open_tokens(recipe).tokens, open_tokens(recipe, "clean").tokens
    return clean / (clean + corpus)


def probe_numbers(recipe: Recipe) -> np.ndarray | None:
    """Windows of the corpus that are held out, spread evenly over each source; None if the corpus is too small.

    A function of the corpus alone, the same for every seed.
    """
    return spread(
        open_tokens(recipe),
        recipe.context.length,
        recipe.compare.probe_windows,
        largest_share=_LARGEST_PROBE,
        least=_LEAST_OF_SOURCE,
    )


def overlap(recipe: Recipe) -> dict[str, Any]:
    """How much of the held-out text stands in the training text; found once, then read from `overlap.json`."""
    targets = dict(open_targets(recipe).stores)  # type: ignore[union-attr]  # check_request: there are targets
    if recipe.evaluation.general:
        targets |= open_general(recipe).stores
    training = {"corpus": open_tokens(recipe)}
    # Whatever the arms: more of them may be added later.
    if recipe.reference.sources:
        training["clean"] = open_tokens(recipe, "clean")
    inputs = {
        "targets": {name: corpus_identity(store) for name, store in targets.items()},
        "training": {name: corpus_identity(store) for name, store in training.items()},
    }
    stage = Stage(recipe.folder / COMPARE_FOLDER / "overlap", OVERLAP_MANIFEST, inputs)
    if not stage.finished:
        with stage.running():
            stage.finish(**find_overlap(targets, list(training.values())))
    return stage.outputs


def overlap_warnings_of(recipe: Recipe, found: Mapping[str, Any]) -> list[str]:
    """What must be said of held-out text that stands in the training text."""
    warnings = []
    for kind, sources in (("target", recipe.evaluation.targets), ("general text", recipe.evaluation.general)):
        texts = {source.label: found["targets"][source.label] for source in sources}
        warnings += overlap_warnings({**found, "targets": texts}, kind)
    return warnings


def stage_seconds(recipe: Recipe, arms: Sequence[Arm]) -> dict[str, float]:
    """Wall seconds of the shared stages, by folder."""
    found = {}
    paths: list[tuple[str, Path]] = [("tokenize", recipe.corpus_folder / "corpus.json")]
    for variant in reference_recipes(recipe, arms):
        name = variant.reference.name
        paths.append((name, variant.reference_folder / "reference.json"))
        paths.append((f"scores {variant.score.name}", recipe.folder / "scores" / variant.score.name / "scores.json"))
    for name, path in paths:
        found[name] = float(read_manifest(path).get("seconds", 0.0))
    return found
