"""SelectiveSFTTrainer: the loss is make_selective's, columns stay aligned, what cannot work is refused."""

import math

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: pip install 'tokensieve[sft]'")

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from tokensieve import SelectionPolicy, make_selective
from tokensieve.errors import UserError
from tokensieve.integrations.trainer import attach
from tokensieve.integrations.trl import SelectiveCollator, SelectiveSFTTrainer

MICROBATCH = SelectionPolicy(ratio=0.6, scope="microbatch")


def config(folder, **options) -> SFTConfig:
    chosen = {
        "per_device_train_batch_size": 4,
        "max_steps": 1,
        "learning_rate": 0.5,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        **options,
    }
    return SFTConfig(str(folder), **chosen)


@pytest.fixture
def make(tiny, rows, tokenizer, tmp_path):
    def build(policy=MICROBATCH, dataset=None, model=None, more=None, **options) -> SelectiveSFTTrainer:
        return SelectiveSFTTrainer(
            tiny() if model is None else model,
            config(tmp_path, **options),
            policy=policy,
            train_dataset=rows() if dataset is None else dataset,
            processing_class=tokenizer,
            **(more or {}),
        )

    return build


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6, msg=name)


def batch_of(dataset) -> dict[str, torch.Tensor]:
    """A padded batch made by hand, columns in float32."""
    length = max(map(len, dataset["input_ids"]))
    found = {"input_ids": [], "labels": [], "attention_mask": [], "reference_loss": []}
    for row in dataset:
        ids, losses = row["input_ids"], row["reference_loss"]
        missing = length - len(ids)
        labels = [-100 if math.isnan(loss) else i for i, loss in zip(ids, losses, strict=True)]
        found["input_ids"].append(ids + [0] * missing)
        found["labels"].append(labels + [-100] * missing)
        found["attention_mask"].append([1] * len(ids) + [0] * missing)
        found["reference_loss"].append([0.0 if math.isnan(loss) else loss for loss in losses] + [9.0] * missing)
    return {name: torch.tensor(value) for name, value in found.items()}


def test_one_step_is_that_of_make_selective_on_the_same_batch(make, tiny, rows):
    trainer = make(dataset=rows(4))
    trainer.train()
    model = tiny().train()
    make_selective(model, MICROBATCH)
    loss = model(**batch_of(rows(4))).loss
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    by_hand = {name: value.detach() - 0.5 * value.grad for name, value in model.named_parameters()}
    assert_same(weights(trainer.model), by_hand)


@pytest.mark.parametrize("policy", [SelectionPolicy("mask", 0.5), SelectionPolicy(ratio=0.6, scope="sequence")])
def test_two_accumulated_batches_are_the_batch_of_both(make, rows, policy):
    generator = torch.Generator().manual_seed(3)
    masks = [(torch.rand(len(ids), generator=generator) < 0.5).tolist() for ids in rows()["input_ids"]]
    dataset = rows().add_column("selection_mask", masks)
    whole = make(policy, dataset, per_device_train_batch_size=8)
    parts = make(policy, dataset, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    whole.train()
    parts.train()
    assert_same(weights(whole.model), weights(parts.model))
    assert whole.state.log_history[0]["ratio_kept"] == parts.state.log_history[0]["ratio_kept"]


def test_completion_masks_take_candidates_away(make, rows):
    masks = [[0] * 3 + [1] * (len(ids) - 3) for ids in rows()["input_ids"]]
    trainer = make(dataset=rows().add_column("completion_mask", masks), completion_only_loss=True, max_steps=2)
    trainer.handle.keep_selection = True
    counts = []
    trainer.handle.stats.add = lambda *values: counts.append(int(values[0]))
    trainer.compute_loss(trainer.model.train(), trainer.data_collator([trainer.train_dataset[i] for i in range(8)]))
    assert counts == [sum(len(ids) - 3 for ids in rows()["input_ids"])]


@pytest.mark.parametrize("packing", [False, True])
def test_columns_are_cut_and_packed_with_their_tokens(make, rows, packing):
    dataset = rows(12, 4, 24)
    known = {tuple(ids): losses for ids, losses in zip(dataset["input_ids"], dataset["reference_loss"], strict=True)}
    trainer = make(dataset=dataset, packing=packing, max_length=16, packing_strategy="bfd")
    documents = []
    for row in trainer.train_dataset:
        assert len(row["input_ids"]) <= 16
        start = 0
        for length in row["seq_lengths"] if packing else [len(row["input_ids"])]:
            part = slice(start, start + length)
            documents.append((tuple(row["input_ids"][part]), row["reference_loss"][part], row["labels"][part]))
            start += length
    assert len(documents) == 12 and any(len(ids) == 16 for ids, _, _ in documents)
    for ids, losses, labels in documents:
        original = next(found for whole, found in known.items() if whole[: len(ids)] == ids)
        assert losses[1:] == original[1 : len(ids)] and math.isnan(losses[0])
        assert labels == [-100, *ids[1:]]


def test_packed_rows_train_as_their_documents_do_by_themselves(make, rows, tokenizer):
    policy = SelectionPolicy(ratio=1)
    packed = make(policy, rows(), packing=True, max_length=32, per_device_train_batch_size=16)
    apart = make(policy, rows(), per_device_train_batch_size=8)
    packed.train()
    apart.train()
    assert len(packed.train_dataset) < 8
    assert_same(weights(packed.model), weights(apart.model))


def test_packed_rows_under_document_scope_are_counted_by_document(make, rows):
    trainer = make(SelectionPolicy(ratio=0.5, scope="document"), rows(), packing=True, max_length=32)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    lengths = [length for i in range(2) for length in trainer.train_dataset[i]["seq_lengths"]]
    expected = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.tensor(lengths))
    assert torch.equal(batch["document_ids"][0], expected)
    trainer.train()
    assert 0 < trainer.state.log_history[0]["ratio_kept"] <= 0.5


