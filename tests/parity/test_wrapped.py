"""Adapters, activation checkpointing, a compiled backbone, accumulated divisors: the loss stays the same."""

import copy

import pytest
import torch
from tests.parity.conftest import assert_same, batch, gradients, only, tiny

from tokensieve import SelectionPolicy, make_selective

POLICIES = [SelectionPolicy(ratio=0.6), SelectionPolicy("mask", 0.5), SelectionPolicy(ratio=1)]


def step(model, inputs):
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("policy", POLICIES, ids=["excess", "mask", "everything"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_activation_checkpointing_changes_nothing(name, policy, selective):
    model = tiny(name)
    handle = selective(model, policy)
    expected, wanted = step(model, batch())
    handle.stats.reset()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss, found = step(model, batch())
    assert torch.equal(loss, expected)
    assert_same(found, wanted, rtol=1e-12, atol=1e-14)
    assert handle.stats.read()["valid"] == 30


@pytest.mark.parametrize("what", ["backbone", "model"])
def test_compiling_changes_nothing_but_rounding(what, selective):
    model = tiny(num_hidden_layers=1)
    handle = selective(model, SelectionPolicy(ratio=0.6))
    expected, wanted = step(model, batch())
    if what == "backbone":
        model.model.compile(backend="aot_eager")
    else:
        model.compile(backend="aot_eager")
    handle.stats.reset()
    loss, found = step(model, batch())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    assert_same(found, wanted, rtol=1e-7, atol=1e-9)
    assert handle.stats.read()["selected"] == 18


@pytest.mark.parametrize("name", ["llama", "mixtral, no balance"])
@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_the_given_divisor_is_that_of_the_models_own_loss(name, kind, selective):
    model, inputs = tiny(name), only(batch())
    expected = model(**inputs, num_items_in_batch=kind(50)).loss
    expected.backward()
    wanted = gradients(model)
    selective(model, SelectionPolicy(ratio=1))
    loss, found = step(model, {**inputs, "num_items_in_batch": kind(50)})
    torch.testing.assert_close(loss, expected.detach().double(), rtol=1e-6, atol=1e-6)
    assert_same(found, wanted, rtol=1e-5, atol=1e-6)


def with_adapters(model, saved):
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    places = {"target_modules": ["q_proj", "down_proj"], "modules_to_save": saved}
    config = peft.LoraConfig(r=4, **places, task_type="CAUSAL_LM", init_lora_weights=False)
    return peft.get_peft_model(model, config).train()


@pytest.mark.parametrize("saved", [None, ["lm_head"]], ids=["head frozen", "head trained"])
@pytest.mark.parametrize("patched", ["before", "after", "through the base"])
def test_a_model_with_adapters_equals_the_one_with_merged_weights(patched, saved, selective):
    plain = copy.deepcopy(with_adapters(tiny(), saved)).merge_and_unload().train()
    expected = selective(plain, SelectionPolicy(ratio=0.6)).model(**batch()).loss

    model = tiny()
    if patched == "before":
        handle = selective(model, SelectionPolicy(ratio=0.6))
    wrapped = with_adapters(model, saved)
    if patched != "before":
        handle = selective(model if patched == "through the base" else wrapped, SelectionPolicy(ratio=0.6))
    loss, found = step(wrapped, batch())
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-9)
    assert handle.stats.read()["selected"] == 18
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert found.keys() == trained and any("lm_head" in name for name in trained) == (saved is not None)
    twin = copy.deepcopy(wrapped)
    assert torch.equal(twin(**batch()).loss, loss)
    handle.remove()
    wrapped.eval()
    logits = wrapped(input_ids=batch()["input_ids"]).logits
    torch.testing.assert_close(logits, plain.eval()(input_ids=batch()["input_ids"]).logits, rtol=1e-9, atol=1e-9)


def test_an_adapter_on_the_head_is_refused():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny(), peft.LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    with pytest.raises(TypeError, match="not torch.nn.Linear .an adapter on the head: leave it out of target_modules"):
        make_selective(model, SelectionPolicy())
