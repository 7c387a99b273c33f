"""What is read off a model: its linear head, what stands behind it, its balance loss, and its document mask."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tokensieve import SelectionPolicy, make_selective
from tokensieve.causal_head import (
    adds_balance_loss,
    auxiliary_loss,
    balance_coefficient,
    check_document_mask,
    check_head,
    eval_mode,
    head_transform,
    linear_head,
)
from tokensieve.head import HeadTransform

TINY = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.25}


def make(name="llama", **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**TINY, **more})).train()


@pytest.mark.parametrize(
    "name, fields, expected",
    [
        ("llama", {}, HeadTransform()),
        ("cohere", {"logit_scale": 0.25}, HeadTransform(scale=0.25)),
        ("granite", {"logits_scaling": 8.0}, HeadTransform(scale=0.125)),
        ("gemma2", {"final_logit_softcapping": 30.0}, HeadTransform(softcap=30.0)),
        ("gemma2", {"final_logit_softcapping": None}, HeadTransform()),
        ("gemma3", {"text_config": {"final_logit_softcapping": 7.0}}, HeadTransform(softcap=7.0)),
    ],
)
def test_scale_and_soft_cap_are_read_by_their_names(name, fields, expected):
    assert head_transform(AutoConfig.for_model(name, **fields)) == expected


def test_the_head_is_found_tied_or_not_and_another_kind_is_named():
    for tied in (True, False):
        model = make(tie_word_embeddings=tied)
        assert linear_head(model) is model.lm_head
    model.lm_head = nn.Identity()
    with pytest.raises(TypeError, match="head of LlamaForCausalLM is torch.nn.modules.linear.Identity"):
        linear_head(model)


def test_the_trained_copy_of_a_head_is_the_head():
    peft = pytest.importorskip("peft")
    model = make()
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config)
    head = linear_head(wrapped.get_base_model())
    assert head.weight.requires_grad and head is model.lm_head.modules_to_save["default"]


def test_the_balance_loss_is_the_models_own_and_absent_without_router_logits():
    model = make("mixtral", **EXPERTS, output_router_logits=True)
    ids = torch.arange(10).view(2, 5)
    outputs = model.model(input_ids=ids, output_router_logits=True)
    own = model(input_ids=ids, labels=ids, output_router_logits=True)
    assert adds_balance_loss(model) and balance_coefficient(model) == 0.25
    torch.testing.assert_close(auxiliary_loss(model, outputs, None), own.aux_loss)
    plain = make("mixtral", **EXPERTS)
    assert not adds_balance_loss(plain) and not adds_balance_loss(make())
    assert auxiliary_loss(plain, plain.model(input_ids=ids), None) is None


@pytest.mark.parametrize("forgotten", [HeadTransform(scale=0.9), HeadTransform(softcap=2.0)])
def test_the_check_names_the_difference_and_leaves_the_model_alone(forgotten):
    model = make()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    handle = make_selective(model, SelectionPolicy())
    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=r"differ by [0-9.]+ nats from those of its own logits \(allowed 0.000"):
        check_head(model, forgotten, handle.original_forward)
    assert model.training and torch.equal(torch.random.get_rng_state(), state)
    check_head(model, HeadTransform(), handle.original_forward)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["llama", "gemma2", "granite"])
def test_rounding_of_the_models_type_passes_the_check(name, dtype):
    model = make(name).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    make_selective(model, SelectionPolicy()).remove()


def test_a_model_that_keeps_packed_documents_apart_passes_and_others_are_refused():
    check_document_mask(make(), 16)
    with pytest.raises(ValueError, match="attention of OPTForCausalLM crosses documents in a packed row .hidden"):
        check_document_mask(make("opt", ffn_dim=24, word_embed_proj_dim=16), 16)
    with pytest.raises(ValueError, match="attention of BloomForCausalLM crosses documents"):
        check_document_mask(make("bloom", n_head=2, n_layer=1), 16)
    model = make()
    model.model.forward = lambda input_ids, use_cache: None
    with pytest.raises(ValueError, match="LlamaForCausalLM takes no position_ids to keep documents apart"):
        check_document_mask(model, 16)


def test_eval_mode_gives_every_module_its_own_mode_back_also_after_an_error():
    model = make()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before
