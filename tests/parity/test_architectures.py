"""Every architecture against its own full logits: loss, choice, every gradient, and the way back."""

import pytest
import torch
import torch.nn.functional as F
from tests.parity.conftest import (
    ARCHITECTURES,
    BALANCED,
    assert_same,
    batch,
    best,
    full_logits,
    gradients,
    losses_of,
    only,
    tiny,
)
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    LlamaForCausalLM,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from tokensieve import SelectionPolicy, make_selective

INPUTS = batch()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_choice_and_every_gradient_agree_with_full_logits(name):
    model = tiny(name)
    logits, auxiliary = full_logits(model, INPUTS)
    losses, valid = losses_of(logits, INPUTS["labels"]), INPUTS["labels"][:, 1:] != -100
    selected = best(losses.detach() - INPUTS["reference_loss"][:, 1:], valid, 0.6)
    expected = losses[selected].sum() / (0.6 * int(valid.sum()))
    assert (auxiliary is not None) == (name in BALANCED)
    if auxiliary is not None:
        expected = expected + 0.3 * auxiliary
    expected.backward()
    wanted = gradients(model)

    handle = make_selective(model, SelectionPolicy(ratio=0.6))
    handle.keep_selection = True
    outputs = model(**INPUTS)
    outputs.loss.backward()
    assert torch.equal(handle.last_selection[2], selected)
    assert outputs.loss.dtype == torch.float64
    torch.testing.assert_close(outputs.loss, expected, rtol=1e-9, atol=1e-9)
    assert_same(gradients(model), wanted, rtol=1e-7, atol=1e-9)
    if auxiliary is not None:
        torch.testing.assert_close(outputs.aux_loss, auxiliary, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ratio_one_is_the_models_own_loss_with_its_own_gradients(name):
    model = tiny(name)
    expected = model(**only(INPUTS)).loss
    expected.backward()
    wanted = gradients(model)
    make_selective(model, SelectionPolicy(ratio=1))
    loss = model(**INPUTS).loss
    loss.backward()
    # transformers computes its loss in float32, whatever the model's type
    torch.testing.assert_close(loss, expected.to(loss.dtype), rtol=1e-6, atol=1e-6)
    assert_same(gradients(model), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_after_remove_and_in_eval_mode_the_model_is_what_it_was_bit_for_bit(name):
    model, prompt = tiny(name, torch.float32), INPUTS["input_ids"][:1, :4]
    generate = lambda: model.generate(prompt, max_new_tokens=3, do_sample=False, pad_token_id=0)  # noqa: E731

    def behaviour(own_training: bool) -> list[torch.Tensor]:
        model.eval()
        outputs = model(**only(INPUTS))
        found = [outputs.loss, outputs.logits, model(input_ids=prompt).logits, generate()]
        model.train()
        if own_training:
            own = model(**only(INPUTS))
            own.loss.backward()
            found += [own.loss, own.logits, *gradients(model).values()]
        return found

    before, keys = behaviour(True), list(model.state_dict())
    handle = make_selective(model, SelectionPolicy(ratio=0.6))
    model(**INPUTS).loss.backward()
    gradients(model)
    during = behaviour(False)
    assert list(model.state_dict()) == keys
    handle.remove()
    after = behaviour(True)
    assert all(torch.equal(left, right) for left, right in zip(before, during, strict=False))
    assert all(torch.equal(left, right) for left, right in zip(before, after, strict=True))
    assert list(model.state_dict()) == keys
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", BALANCED)
def test_the_balance_loss_of_experts_follows_the_attention_mask(name):
    model, mask = tiny(name), torch.ones(3, 12, dtype=torch.long)
    mask[0, 8:] = 0
    inputs = {**INPUTS, "attention_mask": mask, "labels": INPUTS["labels"].masked_fill(mask == 0, -100)}
    expected = model(**only(inputs, "input_ids", "labels", "attention_mask")).aux_loss
    make_selective(model, SelectionPolicy(ratio=0.6))
    assert model(**INPUTS).aux_loss != expected
    torch.testing.assert_close(model(**inputs).aux_loss, expected, rtol=1e-12, atol=1e-12)


class AddsToTheLogits(nn.Linear):
    """A head that is no linear map."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states) + torch.arange(self.out_features) * 0.01


class SquaresTheLogits(LlamaForCausalLM):
    """A model that does something to the logits which its configuration does not tell."""

    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits + 0.1 * outputs.logits.square()
        outputs.loss = None if labels is None else self.loss_function(outputs.logits, labels, self.config.vocab_size)
        return outputs


def smoothed(logits, labels, vocab_size, **_):
    return F.cross_entropy(logits[:, :-1].reshape(-1, vocab_size).float(), labels[:, 1:].flatten(), label_smoothing=0.1)


def adds_to_the_logits():
    model = tiny()
    model.lm_head.__class__ = AddsToTheLogits
    return model


def squares_the_logits():
    model = tiny()
    model.__class__ = SquaresTheLogits
    return model


def another_loss():
    model = tiny()
    model.loss_function = smoothed
    return model


def head_of_two_layers():
    model = tiny()
    model.lm_head = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 61)).double()
    return model


SMALL = {"vocab_size": 61, "d_model": 16, "num_layers": 1, "d_kv": 8, "num_heads": 2, "d_ff": 24}
BART = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
BART |= {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}


@pytest.mark.parametrize(
    "make, error, message",
    [
        (squares_the_logits, ValueError, "SquaresTheLogits does more than scale, bias and soft cap: .* differ by"),
        (adds_to_the_logits, ValueError, "token losses differ by .* nats from those of its own logits"),
        (another_loss, ValueError, "more than cross-entropy and load balancing: its own loss differs by"),
        (head_of_two_layers, TypeError, "Sequential, not torch.nn.Linear"),
        (lambda: LlamaModel(tiny().config), TypeError, "LlamaModel has no output layer: give the model with its head"),
        (
            lambda: AutoModelForSequenceClassification.from_config(tiny().config),
            TypeError,
            "LlamaForSequenceClassification has no output layer",
        ),
        (lambda: T5ForConditionalGeneration(T5Config(**SMALL)), TypeError, "T5.* has no backbone separate from"),
        (
            lambda: BartForConditionalGeneration(BartConfig(vocab_size=61, d_model=16, **BART)),
            ValueError,
            "loss of Bart.* differs by",
        ),
    ],
)
def test_what_the_loss_cannot_reproduce_is_refused_and_left_as_it_was(make, error, message):
    model = make()
    with pytest.raises(error, match=message):
        make_selective(model, SelectionPolicy())
    assert not any("forward" in vars(module) for module in model.modules())
