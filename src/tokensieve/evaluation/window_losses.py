"""The loss of every token of some windows under one model: what probes, dynamics and the viewer are made of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.selective import SelectiveHandle


def window_losses(
    handle: SelectiveHandle,
    windows: Windows,
    batch_size: int,
    *,
    entropy: bool = False,
    autocast: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Measure in eval mode, without gradient; the model's mode is as before afterwards.

    Args:
        handle: the model, on its device.
        windows: in the order of the rows.
        batch_size: windows per forward pass.
        entropy: also the entropy of the next-token distribution at each label.
        autocast: type of the forward pass; None: that of the weights. Losses are float32 either way.
        advance: called with the number of windows just done.

    Returns:
        Losses and entropies (or None), float32 [samples, T] in nats: entry i belongs to predicting token i, NaN where
        the label is -100.
    """
    device = handle.model.device
    found = np.full((len(windows), windows.length), np.nan, dtype=np.float32)
    entropies = np.full_like(found, np.nan) if entropy else None
    for start in range(0, len(windows), batch_size):
        rows = slice(start, min(start + batch_size, len(windows)))
        batch = windows.__getitems__(list(range(rows.start, rows.stop)))
        live = (batch["labels"] != IGNORED).numpy()
        inputs: dict[str, Any] = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            results = handle.token_losses(batch["labels"].to(device), entropy=entropy, **inputs)
        for column, values in zip((found, entropies), results, strict=True):
            if column is not None and values is not None:
                column[rows][live] = values.float().cpu().numpy()[live]
        advance(rows.stop - rows.start)
    return found, entropies


def as_stored(losses: np.ndarray) -> np.ndarray:
    """float16 as in the score store: finite and not negative where there is a loss, NaN (0x7E00) elsewhere.

    Raises:
        ValueError: a loss is infinite, or beyond float16.
    """
    # Rounding can bring a sure token just below zero; a loss cannot be (nor minus zero).
    with np.errstate(over="ignore"):
        stored = np.abs(np.maximum(losses, 0)).astype("<f2")
    if np.isinf(stored).any():
        raise ValueError("a loss is infinite, or above float16's largest number")
    stored[np.isnan(stored)] = np.uint16(0x7E00).view(np.float16)
    return stored
