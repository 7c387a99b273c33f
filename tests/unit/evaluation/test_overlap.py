"""Evaluation text inside training text is found token by token: what is planted is counted, nothing else is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tokensieve.corpus.store import TokenStore
from tokensieve.evaluation import overlap
from tokensieve.evaluation.overlap import SHORT, find_overlap, overlap_warnings

EOS = 0
MakeStore = Callable[..., TokenStore]
Documents = Sequence[Sequence[int]]


def numbered(begin: int, size: int) -> list[int]:
    """Text of tokens that occur nowhere else."""
    return list(range(begin, begin + size))


def ended(shards: Sequence[Documents]) -> list[list[list[int]]]:
    return [[[*document, EOS] for document in shard] for shard in shards]


@pytest.fixture
def found(make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, int]]:
    def find(target: Documents, *training: Sequence[Documents], ngram: int = 13) -> dict[str, int]:
        folder = tmp_path_factory.mktemp("overlap")
        targets = {"t": make_store(folder / "target", ended([target]))}
        stores = [make_store(folder / f"training{i}", ended(shards)) for i, shards in enumerate(training)]
        result = find_overlap(targets, stores, ngram=ngram)
        assert result["ngram"] == ngram
        return result["targets"]["t"]

    return find


def counts(documents: int, touched: int, mostly: int, tokens: int, covered: int) -> dict[str, int]:
    return {
        "documents": documents,
        "documents_touched": touched,
        "documents_mostly": mostly,
        "tokens": tokens,
        "tokens_covered": covered,
    }


def test_planted_text_is_counted_by_its_length(found: Callable[..., dict[str, int]]) -> None:
    copied, half, little, short_run, own = (numbered(1000 * i, 40) for i in range(1, 6))
    training = [
        [numbered(9000, 500), [*numbered(9500, 7), *copied, *numbered(9600, 9)]],
        [[*half[:20], *numbered(9700, 30)], [*numbered(9800, 30), *little[5:18]], short_run[:12]],
    ]
    assert found([copied, half, little, short_run, own], training) == counts(5, 3, 2, 200, 40 + 20 + 13)


def test_both_training_stores_are_looked_through(found: Callable[..., dict[str, int]]) -> None:
    first, second = numbered(100, 20), numbered(200, 20)
    assert found([first, second], [[first]], [[second]]) == counts(2, 2, 2, 40, 40)


@pytest.mark.parametrize("piece", [*range(1, 30), 10_000])
def test_where_a_piece_of_training_text_ends_does_not_matter(
    found: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(overlap, "_PIECE", piece)
    run, short, shorter = numbered(100, 13), numbered(200, 9), numbered(300, 7)
    training = [[numbered(1000, 17), [*numbered(2000, 14), *run, 7, *short, 8], shorter]]
    assert found([[*run, 9], short, shorter], training) == counts(3, 3, 3, 30, 29)


def test_a_run_across_two_training_documents_is_no_run(found: Callable[..., dict[str, int]]) -> None:
    text = numbered(100, 24)
    assert found([text], [[text[:12], text[12:]], [text[6:18]]])["tokens_covered"] == 0


def test_a_run_across_two_target_documents_is_no_run(found: Callable[..., dict[str, int]]) -> None:
    text = numbered(100, 24)
    assert found([text[:12], text[12:]], [[text]], ngram=13) == counts(2, 2, 2, 24, 24), "whole, as short documents"
    text = numbered(100, 40)
    assert found([text[:20], text[20:]], [[text[8:32]]])["tokens_covered"] == 0


def test_the_id_of_eos_within_a_text_joins_no_training_documents(found: Callable[..., dict[str, int]]) -> None:
    text = [*numbered(100, 10), EOS, *numbered(200, 10)]
    assert found([text], [[text[:10], text[11:]]])["tokens_covered"] == 0
    assert found([[5, EOS, 6]], [[[5], [6]]])["tokens_covered"] == 0


def test_a_short_document_is_looked_for_as_a_whole(found: Callable[..., dict[str, int]]) -> None:
    short = numbered(100, SHORT)
    assert found([short], [[[7, *short, 8]]]) == counts(1, 1, 1, SHORT, SHORT)
    assert found([short], [[[7, *short[:-1], 8]]]) == counts(1, 0, 0, SHORT, 0)


def test_a_very_short_document_counts_only_as_a_whole_document(found: Callable[..., dict[str, int]]) -> None:
    short = numbered(100, SHORT - 1)
    assert found([short], [[[7, *short, 8]]])["documents_touched"] == 0
    assert found([short], [[[7, 8], short, [9]]]) == counts(1, 1, 1, SHORT - 1, SHORT - 1)
    assert found([short], [[[7, 8]], [short, [9]]])["documents_touched"] == 1, "first of its shard"


def test_a_document_without_text_is_never_touched(found: Callable[..., dict[str, int]]) -> None:
    assert found([[], [5]], [[[], [6]]]) == counts(2, 0, 0, 1, 0)
    assert found([[]], [[[], []]]) == counts(1, 0, 0, 0, 0)


def test_half_of_the_tokens_is_mostly(found: Callable[..., dict[str, int]]) -> None:
    even, odd = numbered(100, 40), numbered(200, 41)
    assert found([even, odd], [[even[:20], odd[:20]]])["documents_mostly"] == 1


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_several_targets_of_several_shards_are_told_apart(make_store: MakeStore, tmp_path: Path, dtype: str) -> None:
    texts = [numbered(100 * i, 20) for i in range(1, 7)]
    targets = {
        "none": make_store(tmp_path / "none", ended([[texts[0]], [texts[1]]])),
        "one": make_store(tmp_path / "one", ended([[texts[2]], [texts[3], texts[4]]])),
        "all": make_store(tmp_path / "all", ended([[texts[4]], [texts[4]]])),
    }
    training = make_store(tmp_path / "training", ended([[texts[5]], [texts[5], texts[4]]]), dtype=dtype)
    assert find_overlap(targets, [training])["targets"] == {
        "none": counts(2, 0, 0, 40, 0),
        "one": counts(3, 1, 1, 60, 20),
        "all": counts(2, 2, 2, 40, 40),
    }


def by_hand(target: Documents, training: Sequence[Documents], ngram: int) -> dict[str, int]:
    """The same counts from sets of tuples."""
    texts = [tuple(document) for shard in training for document in shard]
    per_document = []
    for document in map(tuple, target):
        size = len(document)
        if size >= ngram:
            known = {text[i : i + ngram] for text in texts for i in range(len(text) - ngram + 1)}
            runs = [range(i, i + ngram) for i in range(size - ngram + 1) if document[i : i + ngram] in known]
            per_document.append(len({i for run in runs for i in run}))
        elif size >= SHORT:
            known = {text[i : i + size] for text in texts for i in range(len(text) - size + 1)}
            per_document.append(size if document in known else 0)
        else:
            per_document.append(size if document in texts else 0)
    return counts(
        len(target),
        sum(covered > 0 for covered in per_document),
        sum(covered * 2 >= len(document) > 0 for covered, document in zip(per_document, target, strict=True)),
        sum(map(len, target)),
        sum(per_document),
    )


few = st.lists(st.integers(1, 3), max_size=30)
documents = st.lists(few, min_size=1, max_size=5)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(target=documents, training=st.lists(documents, min_size=1, max_size=3), ngram=st.integers(1, 16), data=st.data())
@example(target=[[1]], training=[[[1]]], ngram=1, data=None)
def test_counts_are_those_of_sets_of_tuples(
    found: Callable[..., dict[str, int]],
    target: list[list[int]],
    training: list[list[list[int]]],
    ngram: int,
    data: st.DataObject | None,
) -> None:
    if data is not None:
        if data.draw(st.booleans(), "plant"):
            training[0].insert(0, [2, *target[0], 1])
        # The length of a piece must not matter, nor how many different runs share a hash.
        piece, kept = data.draw(st.integers(1, 40), "piece"), data.draw(st.sampled_from([64, 20]), "bits of a hash")
    else:
        piece, kept = 1, 64
    hashes = overlap._hashes

    def worse(tokens: np.ndarray, length: int, base: np.uint64) -> np.ndarray:
        return hashes(tokens, length, base) >> np.uint64(64 - kept) << np.uint64(64 - kept)

    with mock.patch.object(overlap, "_PIECE", piece), mock.patch.object(overlap, "_hashes", worse):
        assert found(target, training, ngram=ngram) == by_hand(target, training, ngram)


def test_a_hash_that_two_runs_share_hides_and_invents_nothing(
    found: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    target = draw.integers(1, 30, (20, 30)).tolist()
    training = [draw.integers(1, 30, (300, 60)).tolist()]
    training[0][7][10:30] = target[3][:20]
    hashes = overlap._hashes
    top = np.uint64(64 - 22)
    monkeypatch.setattr(overlap, "_hashes", lambda *arguments: hashes(*arguments) >> top << top)
    compared, agreed = 0, 0
    equal = overlap._equal

    def counting(left: np.ndarray, at: np.ndarray, right: np.ndarray, other: np.ndarray, length: int) -> np.ndarray:
        nonlocal compared, agreed
        result = equal(left, at, right, other, length)
        if left is not right:
            compared, agreed = compared + len(at), agreed + int(result.sum())
        return result

    monkeypatch.setattr(overlap, "_equal", counting)
    assert found(target, training) == by_hand(target, training, 13) == counts(20, 1, 1, 600, 20)
    assert agreed == 8 and compared > agreed, "no hash was shared: this test shows nothing"


def test_two_runs_of_the_target_with_one_hash_are_told_apart(
    found: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes, bases = overlap._hashes, []

    def first_base_fails(tokens: np.ndarray, length: int, base: np.uint64) -> np.ndarray:
        bases.append(base)
        return hashes(tokens, length, base) * np.uint64(base != bases[0])

    monkeypatch.setattr(overlap, "_hashes", first_base_fails)
    one, other = numbered(100, 20), numbered(200, 20)
    assert found([one, other], [[other]]) == counts(2, 1, 1, 40, 20)
    assert len(set(bases)) == 2


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=60), st.integers(1, 20))
def test_hashes_are_the_polynomial(ids: list[int], length: int) -> None:
    base = 0x9E3779B97F4A7C15
    expected = [
        sum(ids[i + j] * base ** (length - j) for j in range(length)) % 2**64 for i in range(len(ids) - length + 1)
    ]
    if expected:
        tokens = np.array(ids, dtype=np.uint16)
        assert overlap._hashes(tokens, length, np.uint64(base)).tolist() == expected


def test_wrong_calls_are_refused(make_store: MakeStore, tmp_path: Path) -> None:
    one, other = (make_store(tmp_path / name, ended([[[1, 2]]])) for name in "ab")
    with pytest.raises(ValueError, match="ngram must be at least 1, not 0"):
        find_overlap({"t": one}, [other], ngram=0)
    other.tokenizer = "another"
    with pytest.raises(ValueError, match="different tokenizers"):
        find_overlap({"t": one}, [other])
    assert find_overlap({}, [one]) == {"ngram": 13, "targets": {}}


def test_short_work_says_nothing_and_long_work_shows_a_bar(
    found: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = numbered(100, 20)
    found([text], [[text]])
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(overlap, "_SHOWN_AFTER", -1.0)
    found([text], [[text]])
    shown = capfd.readouterr()
    assert "look for evaluation text" in shown.err and "100%" in shown.err and not shown.out


def warned(*numbers: int, kind: str = "target") -> list[str]:
    return overlap_warnings({"ngram": 13, "targets": {"docstrings": counts(*numbers)}}, kind)


def test_a_document_that_is_mostly_there_is_a_loud_warning() -> None:
    (line,) = warned(300, 20, 12, 10_000, 450)
    assert line == (
        "target docstrings: 12 of 300 documents (4 %) stand mostly in the training text (4.5 % of all tokens): the "
        "loss there measures memory, not learning; remove them there or from corpus and clean text"
    )
    (line,) = warned(10_000, 1, 1, 1_000_000, 50, kind="general")
    assert line.startswith("general docstrings: 1 of 10000 documents (less than 0.1 %) stands mostly")
    assert "300 of 300 documents (100 %)" in warned(300, 300, 300, 10_000, 9_990)[0]


def test_many_common_runs_in_no_document_mostly_are_named_too() -> None:
    (line,) = warned(300, 20, 0, 10_000, 1000)
    assert "10 % of its tokens stand in the training text" in line and "20 of 300 documents" in line


def test_what_common_phrases_make_is_no_warning() -> None:
    assert warned(300, 20, 0, 10_000, 999) == []
    assert warned(1, 0, 0, 0, 0) == []
