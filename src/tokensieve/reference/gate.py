"""The parity gate: before a score store may be used, a sample of it is scored again, alone, and must agree.

The sample goes another way than the scores did: one window at a time, whole, packed as training packs it, through
the patched forward that training uses, and it is compared with what lies on the disk. So it finds scores that
belong to other tokens, batches that change results, attention that crosses documents, and a model that is not
what it was.
"""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.storage.checksums import CheckedArray

SAMPLE_WINDOWS = 16

TOLERANCE = {"float32": (2e-3, 2e-3), "bfloat16": (0.25, 0.05)}
"""dtype -> largest difference of a loss: a + b * loss, nats. float16 alone rounds by loss / 2048; autocast to bfloat16
rounds hidden states to 1 part in 256, differently in batches of different shape."""
MEAN_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.02}
"""dtype -> largest mean of the absolute differences beyond the rounding to float16 itself, which alone has a mean of
loss / 5000 or more: 0.002 nats for a model that knows nothing of a vocabulary of 50,000."""


def check_sample(
    losses: list[CheckedArray],
    corpus: TokenStore,
    context: ContextSection,
    model: PreTrainedModel,
    dtype: str,
    windows: int = SAMPLE_WINDOWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a random sample of windows again, each alone, and compare.

    Args:
        losses: the store's column `loss`, one array a shard.
        corpus: the tokens.
        context: what the store was scored under.
        model: the reference, on its device.
        dtype: what the store was scored in.
        windows: how many to take at most, spread evenly over the corpus, each at a random place of its stretch.
        seed: of the random places.

    Returns:
        `windows`, `tokens`, `largest_difference` and `mean_difference` (nats), `tolerance` (of both).

    Raises:
        UserError: they do not agree; it names the worst token. Or there is nothing to compare.
    """
    data = Windows(corpus, context.length, document_mask=context.document_mask, columns={"loss": losses})
    count = min(windows, len(data))
    draw = np.random.default_rng(seed)
    edges = np.linspace(0, len(data), count + 1).astype(int)
    picks = [int(draw.integers(first, last)) for first, last in zip(edges, edges[1:], strict=False)]
    handle = make_selective(model, SelectionPolicy(ratio=1))
    absolute, relative = TOLERANCE[dtype]
    total, tokens, largest, worst = 0.0, 0, 0.0, (-1.0, 0, 0.0, 0.0)
    try:
        for pick in picks:
            batch = data.__getitems__([pick])
            device = model.device
            inputs: dict[str, Any] = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
            labels = batch["input_ids"].clone()
            # Labels by the positions alone: a token that wrongly has no score must not go unseen.
            labels[
                (batch["position_ids"] == 0) if context.document_mask else torch.arange(context.length)[None] == 0
            ] = IGNORED
            live = (labels != IGNORED)[0].numpy()
            if not live.any():  # nothing but documents of one token
                continue
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                found, _ = handle.token_losses(labels.to(device), **inputs)
            again = found[0].clamp(min=0).cpu().numpy()[live].astype(np.float64)
            halves = batch["loss"][0].numpy().view(np.float16)[live]
            stored = halves.astype(np.float64)
            difference = np.where(np.isnan(stored), np.inf, np.abs(stored - again))
            excess = difference - (absolute + relative * again)
            place = int(excess.argmax())
            position = int(batch["token_index"][0].numpy()[live][place])
            worst = max(worst, (float(excess[place]), position, float(stored[place]), float(again[place])))
            total += float(np.where(np.isnan(stored), np.inf, np.abs(stored - again.astype(halves.dtype))).sum())
            tokens, largest = tokens + len(again), max(largest, difference.max())
    finally:
        handle.remove()
    if tokens == 0:
        raise UserError(
            f"{corpus.folder}: none of {count} windows of {context.length} tokens holds a token with anything before "
            f"it, so no score can be checked; is each document of one token alone?"
        )
    mean = total / tokens
    if worst[0] > 0 or mean > MEAN_TOLERANCE[dtype]:
        place_in = corpus.locate(worst[1])
        raise UserError(
            f"{losses[0].path.parent}: the scores do not agree with the reference when it scores a sample again, "
            f"alone: mean difference {mean:.4g} nats, worst {worst[2]:.4g} stored and {worst[3]:.4g} found (token "
            f"{place_in.offset} of document {place_in.document}, shard {place_in.shard}); the store is not usable: "
            f"remove it, and check the model, its attention implementation and score.dtype"
        )
    return {
        "windows": count,
        "tokens": tokens,
        "largest_difference": round(float(largest), 6),
        "mean_difference": round(float(mean), 6),
        "tolerance": {"absolute": absolute, "relative": relative, "mean": MEAN_TOLERANCE[dtype]},
    }
