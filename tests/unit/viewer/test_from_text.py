"""Texts under models: nothing of the text is lost, and the losses are the models'."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tokensieve.corpus.tokenizers import open_tokenizer, train_bpe
from tokensieve.errors import UserError
from tokensieve.viewer.from_text import view_text
from tokensieve.viewer.opening import read_texts

TEXT = "Ünïcödé is text too:\r\n日本語, emoji 🙂, and <b>naïve</b> café.\x00 " * 2


def naive(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").numpy()
    logs = logits.log_softmax(-1)
    return loss, -(logs.exp() * logs).sum(-1).numpy()


def test_losses_are_the_models_window_by_window(model_folder):
    view = view_text([TEXT, "The cat sat"], [model_folder(1)], [model_folder(2)])
    tokenizer = open_tokenizer(model_folder(1))
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert len(ids) > 48
    rows = [ids[begin : begin + 24] for begin in range(0, len(ids), 24)]
    rows.append(tokenizer("The cat sat", add_special_tokens=False)["input_ids"])
    assert [passage.ids.tolist() for passage in view.passages] == rows
    for passage, row in zip(view.passages, rows, strict=True):
        for key, seed in (("student0", 1), ("reference0", 2)):
            losses, entropies = naive(model_folder(seed), row)
            assert np.isnan(passage.losses[key][0]) and passage.losses[key].dtype == np.float16
            np.testing.assert_allclose(passage.losses[key][1:].astype(float), losses, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(passage.entropies[key][1:].astype(float), entropies, rtol=1e-3, atol=1e-3)
    assert [passage.place for passage in view.passages][-1] == "text 2"
    assert view.passages[1].place == "text 1, tokens 24 to 47"
    assert view.score == "excess_loss" and view.title == "2 texts"


def test_one_model_is_enough(model_folder):
    assert view_text(["The cat sat"], [model_folder(1)]).score == "current_loss"
    assert view_text(["The cat sat"], [], [model_folder(1)]).score == "reference_loss"
    with pytest.raises(UserError, match="at least one model"):
        view_text(["The cat sat"], [])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=3, max_size=80), min_size=1, max_size=3), length=st.integers(6, 24))
def test_joined_pieces_are_the_text(model_folder, loaded, texts, length):
    view = view_text(texts, [loaded], tokenizer=open_tokenizer(model_folder(1)), length=length)
    for number, text in enumerate(texts):
        own = [passage for passage in view.passages if passage.source == number]
        assert "".join("".join(passage.pieces) for passage in own) == text
        assert all(len(passage.ids) <= length for passage in own)


@pytest.fixture(scope="module")
def loaded(model_folder):
    return AutoModelForCausalLM.from_pretrained(model_folder(1)).train()


def test_a_loaded_model_is_as_before(model_folder, loaded):
    view = view_text(["The cat sat"], [loaded, loaded], tokenizer=open_tokenizer(model_folder(1)))
    assert loaded.training and "forward" not in vars(loaded)
    assert len({model.key for model in view.models}) == len({model.label for model in view.models}) == 2
    named = view_text(["The cat sat"], [model_folder(1)])
    assert np.array_equal(named.passages[0].losses["student0"], view.passages[0].losses["student1"], equal_nan=True)


def test_models_of_another_tokenizer_are_refused(model_folder, tmp_path):
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(model_folder(2)).save_pretrained(other)
    train_bpe(["another text with other pairs of letters " * 9, "xyzzy plugh"], 280).save_pretrained(other)
    with pytest.raises(UserError, match="gives other ids"):
        view_text(["The cat sat"], [model_folder(1)], [other])


def test_mistakes_are_one_line(model_folder, loaded, tmp_path):
    cases = [
        (["The cat"], [str(tmp_path / "no")], {}, "no such model folder"),
        (["The cat"], [loaded], {}, "no tokenizer"),
        (["The cat"], [model_folder(1)], {"length": 25}, "above the model's 24 positions"),
        (["a"], [model_folder(1)], {}, "no token with another one before it"),
        ([""], [model_folder(1)], {}, "no token with another one before it"),
    ]
    for texts, students, options, message in cases:
        with pytest.raises(UserError, match=message) as error:
            view_text(texts, students, **options)
        assert "\n" not in str(error.value)
    alone = tmp_path / "alone"
    AutoModelForCausalLM.from_pretrained(model_folder(1)).save_pretrained(alone)
    with pytest.raises(UserError, match="no tokenizer beside"):
        view_text(["The cat"], [alone])


def test_a_model_whose_loss_is_not_finite_is_refused(model_folder):
    model = AutoModelForCausalLM.from_pretrained(model_folder(1))
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match="cannot be measured"):
        view_text(["The cat sat"], [model], tokenizer=open_tokenizer(model_folder(1)))
    assert "forward" not in vars(model)


def test_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa\r\nb".encode())
    assert read_texts([str(path)]) == (["\ufeffa\r\nb"], ["a.txt"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").write_bytes(b"")
    for name, message in (("no.txt", "cannot be read"), ("latin.txt", "is not UTF-8"), ("empty.txt", "is empty")):
        with pytest.raises(UserError, match=message):
            read_texts([str(tmp_path / name)])
