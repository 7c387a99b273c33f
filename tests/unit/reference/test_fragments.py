"""The plan of scoring: every token that training may use is scored once, and padding is next to nothing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.recipe import ContextSection
from tokensieve.reference.fragments import Rows, plan_groups, scored_tokens

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=60)
CONTEXTS = st.builds(ContextSection, length=st.integers(2, 24), document_mask=st.booleans())


def wanted(ends: np.ndarray, tokens: int, context: ContextSection) -> list[int]:
    """Positions that have a loss, from the definition: not a window's first, not a document's, not in the tail."""
    starts = {0, *ends.tolist()} if context.document_mask else set()
    whole = tokens // context.length * context.length
    return [i for i in range(whole) if i % context.length and i not in starts]


@given(sizes=SIZES, context=CONTEXTS, batch_size=st.integers(1, 5))
def test_each_candidate_is_in_one_row_once_and_nothing_else_is(
    sizes: list[int], context: ContextSection, batch_size: int
) -> None:
    ends = np.cumsum(sizes)
    tokens = int(ends[-1])
    starts = {0, *ends.tolist()} if context.document_mask else set()
    found: list[int] = []
    reached = 0
    for group in plan_groups(ends, tokens, context, batch_size):
        assert group.first == reached
        reached = group.last
        for rows in group.passes:
            lengths = rows.lengths
            assert len(rows.begins) == len(lengths) > 0 and (lengths >= 2).all()
            assert (np.diff(lengths) <= 0).all()  # longest first
            assert len(lengths) * int(lengths[0]) <= batch_size * context.length
            assert (rows.begins >= group.first).all() and (rows.begins + lengths <= group.last).all()
            for begin, length in zip(rows.begins.tolist(), lengths.tolist(), strict=True):
                assert begin // context.length == (begin + length - 1) // context.length  # inside one window
                assert not starts & set(range(begin + 1, begin + length))  # inside one document
                # Nothing before it belongs to its context.
                assert begin % context.length == 0 or begin in starts
            positions = rows.positions
            expected = [begin + j for begin, length in zip(rows.begins, lengths, strict=True) for j in range(1, length)]
            assert positions.tolist() == expected
            found += expected
    assert reached == tokens // context.length * context.length
    assert sorted(found) == wanted(ends, tokens, context)
    assert scored_tokens(ends, tokens, context) == len(found)


@given(sizes=SIZES, context=CONTEXTS, batch_size=st.integers(1, 5))
def test_the_plan_is_a_function_of_its_arguments(sizes: list[int], context: ContextSection, batch_size: int) -> None:
    ends = np.cumsum(sizes)

    def plan() -> list[list[int]]:
        groups = plan_groups(ends.copy(), int(ends[-1]), context, batch_size)
        return [[*rows.begins, *rows.lengths] for group in groups for rows in group.passes]

    assert plan() == plan()


@pytest.mark.parametrize("document_mask", [True, False])
def test_the_candidates_of_training_are_scored_and_no_more(store: TokenStore, document_mask: bool) -> None:
    """The labels of training leave out a document's first token in either case."""
    context = ContextSection(length=16, document_mask=document_mask)
    windows = Windows(store, 16, document_mask=document_mask)
    batch = windows.__getitems__(list(range(len(windows))))
    labels = set(batch["token_index"][batch["labels"] != IGNORED].tolist())
    planned = {
        shard.start + int(position)
        for i, shard in enumerate(store.shards)
        for group in plan_groups(store.document_ends(i), shard.tokens, context, 3)
        for rows in group.passes
        for position in rows.positions
    }
    assert planned == labels if document_mask else planned > labels


def test_rows_read_their_tokens_and_zeros_behind_them() -> None:
    rows = Rows(np.array([10, 15, 13]), np.array([3, 2, 2]))
    ids, inside = rows.read(np.arange(110, 118, dtype="<u2"), 10)
    assert ids.tolist() == [[110, 111, 112], [115, 116, 0], [113, 114, 0]]
    assert inside.tolist() == [[True] * 3, [True, True, False], [True, True, False]]
    assert ids.dtype == np.int64
    assert rows.positions.tolist() == [11, 12, 16, 14]


def test_padding_is_a_few_hundredths_of_a_pass() -> None:
    draw = np.random.default_rng(0)
    ends = np.cumsum(draw.lognormal(5, 1.2, 4_000).astype(int) + 1)
    used = room = 0
    for group in plan_groups(ends, int(ends[-1]), ContextSection(length=512), 8):
        for rows in group.passes:
            used += int(rows.lengths.sum())
            room += len(rows.lengths) * int(rows.lengths[0])
    assert 1 - used / room < 0.03


def test_only_a_stretch_is_read_at_a_time(tmp_path: Path) -> None:
    """A shard of a billion tokens is not read whole before the first pass."""
    ends = np.array([1_000_000])
    groups = list(plan_groups(ends, 1_000_000, ContextSection(length=100), 2))
    assert max(group.last - group.first for group in groups) == 64 * 200
    assert all(len(group.passes) <= 64 for group in groups)
