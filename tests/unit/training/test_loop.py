"""One training run: exact resume, honest numbers, the same order for all arms, errors with a place."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.corpus.windows import Windows, sample_order
from tokensieve.errors import UserError
from tokensieve.evaluation.target_loss import Targets
from tokensieve.selection import SelectionPolicy
from tokensieve.training.loop import Run, read_metrics, remove_checkpoints, train
from tokensieve.training.metrics import MetricsCallback

LENGTH, ROWS, STEPS = 16, 4, 12
OPTIONS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["some text to learn from"], 258)


@pytest.fixture
def make_run(store, tiny_model, tokenizer, tmp_path):
    reference = [np.linspace(0.1, 6, shard.tokens).astype("<f2") for shard in store.shards]

    def make(name: str, policy: SelectionPolicy, online: bool = False, **options) -> Run:
        order = sample_order(store, LENGTH, STEPS * ROWS, seed=0)
        return Run(
            folder=tmp_path / name,
            model=tiny_model(),
            tokenizer=tokenizer,
            windows=Windows(store, LENGTH, columns={} if online else {"reference_loss": reference}, order=order),
            steps=STEPS,
            tokens_per_step=ROWS * LENGTH,
            policy=policy,
            options={**OPTIONS, "save_steps": 5, "logging_steps": 2, **options},
            place="train.trainer",
            targets=Targets({"held-out": store}, LENGTH, True, 4),
            evaluations=3,
            seed=0,
            reference=tiny_model(1) if online else None,
        )

    (tmp_path / "made").mkdir()
    return make


def without_time(lines):
    return [{key: value for key, value in line.items() if key not in ("seconds",)} for line in lines]


def interrupt_after(monkeypatch, step):
    original = MetricsCallback.on_step_end

    def stop(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsCallback, "on_step_end", stop)


@pytest.mark.parametrize(
    "policy, online",
    [(SelectionPolicy(), False), (SelectionPolicy("random", 0.5), False), (SelectionPolicy(), True)],
    ids=["stored", "random", "online"],
)
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(make_run, monkeypatch, policy, online):
    straight = make_run("straight", policy, online)
    straight.folder.mkdir()
    numbers = train(straight)
    stopped = make_run("stopped", policy, online)
    stopped.folder.mkdir()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    # The newest checkpoint was cut off while it was written: it must not be used.
    torn = stopped.folder / "checkpoint-8"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    resumed = train(make_run("stopped", policy, online))
    left, right = (load_file(run.folder / "model.safetensors") for run in (straight, stopped))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert without_time(read_metrics(straight.folder)) == without_time(read_metrics(stopped.folder))
    assert {**numbers, "seconds": 0} == {**resumed, "seconds": 0}


def test_a_reference_beside_the_student_stays_out_of_the_model_and_its_checkpoints(make_run):
    run = make_run("online", SelectionPolicy(), online=True)
    run.folder.mkdir()
    before = {name: weight.clone() for name, weight in run.reference.state_dict().items()}
    train(run)
    assert all(torch.equal(weight, before[name]) for name, weight in run.reference.state_dict().items())
    assert "forward" not in vars(run.reference)
    saved = [load_file(path) for path in run.folder.rglob("model.safetensors")]
    assert len(saved) == 3
    assert all(weights.keys() == before.keys() for weights in saved)


def test_a_reference_that_cannot_run_beside_the_student_is_one_line(make_run):
    run = make_run("same", SelectionPolicy(), online=True)
    run = replace(run, reference=run.model)
    with pytest.raises(UserError, match="same: the reference cannot run beside the student: .* is trained"):
        train(run)


def test_a_reference_whose_loss_is_not_finite_is_one_line(make_run, monkeypatch):
    run = make_run("reference", SelectionPolicy(), online=True)
    run.folder.mkdir()
    original = MetricsCallback.on_step_end

    def poison(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        with torch.no_grad():
            run.reference.model.norm.weight.fill_(float("nan"))

    monkeypatch.setattr(MetricsCallback, "on_step_end", poison)
    with pytest.raises(UserError, match="reference: reference_loss is NaN under .* the attached reference gives no"):
        train(run)


def test_metrics_keep_losses_apart_and_count_every_token(make_run):
    run = make_run("slm", SelectionPolicy(ratio=0.5))
    run.folder.mkdir()
    numbers = train(run)
    lines = read_metrics(run.folder)
    assert [line["step"] for line in lines if "target_loss" in line] == [0, 4, 8, 12]
    assert numbers["tokens_seen"] == STEPS * ROWS * LENGTH == lines[-1]["tokens_seen"]
    batches = [run.windows.__getitems__(list(range(i, i + 2))) for i in range(0, STEPS * ROWS, 2)]
    counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
    # each micro-step rounds its own share
    assert numbers["tokens_selected"] == sum(int(count * 0.5 + 0.5) for count in counts)
    for line in lines[1:]:
        kept = line["ratio_kept"]
        assert line["loss_all"] == pytest.approx(kept * line["loss_selected"] + (1 - kept) * line["loss_unselected"])
        assert {"learning_rate", "grad_norm", "seconds"} <= line.keys()
    assert numbers["target_loss"] < lines[0]["target_loss"]


def test_arms_see_the_same_tokens_in_the_same_order_from_the_same_start(make_run):
    first = {}
    for name, policy in {"clm": SelectionPolicy(ratio=1), "random": SelectionPolicy("random", 0.5)}.items():
        run = make_run(name, policy)
        run.folder.mkdir()
        train(run)
        first[name] = read_metrics(run.folder)[0]["target_loss"]
    assert first["clm"] == first["random"]


def test_the_same_numbers_reach_the_trackers(make_run):
    run = make_run("tracked", SelectionPolicy(), report_to="tensorboard")
    run.folder.mkdir()
    train(run)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((run.folder / "runs").rglob("events*")).parent)).Reload()
    seen = {event.step: event.value for event in events.Scalars("train/target_loss")}
    written = {line["step"]: line["target_loss"] for line in read_metrics(run.folder)[1:] if "target_loss" in line}
    assert seen == pytest.approx(written)
    assert {"train/loss_selected", "train/loss_unselected", "train/tokens_selected"} <= set(events.Tags()["scalars"])


def test_the_saved_model_is_an_ordinary_transformers_folder_without_pickles(make_run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = make_run("saved", SelectionPolicy())
    run.folder.mkdir()
    train(run)
    remove_checkpoints(run.folder, run.options)
    loaded = AutoModelForCausalLM.from_pretrained(run.folder)
    for name, weight in run.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    assert loaded.config.use_cache
    assert len(AutoTokenizer.from_pretrained(run.folder)) == 258
    # checkpoints were asked for in the options, so they stay; nothing beside them is a pickle
    assert not [path for path in run.folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]
    assert any(run.folder.glob("checkpoint-*"))


def test_a_nan_loss_stops_with_the_step_and_the_documents(make_run, monkeypatch):
    run = make_run("nan", SelectionPolicy())
    run.folder.mkdir()
    original = MetricsCallback.on_step_end

    def poison(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == 3:
            with torch.no_grad():
                run.model.lm_head.weight.fill_(float("nan"))

    monkeypatch.setattr(MetricsCallback, "on_step_end", poison)
    with pytest.raises(UserError, match=r"NaN or infinite in step 4 of 12, at s0 shard 0000\d document \d+"):
        train(run)


@pytest.mark.parametrize(
    "option, message",
    [
        ({"max_steps": 5}, "train.trainer.max_steps: decided by"),
        ({"learning_rat": 5}, "did you mean 'learning_rate'"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"lr_scheduler_type": "cosin"}, "train.trainer: .*cosin"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(make_run, option, message):
    run = make_run("options", SelectionPolicy(), **option)
    with pytest.raises(UserError, match=message):
        train(run)


def test_damaged_metrics_are_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n{")
    with pytest.raises(UserError, match="metrics.jsonl: damaged"):
        read_metrics(tmp_path)
