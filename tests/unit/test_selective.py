"""make_selective on tiny random models, against the naive loss through full logits."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from tokensieve import SelectionPolicy, make_selective, select_tokens
from tokensieve.selective import NonFiniteLossError, refuse_trainer_arguments

TINY = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**TINY, "intermediate_size": 24, "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": 1}
ARCHITECTURES = {
    "llama": LLAMA,
    "llama-tied": {**LLAMA, "tie_word_embeddings": True},
    "gpt2": {
        "vocab_size": 61,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "eos_token_id": 1,
        "bos_token_id": 1,
        "resid_pdrop": 0,
        "embd_pdrop": 0,
        "attn_pdrop": 0,
    },
    "gpt_neox": {**TINY, "intermediate_size": 24},
    "gemma2": {**LLAMA, "head_dim": 8, "final_logit_softcapping": 3.0},
    "cohere": {**LLAMA, "logit_scale": 0.25},
    "granite": {**LLAMA, "logits_scaling": 4.0},
    "phi": {**TINY, "intermediate_size": 24},
}


def tiny(name: str, dtype: torch.dtype = torch.float64, **more: object):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split("-")[0], **{**ARCHITECTURES[name], **more})
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager").train()


def batch(rows: int = 3, length: int = 12):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 61, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, 0] = -100
    labels[1, 4:7] = -100
    reference = torch.rand(rows, length, generator=generator).double() * 6
    return {"input_ids": ids, "labels": labels, "reference_loss": reference}


def naive(model, inputs, ratio, scope="microbatch"):
    """Loss through full logits, and which labels were selected ([B, T-1])."""
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1].double()
    targets = inputs["labels"][:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    valid = targets != -100
    selected = select_tokens(losses.detach() - inputs["reference_loss"][:, 1:], valid, ratio, scope)
    return losses[selected].sum() / (ratio * valid.sum()), selected


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("scope", ["microbatch", "sequence"])
def test_loss_choice_and_every_gradient_agree_with_full_logits(name, scope):
    model, inputs = tiny(name), batch()
    expected, selected = naive(model, inputs, 0.6, scope)
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    handle = make_selective(model, SelectionPolicy(ratio=0.6, scope=scope))
    handle.keep_selection = True
    loss = model(**inputs).loss
    loss.backward()
    assert torch.equal(handle.last_selection[2], selected)
    # transformers' own heads compute soft caps and scales in the model's type; ours agrees at rounding level
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    assert gradients(model).keys() == wanted.keys()
    for key, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[key], rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_ratio_one_is_the_models_own_loss(name):
    model, inputs = tiny(name), batch()
    reference = inputs.pop("reference_loss")
    expected = model(**inputs).loss
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    make_selective(model, SelectionPolicy(ratio=1))
    loss = model(**inputs, reference_loss=reference).loss
    loss.backward()
    # transformers computes its loss in float32
    torch.testing.assert_close(loss, expected.to(loss.dtype), rtol=1e-6, atol=1e-6)
    for key, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[key], rtol=1e-5, atol=1e-6)


def test_after_remove_and_in_eval_mode_the_model_is_what_it_was():
    model, inputs = tiny("llama"), batch()
    plain = {name: value for name, value in inputs.items() if name != "reference_loss"}
    model.eval()
    before, generated = (
        model(**plain),
        model.generate(plain["input_ids"][:1, :4], max_new_tokens=4, do_sample=False),
    )
    handle = make_selective(model, SelectionPolicy())
    during = model(**inputs)
    assert torch.equal(during.loss, before.loss) and torch.equal(during.logits, before.logits)
    assert torch.equal(model.generate(plain["input_ids"][:1, :4], max_new_tokens=4, do_sample=False), generated)
    handle.remove()
    after = model(**plain)
    assert torch.equal(after.loss, before.loss) and torch.equal(after.logits, before.logits)
    assert "forward" not in vars(model) and "forward" not in vars(model.lm_head)


def test_changing_targets_of_unselected_tokens_changes_no_gradient():
    model, inputs = tiny("llama"), batch()
    mask = torch.rand(3, 12, generator=torch.Generator().manual_seed(2)) < 0.5
    make_selective(model, SelectionPolicy("mask", 0.5))
    model(input_ids=inputs["input_ids"], labels=inputs["labels"], selection_mask=mask).loss.backward()
    wanted = gradients(model)
    model.zero_grad()
    other = inputs["labels"].clone()
    other[(~mask) & (other != -100)] = 7
    model(input_ids=inputs["input_ids"], labels=other, selection_mask=mask).loss.backward()
    for key, gradient in gradients(model).items():
        assert torch.equal(gradient, wanted[key])


def test_accumulated_micro_batches_equal_one_batch():
    inputs = batch(rows=4)
    count = (inputs["labels"][:, 1:] != -100).sum()
    results = []
    for parts in (1, 2, 4):
        model = tiny("llama")
        make_selective(model, SelectionPolicy(ratio=0.6, scope="sequence"))
        for part in range(parts):
            rows = slice(part * 4 // parts, (part + 1) * 4 // parts)
            piece = {name: value[rows] for name, value in inputs.items()}
            model(**piece, num_items_in_batch=count).loss.backward()
        results.append(gradients(model))
    for other in results[1:]:
        for key, gradient in other.items():
            torch.testing.assert_close(gradient, results[0][key], rtol=1e-10, atol=1e-12)


def test_reference_bits_in_int16_are_float16_and_bfloat16_is_refused():
    model, inputs = tiny("llama"), batch()
    make_selective(model, SelectionPolicy())
    half = inputs["reference_loss"].half()
    losses = [
        model(**{**inputs, "reference_loss": column}).loss for column in (half, half.float(), half.view(torch.int16))
    ]
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(TypeError, match="reference_loss is torch.bfloat16"):
        model(**{**inputs, "reference_loss": half.bfloat16()})


def test_a_column_of_another_shape_is_named():
    model, inputs = tiny("llama"), batch()
    make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match=r"reference_loss has shape \(3, 11\); it must be that of labels, \(3, 12\)"):
        model(**{**inputs, "reference_loss": inputs["reference_loss"][:, 1:]})


def test_scores_that_need_no_live_loss_skip_the_first_pass_unless_measured(monkeypatch):
    import tokensieve.selective as selective

    model, inputs = tiny("llama"), batch()
    inputs["token_index"] = torch.arange(36).view(3, 12)
    handle = make_selective(model, SelectionPolicy("random", 0.6))
    calls = []
    original = selective.token_losses
    monkeypatch.setattr(selective, "token_losses", lambda *a, **k: calls.append(1) or original(*a, **k))
    first = model(**inputs).loss
    assert not calls and handle.stats.read()["measured_valid"] == 0
    handle.measure = True
    second = model(**inputs).loss
    assert len(calls) == 1 and handle.stats.read()["measured_valid"] == 30
    assert first == second


def test_statistics_keep_all_and_selected_losses_apart():
    model, inputs = tiny("llama"), batch()
    handle = make_selective(model, SelectionPolicy(ratio=0.6))
    handle.keep_selection = True
    model(**inputs)
    losses, _ = handle.token_losses(**{name: inputs[name] for name in ("input_ids", "labels")})
    _, valid, selected = handle.last_selection
    sums = handle.stats.read()
    assert sums["valid"] == valid.sum() == 30 and sums["selected"] == selected.sum() == 18
    assert sums["loss"] == pytest.approx(losses[:, 1:][valid].sum().item())
    assert sums["loss_selected"] == pytest.approx(losses[:, 1:][selected].sum().item())


def test_token_losses_are_aligned_with_labels():
    model, inputs = tiny("gpt2"), batch()
    handle = make_selective(model.eval(), SelectionPolicy(ratio=1))
    losses, entropies = handle.token_losses(input_ids=inputs["input_ids"], labels=inputs["labels"], entropy=True)
    logits = model(input_ids=inputs["input_ids"]).logits
    expected = F.cross_entropy(logits[:, :-1].transpose(1, 2), inputs["labels"][:, 1:], reduction="none")
    torch.testing.assert_close(losses[:, 1:], expected.detach(), rtol=1e-9, atol=1e-9)
    assert (losses[:, 0] == 0).all() and (losses[inputs["labels"] == -100] == 0).all()
    assert (entropies[inputs["labels"] != -100] > 0).all()


def test_a_model_that_memorised_a_sequence_has_no_loss_on_it():
    """The shift: logits at t against token t would leave the loss near random."""
    model = tiny("llama", torch.float32)
    ids = torch.randint(0, 61, (1, 12), generator=torch.Generator().manual_seed(3))
    handle = make_selective(model, SelectionPolicy(ratio=1))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    losses, _ = handle.token_losses(input_ids=ids, labels=ids)
    assert losses.max() < 0.1


def test_non_finite_loss_is_an_error_that_carries_the_rows():
    model, inputs = tiny("llama"), batch()
    inputs["token_index"] = torch.arange(36).view(3, 12)
    for policy in (SelectionPolicy(), SelectionPolicy("random", 0.6), SelectionPolicy(ratio=1)):
        handle = make_selective(model, policy)
        with torch.no_grad():
            kept = model.lm_head.weight[3].clone()
            model.lm_head.weight[3] = float("nan")
        with pytest.raises(NonFiniteLossError) as error:
            model(**inputs)
        assert error.value.token_index.shape[1] == 11
        with torch.no_grad():
            model.lm_head.weight[3] = kept
        handle.remove()


def test_a_batch_without_a_live_label_gives_zero_loss_and_gradients():
    model, inputs = tiny("llama"), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    make_selective(model, SelectionPolicy())
    loss = model(**inputs).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_unknown_heads_are_refused_with_the_difference():
    model = tiny("llama")
    original = model.forward
    model.config.logit_scale = 2.0  # the configuration claims what the model does not do
    with pytest.raises(ValueError, match="differ by .* nats"):
        make_selective(model, SelectionPolicy())
    assert model.forward == original


def test_self_check_leaves_mode_and_random_state_alone():
    model = tiny("llama")
    state = torch.random.get_rng_state()
    make_selective(model, SelectionPolicy())
    assert model.training and torch.equal(torch.random.get_rng_state(), state)


def test_patching_twice_auxiliary_losses_and_fused_heads_are_refused():
    model = tiny("llama")
    make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match="patched already"):
        make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match="fused_lm_head"):
        model(**batch(), fused_lm_head=True)
    other = tiny("llama")
    other.config.output_router_logits = True
    with pytest.raises(ValueError, match="auxiliary"):
        make_selective(other, SelectionPolicy())


def test_a_deep_copy_is_a_selective_model_of_its_own():
    model, inputs = tiny("llama"), batch()
    handle = make_selective(model, SelectionPolicy())
    twin = copy.deepcopy(model)
    loss = twin(**inputs).loss
    loss.backward()
    assert handle.stats.sums is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert loss == model(**inputs).loss


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing"),
        ({"average_tokens_across_devices": False}, "average_tokens"),
    ],
)
def test_trainer_settings_that_would_break_the_loss_are_refused(change, message, tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match=message):
        refuse_trainer_arguments(TrainingArguments(output_dir=str(tmp_path), **change))
