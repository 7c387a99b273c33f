"""Losses by document are those of each document alone, whatever the batches, and add up to the whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.evaluation.target_loss import TargetLoss, Targets, pooled
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

LENGTH = 16


def naive(model: PreTrainedModel, store: TokenStore) -> np.ndarray:
    """Sum of losses and tokens of each document through logits, one piece of a window at a time: [2, documents]."""
    sums, document = np.zeros((2, store.documents)), 0
    for shard in range(len(store.shards)):
        ids, ends = store.shard_tokens(shard)[:], store.document_ends(shard).tolist()
        whole = len(ids) // LENGTH * LENGTH
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            for begin in range(0, whole, LENGTH):
                piece = ids[max(start, begin) : min(end, begin + LENGTH)]
                if len(piece) > 1:
                    row = torch.from_numpy(piece.astype("int64"))[None]
                    logits = model(input_ids=row, use_cache=False).logits
                    sums[0, document] += F.cross_entropy(logits[0, :-1], row[0, 1:], reduction="sum").item()
                    sums[1, document] += len(piece) - 1
            document += 1
    return sums


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_each_document_has_the_loss_that_it_has_alone(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], batch_size: int
) -> None:
    model = tiny_model(0)
    targets = Targets({"made": store}, LENGTH, True, batch_size)
    found = targets.evaluate(make_selective(model, SelectionPolicy()))["made"]
    wanted = naive(model.eval(), store)
    assert found.by_document is not None and found.by_document.shape == (2, store.documents)
    np.testing.assert_array_equal(found.by_document[1], wanted[1])
    np.testing.assert_allclose(found.by_document[0], wanted[0], rtol=1e-5, atol=1e-9)


def test_the_documents_add_up_to_the_whole(store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]) -> None:
    for mask in (True, False):
        handle = make_selective(tiny_model(0), SelectionPolicy())
        found = Targets({"made": store}, LENGTH, mask, 4).evaluate(handle)["made"]
        assert found.by_document is not None
        assert found.nats == found.by_document[0].sum() and found.tokens == found.by_document[1].sum()
        assert found.loss == pytest.approx(found.by_document[0].sum() / found.by_document[1].sum())


def test_each_set_counts_its_own_documents(
    make_store: Callable[..., TokenStore], tiny_model: Callable[[int], PreTrainedModel], tmp_path: Path
) -> None:
    long = [[*range(1, 16), 0], [*range(1, 8), 0], [0], [*range(9, 15), 0]]
    tail = [5, 6, 0]  # fills no window
    stores = {
        "three": make_store(tmp_path / "three", [[*long, tail]], vocab_size=61),
        "four": make_store(tmp_path / "four", [long, long[:1]], vocab_size=61),
    }
    found = Targets(stores, LENGTH, True, 2).evaluate(make_selective(tiny_model(0), SelectionPolicy()))
    three, four = found["three"].by_document, found["four"].by_document
    assert three is not None and four is not None
    assert three[1].tolist() == [15, 7, 0, 6, 0] and four[1].tolist() == [15, 7, 0, 6, 15]
    assert three[0][2] == three[0][4] == 0
    np.testing.assert_allclose(four[0], [*three[0][:4], three[0][0]], rtol=1e-5)


def test_pooled_texts_have_no_documents_and_equality_looks_at_the_sums() -> None:
    one = TargetLoss(4.0, 2, 0.5, np.array([[4.0], [2.0]]))
    assert pooled({"a": one, "b": one}).by_document is None
    assert one == TargetLoss(4.0, 2, 0.5) and "by_document" not in repr(one)
