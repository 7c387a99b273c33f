"""Scores from a reference with another tokenizer: the corpus in its tokens, scored, and carried back.

The corpus is encoded anew by the reference's tokenizer (`foreign/corpus`, foreign_tokens.py), that store is scored like
any other (`foreign/scores`), and each shard's losses are carried over to the corpus's own tokens (carry.py). Every part
resumes, and any number of workers may share the work.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from tokensieve.carry_over.carry import FRONT
from tokensieve.carry_over.foreign_tokens import batches, foreign_store
from tokensieve.carry_over.token_pair import Pair
from tokensieve.corpus.store import MANIFEST, TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.making import finish_store, score_stage, unfinished_column, work_through
from tokensieve.reference.progress import ScoringProgress
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import COLUMNS, ScoreStore, corpus_identity, describe_context, unscored
from tokensieve.reference.workers import commit_shard
from tokensieve.stage import read_manifest
from tokensieve.storage.checksums import CheckedArray
from tokensieve.storage.store_mirror import StoreMirror

FOLDER = "foreign"
"""Subfolder of the score store with the corpus and the scores in the reference's tokens; not read once finished."""
_TOTAL_TOLERANCE = 2**-10
"""Largest relative change of a document's total: twice what rounding to float16 can do."""


def carry_over(
    section: ScoreSection,
    context: ContextSection,
    corpus: TokenStore,
    model: PreTrainedModel,
    pair: Pair,
    folder: Path,
    worker: tuple[int, int] = (0, 1),
    mirror: StoreMirror | None = None,
) -> ScoreStore:
    """Score the corpus with a reference that has another tokenizer, or return the finished store.

    The context's length holds for the reference too, in its own tokens.

    Args:
        section: batch size and type of the pass.
        context: window length and document mask, of training and of the reference alike.
        corpus: in the student's tokens.
        model: the reference, on its device, checked against its own tokenizer.
        pair: the two tokenizers.
        folder: receives the score store.
        worker: (number, how many), see `score_corpus`.
        mirror: of the score store; what lies in the reference's tokens stays on this machine.

    Raises:
        UserError: what `foreign_store`, `score_corpus` and `carry_shard` raise, or the folder belongs to other inputs.
    """
    binding = {
        "corpus": corpus_identity(corpus),
        "context": describe_context(context),
        "reference": weights_digest(model),
        "dtype": section.dtype,
        "columns": ["loss"],
        "carried_over": {"tokenizer": pair.reference_digest, "front": FRONT},
    }
    with score_stage(folder, binding, {"batch_size": section.batch_size}, corpus, mirror) as workers:
        if workers is not None:
            foreign = foreign_store(corpus, pair, folder / FOLDER / "corpus")
            plain = replace(section, carry_over=False)
            scores = score_corpus(plain, context, foreign, model, folder / FOLDER / "scores", worker)
            losses = scores.column("loss")
            with ScoringProgress(workers, corpus, None, section.dtype, "carrying over") as progress:

                def score(i: int, tell: Callable[[int], None]) -> None:
                    values = carry_shard(corpus, i, foreign, losses[i], pair, tell)
                    commit_shard(folder, corpus.shards[i].name, {COLUMNS["loss"].suffix: values})

                work_through(workers, corpus, score, worker, progress)
            carried = unfinished_column(workers, corpus, "loss")
            checked = [_check_totals(corpus, foreign, i, carried[i], losses[i]) for i in range(len(corpus.shards))]
            gate = {
                "documents": corpus.documents,
                "largest_change_of_a_total": max(change for _, change in checked),
                "tolerance": _TOTAL_TOLERANCE,
                "foreign": scores.outputs["gate"],
            }
            counts = read_manifest(foreign.folder / MANIFEST)["outputs"]
            finish_store(
                workers,
                corpus,
                ["loss"],
                [count for count, _ in checked],
                lambda: gate,
                foreign_tokens=foreign.tokens,
                documents_not_carried=counts["documents_not_carried"],
                tokens_not_carried=counts["tokens_not_carried"],
            )
    return ScoreStore(folder, corpus, context, mirror)


