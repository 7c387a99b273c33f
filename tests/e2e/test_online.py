"""Online and offline are the same training: one recipe, with a score store and with the reference beside the student.

The store rounds losses to float16, which is the only difference there may be.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tokensieve.recipe import Recipe, build
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.training import metrics
from tokensieve.training.arms import needs_reference, needs_scores, open_reference, training_windows


def outputs(out: Path, arm: str) -> dict[str, Any]:
    return json.loads((out / "models" / arm / "run.json").read_text(encoding="utf-8"))


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """What every micro-step of every arm chose from now on: (token_index, valid, selected)."""
    seen: list[Any] = []
    original = metrics.KeepRates.add

    def add(self: Any, *choice: torch.Tensor) -> None:
        seen.append([tensor.clone() for tensor in choice])
        original(self, *choice)

    monkeypatch.setattr(metrics.KeepRates, "add", add)
    return seen


@pytest.fixture
def prepared(recipe: dict[str, Any], tokensieve: Callable) -> dict[str, Any]:
    """The recipe, tokenized and with its reference."""
    recipe["train"]["tokens"] = 40 * 4 * 32
    for stage in ("tokenize", "reference"):
        code, _, error = tokensieve(stage, recipe)
        assert code == 0, error
    return recipe


def test_online_training_is_offline_training(
    prepared: dict[str, Any], tokensieve: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = Path(prepared["out"]), recorded(monkeypatch)
    code, _, error = tokensieve("train", prepared, "score.online=true")
    assert code == 0, error
    assert not (out / "scores").exists()
    online, chosen_online = {arm: outputs(out, arm) for arm in ("clm", "random", "slm")}, list(seen)
    seen.clear()
    (out / "models").rename(out / "models-online")
    for stage in ("score", "train"):
        code, _, error = tokensieve(stage, prepared)
        assert code == 0, error
    offline = {arm: outputs(out, arm) for arm in online}

    # Arms that read nothing of the reference are the same to the bit.
    for arm in ("clm", "random"):
        left, right = (load_file(out / name / arm / "model.safetensors") for name in ("models", "models-online"))
        assert all(torch.equal(left[name], right[name]) for name in left)
    # 40 steps of three arms: the same tokens in the same order, and slm's choices agree.
    assert len(seen) == len(chosen_online) == 120
    for (index, valid, _), (index_online, valid_online, _) in zip(seen, chosen_online, strict=True):
        assert torch.equal(index, index_online) and torch.equal(valid, valid_online)
    agree = total = 0
    for (_, valid, selected), (_, _, selected_online) in zip(seen[80:], chosen_online[80:], strict=True):
        assert selected.sum() == selected_online.sum() < valid.sum()
        agree += int((selected == selected_online)[valid].sum())
        total += int(valid.sum())
    assert agree / total >= 0.995
    ours, wanted = (found["slm"]["outputs"] for found in (online, offline))
    assert ours["target_loss"] == pytest.approx(wanted["target_loss"], abs=0.01)
    assert ours["tokens_selected"] == wanted["tokens_selected"]
    # Which is close: another choice of as many tokens ends elsewhere.
    assert abs(wanted["target_loss"] - offline["random"]["outputs"]["target_loss"]) > 0.2


def test_online_losses_are_the_stored_ones_to_the_rounding_of_float16(
    prepared: dict[str, Any], tokensieve: Callable
) -> None:
    code, _, error = tokensieve("score", prepared)
    assert code == 0, error
    recipe = build(Recipe, prepared, "recipe")
    reference = make_selective(open_reference(recipe), SelectionPolicy(ratio=1))
    windows = training_windows(recipe)
    compared = 0
    for start in range(0, 160, 8):
        batch = windows.__getitems__(list(range(start, start + 8)))
        stored = batch.pop("reference_loss").view(torch.float16).double()
        batch.pop("token_index")
        losses, _ = reference.token_losses(**batch)
        live = batch["labels"] != -100
        error = (losses.double() - stored)[live].abs()
        assert (error <= stored[live] / 2048 + 1e-5).all()
        compared += int(live.sum())
    assert compared > 4000


def test_only_the_arm_that_reads_the_reference_is_bound_to_it(prepared: dict[str, Any], tokensieve: Callable) -> None:
    out = Path(prepared["out"])
    code, _, error = tokensieve("train", prepared, "score.online=true")
    assert code == 0, error
    digest = json.loads((out / "reference" / "reference.json").read_text(encoding="utf-8"))["outputs"]["digest"]
    bound = {arm: outputs(out, arm)["inputs"]["reference"] for arm in ("clm", "random", "slm")}
    assert bound == {"clm": None, "random": None, "slm": digest}
    # Another type of the reference gives other losses.
    code, _, error = tokensieve("train", prepared, "score.online=true", "score.dtype=bfloat16")
    assert code == 2 and "belongs to another recipe (reference_dtype" in error


def test_a_reference_that_changed_or_is_missing_is_named(prepared: dict[str, Any], tokensieve: Callable) -> None:
    out = Path(prepared["out"])
    path = out / "reference" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + bytes(4))
    code, _, error = tokensieve("train", prepared, "score.online=true", "train.arms=[slm]")
    assert code == 2 and "the reference's weights have changed since it was made" in " ".join(error.split())
    assert not (out / "models" / "slm").exists()
    path.write_bytes(whole)
    (out / "reference" / "reference.json").unlink()
    code, _, error = tokensieve("train", prepared, "score.online=true", "train.arms=[slm]")
    assert code == 2 and "run `tokensieve reference` first" in error


def test_a_killed_online_run_resumes_to_the_same_weights(
    prepared: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    prepared["score"] = {"online": True}
    prepared["train"]["arms"] = ["slm"]
    model = Path(prepared["out"]) / "models" / "slm"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(prepared))
    command = [sys.executable, "-m", "tokensieve.cli", "train", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not any(model.glob("checkpoint-*/tokensieve.json")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (model / "model.safetensors").exists()
    code, output, error = tokensieve("train", prepared)
    assert code == 0, error
    assert "resumed after step" in output
    killed = load_file(model / "model.safetensors")
    model.rename(model.with_name("killed"))
    assert tokensieve("train", prepared)[0] == 0
    straight = load_file(model / "model.safetensors")
    assert all(torch.equal(killed[name], straight[name]) for name in straight)


def test_what_a_recipe_needs_before_it_trains() -> None:
    def needs(score: str, online: bool) -> tuple[bool, bool]:
        data = {
            "out": "run",
            "model": {"name": "some/model"},
            "corpus": {"sources": [{"path": "a.jsonl"}]},
            "reference": {"existing": "another/model"},
            "score": {"online": online},
            "train": {"tokens": 64, "selection": {"score": score}},
        }
        recipe = build(Recipe, data, "recipe")
        return needs_reference(recipe), needs_scores(recipe)

    found = {
        (score, online): needs(score, online) for score in ("excess_loss", "current_loss") for online in (False, True)
    }
    assert list(found.values()) == [(True, True), (True, False), (False, False), (False, False)]
