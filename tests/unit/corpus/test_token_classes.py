"""Classes of ids: by what they write, in every kind of vocabulary, and by how often a corpus has them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tokensieve.corpus import token_classes as module
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.token_classes import CLASSES, FREQUENCIES, frequency_classes, token_classes
from tokensieve.corpus.tokenizers import train_bpe, vocabulary_size

MakeStore = Callable[..., TokenStore]


def by_token(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Each token's class by name; what every vocabulary must hold is checked."""
    names, classes = token_classes(tokenizer)
    assert names == CLASSES and classes.dtype == np.uint8 and classes.shape == (vocabulary_size(tokenizer),)
    return {token: names[classes[i]] for token, i in tokenizer.get_vocab().items()}


def vocabulary(*tokens: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


@pytest.fixture(scope="module")
def byte_level() -> dict[str, str]:
    text = (
        "the cat sat, the hat: x1 = [12, 34]  and 日本 日本 don't café don't (the (the\n\n    naïve привет привет)." * 4
    )
    tokenizer = train_bpe([text], 314)
    tokenizer.add_tokens([AddedToken("        "), AddedToken("<|tool|>", special=True)])
    return by_token(tokenizer)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("Ġthe", "word start"),
        ("Ġsat", "word start"),
        ("x", "word continuation"),
        ("at", "word continuation"),
        ("12", "digits"),
        ("7", "digits"),
        (",", "punctuation"),
        ("Ġ(", "punctuation"),
        ("Ġ=", "code and symbols"),
        ("_", "code and symbols"),
        ("Ġ", "whitespace"),
        ("Ċ", "whitespace"),
        ("        ", "whitespace"),
        ("Ã", "part of a character"),
        ("æĹ", "part of a character"),
        ("ĠæĹ¥æľ¬", "other script"),
        ("ĠÐ¿ÑĢÐ¸Ð²ÐµÑĤ", "other script"),
        ("<|endoftext|>", "special"),
        ("<|tool|>", "special"),
    ],
)
def test_byte_level(byte_level: dict[str, str], token: str, expected: str) -> None:
    assert byte_level[token] == expected