def test_evaluation_is_the_models_own_loss_and_needs_no_columns(make, tiny, rows):
    held_out = rows(4, seed=5).remove_columns("reference_loss")
    trainer = make(more={"eval_dataset": held_out}, per_device_eval_batch_size=4)
    found = trainer.evaluate()["eval_loss"]
    batch = batch_of(rows(4, seed=5))
    batch.pop("reference_loss")
    with torch.no_grad():
        assert found == pytest.approx(tiny().eval()(**batch).loss.item(), rel=1e-5)


def test_lora_trains_the_adapters_alone_with_the_selective_loss(make, tiny, rows):
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer = make(dataset=rows(4), more={"peft_config": adapter})
    before = weights(trainer.model)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    expected = trainer.model.train()(**batch).loss.item()
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.state.log_history[0]["ratio_kept"] == pytest.approx(0.6, abs=0.02)
    for name, value in weights(trainer.model).items():
        assert torch.equal(value, before[name]) == ("lora" not in name), name


def test_the_load_balancing_loss_is_averaged_over_micro_steps_with_trls_coefficient(make, tiny, rows):
    model = tiny(0, "mixtral", num_local_experts=2, num_experts_per_tok=1, router_aux_loss_coef=0.5)
    trainer = make(SelectionPolicy("mask", 1.0), model=model, router_aux_loss_coef=0.25, dataset=with_mask(rows()))
    trainer.current_gradient_accumulation_steps = 2
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    items = (batch["labels"] != -100).sum()
    loss, outputs = trainer.compute_loss(trainer.model.train(), batch, True, num_items_in_batch=items)
    plain = outputs.loss - 0.5 * outputs.aux_loss
    torch.testing.assert_close(loss, plain + 0.25 * outputs.aux_loss / 2)


def with_mask(dataset: Dataset) -> Dataset:
    return dataset.add_column("selection_mask", [[True] * len(ids) for ids in dataset["input_ids"]])


def test_plain_sft_trainer_with_a_patched_model_is_refused_and_not_trained_plainly(tiny, rows, tokenizer, tmp_path):
    model = tiny()
    handle = make_selective(model, MICROBATCH)
    trainer = SFTTrainer(model, config(tmp_path), train_dataset=rows(), processing_class=tokenizer)
    with pytest.raises(UserError, match="SelectiveSFTTrainer"):
        attach(trainer, handle)
    with pytest.raises(ValueError, match="SelectiveSFTTrainer"):
        trainer.train()


