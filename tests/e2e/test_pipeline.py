"""From text to report, through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tokensieve.corpus.store import TokenStore


def read(path: Path):
    return json.loads(path.read_text())


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> (size, modification time) of all files."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_run_makes_models_summary_and_report_and_running_again_does_nothing(recipe, tokensieve):
    code, output, error = tokensieve("run", recipe)
    assert code == 0, error
    out = Path(recipe["out"])
    summary = read(out / "summary.json")
    assert summary["ratio"] == 0.5 and summary["seconds"] > 0
    assert summary["reference"]["target_loss"] > 0
    for arm in ("clm", "random", "slm"):
        numbers = summary["arms"][arm]
        assert numbers["tokens_seen"] == 12 * 4 * 32
        assert f"{numbers['target_loss']:.4f}" in output
        assert (out / "models" / arm / "model.safetensors").exists()
        assert "tokensieve" in (out / "models" / arm / "README.md").read_text()
        # save_steps is in the recipe, so the checkpoints are the user's
        assert any((out / "models" / arm).glob("checkpoint-*"))
    share = summary["arms"]["slm"]["tokens_selected"] / summary["arms"]["clm"]["tokens_selected"]
    assert share == pytest.approx(0.5, abs=0.01)
    assert "slm" in (out / "report.html").read_text()
    report = read(out / "report.json")
    assert {row["name"] for row in report["regions"]} >= {"prose", "dump"}
    for row in report["regions"]:
        assert 0 <= row["kept"]["slm"] <= 1
    candidates = sum(row["tokens"] for row in report["regions"])
    kept = sum(row["tokens"] * row["kept"]["slm"] for row in report["regions"])
    assert candidates == summary["arms"]["clm"]["tokens_selected"]
    assert round(kept) == summary["arms"]["slm"]["tokens_selected"]
    assert len(report["passages"]) == 4

    before = contents(out)
    code, _, error = tokensieve("run", recipe)
    assert code == 0, error
    after = contents(out)
    rewritten = {"summary.json", "report.json", "report.html", "recipe.yaml"}
    assert {name for name in before if before[name] != after[name]} <= rewritten
    again = read(out / "summary.json")
    assert again["arms"] == summary["arms"]


def test_stages_one_by_one_equal_run(recipe, tokensieve, tmp_path):
    assert tokensieve("run", recipe)[0] == 0
    other = {**recipe, "out": str(tmp_path / "stages")}
    for stage in ("tokenize", "reference", "score", "train"):
        code, _, error = tokensieve(stage, other)
        assert code == 0, error
    for arm in ("clm", "random", "slm"):
        left, right = (load_file(tmp_path / name / "models" / arm / "model.safetensors") for name in ("run", "stages"))
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_stage_without_the_one_before_says_which_command_to_run(recipe, tokensieve):
    for stage, missing in {"reference": "tokenize", "score": "tokenize", "train": "tokenize"}.items():
        code, _, error = tokensieve(stage, recipe)
        assert code == 2 and f"run `tokensieve {missing}` first" in error
    assert tokensieve("tokenize", recipe)[0] == 0
    code, _, error = tokensieve("score", recipe)
    assert code == 2 and "run `tokensieve reference` first" in error
    assert tokensieve("reference", recipe)[0] == 0
    code, _, error = tokensieve("train", recipe)
    assert code == 2 and "run `tokensieve score` first" in error


def test_an_existing_reference_and_a_static_score_need_no_reference_training(recipe, tokensieve, tmp_path):
    assert tokensieve("run", recipe, "train.arms=[clm]")[0] == 0
    recipe["reference"] = {"existing": str(tmp_path / "run" / "models" / "clm")}
    recipe["tokenizer"] = {"name": str(tmp_path / "run" / "tokenizer")}
    recipe["out"] = str(tmp_path / "second")
    recipe["score"] = {"entropy": True}
    parts = [{"score": "reference_entropy", "ratio": 0.7}, {"score": "reference_loss", "ratio": 0.7}]
    recipe["train"]["selection"] = {"score": "intersection", "ratio": 0.6, "parts": parts}
    code, output, error = tokensieve("run", recipe, "train.arms=[slm]")
    assert code == 0, error
    summary = read(tmp_path / "second" / "summary.json")
    assert list(summary["arms"]) == ["slm"] and summary["tokens_to_clm"] is None
    numbers = read(tmp_path / "second" / "models" / "slm" / "run.json")["outputs"]
    assert 0.4 <= numbers["ratio_kept"] <= 0.7


def test_arms_are_bound_to_the_reference_and_the_scores_they_were_trained_with(recipe, tokensieve):
    assert tokensieve("run", recipe)[0] == 0
    out = Path(recipe["out"])
    shutil.rmtree(out / "reference")
    code, _, error = tokensieve("reference", recipe, "reference.epochs=3")
    assert code == 0, error
    code, _, error = tokensieve("train", recipe, "reference.epochs=3")
    assert code == 2 and "made by another reference" in error
    shutil.rmtree(out / "scores")
    assert tokensieve("score", recipe, "reference.epochs=3")[0] == 0
    code, _, error = tokensieve("train", recipe, "reference.epochs=3")
    assert code == 2 and "belongs to another recipe (scores.reference" in error


def test_a_score_that_needs_no_reference_skips_it(recipe, tokensieve):
    code, _, error = tokensieve("run", recipe, "train.selection.score=current_loss", "train.arms=[slm]")
    assert code == 0, error
    out = Path(recipe["out"])
    assert not (out / "reference").exists() and not (out / "scores").exists()
    assert read(out / "summary.json")["reference"] is None


def test_a_reference_that_is_no_better_than_the_student_is_reported(recipe, tokensieve, tmp_path):
    assert tokensieve("run", recipe, "train.arms=[clm]")[0] == 0
    student, reference = tmp_path / "run" / "models" / "clm", tmp_path / "worse"
    shutil.copytree(student, reference)
    weights = load_file(reference / "model.safetensors")
    weights = {name: weight + 0.1 * torch.ones_like(weight) for name, weight in weights.items()}
    save_file(weights, reference / "model.safetensors", {"format": "pt"})
    recipe["model"] = {"name": str(student)}
    recipe["tokenizer"] = {"name": str(tmp_path / "run" / "tokenizer")}
    recipe["out"] = str(tmp_path / "second")
    recipe["reference"] = {"existing": str(reference)}
    code, output, error = tokensieve("run", recipe, "train.arms=[slm]")
    assert code == 0, error
    assert "no better than the untrained student" in " ".join(output.split())
    assert "no better than" in read(tmp_path / "second" / "report.json")["warnings"][0]


def test_a_reference_that_is_the_student_is_refused(recipe, tokensieve, tmp_path):
    assert tokensieve("run", recipe, "train.arms=[clm]")[0] == 0
    recipe["model"] = {"name": str(tmp_path / "run" / "models" / "clm")}
    recipe["tokenizer"] = {"name": str(tmp_path / "run" / "tokenizer")}
    recipe["out"] = str(tmp_path / "second")
    recipe["reference"] = {"existing": recipe["model"]["name"]}
    code, _, error = tokensieve("run", recipe, "train.arms=[slm]")
    assert code == 2
    assert "have the same weights" in " ".join(error.split())


def test_a_threshold_whose_share_is_not_the_ratio_is_reported(recipe, tokensieve, tmp_path):
    code, output, error = tokensieve("run", recipe, "train.arms=[slm]", "train.selection.threshold=-1000")
    assert code == 0, error
    assert "slm kept 1.00 of the candidates, and its loss was divided by ratio" in " ".join(output.split())
    assert any("set train.selection.ratio=1.00" in text for text in read(tmp_path / "run" / "report.json")["warnings"])


def test_a_killed_run_resumes_to_the_same_weights(recipe, tokensieve, tmp_path):
    recipe["train"]["tokens"] = 40 * 4 * 32
    recipe["train"]["arms"] = ["slm"]
    assert tokensieve("run", recipe)[0] == 0
    recipe["out"] = str(tmp_path / "killed")
    for stage in ("tokenize", "reference", "score"):
        assert tokensieve(stage, recipe)[0] == 0
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    process = subprocess.Popen(
        [sys.executable, "-m", "tokensieve.cli", "train", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    model = tmp_path / "killed" / "models" / "slm"
    deadline = time.monotonic() + 120
    while not any(model.glob("checkpoint-*/tokensieve.json")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (model / "model.safetensors").exists()
    code, output, error = tokensieve("train", recipe)
    assert code == 0, error
    assert "resumed after step" in output
    left, right = (load_file(tmp_path / name / "models" / "slm" / "model.safetensors") for name in ("run", "killed"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_two_processes_train_what_one_trains(recipe, tokensieve, tmp_path):
    """Sequence scope is independent of layout; 2 ranks x 2 rows equal 1 rank x 4 rows."""
    recipe["train"]["selection"]["scope"] = "sequence"
    recipe["train"]["arms"] = ["slm"]
    assert tokensieve("run", recipe)[0] == 0
    recipe["out"] = str(tmp_path / "two")
    for stage in ("tokenize", "reference", "score"):
        assert tokensieve(stage, recipe)[0] == 0
    recipe["train"]["trainer"]["per_device_train_batch_size"] = 2
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tokensieve.cli", "train", str(path)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-8000:]
    one, two = (read(tmp_path / name / "models" / "slm" / "run.json")["outputs"] for name in ("run", "two"))
    assert two["tokens_seen"] == one["tokens_seen"]
    assert two["target_loss"] == pytest.approx(one["target_loss"], abs=2e-3)
    assert two["keep_rates"]["region"] is not None
    assert sum(row["tokens"] for row in two["keep_rates"]["region"]) == sum(
        row["tokens"] for row in one["keep_rates"]["region"]
    )
    left, right = (load_file(tmp_path / name / "models" / "slm" / "model.safetensors") for name in ("run", "two"))
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-2, atol=2e-3)


def test_the_corpus_is_one_token_file_with_scores_beside_it(recipe, tokensieve):
    assert tokensieve("run", recipe, "train.arms=[clm]")[0] == 0
    out = Path(recipe["out"])
    store = TokenStore(out / "corpus")
    losses = np.fromfile(out / "scores" / "reference" / "00000.loss.f16", dtype="<f2")
    assert len(losses) == store.tokens
    assert (np.isfinite(losses).sum()) == read(out / "scores" / "reference" / "scores.json")["outputs"]["scored_tokens"]