def test_sentencepiece_with_bytes() -> None:
    pieces = ["▁the", "▁", "the", "▁▁▁", "▁日本", "本", "▁12", "3", "▁.", ",", "▁{", "é", "▁don’t", "'s", "’"]
    tokens = vocabulary("<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces)
    backend = Tokenizer(models.BPE(tokens, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    found = by_token(tokenizer)
    assert [found[piece] for piece in pieces] == [
        "word start",
        "whitespace",
        "word continuation",
        "whitespace",
        "other script",
        "other script",
        "digits",
        "digits",
        "punctuation",
        "punctuation",
        "code and symbols",
        "word continuation",
        "word start",
        "word continuation",
        "punctuation",
    ]
    assert {found[f"<0x{i:02X}>"] for i in range(128, 256)} == {"part of a character"}
    assert (found["<0x0A>"], found["<0x41>"], found["<0x7B>"]) == (
        "whitespace",
        "word continuation",
        "code and symbols",
    )
    assert {found[token] for token in ("<unk>", "<s>", "</s>")} == {"special"}


def test_wordpiece() -> None:
    pieces = ["word", "##s", "##12", "12", ".", "##日", "日", "##_", "'"]
    backend = Tokenizer(models.WordPiece(vocabulary("[UNK]", "[CLS]", "[SEP]", *pieces), unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", eos_token="[SEP]"
    )
    found = by_token(tokenizer)
    expected = ["word start", "word continuation", "digits", "digits", "punctuation", "other script", "other script"]
    assert [found[piece] for piece in pieces] == [*expected, "code and symbols", "punctuation"]
    assert {found[token] for token in ("[UNK]", "[CLS]", "[SEP]")} == {"special"}


def test_words_of_tokens_without_marks_all_begin() -> None:
    tokens = vocabulary("<unk>", "<eos>", "one", "two", "3", "!")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(tokens, unk_token="<unk>")), eos_token="<eos>", unk_token="<unk>"
    )
    expected = {"one": "word start", "two": "word start", "3": "digits", "!": "punctuation"}
    assert by_token(tokenizer) == expected | {"<unk>": "special", "<eos>": "special"}


def test_a_tokenizer_of_python_alone() -> None:
    names, classes = token_classes(ByT5Tokenizer())
    found = {character: names[classes[ord(character) + 3]] for character in "a1. \n{"}
    assert list(found.values()) == [
        "word continuation",
        "digits",
        "punctuation",
        "whitespace",
        "whitespace",
        "code and symbols",
    ]
    assert {names[i] for i in classes[3 + 128 : 3 + 256]} == {"part of a character"}
    assert {names[i] for i in classes[:3]} == {"special"}


def test_an_id_without_a_token_and_a_vocabulary_without_words() -> None:
    backend = Tokenizer(models.WordLevel({"<eos>": 0, "日": 3, "!": 5}, unk_token="<eos>"))
    names, classes = token_classes(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>"))
    assert [names[i] for i in classes] == ["special"] * 3 + ["other script", "special", "punctuation"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(self", "word start"),
        (' "Hello', "word start"),
        ("-based", "word continuation"),
        (" well-known", "word start"),
        ("e\u0301", "word continuation"),
        ("\u0301", "other script"),
        ("हि", "other script"),
        ("aд", "other script"),
        ("½", "digits"),
        ("٣", "digits"),
        ("x1", "code and symbols"),
        ("_name", "code and symbols"),
        ("🙂", "code and symbols"),
        (").", "punctuation"),
        ('"', "punctuation"),
        ("-", "punctuation"),
        ("—", "punctuation"),
        ("\\", "code and symbols"),
        (")]", "code and symbols"),
        ("\u00a0", "whitespace"),
        ("", "part of a character"),
        ("a\ufffd", "part of a character"),
    ],
)
def test_what_a_text_is(text: str, expected: str) -> None:
    assert module._class_of(text) == expected


@given(st.text(max_size=6))
def test_every_text_has_a_class(text: str) -> None:
    assert module._class_of(text) in set(CLASSES) - {"special"}


def test_frequency_classes_by_hand(make_store: MakeStore, tmp_path: Path) -> None:
    #      id 7: 50 %, 3: 20 %, 2: 10 %, 9: 10 %, 0: 5 %, 5: 5 %
    tokens = [7] * 10 + [3] * 4 + [9] * 2 + [2] * 2 + [5] + [0]
    store = make_store(tmp_path / "s", [[tokens]], vocab_size=11)
    names, classes = frequency_classes(store)
    assert names == FREQUENCIES and classes.dtype == np.uint8
    # 9 begins at 80 % and belongs to the third class; 0 and 5 begin at 90 and 95 %.
    assert {i: int(classes[i]) for i in (7, 3, 2, 9, 0, 5)} == {7: 0, 3: 1, 2: 1, 9: 2, 0: 3, 5: 3}
    assert {int(classes[i]) for i in (1, 4, 6, 8, 10)} == {3}


def test_an_id_that_is_most_of_the_text_is_the_commonest(make_store: MakeStore, tmp_path: Path) -> None:
    classes = frequency_classes(make_store(tmp_path / "s", [[[4] * 99 + [0]]], vocab_size=5))[1]
    assert (classes[4], classes[0], classes[1]) == (0, 3, 3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shards=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=60), min_size=1, max_size=4),
    piece=st.integers(1, 20),
)
def test_frequency_classes_are_those_of_a_counter(
    make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], piece: int
) -> None:
    store = make_store(tmp_path_factory.mktemp("s"), [[shard] for shard in shards], vocab_size=31)
    with mock.patch.object(module, "_PIECE", piece):
        classes = frequency_classes(store)[1]
    counts = Counter(token for shard in shards for token in shard)
    covered, expected = 0, np.full(31, 3)
    for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        expected[token] = sum(covered >= share * store.tokens for share in (0.5, 0.75, 0.9))
        covered += count
    assert classes.tolist() == expected.tolist()


def test_a_large_corpus_is_read_in_pieces_spread_over_all_shards(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [[[i + 1] * 100] for i in range(20)], vocab_size=21)
    read: list[int] = []
    real = np.bincount

    def count(part: np.ndarray, minlength: int) -> np.ndarray:
        read.extend(part.tolist())
        return real(part, minlength=minlength)

    with mock.patch.object(module, "_PIECE", 10), mock.patch.object(module.np, "bincount", count):
        frequency_classes(store, most=400)
    assert Counter(read) == {i + 1: 20 for i in range(20)}
