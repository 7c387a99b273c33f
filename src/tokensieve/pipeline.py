"""The way through the house: text -> token stores -> reference -> scores -> arms -> summary and report.

Each stage is one function of the recipe; it writes its own folders, never rewrites an earlier one, does nothing
when it is finished and resumes when it was interrupted.
"""

import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils import logging as transformers_logging

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import load_tokenizer
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, save_recipe
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import ScoreStore
from tokensieve.results import finished_seconds, run_warnings, unmatched_control, write_results
from tokensieve.stage import is_main_process
from tokensieve.training.arms import needs_scores, open_scores, train_arms
from tokensieve.training.reference import load_reference, train_reference
from tokensieve.training.setup import check_recipe

console = Console(highlight=False)


def tokenize(recipe: Recipe) -> TokenStore:
    """Stage 1: the tokenizer, and the token stores of corpus, clean text and targets; returns the corpus."""
    _refuse_out_among_sources(recipe)
    _start(recipe, "tokenize", several_processes=False)
    out, section = recipe.folder, recipe.corpus
    load_tokenizer(
        recipe.tokenizer,
        recipe.model,
        out,
        section.sources + recipe.reference.sources,
        section.max_document_mb,
    )

    def store(name: str, sources: Any) -> TokenStore:
        return tokenize_sources(
            sources,
            out / name,
            out / "tokenizer",
            shard_tokens=section.shard_tokens,
            workers=section.workers,
            max_document_mb=section.max_document_mb,
            trust_remote_code=recipe.tokenizer_code_trusted,
        )

    corpus = store("corpus", section.sources)
    _say(f"corpus: {corpus.tokens:,} tokens, {corpus.documents:,} documents, {len(corpus.shards):,} shards")
    if recipe.reference.sources:
        clean = store("clean", recipe.reference.sources)
        _say(f"clean text: {clean.tokens:,} tokens, {clean.documents:,} documents")
    for target in recipe.evaluation.targets:
        held_out = store(f"targets/{target.label}", (target,))
        _say(f"target {target.label}: {held_out.tokens:,} tokens, {held_out.documents:,} documents")
    _finish(recipe)
    return corpus


def reference(recipe: Recipe) -> dict[str, Any]:
    """Stage 2: the reference model, trained on the clean text or measured if it exists; returns its numbers."""
    _start(recipe, "reference")
    numbers = train_reference(recipe)
    if "target_loss" in numbers:
        _say(f"reference: {numbers['target_loss']:.4f} nats a token on the target text")
    _finish(recipe)
    return numbers


def score(recipe: Recipe) -> ScoreStore:
    """Stage 3: the reference's loss of every corpus token; returns the store."""
    _start(recipe, "score", several_processes=False)
    corpus = TokenStore(recipe.folder / "corpus")
    folder = recipe.folder / "scores" / recipe.score.name
    scores = score_corpus(recipe.score, recipe.context, corpus, load_reference(recipe), folder)
    _finish(recipe)
    return scores


def train(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Stage 4: the arms, at equal tokens, initialisation, data order and evaluation; returns their numbers."""
    _start(recipe, "train")
    open_scores(recipe)  # says which stage is missing
    if is_main_process():
        _warn(run_warnings(recipe))
    numbers = train_arms(recipe)
    if is_main_process():
        _warn(unmatched_control(recipe, numbers))
    _finish(recipe)
    return numbers


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        console.print(f"warning: {warning}", style="bold yellow", markup=False)


def run(recipe: Recipe, started: float | None = None) -> dict[str, Any]:
    """All stages in order, then summary.json, report.json and report.html; returns the summary.

    Args:
        recipe: what to run.
        started: `time.monotonic()` at the start of the command, for the summary's `seconds`.
    """
    started = time.monotonic() if started is None else started
    check_recipe(recipe)
    earlier = finished_seconds(recipe)
    tokenize(recipe)
    if needs_scores(recipe):
        reference(recipe)
        score(recipe)
    train(recipe)
    return write_results(recipe, earlier, started)


def _refuse_out_among_sources(recipe: Recipe) -> None:
    """A folder source stands for all files below it: a second run would read what the first one wrote."""
    for source in (*recipe.corpus.sources, *recipe.reference.sources, *recipe.evaluation.targets):
        folder = Path(source.path or "").expanduser()
        if source.path is not None and folder.is_dir() and recipe.folder.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{recipe.out}: `out` is inside the source {source.path}; choose an `out` elsewhere")


def _start(recipe: Recipe, stage: str, *, several_processes: bool = True) -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # one bar of ours, not one for every file of weights
    if not several_processes and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"tokensieve {stage} runs in one process: start it without torchrun")
    recipe.folder.mkdir(parents=True, exist_ok=True)
    _say(stage, style="bold")


def _finish(recipe: Recipe) -> None:
    # Last, so that a refused command leaves the recipe of what is there.
    if is_main_process():
        save_recipe(recipe, recipe.folder / "recipe.yaml")


def _say(text: str, style: str = "") -> None:
    if is_main_process():
        console.print(text, style=style, markup=False)  # a name may hold square brackets
