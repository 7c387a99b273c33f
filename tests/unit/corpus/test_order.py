"""The order of samples: whole passes, exact shares, and nothing but the arguments decides."""

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError

LENGTH = 4


def shard(windows: int) -> list[list[int]]:
    return [[1, 2, 3, 0]] * windows + [[0]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    samples=st.integers(0, 90),
    seed=st.integers(0, 2**40),
)
def test_without_weights_each_pass_visits_each_window_once(
    make_store: Callable[..., TokenStore], sizes: list[int], samples: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), [shard(n) for n in sizes])
        order = sample_order(store, LENGTH, samples, seed=seed)
        n = sum(sizes)
        assert order.dtype == np.int64 and len(order) == samples
        for begin in range(0, samples, n):
            part = order[begin : begin + n]
            assert (part // n == begin // n).all()
            assert len(set(part.tolist())) == len(part)
        np.testing.assert_array_equal(order, sample_order(store, LENGTH, samples, seed=seed))
        longer = sample_order(store, LENGTH, samples + 7, seed=seed)
        np.testing.assert_array_equal(order, longer[:samples])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    samples=st.integers(0, 200),
    seed=st.integers(0, 99),
)
def test_weights_give_each_source_its_share_within_one_sample(
    make_store: Callable[..., TokenStore], sizes: list[tuple[int, int]], samples: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = [float(weight) for _, weight in sizes]
        store = make_store(Path(folder), [shard(n) for n, _ in sizes], sources=list(range(len(sizes))), weights=weights)
        order = sample_order(store, LENGTH, samples, seed=seed)
        total = sum(n for n, _ in sizes)
        passes, windows = np.divmod(order, total)
        assert len(order) == samples
        first = 0
        for n, weight in sizes:
            mine = (windows >= first) & (windows < first + n)
            exact = Fraction(weight) * samples / Fraction(sum(weights))
            assert abs(int(mine.sum()) - exact) < 1
            own = passes[mine] * n + windows[mine] - first
            for begin in range(0, len(own), n):
                part = own[begin : begin + n]
                assert (part // n == begin // n).all()
                assert len(set(part.tolist())) == len(part)
            first += n


def test_six_to_three_to_one(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(
        tmp_path / "s", [shard(5), shard(50), shard(7), shard(3)], sources=[0, 1, 1, 2], weights=[6, 3, 1]
    )
    order = sample_order(store, LENGTH, 1000, seed=3)
    windows = order % 65
    counts = [(windows < 5).sum(), ((windows >= 5) & (windows < 62)).sum(), (windows >= 62).sum()]
    assert counts == [600, 300, 100]
    # Interleaved, not one source after the other.
    assert 45 <= (windows[:100] < 5).sum() <= 75


def test_seeds_and_passes_shuffle_differently(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [shard(50)])
    order = sample_order(store, LENGTH, 100, seed=0)
    assert order[:50].tolist() != list(range(50))
    assert order[:50].tolist() != (order[50:] - 50).tolist()
    assert order.tolist() != sample_order(store, LENGTH, 100, seed=1).tolist()


def test_the_order_is_the_same_in_every_release(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [shard(8)])
    assert sample_order(store, LENGTH, 10, seed=7).tolist() == [6, 3, 4, 0, 2, 7, 5, 1, 13, 9]


def test_a_source_without_a_window_is_named(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [shard(2), [[1, 0]]], sources=[0, 1], weights=[1, 1])
    with pytest.raises(UserError, match=r"source 's1' \(2 tokens\) does not fill one window of 4 tokens"):
        sample_order(store, LENGTH, 10, seed=0)
