"""Models by recipe: what fits is loaded, what does not is refused with file, value and cure."""

import json

import pytest
import torch

from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ModelSection
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

TOKENIZER = train_bpe(["some text to learn from"], 258)


def load(section, *, seed=0, tokenizer=TOKENIZER, **context):
    return load_model(section, tokenizer, ContextSection(**{"length": 32, **context}), seed)


def fresh(**more):
    return ModelSection(fresh={**FRESH, **more})


def test_a_fresh_model_takes_the_tokenizers_vocabulary_and_the_seed_decides_its_weights():
    first, second = (load(fresh()) for _ in range(2))
    other = load(fresh(), seed=1)
    weight = first.lm_head.weight
    assert weight.shape == (258, 16) and weight.dtype == torch.float32
    assert torch.equal(weight, second.lm_head.weight) and not torch.equal(weight, other.lm_head.weight)
    assert first.config.eos_token_id == TOKENIZER.eos_token_id
    assert describe_model(first)["parameters"] == first.num_parameters()


def test_a_saved_model_comes_back(tmp_path):
    model = load(fresh())
    model.save_pretrained(tmp_path)
    loaded = load(ModelSection(name=str(tmp_path)))
    assert loaded.training and torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize(
    "section, settings, message",
    [
        (fresh(hiden_size=3), {}, "did you mean 'hidden_size'"),
        (fresh(model_type="lama"), {}, "did you mean 'llama'"),
        (ModelSection(fresh={"hidden_size": 8}), {}, "model_type is missing"),
        (fresh(vocab_size=50), {}, "vocab_size 50 is below the tokenizer's 258"),
        (fresh(), {"length": 64}, "context.length 64 is above the model's 32"),
        (fresh(num_attention_heads=3), {}, "model.fresh: "),
        (fresh(num_key_value_heads=3), {}, "model.fresh: "),
        (ModelSection(name="./nowhere"), {}, "no such model folder"),
        (
            ModelSection(
                fresh={
                    "model_type": "opt",
                    "hidden_size": 16,
                    "ffn_dim": 24,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "word_embed_proj_dim": 16,
                }
            ),
            {},
            "document_mask=false",
        ),
    ],
)
def test_sections_that_cannot_be_are_refused(section, settings, message):
    with pytest.raises(UserError, match=message):
        load(section, **settings)


def test_a_model_that_is_not_on_the_hub_or_cannot_be_reached_is_one_line(monkeypatch):
    # Not the environment variable: that is read once, at import.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot load the model") as error:
        load(ModelSection(name="nobody/nothing"))
    assert "\n" not in str(error.value)


def test_pickled_weights_vocabulary_and_length_of_a_folder_are_refused(tmp_path):
    model = load(fresh())
    model.save_pretrained(tmp_path)
    section = ModelSection(name=str(tmp_path))
    with pytest.raises(UserError, match="vocabulary has 258 ids but the tokenizer needs 270"):
        load(section, tokenizer=train_bpe(["some text to learn from " * 3, "and more words"], 270))
    with pytest.raises(UserError, match="above the model's 32"):
        load(section, length=33)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pickled weights \(pytorch_model.bin\)"):
        load(section)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no model.safetensors"):
        load(section)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot load the model"):
        load(section)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(UserError, match="cannot load the model"):
        load(section)


def test_a_folder_with_missing_or_misshapen_tensors_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    load(fresh()).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({key: value for key, value in weights.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(UserError, match=f"weights of {name} are missing"):
        load(ModelSection(name=str(tmp_path)))
    save_file({**weights, name: torch.zeros(3, 3)}, path, {"format": "pt"})
    with pytest.raises(UserError, match="cannot load the model"):
        load(ModelSection(name=str(tmp_path)))


def test_a_model_with_a_tokenizer_of_its_own_is_used_with_that_one(tmp_path):
    load(fresh()).save_pretrained(tmp_path)
    train_bpe(["quite other words, zebra"], 258).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="gives other ids"):
        load(ModelSection(name=str(tmp_path)))
    TOKENIZER.save_pretrained(tmp_path)
    load(ModelSection(name=str(tmp_path)))


def test_plain_packing_takes_models_that_cannot_mask_documents():
    opt = {"model_type": "opt", "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    load(ModelSection(fresh={**opt, "word_embed_proj_dim": 16}), document_mask=False)


def test_a_model_from_the_hub_is_used_with_its_own_tokenizer_too(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--small" / "snapshots" / ("a" * 40)
    (tmp_path / "models--org--small" / "refs").mkdir(parents=True)
    (tmp_path / "models--org--small" / "refs" / "main").write_text("a" * 40)
    load(fresh()).save_pretrained(snapshot)
    train_bpe(["quite other words, zebra"], 258).save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="gives other ids than the recipe's .digest [0-9a-f]{32} there"):
        load(ModelSection(name="org/small"))
    TOKENIZER.save_pretrained(snapshot)
    load(ModelSection(name="org/small"))
