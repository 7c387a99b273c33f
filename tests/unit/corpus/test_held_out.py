"""Windows that are held out are never drawn, and nothing else about the order changes."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError

LENGTH = 4
MakeStore = Callable[..., TokenStore]


def shard(windows: int) -> list[list[int]]:
    return [[1, 2, 3, 0]] * windows + [[0]]


def held_out_of(sizes: list[int], bits: int) -> np.ndarray:
    """Some windows by the bits of a number, in no order, and never all of a source."""
    chosen, first = [], 0
    for size in sizes:
        own = [first + i for i in range(size) if bits >> (first + i) & 1]
        chosen += own[: size - 1]
        first += size
    return np.array(chosen[::-1], dtype=np.int64)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bits=st.integers(0, 2**36 - 1),
    samples=st.integers(0, 90),
    seed=st.integers(0, 99),
    weighted=st.booleans(),
)
def test_held_out_windows_are_never_drawn_and_every_pass_visits_all_others(
    make_store: MakeStore, sizes: list[int], bits: int, samples: int, seed: int, weighted: bool
) -> None:
    held_out = held_out_of(sizes, bits)
    weights = [float(i + 1) if weighted else None for i in range(len(sizes))]
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), [shard(n) for n in sizes], sources=list(range(len(sizes))), weights=weights)
        order = sample_order(store, LENGTH, samples, seed=seed, held_out=held_out)
        whole = sample_order(store, LENGTH, samples, seed=seed)
        total = sum(sizes)
        passes, windows = np.divmod(order, total)
        assert order.dtype == np.int64 and len(order) == samples
        assert not set(windows.tolist()) & set(held_out.tolist())
        owner = np.repeat(np.arange(len(sizes)), sizes)
        groups = range(len(sizes)) if weighted else [None]
        for group in groups:
            mine = np.full(samples, True) if group is None else owner[windows] == group
            left = np.setdiff1d(np.flatnonzero(owner == group) if group is not None else np.arange(total), held_out)
            for begin in range(0, int(mine.sum()), len(left)):
                part = windows[mine][begin : begin + len(left)]
                assert len(set(part.tolist())) == len(part)
                assert (passes[mine][begin : begin + len(left)] == begin // len(left)).all()
        # Sources keep their shares and turns: only which of its windows a source gives is another matter.
        if weighted:
            np.testing.assert_array_equal(owner[windows], owner[whole % total])


@pytest.mark.parametrize("weights", [(None, None), (2.0, 1.0)])
def test_with_nothing_held_out_the_order_is_what_it_always_was(
    make_store: MakeStore, tmp_path: Path, weights: tuple[float | None, ...]
) -> None:
    store = make_store(tmp_path / "s", [shard(5), shard(8)], sources=[0, 1], weights=weights)
    whole = sample_order(store, LENGTH, 40, seed=7)
    for nothing in (None, np.empty(0, dtype=np.int64)):
        np.testing.assert_array_equal(sample_order(store, LENGTH, 40, seed=7, held_out=nothing), whole)
    assert set((whole % 13).tolist()) == set(range(13))


def test_the_order_is_the_same_in_every_release(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [shard(8)])
    assert sample_order(store, LENGTH, 10, seed=7).tolist() == [6, 3, 4, 0, 2, 7, 5, 1, 13, 9]
    held_out = sample_order(store, LENGTH, 10, seed=7, held_out=np.array([4, 1]))
    assert sorted(held_out[:6].tolist()) == [0, 2, 3, 5, 6, 7] and (held_out[6:] // 8 == 1).all()


def test_a_longer_run_begins_as_a_shorter_one(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [shard(9)])
    short, long = (sample_order(store, LENGTH, n, seed=1, held_out=np.array([2, 5])) for n in (10, 30))
    np.testing.assert_array_equal(long[:10], short)


@pytest.mark.parametrize("weights", [(None, None), (2.0, 1.0)])
def test_a_source_that_is_held_out_whole_is_an_error(
    make_store: MakeStore, tmp_path: Path, weights: tuple[float | None, ...]
) -> None:
    store = make_store(tmp_path / "s", [shard(5), shard(2)], sources=[0, 1], weights=weights)
    with pytest.raises(UserError, match="source 's1'"):
        sample_order(store, LENGTH, 10, seed=0, held_out=np.array([5, 6]))