def test_the_trainer_wants_the_unpatched_model(make, tiny):
    model = tiny()
    make_selective(model, MICROBATCH)
    with pytest.raises(UserError, match="patched already"):
        make(model=model)


@pytest.mark.parametrize(
    ("policy", "options", "error"),
    [
        (MICROBATCH, {"loss_type": "dft"}, "loss_type='dft'"),
        (MICROBATCH, {"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        (MICROBATCH, {"average_tokens_across_devices": False}, "average_tokens_across_devices"),
        (MICROBATCH, {"use_liger_kernel": True}, "use_liger_kernel"),
        (MICROBATCH, {"packing": True, "packing_strategy": "wrapped"}, "packing_strategy='wrapped'"),
        (MICROBATCH, {"packing": True, "packing_strategy": "bfd_split"}, "packing_strategy='bfd_split'"),
        (MICROBATCH, {"truncation_mode": "keep_end", "max_length": 8}, "keep_end"),
        (SelectionPolicy(scope="sequence"), {"packing": True}, "scope='sequence'.*packing=True"),
        (SelectionPolicy(scope="sequence"), {"padding_free": True, "max_length": None}, "padding_free=True"),
    ],
)
def test_arguments_under_which_the_loss_would_be_another_are_refused(tmp_path, policy, options, error):
    from tokensieve.integrations.trl import refuse_arguments

    arguments = config(tmp_path)
    for name, value in options.items():
        setattr(arguments, name, value)  # some refuse to be made without the package they need
    with pytest.raises((UserError, ValueError), match=error):
        refuse_arguments(arguments, policy)


def test_options_that_leave_no_place_for_the_loss_are_refused(make, rows):
    with pytest.raises(UserError, match="compute_loss_func"):
        make(more={"compute_loss_func": lambda outputs, labels, num_items_in_batch: outputs.loss})
    with pytest.raises(UserError, match="data_collator would drop"):
        make(more={"data_collator": lambda examples: examples})
    with pytest.raises(UserError, match="images"):
        make(dataset=rows().add_column("images", [[0]] * 8))


def test_missing_and_misaligned_columns_are_named(make, rows):
    with pytest.raises(UserError, match="no column 'reference_loss', which score 'excess_loss' reads"):
        make(dataset=rows().remove_columns("reference_loss"))
    with pytest.raises(UserError, match="no input_ids"):
        make(dataset=Dataset.from_dict({"text": ["w3 w4"], "reference_loss": [[1.0, 2.0]]}))
    short = rows()["reference_loss"]
    short = [losses[:-1] if i == 5 else losses for i, losses in enumerate(short)]
    with pytest.raises(UserError, match="train row 5: reference_loss has"):
        make(dataset=rows().remove_columns("reference_loss").add_column("reference_loss", short))


def test_collator_masks_what_was_never_scored_and_keeps_float16_bits():
    collate = SelectiveCollator(0, columns=("reference_loss", "selection_mask"))
    nan = float("nan")
    batch = collate(
        [
            {"input_ids": [5, 6, 7], "reference_loss": [nan, 1.5, nan], "selection_mask": [0, 1, 1]},
            {"input_ids": [8, 9], "labels": [-100, 9], "reference_loss": [0.25, None], "selection_mask": [1, 0]},
        ]
    )
    assert batch["labels"].tolist() == [[-100, 6, -100], [-100, -100, -100]]
    assert batch["reference_loss"].dtype == torch.int16
    assert batch["reference_loss"].view(torch.float16).tolist() == [[0.0, 1.5, 0.0], [0.25, 0.0, 0.0]]
    assert batch["selection_mask"].tolist() == [[False, True, True], [True, False, False]]


def test_collator_refuses_losses_it_cannot_carry():
    collate = SelectiveCollator(0)
    with pytest.raises(UserError, match="below 65504"):
        collate([{"input_ids": [5, 6], "reference_loss": [0.0, 1e6]}])
    with pytest.raises(UserError, match="has 1 entries and input_ids 2"):
        collate([{"input_ids": [5, 6], "reference_loss": [0.0]}])
    with pytest.raises(UserError, match="1 of 2 examples of a batch have no reference_loss"):
        collate([{"input_ids": [5], "reference_loss": [0.0]}, {"input_ids": [5]}])
