"""Scope `document`: whole fragments by mean score, until the next one would exceed the share."""

import itertools
import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.selection import SelectionPolicy, TokenColumns, apply_policy, select_tokens


def kept(scores: list[list[float]], ids: list[list[int]], ratio: float, valid: list[list[int]] | None = None):
    tensor = torch.tensor(scores)
    candidates = torch.ones_like(tensor) if valid is None else torch.tensor(valid)
    return select_tokens(tensor, candidates, ratio, "document", torch.tensor(ids)).int().tolist()


def test_the_best_mean_is_kept_whole():
    # Means 1, 3 and 2; half of six tokens.
    scores, ids = [[0.0, 2.0, 0.0, 6.0, 2.0, 2.0]], [[7, 7, 8, 8, 9, 9]]
    assert kept(scores, ids, 0.5) == [[0, 0, 1, 1, 0, 0]]
    assert kept(scores, ids, 0.7) == [[0, 0, 1, 1, 1, 1]]
    assert kept(scores, ids, 1.0) == [[1] * 6]


def test_it_stops_at_the_first_fragment_that_does_not_fit():
    # Of 6 tokens 3 may be kept: the best fragment has 1, the next 3 (too many), the last 2 (would fit).
    assert kept([[9.0, 5.0, 5.0, 5.0, 1.0, 1.0]], [[1, 2, 2, 2, 3, 3]], 0.5) == [[1, 0, 0, 0, 0, 0]]


def test_nothing_is_kept_if_the_best_fragment_is_too_long():
    assert kept([[5.0, 5.0, 5.0, 1.0]], [[1, 1, 1, 2]], 0.5) == [[0, 0, 0, 0]]


def test_equal_means_keep_the_earlier_fragment():
    assert kept([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], [[1, 1, 2, 2], [1, 1, 2, 2]], 0.25) == [
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]


def test_the_same_id_in_another_row_or_after_another_document_is_another_fragment():
    assert kept([[1.0, 1.0], [3.0, 3.0]], [[5, 5], [5, 5]], 0.5) == [[0, 0], [1, 1]]
    assert kept([[1.0, 2.0, 3.0]], [[5, 6, 5]], 0.34) == [[0, 0, 1]]


def test_only_candidates_count_and_they_alone_are_kept():
    # The middle document has no candidate: the two beside it stay apart. Means 2 and 4; 2 of 4 candidates.
    scores, ids, valid = [[2.0, 2.0, 9.0, 4.0, 4.0, 99.0]], [[1, 1, 2, 1, 1, 1]], [[1, 1, 0, 1, 1, 0]]
    assert kept(scores, ids, 0.5, valid) == [[0, 0, 0, 1, 1, 0]]
    # A hole inside a document does not split it.
    assert kept([[4.0, 0.0, 4.0, 1.0]], [[1, 1, 1, 2]], 0.6, [[1, 0, 1, 1]]) == [[1, 0, 1, 0]]


def test_no_candidates_and_no_rows():
    assert kept([[1.0, 2.0]], [[1, 1]], 0.5, [[0, 0]]) == [[0, 0]]
    empty = torch.zeros(0, 4)
    assert select_tokens(empty, empty, 0.5, "document", empty.long()).shape == (0, 4)
    assert select_tokens(empty.t(), empty.t(), 0.5, "document", empty.t().long()).shape == (4, 0)


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 10))
    size = rows * length
    scores = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    valid = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    ids = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    return tuple(torch.tensor(values).view(rows, length) for values in (scores, valid, ids))  # type: ignore[return-value]


@given(batches(), st.floats(0.01, 1.0))
def test_the_choice_equals_a_naive_walk_over_the_fragments(batch, ratio):
    scores, valid, ids = batch
    fragments = []
    for row, row_ids in enumerate(ids.tolist()):
        places = itertools.groupby(range(len(row_ids)), key=lambda t, row_ids=row_ids: row_ids[t])
        for _, group in places:
            members = [(row, t) for t in group if valid[row, t]]
            if members:
                fragments.append(members)
    means = [sum(scores[place].item() for place in members) / len(members) for members in fragments]
    room, expected = math.floor(int(valid.sum()) * ratio + 0.5), torch.zeros_like(valid, dtype=torch.bool)
    for i in sorted(range(len(fragments)), key=lambda i: (-means[i], i)):
        if len(fragments[i]) > room:
            break
        room -= len(fragments[i])
        for place in fragments[i]:
            expected[place] = True
    assert torch.equal(select_tokens(scores, valid, ratio, "document", ids), expected)


def test_a_policy_reads_the_documents_from_its_columns():
    columns = TokenColumns(
        loss=torch.tensor([[3.0, 3.0, 5.0, 5.0]]),
        reference_loss=torch.tensor([[1.0, 1.0, 4.0, 4.0]]),
        document_ids=torch.tensor([[0, 0, 1, 1]]),
    )
    policy = SelectionPolicy(ratio=0.5, scope="document")
    selected, weights = apply_policy(policy, columns, torch.ones(1, 4, dtype=torch.bool))
    assert selected.tolist() == [[True, True, False, False]] and weights is None
