"""One pass of a reference over the corpus: any number of workers, any crash, one store.

Each worker takes shards that nobody has done, commits each of them whole, and waits for the others at the end;
whoever comes last scores a sample again (gate.py) and finishes the store. The context, the windows and the loss
code are those of training, so that live and stored losses differ by the model alone.
"""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tokensieve.causal_head import check_document_mask
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.fragments import scored_tokens
from tokensieve.reference.gate import check_sample
from tokensieve.reference.making import finish_store, score_stage, unfinished_column, work_through
from tokensieve.reference.progress import ScoringProgress
from tokensieve.reference.scorer import Scorer
from tokensieve.reference.store import COLUMNS, ScoreStore, corpus_identity, describe_context
from tokensieve.reference.workers import commit_shard
from tokensieve.storage.store_mirror import StoreMirror


def score_corpus(
    section: ScoreSection,
    context: ContextSection,
    corpus: TokenStore,
    model: PreTrainedModel,
    folder: Path,
    worker: tuple[int, int] = (0, 1),
    mirror: StoreMirror | None = None,
) -> ScoreStore:
    """Score every window of the corpus with the reference model, or return the finished store.

    Several processes may run this at once on one folder, started together or not, on one machine or several that
    share the folder; each may be killed, and started again.

    Args:
        section: batch size, columns and type of the pass.
        context: window length and document mask.
        corpus: the tokens.
        model: the reference, on its device; it is put in eval mode, and no gradient is kept.
        folder: receives the score store.
        worker: (number, how many): where this worker begins; a hint that keeps workers apart.
        mirror: where finished shards are stored too, and where those of other machines are seen.

    Raises:
        UserError: the corpus has no window, the model's attention crosses documents, the folder belongs to other
            inputs, the reference's loss is not finite, or a sample that is scored again does not agree. Shards that
            are finished stay.
    """
    Windows(corpus, context.length)  # refuses a corpus without a window, before anything is bound to this length
    columns = [name for name in COLUMNS if name == "loss" or getattr(section, name)]
    binding = {
        "corpus": corpus_identity(corpus),
        "context": describe_context(context),
        "reference": weights_digest(model),
        "dtype": section.dtype,
        "columns": columns,
    }
    # What may change the last bits: fixed while a store is being made, of no concern to its readers.
    making = {
        "batch_size": section.batch_size,
        "software": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
        },
    }
    with score_stage(folder, binding, making, corpus, mirror) as workers:
        if workers is not None:
            _refuse_crossing(model, context)
            scorer = Scorer(model, columns, context, section.batch_size, section.dtype)
            with ScoringProgress(workers, corpus, model, section.dtype) as progress:

                def score(i: int, tell: Callable[[int], None]) -> None:
                    values = scorer.score_shard(corpus, i, tell)
                    commit_shard(
                        folder, corpus.shards[i].name, {COLUMNS[column].suffix: values[column] for column in columns}
                    )

                work_through(workers, corpus, score, worker, progress)

            def gate() -> dict[str, Any]:
                losses = unfinished_column(workers, corpus, "loss")
                return check_sample(losses, corpus, context, model, section.dtype)

            scored = [
                scored_tokens(corpus.document_ends(i), shard.tokens, context) for i, shard in enumerate(corpus.shards)
            ]
            finish_store(workers, corpus, columns, scored, gate)
    return ScoreStore(folder, corpus, context, mirror)


def _refuse_crossing(model: PreTrainedModel, context: ContextSection) -> None:
    """Fragments are apart in any model, packed rows of gate and training are not: known before the pass, not after."""
    if context.document_mask:
        try:
            check_document_mask(model, max(2, min(context.length, 16)))
        except ValueError as error:
            raise UserError(f"{model.config.name_or_path}: {error}; set context.document_mask=false") from error
