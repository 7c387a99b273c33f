"""Ids of another vocabulary are refused, the end of text is a token like others, and padding is none."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tokensieve import SelectionPolicy


# 35
@pytest.mark.parametrize("label", [61, 50_000, -1])
def test_labels_of_another_vocabulary_are_refused_and_never_clamped(tiny, batch, selective, label):
    model, inputs = tiny(), batch()
    inputs["labels"][1, 3] = label
    handle = selective(model)
    with pytest.raises(ValueError, match=f"label {label} is not in the vocabulary of 61 .*another tokenizer"):
        model(**inputs)
    with pytest.raises(ValueError, match="another tokenizer"):
        handle.token_losses(**inputs)


# 35
def test_logits_are_never_cut_to_a_smaller_vocabulary(tiny, batch, selective):
    """A head with rows for ids that no text has: their probability counts."""
    inputs = batch()
    losses = [selective(tiny(vocab_size=size)) for size in (61, 64)]
    with torch.no_grad():
        small, large = (handle.model for handle in losses)
        large.load_state_dict(
            {
                name: torch.cat([value, torch.zeros(3, 16)]) if value.shape == (61, 16) else value
                for name, value in small.state_dict().items()
            }
        )
    first, second = (handle.token_losses(**inputs)[0][:, 1:] for handle in losses)
    assert (second > first).all()


# 36
def test_end_of_text_is_trained_and_padding_is_not_though_they_share_an_id(tiny, batch, selective):
    model, inputs = tiny(pad_token_id=0, eos_token_id=0), batch()
    handle = selective(model, SelectionPolicy(ratio=1))
    short = {name: value[:, :8].clone() for name, value in inputs.items()}
    for name in ("input_ids", "labels"):
        short[name][:, 7] = 0
    padded = {name: torch.nn.functional.pad(value, (0, 4)) for name, value in short.items()}
    padded["labels"][:, 8:] = -100
    padded["attention_mask"] = (torch.arange(12) < 8).long().expand(3, 12)
    expected = model(**short).loss
    assert handle.stats.read()["valid"] == 3 * 7
    torch.testing.assert_close(model(**padded).loss, expected)
    without = {**padded, "labels": padded["labels"].masked_fill(padded["labels"] == 0, -100)}
    assert (model(**without).loss - expected).abs() > 1e-3


# 38
def test_what_from_pretrained_returns_is_selective_and_stays_what_it_is(tiny, batch, selective, tmp_path):
    tiny().save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    assert type(model) is LlamaForCausalLM
    plain = model(**{name: batch()[name] for name in ("input_ids", "labels")}).loss
    handle = selective(model, SelectionPolicy(ratio=0.5))
    selected = model(**batch()).loss
    assert type(model) is LlamaForCausalLM
    assert handle.stats.read()["selected"] == 17 and (selected - plain).abs() > 0.1
