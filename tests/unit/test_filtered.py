"""Filtered backward equals zeroing the rows of unselected tokens at every linear map's output, and nothing else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tokensieve import SelectionPolicy, make_selective
from tokensieve.filtered import FilteredBackward

ROWS, LENGTH, VOCABULARY = 3, 10, 61
SIZES = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 32}
SHAPES = {
    "llama": {"num_attention_heads": 2, "num_key_value_heads": 1},
    "gpt_neox": {"num_attention_heads": 2},
    "gpt2": {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_inner": 24,
        "resid_pdrop": 0,
        "embd_pdrop": 0,
        "attn_pdrop": 0,
    },
}


def tiny(name, dtype=torch.float64):
    torch.manual_seed(0)
    width = {} if name == "gpt2" else {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = AutoConfig.for_model(name, **SIZES, **width, **SHAPES[name])
    return AutoModelForCausalLM.from_config(config).to(dtype).train()


def batch(seed=0):
    """Token ids, and the positions that predict a selected token: none in the first row, all in the second."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    selected = torch.rand(ROWS, LENGTH, generator=generator) < 0.5
    selected[0], selected[1] = False, True
    selected[:, -1] = False
    return ids, selected


def summed_loss(model, ids, selected):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype == torch.float32):
        logits = model(input_ids=ids, use_cache=False).logits
    losses = F.cross_entropy(logits.transpose(1, 2), ids.roll(-1, 1), reduction="none")
    return losses[selected].sum()


def gradients(model):
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def filtered_loss(model, filtered, ids, selected):
    filtered.begin(*ids.shape)
    loss = summed_loss(model, ids, selected)
    filtered.choose(selected)
    return loss


def filtered_gradients(model, ids, selected):
    filtered = FilteredBackward(model.base_model)
    filtered_loss(model, filtered, ids, selected).backward()
    filtered.remove()
    return gradients(model)


def exact_gradients(model, ids, selected):
    summed_loss(model, ids, selected).backward()
    return gradients(model)


def zeroed_gradients(model, ids, selected):
    """The definition, independently: a tensor hook at the output of every linear map."""
    handles = []
    for module in model.base_model.modules():
        if isinstance(module, nn.Linear | Conv1D):

            def zero_rows(_module, _inputs, output):
                if output.requires_grad:
                    output.register_hook(lambda gradient: gradient * selected[..., None])

            handles.append(module.register_forward_hook(zero_rows))
    assert handles
    found = exact_gradients(model, ids, selected)
    for handle in handles:
        handle.remove()
    return found


def assert_equal(ours, wanted, tolerance=1e-12):
    assert ours.keys() == wanted.keys()
    for name, gradient in ours.items():
        assert gradient.dtype == wanted[name].dtype
        torch.testing.assert_close(gradient, wanted[name], rtol=tolerance, atol=tolerance, msg=name)


def differs(ours, wanted):
    return any(not torch.allclose(ours[name], wanted[name], rtol=1e-3) for name in ours)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_equal_those_of_zeroed_rows(name):
    model, (ids, selected) = tiny(name), batch()
    ours = filtered_gradients(model, ids, selected)
    assert_equal(ours, zeroed_gradients(model, ids, selected))
    assert differs(ours, exact_gradients(model, ids, selected))


@pytest.mark.parametrize("name", SHAPES)
def test_with_every_row_selected_the_backward_is_exact(name):
    model, (ids, _) = tiny(name), batch()
    everything = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    assert_equal(filtered_gradients(model, ids, everything), exact_gradients(model, ids, everything))


def test_with_no_row_selected_no_linear_map_learns():
    model, (ids, selected) = tiny("llama"), batch()
    filtered = FilteredBackward(model.base_model)
    filtered.begin(ROWS, LENGTH)
    loss = summed_loss(model, ids, selected)
    filtered.choose(torch.zeros_like(selected))
    loss.backward()
    found = gradients(model)
    projections = [gradient for name, gradient in found.items() if "proj" in name]
    assert len(projections) == 14
    assert not any(gradient.any() for gradient in projections)
    assert found["lm_head.weight"].any()


def test_without_choice_or_outside_a_micro_step_the_backward_is_exact():
    model, (ids, selected) = tiny("llama"), batch()
    wanted = exact_gradients(model, ids, selected)
    filtered = FilteredBackward(model.base_model)
    filtered.begin(ROWS, LENGTH)
    without_choice = summed_loss(model, ids, selected)
    filtered_loss(model, filtered, ids, selected).backward()
    gradients(model)
    without_choice.backward()
    assert_equal(gradients(model), wanted)
    assert_equal(exact_gradients(model, ids, selected), wanted)


