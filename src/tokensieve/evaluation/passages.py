"""A few passages with every token's losses: what selection keeps, for people to look at.

The losses are those of the finished student and of the score store; the choice is the policy's own, over all
sampled windows at once.
"""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.pieces import token_pieces
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.selection import SelectionPolicy, TokenColumns, apply_policy
from tokensieve.selective import SelectiveHandle

SAMPLED_WINDOWS = 64
PASSAGES = 4
PASSAGE_TOKENS = 200


def sample_passages(
    handle: SelectiveHandle,
    policy: SelectionPolicy,
    windows: Windows,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    reference: SelectiveHandle | None = None,
    reference_autocast: torch.dtype | None = None,
) -> list[dict[str, Any]]:
    """Passages from windows of the training order, from the least to the most kept.

    Args:
        handle: the finished student.
        policy: what it was trained with, of one step.
        windows: training windows with the policy's columns.
        tokenizer: turns ids into text.
        batch_size: windows per forward pass.
        reference: online mode: the model that computes the columns that the windows do not have.
        reference_autocast: autocast type of its forward pass; None for none.

    Returns:
        The `passages` of report.json: [{"source", "tokens": [{"text", "student", "reference", "kept"}]}];
        losses in nats, null where the token is no candidate.
    """
    handle.model.eval()
    chosen = np.unique(np.linspace(0, len(windows) - 1, SAMPLED_WINDOWS).astype(int)).tolist()
    parts = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    batches = [windows.__getitems__(part) for part in parts]
    batch = {name: torch.cat([part[name] for part in batches]) for name in batches[0]}
    losses, entropies = _losses(handle, batch, batch_size, "current_entropy" in policy.scores)
    valid = batch["labels"] != IGNORED
    decoded: dict[Any, torch.Tensor] = {
        name: batch[name].view(torch.float16).float()
        for name in ("reference_loss", "reference_entropy")
        if name in batch
    }
    if reference is not None:
        entropy = "reference_entropy" in policy.columns
        with torch.autocast(reference.model.device.type, reference_autocast, enabled=reference_autocast is not None):
            found = _losses(reference, batch, batch_size, entropy)
        names = ("reference_loss", "reference_entropy")
        decoded = {name: item.clamp(min=0) for name, item in zip(names, found, strict=True) if item is not None}
    positions = {name: batch[name] for name in ("token_index", "document_ids") if name in batch}
    kept = apply_policy(policy, TokenColumns(loss=losses, entropy=entropies, **positions, **decoded), valid).selected
    share = kept.sum(dim=1) / valid.sum(dim=1).clamp(min=1)
    by_share = torch.argsort(share).tolist()
    picks = [by_share[round((len(by_share) - 1) * q)] for q in np.linspace(0.05, 0.95, PASSAGES)]
    shown = decoded.get("reference_loss")
    return [
        {
            "source": _source(windows, batch["token_index"][row, 0].item()),
            "tokens": _tokens(
                tokenizer,
                batch["input_ids"][row, :PASSAGE_TOKENS].tolist(),
                valid[row].tolist(),
                losses[row].tolist(),
                None if shown is None else shown[row].tolist(),
                kept[row].tolist(),
            ),
        }
        for row in dict.fromkeys(picks)
    ]


def _losses(
    handle: SelectiveHandle, batch: dict[str, torch.Tensor], batch_size: int, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    device = handle.model.device
    inputs = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
    results = [
        handle.token_losses(
            entropy=entropy, **{name: value[i : i + batch_size].to(device) for name, value in inputs.items()}
        )
        for i in range(0, len(batch["input_ids"]), batch_size)
    ]
    losses = torch.cat([loss.cpu() for loss, _ in results])
    return losses, torch.cat([item.cpu() for _, item in results if item is not None]) if entropy else None


def _source(windows: Windows, position: float) -> str:
    place = windows.store.locate(int(position) % windows.store.tokens)
    return f"{place.source}, document {place.document} of shard {place.shard}"


def _tokens(
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    valid: list[bool],
    student: list[float],
    reference: list[float] | None,
    kept: list[bool],
) -> list[dict[str, Any]]:
    texts = token_pieces(tokenizer, ids)
    return [
        {
            "text": text,
            "student": round(student[i], 4) if valid[i] else None,
            "reference": round(reference[i], 4) if valid[i] and reference is not None else None,
            "kept": kept[i] if valid[i] else None,
        }
        for i, text in enumerate(texts)
    ]