def carry_shard(
    corpus: TokenStore,
    i: int,
    foreign: TokenStore,
    losses: np.ndarray | CheckedArray,
    pair: Pair,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Losses of shard `i` of the corpus from those of shard `i` of the foreign store.

    Args:
        corpus: in the student's tokens.
        i: the shard.
        foreign: the same documents in the reference's tokens.
        losses: of the foreign shard, [its tokens] float16.
        pair: the two tokenizers.
        advance: called with the shard's tokens just done.

    Returns:
        [shard tokens] float16, NaN (0x7E00) where never scored.

    Raises:
        UserError: the tokenizers no longer give the stored tokens, or a loss does not fit float16.
    """
    tokens = foreign.shard_tokens(i)
    result = unscored("loss", corpus.shards[i].tokens)
    done = begin = 0
    for documents in batches(corpus, i):
        aligned = pair.align(documents)
        ids, lengths = aligned.foreign_ids(pair.dtype)
        if not np.array_equal(ids, tokens[begin : begin + len(ids)]):
            raise UserError(
                f"{foreign.folder}: the tokenizer of {pair.reference_name} no longer gives these tokens; remove "
                f"{foreign.folder.parent} and score again"
            )
        size = sum(aligned.sizes)
        values = aligned.carry(losses[begin : begin + len(ids)], lengths)
        with np.errstate(over="ignore"):
            halves = values.astype(result.dtype)
        if np.isinf(halves).any():
            raise UserError(
                f"{corpus.folder}: a loss carried to shard {corpus.shards[i].name} is {np.nanmax(values):.0f} nats, "
                f"more than float16 holds; use a reference with this corpus's tokenizer"
            )
        scored = ~np.isnan(values)
        result[done : done + size][scored] = halves[scored]
        advance(size)
        done, begin = done + size, begin + len(ids)
    return result


def _check_totals(
    corpus: TokenStore, foreign: TokenStore, i: int, carried: CheckedArray, losses: CheckedArray
) -> tuple[int, float]:
    """Compare what lies on the disk: scored tokens of a shard, and the largest relative change of a document's total.

    Raises:
        UserError: a document's total is not what the reference gave it.
    """
    ends, foreign_ends = corpus.document_ends(i), foreign.document_ends(i)
    scored, largest = 0, 0.0
    first = 0
    for documents in batches(corpus, i):
        last = first + len(documents)
        ours, count = _totals(carried, ends, first, last)
        theirs, _ = _totals(losses, foreign_ends, first, last)
        # Near zero the rounding of float16 is absolute: half of 2**-24 a token.
        rounding = np.diff(ends[first:last], prepend=ends[first - 1] if first else 0) * 2**-25
        change = np.maximum(np.abs(ours - theirs) - rounding, 0) / np.maximum(theirs, 2**-24)
        worst = int(change.argmax())
        if change[worst] > _TOTAL_TOLERANCE:
            raise UserError(
                f"{carried.path}: document {first + worst} has {ours[worst]:.4f} nats, its foreign tokens have "
                f"{theirs[worst]:.4f}; the store is not usable: remove {carried.path.parent} and score again"
            )
        scored, largest, first = scored + count, max(largest, float(change[worst])), last
    return scored, largest


def _totals(losses: CheckedArray, ends: np.ndarray, first: int, last: int) -> tuple[np.ndarray, int]:
    """The sum of each document's losses, [last - first] float64, and the number of scored tokens."""
    begin = int(ends[first - 1]) if first else 0
    values = losses[begin : int(ends[last - 1])].astype(np.float64)
    starts = np.concatenate([[begin], ends[first : last - 1]]) - begin
    return np.add.reduceat(np.nan_to_num(values), starts), int(np.isfinite(values).sum())
