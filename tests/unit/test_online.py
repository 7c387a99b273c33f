"""A reference beside the student: its columns, at rest, frozen, nowhere in the student; what is refused."""

import copy
import io

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from tokensieve import SelectionPolicy, make_selective
from tokensieve.errors import UserError
from tokensieve.integrations.trainer import attach
from tokensieve.online import attach_reference, detach_reference
from tokensieve.selection import Part

LLAMA = {
    "vocab_size": 61,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_key_value_heads": 1,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,
}


def tiny(seed: int = 0, dtype: torch.dtype = torch.float64, name: str = "llama", **more: object) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = AutoConfig.for_model(name, **{**LLAMA, **more})
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager").train()


def batch(rows: int = 4, length: int = 12, seed: int = 1) -> dict[str, torch.Tensor]:
    """Two documents a row, and some labels masked."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 61, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, [0, 5]] = -100
    labels[1, 7:9] = -100
    positions = torch.cat([torch.arange(5), torch.arange(length - 5)]).expand(rows, length)
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def losses_of(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Through full logits, [B, T], in eval mode."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.transpose(1, 2).double(), inputs["labels"][:, 1:], reduction="none")
    return torch.nn.functional.pad(losses, (1, 0))


def online(policy: SelectionPolicy | None = None, student: PreTrainedModel | None = None, **options: object):
    """(handle of a student, reference model attached to it)."""
    handle = make_selective(tiny() if student is None else student, policy or SelectionPolicy())
    reference = tiny(1)
    attach_reference(handle, reference, **options)
    return handle, reference


@pytest.mark.parametrize(
    "policy",
    [
        SelectionPolicy(),
        SelectionPolicy("reference_loss", 0.5, scope="sequence"),
        SelectionPolicy("reference_entropy", 0.5),
        SelectionPolicy("union", 0.5, parts=(Part("reference_loss", 0.3), Part("reference_entropy", 0.4))),
    ],
    ids=lambda policy: policy.score,
)
def test_loss_gradients_and_choice_are_those_of_columns_that_the_batch_brings(policy: SelectionPolicy) -> None:
    inputs, found = batch(), []
    reference = make_selective(tiny(1), SelectionPolicy(ratio=1))
    loss, entropy = reference.token_losses(entropy=True, **inputs)
    torch.testing.assert_close(loss, losses_of(tiny(1), inputs), rtol=1e-10, atol=1e-12)
    for columns in ({"reference_loss": loss, "reference_entropy": entropy}, None):
        handle = make_selective(tiny(), policy)
        handle.keep_selection = True
        if columns is None:
            attach_reference(handle, tiny(1))
        outputs = handle.model(**inputs, **(columns or {}))
        outputs.loss.backward()
        gradients = {name: weight.grad for name, weight in handle.model.named_parameters()}
        found.append((outputs.loss, gradients, handle.last_selection[2]))
    (loss, gradients, selected), (loss_online, gradients_online, selected_online) = found
    assert torch.equal(selected, selected_online) and 0 < selected.sum() < selected.numel()
    assert torch.equal(loss, loss_online)
    assert all(torch.equal(gradients[name], gradients_online[name]) for name in gradients)


def test_both_models_get_the_same_inputs() -> None:
    handle, reference = online()
    inputs = batch()
    handle.model(**inputs)  # the first call also looks whether the models keep documents apart
    seen = []
    for model in (reference, handle.model):
        model.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    handle.model(inputs["input_ids"], position_ids=inputs["position_ids"], labels=inputs["labels"], use_cache=True)
    (args_1, of_reference), (args, of_student) = seen
    assert args == args_1 == ()
    assert of_reference.keys() == of_student.keys() == {"input_ids", "position_ids", "use_cache"}
    assert of_reference["input_ids"] is of_student["input_ids"]
    assert of_reference["position_ids"] is of_student["position_ids"]
    assert of_reference["use_cache"] is of_student["use_cache"] is False


def test_an_attention_mask_reaches_the_reference() -> None:
    handle, _ = online()
    ids = batch()["input_ids"]
    mask = torch.ones_like(ids)
    mask[:, 4:6] = 0
    labels = ids.masked_fill(mask == 0, -100)
    wanted = losses_of(tiny(1), {"input_ids": ids, "attention_mask": mask, "labels": labels})
    seen = spy(handle)
    handle.model(input_ids=ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(seen[0]["reference_loss"], wanted)


def spy(handle):
    """The columns of each micro-step from now on."""
    seen, original = [], handle.reference.columns
    handle.reference.columns = lambda *args: seen.append(original(*args)) or seen[-1]
    return seen


def test_a_reference_with_dropout_is_at_rest_without_gradient_and_leaves_the_random_state_alone() -> None:
    student, inputs = tiny(attention_dropout=0.3), batch()
    reference = tiny(1, attention_dropout=0.5)
    handle = make_selective(student, SelectionPolicy())
    attach_reference(handle, reference)
    assert reference.train().training
    seen = spy(handle)
    handle.model(**inputs).loss.backward()
    torch.testing.assert_close(seen[0]["reference_loss"], losses_of(tiny(1), inputs), rtol=1e-10, atol=1e-12)
    assert seen[0]["reference_loss"].grad_fn is None
    assert all(weight.grad is None and not weight.requires_grad for weight in reference.parameters())
    assert reference.training
    losses = []
    for columns in ({}, {"reference_loss": seen[0]["reference_loss"]}):
        if columns:
            detach_reference(handle)
        torch.manual_seed(5)
        losses.append(handle.model(**inputs, **columns).loss)
    assert torch.equal(*losses)


def test_the_student_knows_nothing_of_the_reference(tmp_path) -> None:
    handle, reference = online()
    student = handle.model
    handle.model(**batch())
    plain = tiny()
    assert student.state_dict().keys() == plain.state_dict().keys()
    assert len(list(student.parameters())) == len(list(plain.parameters()))
    assert all(module is not reference for module in student.modules())
    student.save_pretrained(tmp_path)
    assert (
        sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
        < 1.1 * sum(weight.numel() * weight.element_size() for weight in plain.parameters()) + 4096
    )


def test_training_leaves_the_reference_as_it_was_and_the_optimizer_without_it() -> None:
    handle, reference = online()
    before = {name: weight.clone() for name, weight in reference.state_dict().items()}
    optimizer = torch.optim.SGD(handle.model.parameters(), lr=0.1)
    seen = spy(handle)
    for _ in range(3):
        handle.model(**batch()).loss.backward()
        optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in reference.state_dict().items())
    assert torch.equal(seen[0]["reference_loss"], seen[2]["reference_loss"])


def test_a_deep_copy_shares_the_reference_and_both_train() -> None:
    handle, reference = online()
    copied = copy.deepcopy(handle.model)
    inner = vars(copied)["forward"].handle
    assert inner.reference.model is reference and inner.model is copied
    inputs = batch()
    losses = [model(**inputs).loss for model in (handle.model, copied)]
    assert torch.equal(*losses)
    inner.remove()
    handle.model(**inputs)
    third = copy.deepcopy(handle.model)
    handle.remove()
    with pytest.raises(ValueError, match="the reference was released"):
        third(**inputs)


def test_remove_and_detach_give_both_models_back() -> None:
    handle, reference = online()
    reference.model.norm.weight.requires_grad_(False)
    detach_reference(handle)
    assert "forward" not in vars(reference) and "forward" not in vars(reference.lm_head)
    assert all(weight.requires_grad for weight in reference.parameters())
    reference.model.norm.weight.requires_grad_(False)
    attach_reference(handle, reference)
    handle.remove()
    assert "forward" not in vars(reference) and "forward" not in vars(handle.model)
    assert [name for name, weight in reference.named_parameters() if not weight.requires_grad] == ["model.norm.weight"]
    with pytest.raises(ValueError, match="no reference is attached"):
        detach_reference(handle)


def test_evaluation_warm_up_and_token_losses_do_not_run_the_reference() -> None:
    handle, reference = online(SelectionPolicy(warmup_steps=2))
    calls = []
    reference.model.register_forward_hook(lambda *_: calls.append(1))
    inputs = batch()
    handle.token_losses(**inputs)
    handle.model.eval()(**inputs)
    handle.model.train()
    handle.step = 1
    handle.model(**inputs)
    assert not calls
    handle.step = 2
    handle.model(**inputs)
    assert calls


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_students_autocast_does_not_reach_the_reference(autocast: torch.dtype | None) -> None:
    student, reference = tiny(dtype=torch.float32), tiny(1, torch.float32)
    handle = make_selective(student, SelectionPolicy())
    attach_reference(handle, reference, autocast=autocast)
    inputs = batch()
    student(**inputs)  # the first call also looks whether the models keep documents apart
    seen, types = spy(handle), set()
    reference.model.layers[0].mlp.down_proj.register_forward_hook(lambda *a: types.add(a[2].dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast is None):
        student(**inputs).loss.backward()
    assert types == {autocast or torch.float32}
    assert seen[0]["reference_loss"].dtype == torch.float32
    error = (seen[0]["reference_loss"] - losses_of(tiny(1, torch.float32), inputs)).abs().max()
    assert error < 1e-5 if autocast is None else 1e-4 < error < 0.3


def test_accumulation_and_activation_checkpointing_change_nothing() -> None:
    inputs, found = batch(), []
    for parts, checkpointing in ((1, False), (2, False), (2, True)):
        handle, _ = online(SelectionPolicy(scope="sequence"))
        if checkpointing:
            handle.model.activation_checkpointing_enable()
        items = (inputs["labels"][:, 1:] != -100).sum()
        for part in range(parts):
            rows = {name: value.chunk(parts)[part] for name, value in inputs.items()}
            handle.model(**rows, num_items_in_batch=items).loss.backward()
        found.append([weight.grad for weight in handle.model.parameters()])
    for other in found[1:]:
        for gradient, wanted in zip(other, found[0], strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


def test_another_architecture_with_padding_in_its_vocabulary() -> None:
    inputs = {name: value for name, value in batch().items() if name != "position_ids"}
    inputs["labels"] = inputs["labels"].masked_fill(inputs["labels"] < 0, 3)
    reference = tiny(1, name="qwen2", vocab_size=64)
    handle = make_selective(tiny(), SelectionPolicy())
    with pytest.raises(ValueError, match=r"the student has 61 token ids and the reference 64.*vocabulary=len"):
        attach_reference(handle, reference)
    assert handle.reference is None and "forward" not in vars(reference)
    with pytest.raises(ValueError, match="vocabulary=62 is above the 61"):
        attach_reference(handle, reference, vocabulary=62)
    attach_reference(handle, reference, vocabulary=61)
    seen = spy(handle)
    handle.model(**inputs)
    wanted = losses_of(tiny(1, name="qwen2", vocab_size=64), inputs)
    torch.testing.assert_close(seen[0]["reference_loss"], wanted)


def test_a_reference_that_is_the_student_is_refused() -> None:
    student = tiny()
    handle = make_selective(student, SelectionPolicy())
    assigned = tiny(1)
    assigned.load_state_dict(student.state_dict(), assign=True)
    for same in (student, assigned):
        with pytest.raises(ValueError, match="the reference is the model that is trained"):
            attach_reference(handle, same)
    assert student(**batch(), reference_loss=torch.ones(4, 12)).loss.requires_grad
    part = tiny(1)
    part.model.embed_tokens.weight = student.model.embed_tokens.weight
    with pytest.raises(ValueError, match="shares weights with the student"):
        attach_reference(handle, part)
    assert student.model.embed_tokens.weight.requires_grad
    # Equal weights under another address: found by their losses.
    attach_reference(handle, tiny())
    with pytest.raises(ValueError, match="reference_loss equals the model's own losses"):
        student(**batch())


def test_columns_beside_a_reference_and_other_ambiguities_are_refused() -> None:
    handle, reference = online()
    inputs = batch()
    with pytest.raises(ValueError, match="the batch brings reference_loss, and a reference is attached"):
        handle.model(**inputs, reference_loss=torch.ones(4, 12))
    embeddings = handle.model.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(ValueError, match="inputs_embeds is the student's own"):
        handle.model(inputs_embeds=embeddings, labels=inputs["labels"])
    with pytest.raises(ValueError, match="a reference is attached already"):
        attach_reference(handle, tiny(2))
    detach_reference(handle)
    with pytest.raises(ValueError, match="reference_loss"):
        handle.model(**inputs)
    handle.remove()
    with pytest.raises(ValueError, match="the handle was removed"):
        attach_reference(handle, reference)
    other = make_selective(tiny(), SelectionPolicy("current_loss"))
    with pytest.raises(ValueError, match="reads nothing of a reference"):
        attach_reference(other, reference)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reference_whose_loss_is_not_finite_is_named(value: float) -> None:
    handle, reference = online()
    with torch.no_grad():
        reference.model.norm.weight.fill_(value)
    with pytest.raises(ValueError, match="reference_loss is NaN under .* the attached reference gives no finite"):
        handle.model(**batch())


def test_an_infinite_loss_is_nan_and_rounding_below_zero_is_zero() -> None:
    parts = (Part("reference_loss", 0.3), Part("reference_entropy", 0.4))
    handle, _ = online(SelectionPolicy("union", 0.5, parts=parts))
    inputs = batch()
    handle.model(**inputs)
    losses, entropies = torch.ones(4, 12), torch.full((4, 12), 2.0)
    losses[0, 3], losses[1, 3], entropies[2, 3], entropies[3, 3] = torch.inf, -1e-7, -torch.inf, -1e-7
    handle.reference.handle.token_losses = lambda labels, **_: (losses, entropies)
    found = handle.reference.columns(handle.model, ["reference_loss", "reference_entropy"], inputs["labels"], {})
    for column, given, infinite, below in (
        (found["reference_loss"], losses, (0, 3), (1, 3)),
        (found["reference_entropy"], entropies, (2, 3), (3, 3)),
    ):
        assert column[infinite].isnan() and column[below] == 0
        assert (column == given).sum() == given.numel() - 2
    # Long after the first batch was compared: every batch is looked at.
    with pytest.raises(ValueError, match="the attached reference gives no finite"):
        handle.model(**inputs)


def test_lora_trains_beside_a_reference_of_the_same_base_weights() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny(dtype=torch.float32), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    handle = make_selective(model, SelectionPolicy())
    attach_reference(handle, tiny(1, torch.float32))
    model(**batch()).loss.backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == {
        name for name, weight in model.named_parameters() if "lora_" in name
    }
    torch.save(model.state_dict(), io.BytesIO())


def test_the_stock_trainer_needs_no_column(tmp_path) -> None:
    rows = [{name: value[i] for name, value in batch(16).items()} for i in range(16)]
    logs = []
    for attached in (True, False):
        handle = make_selective(tiny(dtype=torch.float32), SelectionPolicy())
        reference = tiny(1, torch.float32)
        data = rows
        if attached:
            attach_reference(handle, reference)
        else:
            losses, _ = make_selective(reference, SelectionPolicy(ratio=1)).token_losses(**batch(16))
            data = [{**row, "reference_loss": losses[i]} for i, row in enumerate(rows)]
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=4,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=attached,
            train_sampling_strategy="sequential",
        )
        trainer = Trainer(handle.model, arguments, train_dataset=data)
        attach(trainer, handle)
        trainer.train()
        logs.append([(line["loss"], line["tokens_selected"]) for line in trainer.state.log_history if "loss" in line])
    assert len(logs[0]) == 4
    for ours, wanted in zip(*logs, strict=True):
        assert ours == pytest.approx(wanted, rel=1e-5)
    handle = make_selective(tiny(dtype=torch.float32), SelectionPolicy())
    arguments.remove_unused_columns = True
    with pytest.raises(UserError, match="drops reference_loss"):
        attach(Trainer(handle.model, arguments, train_dataset=rows), handle)
