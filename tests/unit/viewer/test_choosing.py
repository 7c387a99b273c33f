"""Which windows become passages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.viewer.choosing import Wish, choose, most_tokens, spread


class Numbers:
    """Writes each id as ` N`."""

    is_fast = False

    def decode(self, ids, **options):
        return "".join(f" {i}" for i in ids)


@given(groups=st.lists(st.integers(0, 4), min_size=1, max_size=200), count=st.integers(1, 220))
def test_spread_gives_every_group_its_share(groups, count):
    groups = np.array(groups)
    taken = spread(groups, count)
    assert len(taken) == min(count, len(groups))
    assert (np.diff(taken) > 0).all() and taken[-1] < len(groups)
    names, sizes = np.unique(groups, return_counts=True)
    shares = np.array([(groups[taken] == name).sum() for name in names])
    if count >= len(names):
        assert (shares >= 1).all()
    if count < len(groups):
        assert (shares <= np.ceil(sizes * count / len(groups)) + 1).all()


def test_spread_is_even():
    assert spread(np.zeros(100), 4).tolist() == [12, 37, 62, 87]
    assert spread(np.array([0] * 90 + [1] * 10), 10).tolist() == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]


def test_passages_begin_where_windows_do_and_stay_below_the_bound(store, monkeypatch):
    n = Windows(store, 8).n_windows
    choice = choose(store, 8, Wish(), Numbers(), 2)
    assert choice.windows.tolist() == list(range(n)) and not choice.starts.any() and choice.length == 8
    assert choose(store, 8, Wish(passages=3), Numbers(), 2).windows.tolist() == [n // 6, n // 2, 5 * n // 6]
    assert choose(store, 8, Wish(length=5), Numbers(), 2).length == 5
    assert choose(store, 8, Wish(length=50), Numbers(), 2).length == 8
    monkeypatch.setattr("tokensieve.viewer.choosing.most_tokens", lambda models: 3 * models * n)
    assert choose(store, 8, Wish(), Numbers(), 2).length == 6
    assert 200 * 1024 * 0.95 < most_tokens(2) < most_tokens(1)


def test_windows_of_a_document(store):
    windows = Windows(store, 8, document_ids=True)
    batch = windows.__getitems__(list(range(windows.n_windows)))
    for document in range(store.documents):
        wanted = np.flatnonzero((batch["document_ids"] == document).any(dim=1).numpy())
        if len(wanted) == 0:
            with pytest.raises(UserError, match="too short"):
                choose(store, 8, Wish(document=document), Numbers(), 2)
            continue
        assert choose(store, 8, Wish(document=document), Numbers(), 2).windows.tolist() == wanted.tolist()


def test_a_passage_that_was_found_shows_the_text(store):
    windows = Windows(store, 8)
    ids = windows.__getitems__(list(range(windows.n_windows)))["input_ids"]
    for wanted in (int(ids[3, 7]), int(ids[0, 0])):
        choice = choose(store, 8, Wish(find=f" {wanted} ", length=3), Numbers(), 2)
        rows = [row for row in range(len(ids)) if f" {wanted} " in Numbers().decode(ids[row].tolist())]
        assert choice.windows.tolist() == rows
        for window, start in zip(choice.windows, choice.starts, strict=True):
            assert wanted in ids[window, start : start + 3].tolist()
            assert 0 <= start <= 5


def test_wishes_that_cannot_be():
    for wrong in ({"passages": 0}, {"length": 1}, {"find": ""}):
        with pytest.raises(UserError):
            Wish(**wrong)
