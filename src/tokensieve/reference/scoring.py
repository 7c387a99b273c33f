"""One pass of the reference over the corpus: a float16 loss for every token.

Windows, context and loss code are those of training, so that live and stored losses differ by the model
alone. One shard is one unit of work, written under a temporary name and renamed: a crash loses at most one
shard, and scoring again continues.
"""

import os
from pathlib import Path

import numpy as np
import torch
import xxhash
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.store import DTYPE, MANIFEST, NEVER_SCORED, ScoreStore, corpus_identity
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import SelectiveHandle, make_selective
from tokensieve.stage import Stage


def score_corpus(
    section: ScoreSection,
    context: ContextSection,
    corpus: TokenStore,
    model: PreTrainedModel,
    folder: Path,
) -> ScoreStore:
    """Score every window of the corpus with the reference model, or return the finished store.

    Args:
        section: batch size, columns and type of the pass.
        context: window length and document mask.
        corpus: the tokens.
        model: the reference; it is put in eval mode, and no gradient is kept.
        folder: receives the score store.

    Raises:
        UserError: the folder belongs to other inputs, or the reference's loss is not finite.
    """
    inputs = {
        "corpus": corpus_identity(corpus),
        "context": {"length": context.length, "document_mask": context.document_mask},
        "reference": weights_digest(model),
        "dtype": section.dtype,
        "entropy": section.entropy,
    }
    stage = Stage(folder, MANIFEST, inputs)
    if not stage.finished:
        columns = ["loss", "entropy"] if section.entropy else ["loss"]
        with stage.running(resumable="*.loss.f16"):
            scored = _score_shards(section, context, corpus, model, folder, columns)
            stage.finish(columns=columns, scored_tokens=scored)
    return ScoreStore(folder, corpus, context)


def weights_digest(model: PreTrainedModel) -> str:
    """xxh3-128 over names, types, shapes and bytes of all weights."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _score_shards(
    section: ScoreSection,
    context: ContextSection,
    corpus: TokenStore,
    model: PreTrainedModel,
    folder: Path,
    columns: list[str],
) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()  # type: ignore[arg-type]
    windows = Windows(corpus, context.length, document_mask=context.document_mask)
    per_shard = corpus.windows_per_shard(context.length)
    handle = make_selective(model, SelectionPolicy(ratio=1))
    scored = 0
    bar = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("windows"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*bar) as progress:
            task = progress.add_task("", total=len(windows))
            first = 0
            for shard, count in zip(corpus.shards, per_shard.tolist(), strict=True):
                paths = [folder / f"{shard.name}.{column}.f16" for column in columns]
                if not all(path.exists() for path in paths):
                    values = np.full((len(columns), shard.tokens), NEVER_SCORED, dtype=np.uint16).view(DTYPE)
                    for start in range(first, first + count, section.batch_size):
                        stop = min(start + section.batch_size, first + count)
                        _score_batch(handle, windows, range(start, stop), section, values, shard.start)
                        progress.advance(task, stop - start)
                    # The loss file last: it is what marks the shard as done.
                    for path, column in reversed(list(zip(paths, values, strict=True))):
                        _write(path, column)
                else:
                    progress.advance(task, count)
                scored += int(np.isfinite(np.fromfile(paths[0], dtype=DTYPE)).sum())
                first += count
    finally:
        handle.remove()
    return scored


def _score_batch(
    handle: SelectiveHandle,
    windows: Windows,
    indices: range,
    section: ScoreSection,
    values: np.ndarray,
    start: int,
) -> None:
    """Fill values[:, token positions of the windows] of one shard, whose first token has corpus position `start`."""
    batch = windows.__getitems__(list(indices))
    positions = batch.pop("token_index").numpy() - start
    device = handle.model.device
    batch = {name: value.to(device) for name, value in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=section.dtype == "bfloat16"):
        columns = handle.token_losses(entropy=section.entropy, **batch)
    labelled = (batch["labels"] != IGNORED).cpu().numpy()
    for row, column in zip(values, columns, strict=False):
        assert column is not None
        # Rounding can bring a sure token just below zero; a loss and an entropy cannot be.
        losses = column.clamp(min=0).cpu().numpy()[labelled]
        with np.errstate(over="ignore"):
            halves = losses.astype(DTYPE)
        if not np.isfinite(halves).all():
            place = windows.store.locate(int(positions[labelled][~np.isfinite(halves)][0]) + start)
            raise UserError(
                f"{windows.store.folder}: the reference's loss is not finite at token {place.offset} of document "
                f"{place.document} (shard {place.shard}, {place.source}); check the reference model"
            )
        row[positions[labelled]] = halves


def _write(path: Path, values: np.ndarray) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
