"""The handle of make_selective: columns, statistics, refusals, copies. Exactness is tested in tests/parity."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from tokensieve import SelectionPolicy, make_selective
from tokensieve.selective import NonFiniteLossError, refuse_trainer_arguments

LLAMA = {
    "vocab_size": 61,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def tiny(dtype: torch.dtype = torch.float64, **more: object):
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **{**LLAMA, **more})
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager").train()


def batch(rows: int = 3, length: int = 12):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 61, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, 0] = -100
    labels[1, 4:7] = -100
    reference = torch.rand(rows, length, generator=generator).double() * 6
    return {"input_ids": ids, "labels": labels, "reference_loss": reference}


def test_after_remove_and_in_eval_mode_the_model_is_what_it_was():
    model, inputs = tiny(), batch()
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


def test_reference_bits_in_int16_are_float16_and_bfloat16_is_refused():
    model, inputs = tiny(), batch()
    make_selective(model, SelectionPolicy())
    half = inputs["reference_loss"].half()
    losses = [
        model(**{**inputs, "reference_loss": column}).loss for column in (half, half.float(), half.view(torch.int16))
    ]
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(TypeError, match="reference_loss is torch.bfloat16"):
        model(**{**inputs, "reference_loss": half.bfloat16()})


def test_a_column_of_another_shape_is_named():
    model, inputs = tiny(), batch()
    make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match=r"reference_loss has shape \(3, 11\); it must be that of labels, \(3, 12\)"):
        model(**{**inputs, "reference_loss": inputs["reference_loss"][:, 1:]})


def test_scores_that_need_no_live_loss_skip_the_first_pass_unless_measured(monkeypatch):
    import tokensieve.selective_loss as selective_loss

    model, inputs = tiny(), batch()
    inputs["token_index"] = torch.arange(36).view(3, 12)
    handle = make_selective(model, SelectionPolicy("random", 0.6))
    calls = []
    original = selective_loss.first_pass
    monkeypatch.setattr(selective_loss, "first_pass", lambda *a, **k: calls.append(1) or original(*a, **k))
    first = model(**inputs).loss
    assert not calls and handle.stats.read()["measured_valid"] == 0
    handle.measure = True
    second = model(**inputs).loss
    assert len(calls) == 1 and handle.stats.read()["measured_valid"] == 30
    assert first == second


def test_statistics_keep_all_and_selected_losses_apart():
    model, inputs = tiny(), batch()
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
    model, inputs = tiny(), batch()
    handle = make_selective(model.eval(), SelectionPolicy(ratio=1))
    losses, entropies = handle.token_losses(input_ids=inputs["input_ids"], labels=inputs["labels"], entropy=True)
    logits = model(input_ids=inputs["input_ids"]).logits
    expected = F.cross_entropy(logits[:, :-1].transpose(1, 2), inputs["labels"][:, 1:], reduction="none")
    torch.testing.assert_close(losses[:, 1:], expected.detach(), rtol=1e-9, atol=1e-9)
    assert (losses[:, 0] == 0).all() and (losses[inputs["labels"] == -100] == 0).all()
    assert (entropies[inputs["labels"] != -100] > 0).all()


def test_non_finite_loss_is_an_error_that_carries_the_rows():
    model, inputs = tiny(), batch()
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
    model, inputs = tiny(), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    make_selective(model, SelectionPolicy())
    loss = model(**inputs).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_unknown_heads_are_refused_with_the_difference():
    model = tiny()
    original = model.forward
    model.config.logit_scale = 2.0  # the configuration claims what the model does not do
    with pytest.raises(ValueError, match="differ by .* nats"):
        make_selective(model, SelectionPolicy())
    assert model.forward == original


def test_self_check_leaves_mode_and_random_state_alone():
    model = tiny()
    state = torch.random.get_rng_state()
    make_selective(model, SelectionPolicy())
    assert model.training and torch.equal(torch.random.get_rng_state(), state)


def test_patching_twice_and_fused_heads_are_refused():
    model = tiny()
    make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match="patched already"):
        make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match="fused_lm_head"):
        model(**batch(), fused_lm_head=True)


def test_a_deep_copy_is_a_selective_model_of_its_own():
    model, inputs = tiny(), batch()
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


def test_on_the_meta_device_the_check_waits_for_the_weights_and_still_refuses():
    good = tiny()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(good.config, dtype=torch.float64).train()
    handle = make_selective(model, SelectionPolicy())
    assert not handle.checked
    model.to_empty(device="cpu").load_state_dict(good.state_dict())
    # Rotary frequencies are no weights: they are not in the state dict.
    model.model.rotary_emb = good.model.rotary_emb
    expected = make_selective(good, SelectionPolicy()).model(**batch()).loss
    torch.testing.assert_close(model(**batch()).loss, expected, rtol=1e-12, atol=1e-12)
    assert handle.checked
    handle.checked, handle.transform = False, type(handle.transform)(scale=2.0)
    with pytest.raises(ValueError, match="differ by .* nats"):
        model(**batch())


def test_scoring_leaves_no_trace_in_modes_random_state_or_gradients():
    model, inputs = tiny(torch.float32, attention_dropout=0.5), batch()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    handle = make_selective(model, SelectionPolicy())
    state = torch.random.get_rng_state()
    given = {name: inputs[name] for name in ("input_ids", "labels")}
    first, second = (handle.token_losses(**given)[0] for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert handle.stats.sums is None and handle.last_selection is None


def test_columns_given_by_name_or_as_none_and_inputs_given_by_place():
    model, inputs = tiny(), batch()
    make_selective(model, SelectionPolicy())
    expected = model(**inputs).loss
    ids = inputs.pop("input_ids")
    assert model(ids, **inputs).loss == expected
    assert model(ids, **inputs, history_loss=None).loss == expected
    with pytest.raises(ValueError, match="needs the column reference_loss, which the batch does not have"):
        model(ids, **{**inputs, "reference_loss": None})


def test_labels_that_are_shifted_already_are_refused():
    model, inputs = tiny(), batch()
    make_selective(model, SelectionPolicy())
    with pytest.raises(ValueError, match="shift_labels"):
        model(**inputs, shift_labels=inputs["labels"].roll(-1, 1))


def test_embeddings_may_stand_for_ids():
    model, inputs = tiny(), batch()
    make_selective(model, SelectionPolicy(ratio=1))
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert model(inputs_embeds=embeddings, **inputs).loss == model(**batch()).loss


def test_a_hard_choice_is_needed_where_rows_are_dropped():
    for policy in (SelectionPolicy(alpha=0.5), SelectionPolicy(temperature=1.0)):
        with pytest.raises(ValueError, match="needs a hard choice"):
            make_selective(tiny(), policy, backward="filtered")
    with pytest.raises(ValueError, match="backward 'sparse' is not one of exact, filtered"):
        make_selective(tiny(), SelectionPolicy(), backward="sparse")


def test_statistics_start_again_from_zero():
    model = tiny()
    handle = make_selective(model, SelectionPolicy(ratio=1))
    assert set(handle.stats.read().values()) == {0.0}
    model(**batch())
    model(**batch())
    found = handle.stats.read()
    assert found["valid"] == found["selected"] == found["measured_valid"] == 60
    handle.stats.reset()
    assert set(handle.stats.read().values()) == {0.0}
