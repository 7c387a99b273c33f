"""What training does not see: spread over the sources, never drawn, and everything else is."""

import numpy as np
import pytest

from tokensieve.corpus.order import middles, sample_order, spread
from tokensieve.training.held_out import windows_for_tokens

LENGTH = 8


def test_windows_are_spread_evenly_over_every_source(store):
    per_shard = store.windows_per_shard(LENGTH)
    there = int(per_shard.sum())
    count = there // 4
    chosen = spread(store, LENGTH, count, largest_share=0.5)
    assert chosen is not None
    assert len(np.unique(chosen)) == len(chosen) and (np.diff(chosen) > 0).all()
    sources = np.repeat([shard.source for shard in store.shards], per_shard)
    for source in range(len(store.sources)):
        found = np.flatnonzero(sources == source)
        inside = np.isin(found, chosen)
        assert inside.sum() == round(count / there * len(found))
        gaps = np.diff(np.flatnonzero(inside))
        assert gaps.max() - gaps.min() <= 1


def test_no_more_than_the_largest_share_is_taken(store):
    there = int(store.windows_per_shard(LENGTH).sum())
    chosen = spread(store, LENGTH, 10 * there, largest_share=0.25)
    assert chosen is not None and len(chosen) <= 0.25 * there
    assert spread(store, LENGTH, 10, largest_share=0.0) is None
    assert spread(store, LENGTH, 10, largest_share=0.5, least=there + 1) is None


def test_what_is_held_out_is_never_drawn(store):
    there = int(store.windows_per_shard(LENGTH).sum())
    chosen = spread(store, LENGTH, there // 5, largest_share=0.5)
    assert chosen is not None
    order = sample_order(store, LENGTH, 3 * there, seed=1, held_out=chosen) % there
    assert not np.isin(order, chosen).any()
    assert set(order.tolist()) == set(range(there)) - set(chosen.tolist())


@pytest.mark.parametrize(("n", "count"), [(10, 10), (10, 3), (7, 1), (1000, 999)])
def test_middles_are_inside_and_apart(n, count):
    found = middles(n, count)
    assert len(np.unique(found)) == count and found.min() >= 0 and found.max() < n


def test_a_window_has_one_token_that_nothing_predicts():
    assert windows_for_tokens(255, 256) == 1
    assert windows_for_tokens(256, 256) == 2
