"""Models by recipe: what fits is loaded, what does not is refused with file, value and cure."""

import json

import pytest
import torch

from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection
from tokensieve.training.models import describe_model, load_model

FRESH = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
SETTINGS = {"vocab_size": 61, "eos_token_id": 0, "length": 32, "seed": 0}


def fresh(**more):
    return ModelSection(fresh={**FRESH, **more})


def test_a_fresh_model_takes_the_tokenizers_vocabulary_and_the_seed_decides_its_weights():
    first, second = (load_model(fresh(), **SETTINGS) for _ in range(2))
    other = load_model(fresh(), **{**SETTINGS, "seed": 1})
    weight = first.lm_head.weight
    assert weight.shape == (61, 16) and weight.dtype == torch.float32
    assert torch.equal(weight, second.lm_head.weight) and not torch.equal(weight, other.lm_head.weight)
    assert first.config.eos_token_id == 0
    assert describe_model(first)["parameters"] == first.num_parameters()


def test_a_saved_model_comes_back(tmp_path):
    model = load_model(fresh(), **SETTINGS)
    model.save_pretrained(tmp_path)
    loaded = load_model(ModelSection(name=str(tmp_path)), **SETTINGS)
    assert loaded.training and torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize(
    "section, settings, message",
    [
        (fresh(hiden_size=3), {}, "did you mean 'hidden_size'"),
        (fresh(model_type="lama"), {}, "did you mean 'llama'"),
        (ModelSection(fresh={"hidden_size": 8}), {}, "model_type is missing"),
        (fresh(vocab_size=50), {}, "vocab_size 50 is below the tokenizer's 61"),
        (fresh(), {"length": 64}, "context.length 64 is above the model's 32"),
        (fresh(num_attention_heads=3), {}, "model.fresh: "),
        (ModelSection(name="./nowhere"), {}, "no such model folder"),
    ],
)
def test_sections_that_cannot_be_are_refused(section, settings, message):
    with pytest.raises(UserError, match=message):
        load_model(section, **{**SETTINGS, **settings})


def test_a_model_that_is_not_on_the_hub_or_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="cannot load the model") as error:
        load_model(ModelSection(name="nobody/nothing"), **SETTINGS)
    assert "\n" not in str(error.value)


def test_pickled_weights_vocabulary_and_length_of_a_folder_are_refused(tmp_path):
    model = load_model(fresh(), **SETTINGS)
    model.save_pretrained(tmp_path)
    section = ModelSection(name=str(tmp_path))
    with pytest.raises(UserError, match="vocabulary has 61 entries, the tokenizer's 100"):
        load_model(section, **{**SETTINGS, "vocab_size": 100})
    with pytest.raises(UserError, match="above the model's 32"):
        load_model(section, **{**SETTINGS, "length": 33})
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pickled weights \(pytorch_model.bin\)"):
        load_model(section, **SETTINGS)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no model.safetensors"):
        load_model(section, **SETTINGS)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot load the model"):
        load_model(section, **SETTINGS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(UserError, match="cannot load the model"):
        load_model(section, **SETTINGS)
