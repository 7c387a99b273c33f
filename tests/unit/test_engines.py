"""The selective loss under what people wrap around a model: checkpointing, compilers, autocast, adapters, plain loops.

Each is compared with the same computation without it, or with a naive one through full logits.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve import SelectionPolicy, make_selective, select_tokens
from tokensieve.selective import SelectiveHandle

VOCABULARY = 61
POLICY = SelectionPolicy(ratio=0.6, scope="sequence")


def tiny(dtype: torch.dtype = torch.float64, seed: int = 0, **more: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "initializer_range": 0.3,  # losses of a few nats spread, so that the choice depends on them
    }
    config = AutoConfig.for_model("llama", **{**shape, **more})
    return AutoModelForCausalLM.from_config(config, dtype=dtype).train()


def batch(rows: int = 3, length: int = 12, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    live = torch.rand(rows, length, generator=generator) < 0.8
    reference = 6 * torch.rand(rows, length, generator=generator)
    return {"input_ids": ids, "labels": ids.masked_fill(~live, -100), "reference_loss": reference.double()}


def full_logits_loss(model: nn.Module, inputs: dict[str, Tensor], policy: SelectionPolicy = POLICY) -> Tensor:
    """The selective loss by way of the logits of all tokens."""
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1]
    targets = inputs["labels"][:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    valid = targets != -100
    excess = losses.detach() - inputs["reference_loss"][:, 1:]
    selected = select_tokens(excess, valid, policy.ratio, policy.scope)
    return losses[selected].sum() / (policy.ratio * int(valid.sum()))


def step(model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, which are cleared."""
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss.detach(), found


def assert_same(ours: tuple[Tensor, dict], wanted: tuple[Tensor, dict], tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(ours[0], wanted[0], rtol=tolerance, atol=tolerance)
    assert ours[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=tolerance, atol=tolerance, msg=name)


# Activation checkpointing


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing(reentrant: bool) -> None:
    model, inputs = tiny(attention_dropout=0.2), batch()
    make_selective(model, POLICY)
    torch.manual_seed(7)
    wanted = step(model, model(**inputs).loss)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.manual_seed(7)
    ours = step(model, model(**inputs).loss)
    assert len(calls) == 2, "the layer was not computed again"
    assert_same(ours, wanted, tolerance=0)


# Compilers


@pytest.fixture
def compiler() -> Iterator[Any]:
    """Counts of the compiler, from zero."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


@pytest.mark.parametrize("first", ["patch", "compile"])
def test_a_compiled_backbone_changes_nothing_and_is_compiled_once(compiler: Any, first: str) -> None:
    model = tiny()
    wanted = [step(model, full_logits_loss(model, batch(seed=seed))) for seed in (1, 2, 3)]
    names = {name.replace("model.", "model._orig_mod.", 1): name for name, _ in model.named_parameters()}
    if first == "patch":
        make_selective(model, POLICY)
    model.model = torch.compile(model.model, backend="aot_eager")
    if first == "compile":
        make_selective(model, POLICY)
    graphs = []
    for seed, expected in zip((1, 2, 3), wanted, strict=True):
        loss, found = step(model, model(**batch(seed=seed)).loss)
        assert_same((loss, {names.get(name, name): gradient for name, gradient in found.items()}), expected)
        graphs.append(compiler["unique_graphs"])
    assert graphs[0] > 0
    assert graphs == [graphs[0]] * 3


def test_a_compiled_model_changes_nothing_and_is_compiled_once(compiler: Any) -> None:
    """Also while a schedule moves the ratio, and losses are measured on some steps only."""
    policy = SelectionPolicy(ratio=0.2, ratio_schedule=((0, 0.8), (4, 0.2)), scope="sequence")
    model, graphs = tiny(), []
    wanted = [step(model, full_logits_loss(model, batch(seed=i), policy.at(i))) for i in range(4)]
    handle = make_selective(model, policy)
    compiled = torch.compile(model, backend="aot_eager")
    for i, expected in enumerate(wanted):
        handle.step, handle.measure, handle.keep_selection = i, i % 2 == 1, i > 1
        assert_same(step(model, compiled(**batch(seed=i)).loss), expected)
        graphs.append(compiler["unique_graphs"])
    assert graphs[0] > 0
    assert graphs == [graphs[0]] * 4


# Half precision


def plain_losses(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Loss of every token as transformers computes it: logits in the model's type, then at least float32."""
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1]
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide).transpose(1, 2), inputs["labels"][:, 1:], reduction="none")


