"""A kept token is counted under its own id, source, region and place: as counted one by one."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.training.keep_rates import KeepRates

MakeStore = Callable[..., TokenStore]
V = 61
SIXTHS = tuple(f"{i} of 6" for i in range(6))
OF_ID = np.arange(V).astype(np.uint8) % 6
CLASSES = {"id": (tuple(map(str, range(V))), np.arange(V)), "sixth": (SIXTHS, OF_ID)}


@pytest.fixture
def corpus(tmp_path: Path, make_store: MakeStore) -> TokenStore:
    """Three shards of two sources, three regions."""
    draw = np.random.default_rng(0)
    shards = [[[*draw.integers(1, V, size).tolist(), 0] for size in draw.integers(1, 30, 9)] for _ in range(3)]
    return make_store(
        tmp_path / "corpus",
        shards,
        sources=[0, 1, 1],
        weights=(None, None),
        regions=("other", "body", "code"),
        vocab_size=V,
    )


def one_by_one(store: TokenStore, length: int, batch: dict[str, Tensor], kept: Tensor) -> dict[str, Counter]:
    """(group, was kept) of each candidate, from where it lies in the corpus."""
    ids = np.concatenate([store.shard_tokens(i)[:] for i in range(len(store.shards))])
    regions = np.concatenate([store.shard_regions(i)[:] for i in range(len(store.shards))])
    counts: dict[str, Counter] = {name: Counter() for name in ("source", "region", "position", "id", "sixth")}
    for row in range(len(kept)):
        for column in range(length):
            if batch["labels"][row, column] == IGNORED:
                continue
            position = int(batch["token_index"][row, column]) % store.tokens
            assert ids[position] == batch["labels"][row, column]
            groups = {
                "source": store.locate(position).source,
                "region": store.regions[regions[position]],
                "position": next(
                    f"{a + 1}-{b}" if b > a + 1 else str(b)
                    for a, b in ((length * k // 8, length * (k + 1) // 8) for k in range(8))
                    if a <= column < b
                ),
                "id": str(ids[position]),
                "sixth": f"{ids[position] % 6} of 6",
            }
            for name, group in groups.items():
                counts[name][group, bool(kept[row, column])] += 1
    return counts


def as_counters(plain: dict[str, list[dict]]) -> dict[str, Counter]:
    result: dict[str, Counter] = {}
    for name, items in plain.items():
        kept = {(item["name"], True): item["kept"] for item in items}
        left = {(item["name"], False): item["tokens"] - item["kept"] for item in items}
        result[name] = +Counter(kept | left)
    return result


@pytest.mark.parametrize("length", [9, 16, 24])
def test_every_choice_of_a_training_step_is_counted_under_the_token_it_is_about(
    corpus: TokenStore, tiny_model: Callable[[], PreTrainedModel], length: int
) -> None:
    rates = KeepRates(corpus, length, CLASSES)
    handle = make_selective(tiny_model(), SelectionPolicy(score="mask", ratio=0.3))
    handle.keep_selection = True
    first = Windows(corpus, length)
    # The second pass over the corpus: positions are counted on.
    order = np.random.default_rng(1).permutation(first.n_windows) + first.n_windows
    windows = Windows(corpus, length, order=order)
    expected: dict[str, Counter] = {}
    for begin in range(0, len(windows), 4):
        batch = windows.__getitems__(list(range(begin, min(begin + 4, len(windows)))))
        # What is kept is a matter of the id alone, so a count under a neighbour's id shows.
        kept = (batch["input_ids"] % 3 == 0) & (batch["labels"] != IGNORED)
        handle.model(**batch, selection_mask=kept)
        rates.add(*handle.last_selection)
        for name, counter in one_by_one(corpus, length, batch, kept).items():
            expected[name] = expected.get(name, Counter()) + counter
    found = rates.plain(rates.counts)
    assert as_counters(found) == expected
    assert {item["name"] for item in found["id"] if item["kept"]} <= {str(i) for i in range(0, V, 3)}
    assert len(found["source"]) == 2 and len(found["region"]) == 3
    # Of 9 tokens the first part is one that is predicted from nothing.
    assert len(found["position"]) == (7 if length == 9 else 8)


def test_groups_without_a_token_are_left_out(corpus: TokenStore) -> None:
    rates = KeepRates(corpus, 16, CLASSES)
    assert rates.plain(rates.counts) == {name: [] for name in ("source", "region", "position", "id", "sixth")}
    valid = torch.zeros(1, 15, dtype=torch.bool)
    valid[0, 0] = True
    rates.add(torch.arange(1, 16)[None], valid, valid)
    plain = rates.plain(rates.counts)
    token = int(corpus.shard_tokens(0)[1:2][0])
    assert plain["id"] == [{"name": str(token), "tokens": 1, "kept": 1}]
    assert plain["position"] == [{"name": "1-2", "tokens": 1, "kept": 1}]
    assert plain["source"] == [{"name": "s0", "tokens": 1, "kept": 1}]
    assert plain["region"] == [{"name": "body", "tokens": 1, "kept": 1}]


def test_counts_add_up_over_ranks_and_survive_json(corpus: TokenStore) -> None:
    draw = torch.Generator().manual_seed(0)
    batches = []
    for begin in (0, 16, 32):
        valid = torch.rand(1, 15, generator=draw) < 0.8
        batches.append((torch.arange(begin + 1, begin + 16)[None], valid, valid & (valid.cumsum(1) % 2 == 0)))
    whole = KeepRates(corpus, 16, CLASSES)
    for batch in batches:
        whole.add(*batch)
    ranks = [KeepRates(corpus, 16, CLASSES) for _ in range(2)]
    ranks[0].add(*batches[0])
    ranks[1].counts = np.array(ranks[1].counts.tolist(), dtype=np.int64)  # as a checkpoint gives it back
    ranks[1].add(*(torch.cat(parts) for parts in zip(*batches[1:], strict=True)))
    assert (ranks[0].counts + ranks[1].counts == whole.counts).all()
    assert whole.plain(whole.counts.tolist()) == whole.plain(whole.counts)
    assert whole.counts.dtype == np.int64 and whole.counts.sum() > 0


def test_a_store_without_regions_and_a_short_window_have_fewer_groups(store: TokenStore) -> None:
    rates = KeepRates(store, 4, {})
    assert rates.names == {"source": ("s0",), "position": ("1", "2", "3", "4")}
    everything = torch.ones(1, 3, dtype=torch.bool)
    rates.add(torch.tensor([[5, 6, 7]]), everything, everything)
    assert [item["name"] for item in rates.plain(rates.counts)["position"]] == ["2", "3", "4"]


def test_what_was_not_kept_of_no_candidate_is_not_counted(store: TokenStore) -> None:
    rates = KeepRates(store, 4, {})
    rates.add(torch.tensor([[5, 6, 7]]), torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]]))
    assert rates.plain(rates.counts)["source"] == [{"name": "s0", "tokens": 2, "kept": 1}]


def test_a_choice_that_is_not_about_whole_windows_is_refused(store: TokenStore) -> None:
    rates = KeepRates(store, 4, {})
    yes = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="no token_index"):
        rates.add(None, yes, yes)
    with pytest.raises(ValueError, match="not about windows of 4 tokens"):
        rates.add(torch.tensor([[5, 6, 8]]), yes, yes)
    with pytest.raises(ValueError, match="not about windows of 4 tokens"):
        rates.add(torch.tensor([[5, 6]]), yes[:, 1:], yes[:, 1:])
    assert not rates.counts.any()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"source": CLASSES["sixth"]}, "'source' is counted already"),
        ({"sixth": (SIXTHS, OF_ID[:-1])}, "classes for 60 ids, the store has 61"),
        ({"sixth": (SIXTHS[:-1], OF_ID)}, "has class 5 and 5 names"),
    ],
)
def test_groupings_that_do_not_fit_are_refused(store: TokenStore, classes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeepRates(store, 4, classes)


def test_counts_of_other_groupings_are_refused(store: TokenStore) -> None:
    rates = KeepRates(store, 4, {})
    with pytest.raises(ValueError, match=r"counts are \[4, 2\], these groupings have \[5, 2\]"):
        rates.plain(rates.counts[:-1])