def test_backwards_in_any_order_use_the_choice_of_their_own_forward():
    model, steps = tiny("llama"), [batch(seed) for seed in range(3)]
    wanted = [zeroed_gradients(model, *step) for step in steps]
    filtered = FilteredBackward(model.base_model)
    losses = [filtered_loss(model, filtered, *step) for step in steps]
    for i in (1, 0, 2):
        losses[i].backward()
        assert_equal(gradients(model), wanted[i])


def test_checkpointing_changes_nothing_in_any_order():
    model, steps = tiny("llama"), [batch(seed) for seed in range(2)]
    wanted = [filtered_gradients(model, *step) for step in steps]
    model.activation_checkpointing_enable({"use_reentrant": False})
    filtered = FilteredBackward(model.base_model)
    for step, gradient in zip(steps, wanted, strict=True):
        filtered_loss(model, filtered, *step).backward()
        assert_equal(gradients(model), gradient)
    losses = [filtered_loss(model, filtered, *step) for step in steps]
    for loss, gradient in zip(losses, wanted, strict=True):
        loss.backward()
        assert_equal(gradients(model), gradient)


def test_checkpointing_outside_a_micro_step_is_exact():
    model, (ids, selected) = tiny("llama"), batch()
    wanted = exact_gradients(model, ids, selected)
    model.activation_checkpointing_enable({"use_reentrant": False})
    filtered = FilteredBackward(model.base_model)
    aside = summed_loss(model, ids, selected)
    filtered_loss(model, filtered, ids, selected).backward()
    gradients(model)
    aside.backward()
    assert_equal(gradients(model), wanted)


def test_reentrant_checkpointing_is_refused():
    model, (ids, selected) = tiny("llama"), batch()
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    filtered = FilteredBackward(model.base_model)
    loss = filtered_loss(model, filtered, ids, selected)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        loss.backward()


@pytest.mark.parametrize("name", SHAPES)
def test_autocast_multiplies_in_the_types_that_linear_would(name):
    model, (ids, selected) = tiny(name, torch.float32), batch()
    kinds = []
    module = next(module for module in model.base_model.modules() if isinstance(module, nn.Linear | Conv1D))
    hook = module.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    ours = filtered_gradients(model, ids, selected)
    hook.remove()
    wanted = zeroed_gradients(model, ids, selected)
    assert kinds == [torch.bfloat16]
    for key, gradient in ours.items():
        error = (gradient - wanted[key]).norm() / wanted[key].norm().clamp(min=1e-9)
        assert error < 4 * torch.finfo(torch.bfloat16).eps, key


@pytest.mark.parametrize("trained", [("embed", "layers.0.mlp.up"), ("layers.0.mlp.up",)])
def test_frozen_weights_get_no_gradient_and_pass_it_on(trained):
    model, (ids, selected) = tiny("llama"), batch()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))
    ours = filtered_gradients(model, ids, selected)
    assert len(ours) == len(trained)
    assert_equal(ours, zeroed_gradients(model, ids, selected))


def test_removed_the_model_is_what_it_was():
    model, (ids, selected) = tiny("llama"), batch()
    before = exact_gradients(model, ids, selected)
    filtered = FilteredBackward(model.base_model)
    filtered_loss(model, filtered, ids, selected).backward()
    gradients(model)
    filtered.remove()
    assert not any("forward" in vars(module) for module in model.modules())
    for name, gradient in exact_gradients(model, ids, selected).items():
        assert torch.equal(gradient, before[name])


def test_in_eval_mode_the_maps_are_untouched():
    model, (ids, _) = tiny("llama"), batch()
    filtered = FilteredBackward(model.base_model)
    filtered.begin(ROWS, LENGTH)
    nodes = []
    hook = model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _m, _i, o: nodes.append(o.grad_fn.name()))
    model(input_ids=ids)
    model.eval()(input_ids=ids)
    hook.remove()
    assert "_FilteredLinear" in nodes[0] and "_FilteredLinear" not in nodes[1]


def test_a_deep_copy_filters_by_itself():
    model, (ids, selected) = tiny("llama"), batch()
    wanted = zeroed_gradients(model, ids, selected)
    filtered = FilteredBackward(model.base_model)
    other, other_filtered = copy.deepcopy((model, filtered))
    assert other_filtered.backbone is other.base_model
    filtered.begin(1, 1)  # a choice of the original must not reach the copy
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
    filtered_loss(other, other_filtered, ids, selected).backward()
    assert_equal(gradients(other), wanted)
    assert not gradients(model)
    other_filtered.remove()
    assert "forward" in vars(model.model.layers[0].mlp.up_proj)


