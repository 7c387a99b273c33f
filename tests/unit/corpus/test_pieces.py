"""The pieces of tokens are the text: joined to the last character, for every kind of tokenizer, on any Unicode."""

import functools
import itertools
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tokensieve.corpus import pieces
from tokensieve.corpus.pieces import BROKEN, text_pieces, token_pieces
from tokensieve.corpus.tokenizers import open_tokenizer, train_bpe
from tokensieve.errors import UserError

STORIES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "models" / "stories260K"
TRAINED_ON = [
    "The cat sat on the mat, and the dog sat by the cat. What the cat saw, the dog saw too!",
    "def add(a, b):\n    return a + b\n\n\n\tindented",
    "日本語のテキスト 日本語 emoji 🙂🙂 naïve café שלום مرحبا",
] * 3
FAMILY = "👨\u200d👩\u200d👧"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@functools.cache
def byte_level() -> PreTrainedTokenizerBase:
    return train_bpe(TRAINED_ON, 330)


@functools.cache
def added_tokens() -> PreTrainedTokenizerBase:
    tokenizer = train_bpe(TRAINED_ON, 320)
    added = [AddedToken("<|im_start|>", special=True), AddedToken("sat  on", special=False)]
    tokenizer.add_tokens([*added, AddedToken(" strip ", special=False, lstrip=True, rstrip=True)])
    return tokenizer


@functools.cache
def byte_level_lowercase() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@functools.cache
def byte_fallback() -> PreTrainedTokenizerBase:
    """As Llama 2's and Mistral's: Metaspace, bytes for what the vocabulary lacks."""
    vocabulary = {
        token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *BYTES, *"▁abcdehinoqrst.", "▁th", "▁the"])
    }
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    vocabulary.setdefault("▁t", len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@functools.cache
def word_piece() -> PreTrainedTokenizerBase:
    words = [
        "[UNK]",
        "[SEP]",
        "the",
        "cat",
        "##s",
        "sat",
        "na",
        "##ive",
        ".",
        ",",
        "'",
        "!",
        "日",
        "a",
        "##a",
        "e",
        "##e",
    ]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]")


@functools.cache
def unigram() -> PreTrainedTokenizerBase:
    scored = [("<unk>", 0.0), *((byte, -20.0) for byte in BYTES), *((token, -3.0) for token in "▁abcdehinorst.")]
    scored += [("▁the", -2.0), ("▁cat", -2.0), ("日本", -4.0)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@functools.cache
def stories() -> PreTrainedTokenizerBase:
    if not STORIES.is_dir():
        pytest.skip("the stories260K tokenizer is not here")
    return open_tokenizer(STORIES)


@functools.cache
def mistral() -> PreTrainedTokenizerBase:
    common = pytest.importorskip("mistral_common", reason="mistral-common is not installed")
    files = sorted((Path(common.__file__).parent / "data").glob("tokenizer.model*"))
    if not files:
        pytest.skip("mistral-common brings no SentencePiece file")
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    return SentencePiece(sentencepiece.SentencePieceProcessor(model_file=str(files[0])))  # type: ignore[return-value]


class SentencePiece:
    """The library itself, as a tokenizer without offsets."""

    is_fast = False

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __len__(self) -> int:
        return self._processor.vocab_size()

    def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
        return {"input_ids": self._processor.encode(text)}

    def decode(self, ids: list[int], **options: object) -> str:
        return self._processor.decode(ids)


TOKENIZERS = (
    byte_level,
    added_tokens,
    byte_level_lowercase,
    byte_fallback,
    word_piece,
    unigram,
    stories,
    mistral,
)
everywhere = pytest.mark.parametrize("make", TOKENIZERS, ids=lambda make: make.__name__)

awkward = st.sampled_from(
    [
        "the cat sat ", "  ", "\r\n", "\n\n", "\t", "\x00", "\x1b[31m", "\x7f", "é", "e\u0301\u0323", "שלום",
        "مرحبا", "🙂", FAMILY, "🏳️\u200d🌈", "日本語", "𝔘𝔫", "\ufffd", "\ufeff", "\u00ad", "\u2028", "ﬁ", "½", "ß", "ﷺ",
        "\u202eabc", "İ",
        "<|endoftext|>", "<|im_start|>", "</s>", "[SEP]", "sat  on", " strip ", "▁", "Ġ", "##s", "<0xE6>", "'s", " .",
    ]
)  # fmt: skip
texts = st.lists(st.one_of(st.text(max_size=12), awkward), max_size=12).map("".join)


def decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class Slow:
    """A tokenizer without offsets and without a fast backend."""

    is_fast = False

    def __init__(self, fast: PreTrainedTokenizerBase) -> None:
        self._fast = fast

    def __call__(self, text: str, *, return_offsets_mapping: bool, **options: object) -> dict[str, list[int]]:
        assert not return_offsets_mapping
        return {"input_ids": self._fast(text, **options)["input_ids"]}

    def decode(self, ids: list[int], **options: object) -> str:
        return str(self._fast.decode(ids, **options))


@everywhere
@settings(max_examples=60)
@given(data=st.data())
def test_pieces_of_any_ids_join_to_what_they_decode_to(make, data):
    tokenizer = make()
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=60))
    found = token_pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == decoded(tokenizer, ids)


