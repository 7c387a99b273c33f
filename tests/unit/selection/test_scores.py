"""Polarity on hand-made numbers: higher = kept, for every score."""

import pytest
import torch

from tokensieve.selection import TokenColumns, compute_score, hash_uniform

# token 0: noise (both lose), 1: learnable (the reference knows it), 2: learned (both know it), 3: odd (only we know it)
COLUMNS = TokenColumns(
    loss=torch.tensor([8.0, 5.0, 0.2, 1.0]),
    entropy=torch.tensor([6.0, 4.0, 0.1, 2.0]),
    reference_loss=torch.tensor([8.1, 1.0, 0.1, 6.0]),
    reference_entropy=torch.tensor([6.5, 1.5, 0.2, 4.0]),
    history_loss=torch.tensor([8.0, 9.0, 0.3, 1.0]),
    selection_mask=torch.tensor([False, True, False, True]),
    token_index=torch.arange(4),
)


@pytest.mark.parametrize(
    "name, best_first",
    [
        ("excess_loss", [1, 2, 0, 3]),
        ("reference_loss", [2, 1, 3, 0]),
        ("reference_entropy", [2, 1, 3, 0]),
        ("current_loss", [0, 1, 3, 2]),
        ("current_entropy", [0, 1, 3, 2]),
        ("mask", [1, 3, 0, 2]),
    ],
)
def test_order_of_hand_made_tokens(name, best_first):
    scores = compute_score(name, COLUMNS)
    assert torch.sort(scores, descending=True, stable=True).indices.tolist() == best_first


def test_excess_keeps_its_negative_values():
    assert compute_score("excess_loss", COLUMNS)[3] == -5.0


def test_a_cap_limits_only_what_is_subtracted():
    # Of 8.1, 1.0, 0.1 and 6.0 nats at most 3 are subtracted.
    capped = compute_score("excess_loss", COLUMNS, reference_loss_cap=3.0)
    assert capped.tolist() == pytest.approx([5.0, 4.0, 0.1, -2.0])
    assert compute_score("reference_loss", COLUMNS, reference_loss_cap=3.0)[0] == pytest.approx(-8.1)


def test_history_prefers_what_has_been_learned_since():
    assert compute_score("history_loss", COLUMNS).tolist() == pytest.approx([0.0, 4.0, 0.1, 0.0])


def test_random_depends_on_seed_and_position_alone():
    index = torch.arange(1000)
    whole = hash_uniform(index, seed=3)
    shuffled = torch.randperm(1000)
    assert torch.equal(hash_uniform(index[shuffled], seed=3), whole[shuffled])
    assert not torch.equal(hash_uniform(index, seed=4), whole)


def test_random_is_uniform_and_neighbouring_seeds_and_positions_are_unrelated():
    first, second = (hash_uniform(torch.arange(100_000), seed) for seed in (0, 1))
    assert first.min() >= 0 and first.max() < 1
    assert abs(first.mean() - 0.5) < 0.005
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1]) < 0.02
    # a shifted copy of one stream would also be unrelated at lag 0
    assert not torch.isin(first, second).any()


def test_random_keeps_other_tokens_on_every_rank_and_the_same_ones_whatever_the_layout():
    index = torch.arange(4096).view(8, 512)
    scores = hash_uniform(index, seed=0)
    # A mask seeded without the instance would repeat from rank to rank, row to row and pass to pass.
    assert not torch.equal(scores[0] > 0.5, scores[1] > 0.5)
    assert not torch.equal(scores > 0.5, hash_uniform(index + 4096, seed=0) > 0.5)
    assert torch.equal(hash_uniform(index.reshape(32, 128), seed=0).reshape(8, 512), scores)


def test_columns_of_different_shapes_are_not_broadcast():
    for name in ("excess_loss", "history_loss"):
        columns = TokenColumns(loss=torch.zeros(2, 3), reference_loss=torch.zeros(3), history_loss=torch.zeros(3))
        with pytest.raises(ValueError, match=rf"score '{name}': its columns have shapes \(.*3,?\) and \(.*3,?\)"):
            compute_score(name, columns)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="reference_loss"):
        compute_score("excess_loss", TokenColumns(loss=torch.zeros(3)))
