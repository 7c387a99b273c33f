"""The way through the house: text -> token stores -> reference -> scores -> arms -> summary and report.

Each stage is one function of the recipe; it writes its own folders, never rewrites an earlier one, does nothing
when it is finished and resumes when it was interrupted.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console
from transformers.utils import logging as transformers_logging

from tokensieve.carry_over.foreign import carry_over
from tokensieve.carry_over.token_pair import open_pair
from tokensieve.corpus.embedded import write_embedded
from tokensieve.corpus.run_stores import bring_folder, make_tokens, open_tokens, share_folder, store_mirror
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import MANIFEST as TOKENIZER_MANIFEST
from tokensieve.corpus.tokenizers import load_tokenizer, tokenizer_digest
from tokensieve.errors import UserError
from tokensieve.evaluation.reference_gate import gate_lines, gate_warnings
from tokensieve.recipe import EMBEDDED, EMBEDDED_FOLDER, Recipe, Source, save_recipe
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reference.store import ScoreStore
from tokensieve.results import finished_seconds, run_warnings, unmatched_control, write_results
from tokensieve.stage import is_main_process, read_manifest
from tokensieve.storage.remote import is_below
from tokensieve.training.arms import needs_reference, needs_scores, open_reference, open_scores, train_arms
from tokensieve.training.held_out import held_out_windows
from tokensieve.training.reference import REFERENCE_MANIFEST, train_reference
from tokensieve.training.setup import check_recipe, on_device, run_tokenizer

console = Console(highlight=False)


def tokenize(recipe: Recipe) -> TokenStore:
    """Stage 1: the tokenizer, and the token stores of corpus, clean text and targets; returns the corpus."""
    _refuse_out_among_sources(recipe)
    begin(recipe, "tokenize", several_processes=False)
    out, section = recipe.folder, recipe.corpus
    if recipe.data_dir == EMBEDDED:
        _write_embedded(recipe.folder / EMBEDDED_FOLDER)
    load_tokenizer(
        recipe.tokenizer,
        recipe.model,
        out,
        section.sources + recipe.reference.sources,
        section.max_document_mb,
    )
    share_folder(recipe, "tokenizer", TOKENIZER_MANIFEST)
    corpus = (
        _existing_corpus(recipe) if section.existing is not None else make_tokens(recipe, "corpus", section.sources)
    )
    _say(f"corpus: {corpus.tokens:,} tokens, {corpus.documents:,} documents, {len(corpus.shards):,} shards")
    if recipe.reference.sources:
        clean = make_tokens(recipe, "clean", recipe.reference.sources)
        _say(f"clean text: {clean.tokens:,} tokens, {clean.documents:,} documents")
    for target in recipe.evaluation.targets + recipe.evaluation.general:
        held_out = make_tokens(recipe, f"targets/{target.label}", (target,))
        kind = "target" if target in recipe.evaluation.targets else "general text"
        _say(f"{kind} {target.label}: {held_out.tokens:,} tokens, {held_out.documents:,} documents")
    held_out_windows(recipe)  # says now, and not after hours, that the corpus is too small for it
    _finish(recipe)
    return corpus


def _write_embedded(folder: Path) -> None:
    counts = write_embedded(folder)
    sizes = ", ".join(
        f"{name} {counts[name]['documents']:,} documents ({counts[name]['bytes'] / 1e6:.1f} MB)"
        for name in ("noisy", "clean", "target")
    )
    _say(f"text: sympy {counts['sympy']}: {sizes}")
    if counts["note"] is not None:
        _say(counts["note"])


def _existing_corpus(recipe: Recipe) -> TokenStore:
    """The token store that the recipe names, made with the recipe's tokenizer."""
    corpus = TokenStore(recipe.corpus_folder)
    found = tokenizer_digest(run_tokenizer(recipe))
    if corpus.tokenizer != found:
        raise UserError(
            f"{corpus.folder}: made with another tokenizer (digest {corpus.tokenizer}) than "
            f"{recipe.folder / 'tokenizer'} ({found}); set tokenizer.name to the one it was made with"
        )
    return corpus


def reference(recipe: Recipe) -> dict[str, Any]:
    """Stage 2: the reference model, trained on the clean text or measured if it exists; returns its numbers."""
    begin(recipe, "reference")
    numbers = train_reference(recipe)
    for line in gate_lines(numbers["gate"]):
        _say(f"reference: {line}")
    if is_main_process():
        warn(gate_warnings(numbers["gate"]))
    share_folder(recipe, recipe.reference.name, REFERENCE_MANIFEST)
    _finish(recipe)
    return numbers