def test_a_compiled_model_follows_each_steps_choice():
    model, steps = tiny("llama"), [batch(seed) for seed in range(2)]
    wanted = [filtered_gradients(model, *step) for step in steps]
    filtered = FilteredBackward(model.base_model)
    compiled = torch.compile(model, backend="aot_eager")
    for step, gradient in zip(steps, wanted, strict=True):
        filtered_loss(compiled, filtered, *step).backward()
        assert_equal(gradients(model), gradient, tolerance=1e-9)


class Flattening(nn.Module):
    """A map that sees rows, as the experts of a mixture do, one that sees heads, and weights of another kind."""

    def __init__(self):
        super().__init__()
        self.rows, self.heads = nn.Linear(6, 6), nn.Linear(3, 3)
        self.mix = nn.Conv1d(6, 6, 1)

    def forward(self, x):
        x = self.rows(x.flatten(0, 1)).view(x.shape)
        return self.heads(x.unflatten(-1, (2, 3))).flatten(2)


def test_inputs_of_another_layout_stay_exact_and_what_is_left_is_named():
    torch.manual_seed(0)
    module, x = Flattening().double(), torch.randn(2, 4, 6, dtype=torch.float64)
    module(x).square().sum().backward()
    exact = gradients(module)
    filtered = FilteredBackward(module)
    assert filtered.left_exact == ("mix",)
    filtered.begin(2, 4)
    loss = module(x).square().sum()
    filtered.choose(torch.eye(2, 4).bool())
    loss.backward()
    found = gradients(module)
    assert differs(
        {"heads": found["heads.weight"]}, {"heads": exact["heads.weight"]}
    )  # [B, T, heads, width] is filtered
    # The flat map has all its rows, of which the map above passes back the selected ones.
    out = module.rows(x.flatten(0, 1)).view(2, 4, 2, 3).detach().requires_grad_()
    (F.linear(out, module.heads.weight, module.heads.bias)).square().sum().backward()
    upstream = (out.grad.flatten(2) * torch.eye(2, 4)[..., None]).flatten(0, 1)
    torch.testing.assert_close(found["rows.weight"], upstream.t() @ x.flatten(0, 1))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_one_map_of_any_size_equals_its_definition(data):
    rows, length, width, out = (data.draw(st.integers(1, 4)) for _ in range(4))
    middle = data.draw(st.lists(st.integers(1, 3), max_size=2))
    bias = data.draw(st.booleans())
    mask = data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    module, selected = nn.Sequential(nn.Linear(width, out, bias)).double(), torch.tensor(mask).view(rows, length)
    x = torch.randn(rows, length, *middle, width, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(rows, length, *middle, out, dtype=torch.float64)
    zeroed = (pull.flatten(2) * selected[..., None]).view(pull.shape)
    wanted = torch.autograd.grad(module(x), [x, *module.parameters()], zeroed)
    filtered = FilteredBackward(module)
    filtered.begin(rows, length)
    y = module(x)
    filtered.choose(selected)
    for ours, theirs in zip(torch.autograd.grad(y, [x, *module.parameters()], pull), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_selective_loss_filters_the_positions_that_predict_selected_tokens():
    model, (ids, _) = tiny("llama"), batch()
    inputs = {"input_ids": ids, "labels": ids.clone(), "reference_loss": torch.rand(ROWS, LENGTH).double() * 6}
    inputs["labels"][:, 0] = -100
    policy = SelectionPolicy(ratio=0.5, scope="microbatch")
    handle = make_selective(model, policy, backward="filtered")
    handle.keep_selection = True
    model(**inputs).loss.backward()
    ours = gradients(model)
    handle.remove()
    selected = F.pad(handle.last_selection[2], (0, 1))
    assert 0 < selected.sum() < selected.numel()
    factor = policy.ratio * (inputs["labels"][:, 1:] != -100).sum()
    wanted = {name: gradient / factor for name, gradient in zeroed_gradients(model, ids, selected).items()}
    assert_equal(ours, wanted, tolerance=1e-7)


def test_misuse_is_refused():
    model, (_, selected) = tiny("llama"), batch()
    with pytest.raises(TypeError, match="nothing to filter; its weights are in Conv1d"):
        FilteredBackward(nn.Sequential(nn.Conv1d(2, 2, 1)))
    filtered = FilteredBackward(model.base_model)
    with pytest.raises(ValueError, match="patched already"):
        FilteredBackward(model.base_model)
    with pytest.raises(RuntimeError, match="begin"):
        filtered.choose(selected)
    filtered.begin(ROWS, LENGTH - 1)
    with pytest.raises(ValueError, match=r"\(3, 10\).*\(3, 9\)"):
        filtered.choose(selected)
    with pytest.raises(ValueError, match=r"float64"):
        filtered.choose(selected[:, :-1].double())
    with torch.no_grad():
        filtered.begin(ROWS, LENGTH)
        filtered.choose(selected)
