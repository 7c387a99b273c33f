"""Windows reassemble the stream, and labels, positions and columns equal those of a naive loop."""

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows, identity
from tokensieve.errors import UserError
from tokensieve.storage.checksums import CheckedArray, seal_shard

documents = st.lists(st.integers(1, 60_000), max_size=12).map(lambda tokens: [*tokens, 0])
shards = st.lists(st.lists(documents, min_size=1, max_size=8), min_size=1, max_size=4)


def naive(store: TokenStore, length: int, columns: list[np.ndarray], mask: bool) -> dict[str, list[list[int]]]:
    """Each window once, token by token."""
    rows: dict[str, list[list[int]]] = {name: [] for name in ("input_ids", "labels", "position_ids", "token_index")}
    for i, shard in enumerate(store.shards):
        tokens, starts = store.shard_tokens(i)[:].tolist(), {0, *store.document_ends(i).tolist()}
        for begin in range(0, shard.tokens - length + 1, length):
            ids, labels, positions, index = [], [], [], []
            position = 0
            for t in range(begin, begin + length):
                first = t in starts
                position = 0 if t == begin or (first and mask) else position + 1
                ids.append(tokens[t])
                labels.append(IGNORED if t == begin or first or np.isnan(columns[i][t]) else tokens[t])
                positions.append(position)
                index.append(shard.start + t)
            for name, row in zip(rows, (ids, labels, positions, index), strict=True):
                rows[name].append(row)
    return rows


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=shards, length=st.integers(2, 9), mask=st.booleans(), seed=st.integers(0, 99))
def test_a_batch_equals_the_naive_loop(
    make_store: Callable[..., TokenStore],
    shards: list[list[list[int]]],
    length: int,
    mask: bool,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), shards)
        columns = [generator.gamma(2, 1, shard.tokens).astype(np.float16) for shard in store.shards]
        for column in columns:
            column[generator.random(len(column)) < 0.2] = np.nan
        expected = naive(store, length, columns, mask)
        if not expected["input_ids"]:
            with pytest.raises(UserError, match=f"no shard holds a window of {length} tokens"):
                Windows(store, length)
            return
        windows = Windows(store, length, document_mask=mask, columns={"reference_loss": columns})
        batch = windows.__getitems__(list(range(len(windows))))
        for name, rows in expected.items():
            assert batch[name].dtype == torch.int64
            assert batch[name].tolist() == rows, name
        losses = batch["reference_loss"]
        assert losses.dtype == torch.int16
        flat = np.concatenate(columns)[batch["token_index"].numpy()]
        np.testing.assert_array_equal(losses.view(torch.float16).numpy(), flat)
        assert windows.n_windows * length + windows.dropped_tokens == store.tokens
        one = windows[len(windows) - 1]
        assert {name: value.tolist() for name, value in one.items()} == {
            name: value[-1].tolist() for name, value in batch.items()
        }


def test_windows_reassemble_the_stream(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    texts = [[[*generator.integers(1, 50, n).tolist(), 0] for n in generator.integers(0, 30, 40)] for _ in range(3)]
    store = make_store(tmp_path / "s", texts)
    windows = Windows(store, 16)
    got = windows.__getitems__(range(len(windows)))["input_ids"].flatten().tolist()
    per_shard = [store.shard_tokens(i)[: n * 16].tolist() for i, n in enumerate(store.windows_per_shard(16))]
    assert got == [token for tokens in per_shard for token in tokens]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=shards, length=st.integers(2, 9), mask=st.booleans())
def test_document_ids_are_the_documents_of_the_corpus_when_asked_for(
    make_store: Callable[..., TokenStore], shards: list[list[list[int]]], length: int, mask: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), shards)
        if store.windows_per_shard(length).sum() == 0:
            return
        order = np.roll(np.arange(store.windows_per_shard(length).sum()), 1)
        batch = Windows(store, length, document_mask=mask, order=order, document_ids=True).__getitems__(
            range(len(order))
        )
        documents = [document for shard in shards for document in shard]
        owner = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
        assert batch["document_ids"].dtype == torch.int64
        assert batch["document_ids"].tolist() == owner[batch["token_index"].numpy()].tolist()
        assert "document_ids" not in Windows(store, length, document_mask=mask)[0]


def test_order_repeats_windows_with_another_token_index(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [[[1, 2, 3, 0], [4, 5, 0]]])
    windows = Windows(store, 3, order=np.array([1, 0, 3]))
    assert len(windows) == 3
    batch = windows.__getitems__([0, 1, 2])
    assert batch["input_ids"].tolist() == [[0, 4, 5], [1, 2, 3], [0, 4, 5]]
    assert batch["token_index"].tolist() == [[3, 4, 5], [0, 1, 2], [10, 11, 12]]


def test_a_dataloader_gets_finished_batches_also_from_workers(
    make_store: Callable[..., TokenStore], tmp_path: Path
) -> None:
    store = make_store(tmp_path / "s", [[[i + 1, i + 2, 0] for i in range(20)]])
    windows = Windows(store, 4)
    for workers in (0, 1):
        loader = DataLoader(windows, batch_size=4, collate_fn=identity, num_workers=workers)
        batches = list(loader)
        assert [batch["input_ids"].shape for batch in batches] == [(4, 4), (4, 4), (4, 4), (3, 4)]
        stream = torch.cat([batch["input_ids"] for batch in batches]).flatten()
        assert stream.tolist() == store.shard_tokens(0)[:].tolist()


def test_pickling_names_files_instead_of_copying_them(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [[[*range(1, 5000), 0]] * 4])
    np.arange(store.tokens, dtype=np.float16).tofile(tmp_path / "00000.loss.f16")
    digest = seal_shard(tmp_path, "00000", [".loss.f16"])
    column = CheckedArray(tmp_path, "00000", ".loss.f16", np.dtype("<f2"), store.tokens, digest)
    windows = Windows(store, 8, columns={"reference_loss": [column]}, order=np.array([100]))
    before = windows[0]
    data = pickle.dumps(windows)
    assert len(data) < 4000
    after = pickle.loads(data)[0]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before["reference_loss"].view(torch.float16).tolist() == list(range(800, 808))


def test_a_column_that_does_not_fit_is_refused(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [[[1, 2, 3, 0]], [[1, 2, 0]]])
    good = [np.zeros(4, np.float16), np.zeros(3, np.float16)]
    Windows(store, 2, columns={"x": good})
    with pytest.raises(ValueError, match="column x has 1 arrays for 2 shards"):
        Windows(store, 2, columns={"x": good[:1]})
    with pytest.raises(ValueError, match=r"column x, shard 00001: expected float16 \[3\], found float16 \[2\]"):
        Windows(store, 2, columns={"x": [good[0], good[1][:2]]})
    with pytest.raises(ValueError, match="found float32"):
        Windows(store, 2, columns={"x": [good[0].astype(np.float32), good[1]]})