def score(recipe: Recipe, worker: tuple[int, int] | None = None) -> ScoreStore:
    """Stage 3: the reference's loss of every corpus token; returns the store. Any number of processes may run it.

    Args:
        recipe: what to score.
        worker: (number, how many) of this process among those that were started; default: torchrun's.
    """
    begin(recipe, "score")
    if recipe.score.online:
        raise UserError(f"{recipe.out}: score.online is true, so there is nothing to store; run `tokensieve train`")
    corpus = open_tokens(recipe)
    folder = recipe.folder / "scores" / recipe.score.name
    manifest = folder / SCORES_MANIFEST
    before = read_manifest(manifest) if manifest.exists() else None
    worker = worker or (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    mirror = store_mirror(recipe, f"scores/{recipe.score.name}", SCORES_MANIFEST)
    model = on_device(open_reference(recipe))
    if recipe.score.carry_over:
        pair = open_pair(
            recipe.folder / "tokenizer",
            str(recipe.reference.existing),
            trust_student_code=recipe.tokenizer_code_trusted,
            trust_reference_code=(recipe.reference.model or recipe.model).trust_remote_code,
        )
        scores = carry_over(recipe.score, recipe.context, corpus, model, pair, folder, worker, mirror)
    else:
        scores = score_corpus(recipe.score, recipe.context, corpus, model, folder, worker, mirror)
    share = scores.scored_tokens / corpus.tokens
    same = before == read_manifest(manifest)
    said = "finished already; `tokensieve verify` checks it" if same else "a sample, scored again, agrees"
    _say(f"scores: {scores.scored_tokens:,} of {corpus.tokens:,} tokens ({share:.1%}); {said}")
    _finish(recipe)
    return scores


def train(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Stage 4: the arms, at equal tokens, initialisation, data order and evaluation; returns their numbers."""
    begin(recipe, "train")
    open_scores(recipe)  # says which stage is missing
    if is_main_process():
        warn(run_warnings(recipe))
    numbers = train_arms(recipe)
    if is_main_process():
        warn(unmatched_control(recipe, numbers))
    _finish(recipe)
    return numbers


def warn(warnings: Sequence[str]) -> None:
    """Print warnings, loudly."""
    for warning in warnings:
        console.print(f"warning: {warning}", style="bold yellow", markup=False, soft_wrap=True)


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
    if needs_reference(recipe):
        reference(recipe)
    if needs_scores(recipe):
        score(recipe)
    train(recipe)
    return write_results(recipe, earlier, started)


def _refuse_out_among_sources(recipe: Recipe) -> None:
    """A folder source stands for all files below it: a second run would read what the first one wrote."""
    for source in _sources(recipe):
        folder = Path(source.path or "").expanduser()
        if source.path is not None and folder.is_dir() and recipe.folder.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{recipe.out}: `out` is inside the source {source.path}; choose an `out` elsewhere")
        if source.path is not None and recipe.storage is not None and is_below(recipe.storage, source.path):
            raise UserError(
                f"{recipe.storage}: `storage` is inside the source {source.path}; choose a `storage` elsewhere"
            )


def _sources(recipe: Recipe) -> list[Source]:
    evaluation = recipe.evaluation
    return [*recipe.corpus.sources, *recipe.reference.sources, *evaluation.targets, *evaluation.general]


def begin(recipe: Recipe, stage: str, *, several_processes: bool = True) -> None:
    """Start a stage: its name is printed, the libraries fall silent, finished folders come from `storage`.

    Raises:
        UserError: started under torchrun, and the stage runs in one process.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # one bar of ours, not one for every file of weights
    if not several_processes and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"tokensieve {stage} runs in one process: start it without torchrun")
    recipe.folder.mkdir(parents=True, exist_ok=True)
    _say(stage, style="bold")
    bring_folder(recipe, "tokenizer", TOKENIZER_MANIFEST)
    bring_folder(recipe, recipe.reference.name, REFERENCE_MANIFEST)


def _finish(recipe: Recipe) -> None:
    # Last, so that a refused command leaves the recipe of what is there.
    if is_main_process():
        save_recipe(recipe, recipe.folder / "recipe.yaml")


def leave_process_group() -> None:
    """Under torchrun: all together. A process that merely ends can abort another that is still at it."""
    if torch.distributed.is_initialized():
        state = PartialState()
        state.wait_for_everyone()
        state.destroy_process_group()


def _say(text: str, style: str = "") -> None:
    if is_main_process():
        # A name may hold square brackets; a line in a log is one line.
        console.print(text, style=style, markup=False, soft_wrap=True)
