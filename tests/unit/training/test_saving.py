"""Models along the way: at the right steps, whole, the weights of that step, and the same after an interruption."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokensieve.errors import UserError
from tokensieve.selection import SelectionPolicy
from tokensieve.training.loop import train
from tokensieve.training.saving import save_steps, saved_models

from .test_loop import LENGTH, ROWS, STEPS, interrupt_after, make_run, tokenizer

__all__ = ["make_run", "tokenizer"]

POLICY = SelectionPolicy(ratio=0.5)


def test_the_nearest_step_saves_and_its_name_is_what_was_seen():
    assert save_steps([0, 100, 255, 1000], per_step=100, steps=9) == {0: 0, 1: 100, 3: 300, 9: 900}


def test_two_counts_on_one_step_are_refused():
    with pytest.raises(UserError, match=r"train\.save_at: 220 tokens fall on the same step"):
        save_steps([180, 220], per_step=100, steps=9)


def test_saved_models_are_those_of_their_steps(make_run):
    run = make_run("saving", POLICY, save_steps=3)
    start = {name: value.clone() for name, value in run.model.state_dict().items()}
    per_step = ROWS * LENGTH
    train(replace(run, save_at={0: 0, 3: 3 * per_step, STEPS: STEPS * per_step}))
    found = dict(saved_models(run.folder))
    assert list(found) == [0, 3 * per_step, STEPS * per_step]
    first = AutoModelForCausalLM.from_pretrained(found[0], dtype=torch.float32)
    for name, value in first.state_dict().items():
        assert torch.equal(value, start[name])
    last, finished = (load_file(at / "model.safetensors") for at in (found[STEPS * per_step], run.folder))
    assert all(torch.equal(last[name], finished[name]) for name in finished)
    middle = load_file(found[3 * per_step] / "model.safetensors")
    assert not torch.equal(middle["model.norm.weight"], finished["model.norm.weight"])
    assert AutoTokenizer.from_pretrained(found[0]).get_vocab() == run.tokenizer.get_vocab()
    assert first.config.use_cache
    assert not list(found[0].glob("*.bin"))


def test_saving_changes_nothing_and_survives_an_interruption(make_run, monkeypatch):
    per_step = ROWS * LENGTH
    at = {0: 0, 2: 2 * per_step, 7: 7 * per_step}
    plain = make_run("plain", POLICY)
    train(plain)
    whole = replace(make_run("whole", POLICY), save_at=at)
    train(whole)
    cut = replace(make_run("cut", POLICY), save_at=at)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 8)  # the last checkpoint to resume from is that of step 5: step 7 is saved twice
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    train(replace(make_run("cut", POLICY), save_at=at))
    weights = [load_file(run.folder / "model.safetensors") for run in (plain, whole, cut)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]) and torch.equal(value, weights[2][name])
    for (tokens, one), (again, other) in zip(saved_models(whole.folder), saved_models(cut.folder), strict=True):
        assert tokens == again
        one_weights, other_weights = (load_file(folder / "model.safetensors") for folder in (one, other))
        assert all(torch.equal(one_weights[name], other_weights[name]) for name in one_weights)


def test_a_save_that_fails_leaves_no_half_model(make_run, monkeypatch):
    run = replace(make_run("failing", POLICY), save_at={2: 2 * ROWS * LENGTH})

    def fail(*args, **options):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(type(run.tokenizer), "save_pretrained", fail)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        train(run)
    assert saved_models(run.folder) == []


def test_folders_of_other_names_are_no_models(tmp_path):
    (tmp_path / "saved" / ".64.tmp").mkdir(parents=True)
    (tmp_path / "saved" / "64").mkdir()
    (tmp_path / "saved" / "notes").mkdir()
    assert [tokens for tokens, _ in saved_models(tmp_path)] == [64]
