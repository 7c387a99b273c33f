"""Target losses are sums over counts, under the context of training."""

import math

import pytest
import torch
import torch.nn.functional as F

from tokensieve.evaluation.target_loss import TargetLoss, Targets, pooled
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective


def naive(model, store, length):
    """Per-document loss of each window's documents, summed; no packing at all."""
    total, count = 0.0, 0
    for shard in range(len(store.shards)):
        ids, ends = store.shard_tokens(shard), store.document_ends(shard).tolist()
        starts = [0, *ends[:-1]]
        for begin in range(0, len(ids) - length + 1, length):
            for start, end in zip(starts, ends, strict=True):
                piece = ids[max(start, begin) : min(end, begin + length)]
                if len(piece) > 1:
                    row = torch.from_numpy(piece.astype("int64"))[None]
                    logits = model(input_ids=row, use_cache=False).logits
                    total += F.cross_entropy(logits[0, :-1], row[0, 1:], reduction="sum").item()
                    count += len(piece) - 1
    return total, count


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_packed_loss_equals_the_loss_of_unpacked_documents(store, tiny_model, batch_size):
    model = tiny_model()
    targets = Targets({"made": store}, 16, True, batch_size)
    found = targets.evaluate(make_selective(model, SelectionPolicy()))["made"]
    assert model.training
    total, count = naive(model.eval(), store, 16)
    assert found.tokens == count
    assert found.nats == pytest.approx(total, rel=1e-5)
    assert found.tokens_per_byte == 0.25


def test_bits_per_byte_and_pooling_are_sums_over_counts():
    first, second = TargetLoss(400.0, 100, 0.25), TargetLoss(1800.0, 900, 0.5)
    assert first.loss == 4.0
    assert first.bits_per_byte == pytest.approx(4.0 * 0.25 / math.log(2))
    whole = pooled({"a": first, "b": second})
    assert whole.loss == pytest.approx(2.2)  # a mean of means would give 3.0
    assert whole.tokens_per_byte == pytest.approx(1000 / (400 + 1800))
