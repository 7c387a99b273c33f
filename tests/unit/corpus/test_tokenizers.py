"""Tokenizers: given, the model's own or trained; digests tell ids apart; mistakes are named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tokensieve.corpus.tokenizers import (
    check_vocabulary,
    load_tokenizer,
    open_tokenizer,
    sample_text,
    tokenizer_digest,
    train_bpe,
    vocabulary_size,
)
from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection, Source, TokenizerSection

FRESH = ModelSection(fresh={"model_type": "llama"})
TEXT = ["a rose is a rose is a rose " * 3, "the rose of the rose garden " * 3, "rosary and roses, arose " * 3]


def test_a_trained_bpe_represents_any_text(write_jsonl: Callable[..., Path], tmp_path: Path) -> None:
    sources = [Source(path=str(write_jsonl("noisy.jsonl", TEXT))), Source(path=str(write_jsonl("clean.jsonl", TEXT)))]
    section = TokenizerSection(train_vocab=270)
    tokenizer = load_tokenizer(section, FRESH, tmp_path, sources, 1)
    assert len(tokenizer) == vocabulary_size(tokenizer) == 270
    assert tokenizer.eos_token == "<|endoftext|>"
    odd = "日本 \x00 🙂\n\n  tab\t!"
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd
    saved = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer_digest(saved) == tokenizer_digest(tokenizer)
    written = (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns
    again = load_tokenizer(section, FRESH, tmp_path, sources, 1)
    assert tokenizer_digest(again) == tokenizer_digest(tokenizer)
    assert (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == written
    other = load_tokenizer(section, FRESH, tmp_path / "other", sources, 1)
    assert tokenizer_digest(other) == tokenizer_digest(tokenizer)
    with pytest.raises(UserError, match=r"belongs to another recipe \(tokenizer.train_vocab is 270 there"):
        load_tokenizer(TokenizerSection(train_vocab=271), FRESH, tmp_path, sources, 1)


def test_too_little_text_for_the_vocabulary_leaves_nothing(write_jsonl: Callable[..., Path], tmp_path: Path) -> None:
    sources = [Source(path=str(write_jsonl("a.jsonl", ["a"])))]
    with pytest.raises(UserError, match=r"train_vocab: the text yields only 257 tokens, not 500; lower train_vocab"):
        load_tokenizer(TokenizerSection(train_vocab=500), FRESH, tmp_path / "out", sources, 1)
    assert not (tmp_path / "out" / "tokenizer").exists()


def test_given_and_own_tokenizers_are_saved_with_the_run(bpe_folder: Path, tmp_path: Path) -> None:
    digest = tokenizer_digest(open_tokenizer(bpe_folder))
    given = load_tokenizer(TokenizerSection(name=str(bpe_folder)), FRESH, tmp_path / "a", [], 1)
    own = load_tokenizer(TokenizerSection(), ModelSection(name=str(bpe_folder)), tmp_path / "b", [], 1)
    assert tokenizer_digest(given) == tokenizer_digest(own) == digest
    assert tokenizer_digest(open_tokenizer(tmp_path / "b" / "tokenizer")) == digest


def test_a_tokenizer_without_eos_is_refused(bpe_folder: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(bpe_folder / "tokenizer.json"))
    tokenizer.save_pretrained(tmp_path / "plain")
    section = TokenizerSection(name=str(tmp_path / "plain"))
    with pytest.raises(UserError, match=r"plain: the tokenizer has no end-of-sequence token.*eos_token"):
        load_tokenizer(section, FRESH, tmp_path / "out", [], 1)
    assert not (tmp_path / "out" / "tokenizer").exists()


def test_a_missing_or_damaged_tokenizer_is_named(bpe_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (broken / "tokenizer.json").write_text('{"version": ')
    for folder in (broken, tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match=rf"{folder.name}: no tokenizer could be loaded") as caught:
            open_tokenizer(folder)
        assert "\n" not in str(caught.value)


def test_the_digest_sees_ids_not_sizes(bpe_folder: Path, tmp_path: Path) -> None:
    data = json.loads((bpe_folder / "tokenizer.json").read_text())
    vocabulary = data["model"]["vocab"]
    first, second = list(vocabulary)[40:42]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    swapped = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>")
    own = open_tokenizer(bpe_folder)
    assert len(swapped) == len(own)
    assert tokenizer_digest(swapped) != tokenizer_digest(own)


def test_a_model_needs_an_embedding_for_each_id(bpe_folder: Path) -> None:
    tokenizer = open_tokenizer(bpe_folder)
    check_vocabulary(tokenizer, 330, "model")
    check_vocabulary(tokenizer, 512, "model")
    with pytest.raises(UserError, match="model.name: the model's vocabulary has 329 ids but the tokenizer needs 330"):
        check_vocabulary(tokenizer, 329, "model.name")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=40), budget=st.integers(1, 500))
def test_a_sample_keeps_to_its_budget_and_to_the_documents_order(
    write_jsonl: Callable[..., Path], sizes: list[int], budget: int
) -> None:
    texts = [f"{i:03d}" + "x" * size for i, size in enumerate(sizes)]
    source = Source(path=str(write_jsonl("a.jsonl", texts)))
    sample = sample_text([source], budget, 1)
    assert sample == sample_text([source], budget, 1)
    assert sum(map(len, sample)) <= budget
    assert sample == sorted(set(sample)) and set(sample) <= set(texts)
    if sum(map(len, texts)) <= budget:
        assert sample == texts


def test_a_sample_is_spread_over_documents_and_sources(write_jsonl: Callable[..., Path]) -> None:
    sources = [Source(path=str(write_jsonl(f"{name}.jsonl", [f"{name}{i:04d}" for i in range(1000)]))) for name in "ab"]
    sample = sample_text(sources, 1000, 1)
    for name in "ab":
        numbers = [int(text[1:]) for text in sample if text[0] == name]
        assert 60 <= len(numbers) <= 140
        assert 350 <= sum(numbers) / len(numbers) <= 650


def test_training_a_bpe_twice_gives_the_same_ids() -> None:
    assert tokenizer_digest(train_bpe(TEXT, 280)) == tokenizer_digest(train_bpe(TEXT, 280))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["[]", "null", ""])
def test_a_tokenizer_file_that_is_no_object_is_named(bpe_folder: Path, tmp_path: Path, name: str, content: str) -> None:
    folder = shutil.copytree(bpe_folder, tmp_path / "damaged")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"^{re.escape(str(folder / name))}: holds no JSON object"):
        open_tokenizer(folder)