def error(ours: dict[str, Tensor] | Tensor, exact: dict[str, Tensor] | Tensor) -> float:
    """Relative, of everything as one vector."""
    a, b = (
        torch.cat([part.double().flatten() for part in side.values()]) if isinstance(side, dict) else side.double()
        for side in (ours, exact)
    )
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "bf16 weights"])
def test_in_half_precision_errors_are_at_most_a_tenth_above_the_plain_heads(weights: torch.dtype) -> None:
    """Errors of token losses and of gradients against float64, over four seeds."""
    totals = torch.zeros(2, 2, dtype=torch.float64)  # [ours, plain] x [losses, gradients]
    for seed in range(4):
        model = tiny(weights, seed, vocab_size=199, hidden_size=32, intermediate_size=48)
        inputs = batch(rows=4, length=40, seed=seed)
        plain = {name: inputs[name] for name in ("input_ids", "labels")}
        mask = torch.rand(4, 40, generator=torch.Generator().manual_seed(seed)) < 0.5
        items = 0.5 * int((inputs["labels"][:, 1:] != -100).sum())
        exact = copy.deepcopy(model).double()
        true_losses = plain_losses(exact, inputs)
        _, truth = step(exact, true_losses[mask[:, 1:]].sum() / items)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32)
        with autocast:
            losses = plain_losses(model, inputs)
            loss = losses[mask[:, 1:]].sum() / items
        totals[1] += torch.tensor([error(losses, true_losses), error(step(model, loss)[1], truth)])
        handle = make_selective(model, SelectionPolicy("mask", 0.5))
        with autocast:
            loss = model(**plain, selection_mask=mask).loss
            losses = handle.token_losses(**plain)[0][:, 1:]
        assert loss.dtype == losses.dtype == torch.float32
        found = step(model, loss)[1]
        assert all(gradient.dtype == weights for gradient in found.values())
        totals[0] += torch.tensor([error(losses, true_losses), error(found, truth)])
    assert (totals[1] > 1e-4).all(), "nothing was computed in half precision"
    assert (totals[0] <= 1.1 * totals[1]).all(), totals


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "bf16 weights"])
def test_half_precision_trains(weights: torch.dtype) -> None:
    model, inputs = tiny(weights), batch()
    make_selective(model, SelectionPolicy(ratio=1))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


# Adapters


def lora(model: PreTrainedModel, **options: Any) -> Any:
    """Random adapters: of zeros, half of the gradients would be zero."""
    peft = pytest.importorskip("peft", reason="adapters need the extra sft")
    options = {"target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, "lora_dropout": 0.0, **options}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, **options))
    return adapted.double().train()


def adapted(order: str, **options: Any) -> tuple[Any, SelectiveHandle]:
    model = tiny()
    if order == "patch, adapt":
        handle = make_selective(model, POLICY)
        return lora(model, **options), handle
    model = lora(model, **options)
    return model, make_selective(model, POLICY)


@pytest.mark.parametrize("order", ["patch, adapt", "adapt, patch"])
@pytest.mark.parametrize("saved", [None, ["lm_head"]], ids=["head frozen", "head trained"])
def test_adapters_get_the_gradients_of_full_logits(order: str, saved: list[str] | None) -> None:
    model, handle = adapted(order, modules_to_save=saved)
    if saved is not None:
        # The trained copy of the head must be told apart from the frozen original.
        with torch.no_grad():
            model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    inputs = batch()
    wanted = step(model, full_logits_loss(model, inputs))
    assert any("lm_head" in name for name in wanted[1]) == (saved is not None)
    assert all("lora" in name or "lm_head" in name for name in wanted[1])
    assert_same(step(model, model(**inputs).loss), wanted)
    twin = copy.deepcopy(model)
    before = handle.stats.read()
    assert_same(step(twin, twin(**inputs).loss), wanted)
    assert handle.stats.read() == before, "the copy counts for the original"
    handle.remove()
    assert_same(step(model, full_logits_loss(model, inputs)), wanted)


@pytest.mark.parametrize("order", ["patch, adapt", "adapt, patch"])
def test_an_adapter_on_the_head_is_refused(order: str) -> None:
    with pytest.raises(TypeError, match="adapter on the head"):
        model, _ = adapted(order, target_modules=["q_proj", "lm_head"])
        model(**batch())


# Saving, loading, generating


def test_a_patched_model_saves_and_loads_as_if_it_were_not(tmp_path: Any) -> None:
    model, inputs = tiny(torch.float32), batch()
    make_selective(model, POLICY)
    torch.optim.SGD(model.parameters(), 0.1).step(lambda: model(**inputs).loss.backward())
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert not {"forward"} & {*vars(loaded), *vars(loaded.lm_head)}
    for (name, ours), (other, wanted) in zip(loaded.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, wanted)
    plain = {"input_ids": inputs["input_ids"], "labels": inputs["labels"]}
    assert torch.equal(loaded.eval()(**plain).loss, model.eval()(**plain).loss)


def test_between_training_steps_a_model_in_eval_mode_generates_and_evaluates_as_before() -> None:
    model, inputs = tiny(), batch()
    twin = copy.deepcopy(model)
    handle = make_selective(model, POLICY)
    first = model(**inputs)
    assert first.get("logits") is None
    model.eval()
    twin.eval()
    prompt = inputs["input_ids"][:, :4]
    assert torch.equal(
        *(
            m.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=False)
            for m in (model, twin)
        )
    )
    plain = {"input_ids": inputs["input_ids"], "labels": inputs["labels"]}
    before = handle.stats.read()
    ours, wanted = model(**inputs), twin(**plain)
    assert torch.equal(ours.loss, wanted.loss)
    assert torch.equal(ours.logits, wanted.logits)
    assert handle.stats.read() == before
    assert torch.equal(model.train()(**inputs).loss, first.loss)


