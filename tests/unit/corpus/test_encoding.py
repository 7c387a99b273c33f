"""Encoding: what transformers gives without special tokens, EOS only where we put it, a region for each token."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tokensieve.corpus.encoding import MAX_REGIONS, Encoded, Encoder, token_dtype
from tokensieve.corpus.sources import Document, Region
from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.errors import UserError

SMALL_LLAMA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "models" / "stories260K"


def document(text: str, regions: tuple[Region, ...] | None = None) -> Document:
    return Document(text, regions, "a.jsonl: line 7", len(text.encode()))


def encode(encoder: Encoder, documents: list[Document]) -> Encoded:
    return encoder.convert(documents, encoder.encode(documents))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_ids_are_those_of_transformers_and_each_document_ends_with_eos(bpe_folder: Path, texts: list[str]) -> None:
    tokenizer = open_tokenizer(bpe_folder)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    encoded = encode(Encoder(open_tokenizer(bpe_folder), "bpe"), [document(text) for text in texts])
    assert encoded.tokens.tolist() == [i for row in expected for i in row]
    assert encoded.lengths.tolist() == [len(row) for row in expected]
    assert encoded.tokens.dtype == np.uint16 and encoded.regions is None


def test_text_cannot_inject_eos(bpe_folder: Path) -> None:
    tokenizer = open_tokenizer(bpe_folder)
    text = "before <|endoftext|> after"
    assert tokenizer.eos_token_id in tokenizer(text)["input_ids"]
    tokens = encode(Encoder(tokenizer, "bpe"), [document(text)]).tokens.tolist()
    assert tokens.count(tokenizer.eos_token_id) == 1 and tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens[:-1]) == text


def test_a_vocabulary_in_which_text_is_eos_is_refused(word_folder: Path) -> None:
    encoder = Encoder(open_tokenizer(word_folder), "words")
    assert encode(encoder, [document("w1 w2")]).tokens.tolist() == [3, 4, 1]
    with pytest.raises(UserError, match=r"a.jsonl: line 7: words turns text .* end-of-sequence token \(id 1\)"):
        encode(encoder, [document("w1 <eos> w2")])


def test_saved_truncation_and_padding_are_switched_off(bpe_folder: Path, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(bpe_folder)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.save_pretrained(tmp_path)
    documents = [document("The cat sat on the mat. " * 9), document("a")]
    plain = encode(Encoder(open_tokenizer(bpe_folder), "bpe"), documents)
    assert encode(Encoder(open_tokenizer(tmp_path), "bpe"), documents).tokens.tolist() == plain.tokens.tolist()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_token_has_the_region_of_its_last_character(bpe_folder: Path, data: st.DataObject) -> None:
    pieces = data.draw(
        st.lists(st.tuples(st.text("ab é日🙂\n\t.<", min_size=1), st.sampled_from(["prose", "code", None])), max_size=6)
    )
    text, kinds, spans = "", [], []
    for piece, kind in pieces:
        if kind is not None:
            spans.append((len(text), len(text) + len(piece), kind))
        text += piece
        kinds += [kind or "other"] * len(piece)
    tokenizer = open_tokenizer(bpe_folder)
    encoder = Encoder(tokenizer, "bpe", with_regions=True)
    plain = encode(Encoder(open_tokenizer(bpe_folder), "bpe"), [document(text), document("ab")])
    encoded = encode(encoder, [document(text, tuple(spans)), document("ab")])
    assert encoded.tokens.tolist() == plain.tokens.tolist()
    assert encoded.regions is not None and encoded.regions.dtype == np.uint8
    names = [encoder.region_names[i] for i in encoded.regions]
    # A byte-level token covers bytes [sum of lengths before, after): its last byte's character decides.
    of_byte = [kind for character, kind in zip(text, kinds, strict=True) for _ in character.encode()]
    position, expected = 0, []
    for token in tokenizer.convert_ids_to_tokens(encoded.tokens[: encoded.lengths[0] - 1].tolist()):
        position += len(token)  # one printable character stands for each byte
        expected.append(of_byte[position - 1])
    end = kinds[-1] if kinds else "other"  # EOS belongs to what it ends
    assert names == [*expected, end, *["other"] * int(encoded.lengths[1])]


def test_more_kinds_than_a_byte_can_name_are_refused(bpe_folder: Path) -> None:
    encoder = Encoder(open_tokenizer(bpe_folder), "bpe", with_regions=True)
    text = "a" * MAX_REGIONS
    spans = tuple((i, i + 1, f"kind{i}") for i in range(MAX_REGIONS))
    encode(encoder, [document(text, spans[:-1])])
    assert len(encoder.region_names) == MAX_REGIONS
    with pytest.raises(UserError, match="a.jsonl: line 7: more than 255 kinds of region"):
        encode(encoder, [document(text, spans)])


def test_the_type_is_the_smallest_that_holds_every_id() -> None:
    assert [token_dtype(size).str for size in (300, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


def test_a_slow_tokenizer_gives_the_same_contract(bpe_folder: Path) -> None:
    from transformers import ByT5Tokenizer

    slow = ByT5Tokenizer()
    encoded = encode(Encoder(slow, "byt5"), [document("a</s>b"), document("")])
    assert encoded.tokens.tolist().count(slow.eos_token_id) == 2
    assert encoded.tokens.tolist()[:8] == [*(byte + 3 for byte in b"a</s>b"), 1, 1]
    with pytest.raises(UserError, match="byt5: regions_field needs a fast tokenizer"):
        Encoder(slow, "byt5", with_regions=True)


@pytest.mark.skipif(not SMALL_LLAMA.exists(), reason="needs the shared stories260K model")
def test_a_real_sentencepiece_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SMALL_LLAMA)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    texts = ["Once upon a time, a cat </s> sat.", "", "日本"]
    expected = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts]
    encoded = encode(Encoder(AutoTokenizer.from_pretrained(SMALL_LLAMA), "llama"), [document(t) for t in texts])
    assert encoded.tokens.tolist() == [i for row in expected for i in (*row, tokenizer.eos_token_id)]
