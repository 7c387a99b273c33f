"""Which passages and tokens are shown follows from the numbers, and their text is the tokens' own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.dynamics.categories import CATEGORIES, UNKNOWN
from tokensieve.dynamics.examples import AFTER, BEFORE, PASSAGE_TOKENS, example_passages, fluctuating
from tokensieve.dynamics.trajectories import Checkpoint, Trajectory

H2L, L2L, H2H, L2H = range(4)
LENGTH = 10


def pieces(ids: Sequence[int]) -> list[str]:
    """A fake: `<7>` for 7; 50 and 51 are parts of a character that 52 completes."""
    return ["" if i in (50, 51) else "é" if i == 52 else f"<{i}>" for i in ids]


@pytest.fixture
def windows(tmp_path: Path, make_store: Callable[..., TokenStore]) -> Windows:
    """Eleven windows in two shards: documents of 5, of 30, and so on."""
    ids = np.random.default_rng(0).integers(1, 50, 110).tolist()
    ids[14:18] = [50, 51, 52, 9]
    first, second = ids[:60], ids[60:]
    shards = [[first[:5], first[5:35], first[35:60]], [second[:20], second[20:]]]
    return Windows(make_store(tmp_path / "store", shards, sources=[0, 1], weights=(None, None)), LENGTH)


def by_share(shares: Sequence[int]) -> np.ndarray:
    """Windows with so many H->L tokens; the first token of each is no candidate."""
    rows = np.full((len(shares), LENGTH), L2L, dtype=np.uint8)
    rows[:, 0] = UNKNOWN
    for row, share in zip(rows, shares, strict=True):
        row[1 : 1 + share] = H2L
    return rows.reshape(-1)


def window_of(passage: dict, windows: Windows) -> int:
    texts = [token["text"] for token in passage["tokens"]]
    found = [i for i in range(len(windows)) if pieces(windows[i]["input_ids"].tolist()) == texts]
    assert len(found) == 1
    return found[0]


def test_passages_lie_at_the_quantiles_of_the_share_that_was_learned(windows: Windows) -> None:
    shares = [5, 0, 9, 1, 7, 3, 8, 2, 6, 4, 0]
    found = example_passages(windows, by_share(shares), pieces, 4)
    # In order of share: windows 1, 10, 3, 7, 5, 9, 0, 8, 4, 6, 2; at 20, 40, 60 and 80 % of 0..10.
    assert [window_of(passage, windows) for passage in found] == [3, 5, 0, 4]
    assert [window_of(passage, windows) for passage in example_passages(windows, by_share(shares), pieces, 1)] == [9]
    assert example_passages(windows, by_share(shares), pieces, 0) == []


def test_passages_with_few_candidates_are_left_out_and_no_window_is_shown_twice(windows: Windows) -> None:
    categories = by_share([3] * 11).reshape(-1, LENGTH)
    categories[3:, 3:] = UNKNOWN  # two candidates of nine
    found = example_passages(windows, categories.reshape(-1), pieces, 8)
    assert [window_of(passage, windows) for passage in found] == [0, 1, 2]
    categories[:] = UNKNOWN
    assert example_passages(windows, categories.reshape(-1), pieces, 8) == []


def test_a_token_has_its_category_choice_and_tendency_or_none_of_them(windows: Windows) -> None:
    categories = by_share([1] * 11)
    kept = np.arange(110) % 2 == 1
    tendency = np.stack([np.arange(110) % 5, np.zeros(110), np.ones(110), np.full(110, 4)]).astype(np.uint8)
    (passage,) = example_passages(windows, categories, pieces, 1, kept, tendency)
    number = window_of(passage, windows)
    assert number == 5
    assert passage["tokens"][0] == {
        "text": pieces(windows[number]["input_ids"].tolist())[0],
        "category": None,
        "kept": None,
        "tendency": None,
    }
    for i, token in enumerate(passage["tokens"][1:], start=1):
        assert token["category"] == ("high_to_low" if i == 1 else "low_to_low")
        assert token["kept"] is (i % 2 == 1)
        assert token["tendency"] == [i % 5, 0, 1, 4]
    (bare,) = example_passages(windows, categories, pieces, 1)
    assert all(token["kept"] is None and token["tendency"] is None for token in bare["tokens"])
    assert bare["tokens"][1]["category"] == "high_to_low"


def test_a_passage_says_where_it_stands(windows: Windows) -> None:
    shares = [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    (passage,) = example_passages(windows, by_share(shares), pieces, 1)
    assert passage["place"] == "s0, document 2 of shard 00000"


def test_long_windows_are_cut(tmp_path: Path, make_store: Callable[..., TokenStore]) -> None:
    T = PASSAGE_TOKENS + 50
    long = Windows(make_store(tmp_path / "long", [[list(range(1, 2 * T + 1))]]), T)
    categories = np.full(2 * T, L2L, dtype=np.uint8)
    # What lies behind the cut does not count: only the second window shows anything learned.
    categories[PASSAGE_TOKENS:T] = H2L
    categories[T + 5] = H2L
    found = example_passages(long, categories, pieces, 3)
    assert [len(passage["tokens"]) for passage in found] == [PASSAGE_TOKENS] * 2
    assert [passage["tokens"][0]["text"] for passage in found] == ["<1>", f"<{T + 1}>"]


def made(windows: Windows, at: dict[int, float], categories: dict[int, int]) -> tuple[Trajectory, np.ndarray, ...]:
    N = len(windows) * LENGTH
    losses = tuple(np.full(N, 1 + i, dtype=np.float16) for i in range(3))
    distances, of = np.zeros(N, dtype=np.float32), np.full(N, L2L, dtype=np.uint8)
    for i, distance in at.items():
        distances[i] = distance
    for i, category in categories.items():
        of[i] = category
    points = tuple(Checkpoint(str(i), i) for i in range(3))
    return Trajectory(points, losses), of, distances


def test_the_most_fluctuating_tokens_come_first_one_a_window_and_one_a_document(windows: Windows) -> None:
    # 21 and 22 share a window, 33 lies in the same document (5 to 35) and the next window, 36 in the document after it.
    at = {22: 9.0, 21: 8.0, 33: 7.0, 36: 6.0, 70: 5.0, 90: 4.0, 12: 20.0, 13: 21.0}
    trajectory, of, distances = made(windows, at, {12: H2L, 13: L2H, 70: H2H})
    found = fluctuating(windows, trajectory, of, distances, pieces, 3)
    texts = pieces(windows.store.shard_tokens(0)[:].tolist() + windows.store.shard_tokens(1)[:].tolist())
    assert [token["token"] for token in found["low_to_low"]] == [texts[22], texts[36], texts[90]]
    assert [token["token"] for token in found["high_to_high"]] == [texts[70]]
    assert all(token["losses"] == [1, 2, 3] for token in found["low_to_low"])
    assert found["low_to_low"][0]["before"] == "".join(texts[20:22])
    assert found["low_to_low"][0]["after"] == "".join(texts[23:30])


def test_part_of_a_character_is_shown_as_the_whole_of_it(windows: Windows) -> None:
    trajectory, of, distances = made(windows, {14: 9.0}, {})
    (token, *_) = fluctuating(windows, trajectory, of, distances, pieces)["low_to_low"]
    assert (token["token"], token["after"][:3]) == ("é", "<9>")


def test_context_is_short(tmp_path: Path, make_store: Callable[..., TokenStore]) -> None:
    long = Windows(make_store(tmp_path / "long", [[list(range(100, 300))]]), 200)
    distances = np.zeros(200, dtype=np.float32)
    distances[100] = 1
    points = (Checkpoint("a", 1), Checkpoint("b", 2))
    trajectory = Trajectory(points, (np.ones(200, dtype=np.float16),) * 2)
    found = fluctuating(long, trajectory, np.full(200, H2H, dtype=np.uint8), distances, pieces)
    (token,) = found["high_to_high"]
    assert (token["before"].count("<"), token["token"], token["after"].count("<")) == (BEFORE, "<200>", AFTER)
    assert found["low_to_low"] == []
    assert list(found) == [CATEGORIES[1], CATEGORIES[2]]