# Loops and autograd


def test_a_plain_loop_divides_by_the_live_labels_of_its_batch() -> None:
    model, inputs = tiny(), batch()
    wanted = step(model, full_logits_loss(model, inputs))
    make_selective(model, POLICY)
    assert_same(step(model, model(**inputs).loss), wanted)
    items = int((inputs["labels"][:, 1:] != -100).sum())
    loss, gradients = step(model, model(**inputs, num_items_in_batch=2 * items).loss)
    assert_same((2 * loss, {name: 2 * gradient for name, gradient in gradients.items()}), wanted)


@pytest.mark.parametrize("items", [int, torch.tensor, lambda count: torch.tensor(count, dtype=torch.float64)])
def test_accumulation_in_a_plain_loop_is_one_large_batch(items: Any) -> None:
    model, inputs = tiny(), batch(rows=4)
    wanted = step(model, full_logits_loss(model, inputs))
    make_selective(model, POLICY)
    count = items(int((inputs["labels"][:, 1:] != -100).sum()))
    parts = [{name: column[rows] for name, column in inputs.items()} for rows in (slice(0, 1), slice(1, 4))]
    losses = [model(**part, num_items_in_batch=count).loss for part in parts]
    assert_same(step(model, losses[0] + losses[1]), wanted)


def test_a_retained_graph_gives_the_same_gradients_twice() -> None:
    model, inputs = tiny(), batch()
    make_selective(model, POLICY)
    loss, found = model(**inputs).loss, []
    for retain in (True, False):
        loss.backward(retain_graph=retain)
        found.append({name: p.grad for name, p in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    assert_same((loss, found[1]), (loss, found[0]), tolerance=0)


def test_autograd_grad_reaches_inputs_and_parameters() -> None:
    model, inputs = tiny(), batch()
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
    wanted_loss = full_logits_loss(
        lambda input_ids, **options: model(inputs_embeds=input_ids, **options), {**inputs, "input_ids": embeddings}
    )
    leaves = [embeddings, model.lm_head.weight, model.model.layers[0].mlp.up_proj.weight]
    wanted = torch.autograd.grad(wanted_loss, leaves)
    make_selective(model, POLICY)
    # Times 4, which no rounding of the backbone's float32 norms can see.
    found = torch.autograd.grad(4 * model(inputs_embeds=embeddings, **inputs).loss, leaves)
    for ours, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, 4 * expected, rtol=1e-11, atol=1e-11)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("frozen", ["backbone", "head"])
def test_frozen_parts_get_no_gradient_and_the_others_theirs(frozen: str) -> None:
    model, inputs = tiny(), batch()
    part = model.model if frozen == "backbone" else model.lm_head
    part.requires_grad_(False)
    wanted = step(model, full_logits_loss(model, inputs))
    make_selective(model, POLICY)
    found = step(model, model(**inputs).loss)
    assert_same(found, wanted)
    assert any(name.startswith("lm_head") for name in found[1]) == (frozen == "backbone")


def test_a_second_handle_after_the_first_is_removed_follows_its_own_policy() -> None:
    model, inputs = tiny(), batch()
    first = make_selective(model, POLICY)
    model(**inputs)
    first.remove()
    assert "forward" not in vars(model.lm_head)
    seen = first.stats.read()
    policy = SelectionPolicy(ratio=0.2, scope="microbatch")
    wanted = step(model, full_logits_loss(model, inputs, policy))
    make_selective(model, policy)
    assert_same(step(model, model(**inputs).loss), wanted)
    assert first.stats.read() == seen


# Filtered backward


def test_filtered_backward_drops_the_rows_of_unselected_tokens() -> None:
    """Its definition, by tensor hooks on an unfiltered model."""
    model, inputs = tiny(), batch()
    twin = copy.deepcopy(model)
    handle = make_selective(model, POLICY, backward="filtered")
    handle.keep_selection = True
    ours = step(model, model(**inputs).loss)
    assert handle.last_selection is not None
    # Position i predicts token i + 1; the last position of a row predicts nothing.
    rows = F.pad(handle.last_selection[2], (0, 1))[..., None]
    exact = step(twin, full_logits_loss(twin, inputs))
    for module in twin.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, __, output: output.register_hook(lambda g: g * rows) and None)
    assert_same(ours, step(twin, full_logits_loss(twin, inputs)))
    with pytest.raises(AssertionError):
        assert_same(ours, exact, tolerance=1e-3)
    handle.remove()
    assert_same(step(model, full_logits_loss(model, inputs)), exact)


@pytest.mark.parametrize("soft", [{"alpha": 0.5}, {"temperature": 0.7}])
def test_filtered_backward_needs_a_hard_choice(soft: dict[str, float]) -> None:
    model = tiny()
    with pytest.raises(ValueError, match="hard choice"):
        make_selective(model, SelectionPolicy(ratio=0.6, **soft), backward="filtered")
    assert "forward" not in vars(model)
