"""The callback in a stock Trainer: refusals, the running step, and what stands in the logs."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments

from tokensieve import SelectionPolicy, make_selective, select_tokens
from tokensieve.errors import UserError
from tokensieve.integrations.trainer import attach, log_entries

LENGTH = 12


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 61, (16, LENGTH), generator=generator)
    reference = torch.rand(16, LENGTH, generator=generator) * 6
    mask = torch.rand(16, LENGTH, generator=generator) < 0.5
    columns = {"input_ids": ids, "labels": ids, "reference_loss": reference, "selection_mask": mask}
    return [{name: value[i] for name, value in columns.items()} for i in range(len(ids))]


@pytest.fixture
def make_trainer(tiny, data, tmp_path):
    def make(policy, **options):
        arguments = {
            "per_device_train_batch_size": 4,
            "max_steps": 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "train_sampling_strategy": "sequential",
            **options,
        }
        model = tiny()
        handle = make_selective(model, policy)
        return Trainer(model, TrainingArguments(str(tmp_path), **arguments), train_dataset=data), handle

    return make


def logged(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


def test_logged_losses_and_counts_are_those_of_full_logits(make_trainer, data):
    trainer, handle = make_trainer(SelectionPolicy(ratio=0.6, scope="microbatch"), learning_rate=0.0)
    attach(trainer, handle)
    # What ran before is no part of the run.
    trainer.model.train()(**{name: value[None] for name, value in data[0].items()})
    trainer.train()
    handle.remove()
    counted = 0
    for step in range(4):
        batch = {name: torch.stack([row[name] for row in data[4 * step : 4 * step + 4]]) for name in data[0]}
        with torch.no_grad():
            logits = trainer.model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
        losses = F.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
        excess = losses - batch["reference_loss"][:, 1:]
        chosen = select_tokens(excess, torch.ones_like(excess, dtype=torch.bool), 0.6, "microbatch")
        counted += int(chosen.sum())
        line = trainer.state.log_history[step]
        assert line["ratio_kept"] == pytest.approx(chosen.float().mean().item())
        assert line["tokens_selected"] == counted
        assert line["loss_all"] == pytest.approx(losses.mean().item(), abs=1e-5)
        assert line["loss_selected"] == pytest.approx(losses[chosen].mean().item(), abs=1e-5)
        assert line["loss_unselected"] == pytest.approx(losses[~chosen].mean().item(), abs=1e-5)


def test_trackers_see_the_numbers_too(make_trainer):
    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            seen.append(dict(kwargs["logs"]))

    trainer, handle = make_trainer(SelectionPolicy(ratio=0.6))
    trainer.add_callback(Tracker())
    attach(trainer, handle)
    trainer.train()
    assert [line["ratio_kept"] for line in seen if "loss" in line] == logged(trainer, "ratio_kept")
    assert len(logged(trainer, "ratio_kept")) == 4


def test_warm_up_and_schedule_follow_the_trainers_steps(make_trainer):
    policy = SelectionPolicy(ratio=0.25, warmup_steps=1, ratio_schedule=((1, 0.75), (3, 0.25)), scope="microbatch")
    trainer, handle = make_trainer(policy, gradient_accumulation_steps=2, per_device_train_batch_size=2)
    attach(trainer, handle)
    trainer.train()
    candidates = 2 * (LENGTH - 1)
    kept = [int(ratio * candidates + 0.5) / candidates for ratio in (1, 0.75, 0.5, 0.25)]
    assert logged(trainer, "ratio_kept") == pytest.approx(kept)


def test_losses_that_the_choice_does_not_need_are_measured_on_logged_steps_alone(make_trainer):
    trainer, handle = make_trainer(SelectionPolicy("mask", 0.5), logging_steps=2, logging_first_step=True)
    measured = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            measured.append(handle.measure)

    attach(trainer, handle)
    trainer.add_callback(Watch())
    trainer.train()
    assert measured == [True, True, False, True]
    assert len(logged(trainer, "loss_unselected")) == 3


def test_a_resumed_run_goes_on_counting(make_trainer):
    policy = SelectionPolicy("mask", 0.5)
    trainer, handle = make_trainer(policy, save_strategy="steps", save_steps=2)
    attach(trainer, handle)
    trainer.train()
    again, handle = make_trainer(policy)
    attach(again, handle)
    again.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-2")
    assert logged(again, "tokens_selected") == logged(trainer, "tokens_selected")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices"),
    ],
)
def test_arguments_that_change_the_loss_are_refused_when_attached(make_trainer, options, error):
    trainer, handle = make_trainer(SelectionPolicy(), **options)
    with pytest.raises((UserError, ValueError), match=error):
        attach(trainer, handle)


def test_arguments_changed_after_attaching_are_refused_when_training_begins(make_trainer):
    trainer, handle = make_trainer(SelectionPolicy())
    attach(trainer, handle)
    trainer.args.remove_unused_columns = True
    with pytest.raises(UserError, match="remove_unused_columns=True drops reference_loss"):
        trainer.train()


def test_plain_training_needs_no_columns(make_trainer):
    trainer, handle = make_trainer(SelectionPolicy(ratio=1), remove_unused_columns=True)
    attach(trainer, handle)
    trainer.train()
    assert logged(trainer, "ratio_kept") == [1.0] * 4


def test_another_model_and_another_loss_are_refused(make_trainer, tiny):
    trainer, handle = make_trainer(SelectionPolicy())
    with pytest.raises(UserError, match="not the model of this handle"):
        attach(trainer, make_selective(tiny(), SelectionPolicy()))
    trainer.compute_loss_func = lambda outputs, labels, num_items_in_batch: outputs.loss
    with pytest.raises(UserError, match="compute_loss_func"):
        attach(trainer, handle)


def test_a_model_that_gets_no_count_is_refused_where_a_step_has_parts(make_trainer):
    for steps in (1, 2):
        trainer, handle = make_trainer(SelectionPolicy(), gradient_accumulation_steps=steps)
        trainer.model_accepts_loss_kwargs = False
        if steps == 1:
            attach(trainer, handle)
        else:
            with pytest.raises(UserError, match="does not pass num_items_in_batch to LlamaForCausalLM"):
                attach(trainer, handle)


def test_a_mean_over_no_token_is_left_out():
    sums = {"valid": 8.0, "selected": 4.0, "measured_valid": 0.0, "measured_selected": 0.0}
    assert log_entries({**sums, "loss": 0.0, "loss_selected": 0.0}) == {"ratio_kept": 0.5}
    sums |= {"measured_valid": 4.0, "measured_selected": 4.0, "loss": 8.0, "loss_selected": 8.0}
    assert log_entries(sums) == {"ratio_kept": 0.5, "loss_all": 2.0, "loss_selected": 2.0}