@everywhere
@settings(max_examples=60)
@given(text=texts, cut=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_pieces_of_a_part_of_a_text_join_too(make, text, cut):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = ids[cut[0] : len(ids) - cut[1]]
    assert "".join(token_pieces(tokenizer, ids)) == decoded(tokenizer, ids)


@everywhere
@settings(max_examples=120)
@given(text=texts)
@example(text=FAMILY * 3)
@example(text="\r\n\x00the  cat\u202e")
def test_no_character_of_a_text_is_lost(make, text):
    tokenizer = make()
    for one in (tokenizer, Slow(tokenizer)) if tokenizer.is_fast else (tokenizer,):
        try:
            ids, found = text_pieces(one, text)
        except UserError as error:
            assert "no token" in str(error)
            assert tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] == []
            continue
        assert len(found) == len(ids)
        assert "".join(found) == text
        assert ids == tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@everywhere
@settings(max_examples=60)
@given(text=texts, cut=st.integers(0, 3))
def test_a_piece_ends_where_the_text_decoded_so_far_ends(make, text, cut):
    """What the first tokens decode to alone, where the whole text goes on with it, is what their pieces hold."""
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][cut:]
    whole, held = decoded(tokenizer, ids), 0
    for i, piece in enumerate(token_pieces(tokenizer, ids)):
        held += len(piece)
        before = decoded(tokenizer, ids[: i + 1])
        # A character that is not whole yet shows as broken, and some decoders trim the end of what they are given.
        if whole.startswith(before) and not before.endswith(BROKEN):
            assert held == len(before), (i, piece, before)


def bytes_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[bytes]:
    """What each byte-level token stands for: GPT-2's table, written down a second time."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in shown}
    table |= {chr(256 + i): byte for i, byte in enumerate(byte for byte in range(256) if byte not in shown)}
    return [bytes(table[character] for character in token) for token in tokenizer.convert_ids_to_tokens(ids)]


@settings(max_examples=150)
@given(text=texts.filter(lambda text: "endoftext" not in text))
@example(text="a" + BROKEN * 9 + "b")
def test_a_character_belongs_to_the_token_that_completes_it(text):
    tokenizer = byte_level()
    ids, found = text_pieces(tokenizer, text)
    assert found == token_pieces(tokenizer, ids)
    expected, done = [], 0
    parts = bytes_of(tokenizer, ids)
    for i in range(len(ids)):
        whole = len(b"".join(parts[: i + 1]).decode(errors="ignore"))
        expected.append(text[done:whole])
        done = whole
    assert found == expected


def test_a_token_that_ends_inside_a_character_gets_nothing():
    tokenizer = byte_level()
    ids = tokenizer("x🏳y", add_special_tokens=False)["input_ids"]
    assert [len(part) for part in bytes_of(tokenizer, ids)] == [1, 2, 1, 1, 1]
    assert token_pieces(tokenizer, ids) == ["x", "", "", "🏳", "y"]
    assert text_pieces(tokenizer, "x🏳y")[1] == ["x", "", "", "🏳", "y"]
    assert token_pieces(tokenizer, ids[:3]) == ["x", "", BROKEN]
    assert token_pieces(tokenizer, ids[2:]) == [BROKEN, BROKEN, "y"]


def test_spaces_between_words_stay():
    tokenizer = byte_fallback()
    ids = tokenizer("the cat 日 the", add_special_tokens=False)["input_ids"]
    found = token_pieces(tokenizer, ids)
    assert found[0] == "the"
    assert found[-1] == " the"
    assert "日" in found
    # The first token is the space that the tokenizer puts before every text.
    assert text_pieces(tokenizer, " the  the")[1] == ["", " the", " ", " the"]


def test_what_a_tokenizer_drops_belongs_to_the_next_token():
    tokenizer = word_piece()
    assert text_pieces(tokenizer, "  the\r\n\x00 Cats.\n") == (
        tokenizer("the cats.", add_special_tokens=False)["input_ids"],
        ["  the", "\r\n\x00 Cat", "s", ".\n"],
    )


def test_a_text_without_a_token_and_half_a_character_are_refused():
    with pytest.raises(UserError, match="no token"):
        text_pieces(word_piece(), " \n")
    with pytest.raises(UserError, match="surrogate"):
        text_pieces(byte_level(), "a\ud83d")
    assert text_pieces(byte_level(), "") == ([], [])
    assert token_pieces(byte_level(), []) == []


def test_names_of_special_tokens_in_a_text_are_text():
    ids, found = text_pieces(added_tokens(), "a<|endoftext|>b<|im_start|>")
    assert added_tokens().eos_token_id not in ids
    assert "".join(found) == "a<|endoftext|>b<|im_start|>"


def test_a_long_text_that_a_slow_tokenizer_normalises_is_followed():
    draw = random.Random(0)
    text = " ".join(draw.choice(["the", "Cat", "ﬁ", "½", "日本", "  x"]) for _ in range(3000))
    tokenizer = byte_level_lowercase()
    ids, found = text_pieces(Slow(tokenizer), text)
    exact = text_pieces(tokenizer, text)[1]
    assert "".join(found) == text
    assert len(ids) == len(exact)
    ends = [list(itertools.accumulate(map(len, pieces_of))) for pieces_of in (found, exact)]
    assert max(abs(here - there) for here, there in zip(*ends, strict=True)) <= 4


@pytest.mark.parametrize("make", (byte_level, byte_fallback, word_piece), ids=lambda make: make.__name__)
def test_time_is_linear(make, monkeypatch):
    tokenizer = make()
    ids = tokenizer("the cat sat. 日本語 🙂 naïve " * 2000, add_special_tokens=False)["input_ids"]
    work = []

    def counted(one, sequences):
        work.append(sum(map(len, sequences)))
        return decode(one, sequences)

    decode = pieces._decode
    monkeypatch.setattr(pieces, "_decode", counted)
    begin = time.perf_counter()
    assert len(token_pieces(tokenizer, ids[:4000])) == 4000
    assert time.perf_counter() - begin < 1
    assert sum(work) < 4000 * 60
