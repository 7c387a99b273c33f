"""Loss on held-out target text, as sums over counts, in nats a token and bits a byte.

Trainer.evaluate averages the means of batches, which is wrong as soon as batches differ in size; here
losses and counts are summed over all windows and all ranks and divided once. Windows, context and document
mask are those of training. Every arm and the reference are measured by this one function.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.selective import SelectiveHandle


@dataclass(frozen=True)
class TargetLoss:
    """A mean loss and what it is a mean of."""

    nats: float
    """Sum of losses."""
    tokens: int
    """Tokens with a label: no first token of a window or a document."""
    tokens_per_byte: float
    """All tokens of the text (EOS included) over its UTF-8 bytes."""
    by_document: np.ndarray | None = field(default=None, compare=False, repr=False)
    """The same sum and count for each document, float64 [2, documents]; None for texts that were pooled."""

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte: the mean loss applied to every token of the text, so comparable between tokenizers."""
        return self.loss * self.tokens_per_byte / math.log(2)

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return {"loss": self.loss, "bits_per_byte": self.bits_per_byte, "tokens": self.tokens}


@dataclass(frozen=True)
class Targets:
    """The evaluation sets of a recipe, opened."""

    stores: Mapping[str, TokenStore]
    length: int
    document_mask: bool
    batch_size: int

    def evaluate(self, handle: SelectiveHandle) -> dict[str, TargetLoss]:
        """Loss of the model on each set; the model is put in eval mode and back. Every rank must call."""
        model = handle.model
        training = model.training
        model.eval()
        try:
            return {name: self._evaluate(handle, store) for name, store in self.stores.items()}
        finally:
            model.train(training)

    def _evaluate(self, handle: SelectiveHandle, store: TokenStore) -> TargetLoss:
        windows = Windows(store, self.length, document_mask=self.document_mask, document_ids=True)
        device = handle.model.device
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        sums = np.zeros((2, store.documents))
        starts = range(0, len(windows), self.batch_size)
        for turn in range(math.ceil(len(starts) / ranks)):
            # Sharded engines need the same number of forwards on every rank: a rank without a batch of its
            # own repeats the last one and does not count it.
            index = turn * ranks + rank
            start = starts[min(index, len(starts) - 1)]
            batch = windows.__getitems__(list(range(start, min(start + self.batch_size, len(windows)))))
            inputs: dict[str, Any] = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
            losses, _ = handle.token_losses(batch["labels"].to(device), **inputs)
            if index < len(starts):
                live = (batch["labels"] != IGNORED).numpy()
                documents = batch["document_ids"].numpy()[live]
                sums[0] += np.bincount(documents, losses.double().cpu().numpy()[live], minlength=store.documents)
                sums[1] += np.bincount(documents, minlength=store.documents)
        if ranks > 1:
            shared = torch.from_numpy(sums).to(device)
            dist.all_reduce(shared)
            sums = shared.cpu().numpy()
        return TargetLoss(float(sums[0].sum()), int(sums[1].sum()), store.tokens / store.bytes, sums)


def pooled(losses: Mapping[str, TargetLoss]) -> TargetLoss:
    """All sets as one text: sums over counts."""
    tokens = sum(item.tokens for item in losses.values())
    per_byte = tokens / sum(item.tokens / item.tokens_per_byte for item in losses.values())
    return TargetLoss(sum(item.nats for item in losses.values()), tokens, per_byte)
