"""The reference gate through the command line: measured, told, warned about, and refused where it must be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tokensieve.errors import UserError
from tokensieve.recipe import load_recipe
from tokensieve.stage import Stage
from tokensieve.training.reference import reference_numbers, train_reference

from .conftest import write_jsonl


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def words(text: str) -> str:
    """Without the line breaks of the console."""
    return " ".join(text.split())


def made_before(recipe: dict[str, Any], tokensieve: Any, tmp_path: Path) -> Path:
    """A trained model of the recipe's kind; the recipe takes its tokenizer and another `out`."""
    code, _, error = tokensieve("run", recipe, "train.arms=[clm]", "train.selection.score=current_loss")
    assert code == 0, error
    recipe["tokenizer"] = {"name": str(tmp_path / "run" / "tokenizer")}
    recipe["out"] = str(tmp_path / "second")
    recipe["train"]["arms"] = ["slm"]
    return tmp_path / "run" / "models" / "clm"


def shifted(model: Path, copy: Path) -> Path:
    """A worse model: the same weights, each a little off."""
    shutil.copytree(model, copy)
    weights = {
        name: weight + 0.1 * torch.ones_like(weight) for name, weight in load_file(model / "model.safetensors").items()
    }
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


def test_each_target_and_all_of_them_are_measured_and_told(recipe, tokensieve, tmp_path):
    write_jsonl(tmp_path / "digits.jsonl", [{"text": "3141592653589793 " * 12}])
    recipe["evaluation"]["targets"].append({"path": str(tmp_path / "digits.jsonl"), "name": "digits"})
    # Trained on words alone, at a rate that lets it forget: better on words, worse on digits.
    code, _, error = tokensieve("run", recipe, "train.arms=[slm]", "reference.epochs=15")
    assert code == 0, error
    out = tmp_path / "run"
    numbers = read(out / "reference" / "reference.json")["outputs"]
    gate = numbers["gate"]
    one, two, whole = gate["targets"]["held-out"], gate["targets"]["digits"], gate["pooled"]
    assert one["reference_loss"] < one["student_loss"] - 0.5 and two["reference_loss"] > two["student_loss"] + 0.1
    assert whole["reference_loss"] < whole["student_loss"] - 0.1
    assert whole["tokens"] == one["tokens"] + two["tokens"]
    for key in ("reference_loss", "student_loss", "negative_excess"):
        mean = (one[key] * one["tokens"] + two[key] * two["tokens"]) / whole["tokens"]
        assert whole[key] == pytest.approx(mean)
    assert one["negative_excess"] < two["negative_excess"]
    # The losses of the arms' table are the gate's, and so is the arms' first evaluation.
    assert numbers["targets"]["digits"]["loss"] == pytest.approx(two["reference_loss"])
    assert numbers["target_loss"] == pytest.approx(whole["reference_loss"])
    first = json.loads((out / "models" / "slm" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["target_loss"] == pytest.approx(whole["student_loss"], abs=1e-4)
    assert first["target_loss/digits"] == pytest.approx(two["student_loss"], abs=1e-4)
    summary, report = read(out / "summary.json"), read(out / "report.json")
    assert summary["reference"] == {"target_loss": numbers["target_loss"], "gate": gate}
    assert report["reference"]["gate"] == gate
    assert "over all targets, but no better on digits" in report["warnings"][0]
    assert "Better, but not everywhere" in (out / "report.html").read_text()


def test_a_reference_that_is_no_better_is_warned_about_before_training(recipe, tokensieve, tmp_path):
    student = made_before(recipe, tokensieve, tmp_path)
    recipe["model"] = {"name": str(student)}
    recipe["reference"] = {"existing": str(shifted(student, tmp_path / "worse"))}
    code, output, error = tokensieve("run", recipe)
    assert code == 0, error
    told = words(output)
    assert "no better than the untrained student on the target text" in told
    assert told.index("no better than the untrained") < told.index("slm: 12 steps")
    report = read(tmp_path / "second" / "report.json")
    assert "no better than" in report["warnings"][0]
    assert report["reference"]["gate"]["pooled"]["negative_excess"] > 0.5


def test_a_reference_that_is_the_student_is_refused_with_both_names(recipe, tokensieve, tmp_path):
    student = made_before(recipe, tokensieve, tmp_path)
    copy = shutil.copytree(student, tmp_path / "copy")
    recipe["model"] = {"name": str(student)}
    recipe["reference"] = {"existing": str(copy)}
    code, _, error = tokensieve("run", recipe)
    told = words(error)
    assert code == 2 and "have the same weights" in told and "name another model under reference.existing" in told
    assert told.count("(digest ") == 2 and "copy" in told and "models/clm" in told.replace(" ", "")
    # Nothing is left that a later command could take for a reference.
    assert not (tmp_path / "second" / "reference").exists() and not (tmp_path / "second" / "scores").exists()


def test_equal_weights_are_refused_without_target_text_too(recipe, tokensieve, tmp_path):
    student = made_before(recipe, tokensieve, tmp_path)
    recipe["model"] = {"name": str(student)}
    recipe["reference"] = {"existing": str(shutil.copytree(student, tmp_path / "copy"))}
    recipe["evaluation"] = {"count": 1}
    assert tokensieve("tokenize", recipe)[0] == 0
    code, _, error = tokensieve("reference", recipe)
    assert code == 2 and "have the same weights" in words(error)
    assert not (tmp_path / "second" / "reference").exists()


def test_the_same_function_under_another_digest_is_refused_too(recipe, tokensieve, tmp_path):
    student = made_before(recipe, tokensieve, tmp_path)
    copy = shutil.copytree(student, tmp_path / "copy")
    config = read(copy / "config.json")
    (copy / "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    recipe["model"] = {"name": str(student)}
    recipe["reference"] = {"existing": str(copy)}
    code, _, error = tokensieve("run", recipe)
    assert code == 2 and "have the same loss at every target token" in words(error)


def test_training_that_changed_nothing_is_refused_and_leaves_nothing(recipe, tokensieve, tmp_path):
    assert tokensieve("tokenize", recipe)[0] == 0
    code, _, error = tokensieve("reference", recipe, "reference.trainer.learning_rate=0")
    told = words(error)
    assert code == 2 and "have the same weights" in told and "raise reference.trainer.learning_rate" in told
    assert not (tmp_path / "run" / "reference").exists()
    code, _, error = tokensieve("reference", recipe)
    assert code == 0, error


def test_without_targets_the_gate_says_that_nothing_is_known(recipe, tokensieve, tmp_path):
    recipe["evaluation"] = {"count": 1}
    code, output, error = tokensieve("run", recipe, "train.arms=[slm]")
    assert code == 0, error
    assert "it is not known whether the reference is better" in words(output)
    report = read(tmp_path / "run" / "report.json")
    assert report["reference"]["gate"]["pooled"] is None and report["reference"]["target_loss"] is None
    assert "it is not known whether the reference is better" in report["warnings"][0]
    assert "not compared with the student" in (tmp_path / "run" / "report.html").read_text()


def test_a_reference_from_before_the_gate_belongs_to_another_recipe(recipe, tokensieve, tmp_path):
    assert tokensieve("tokenize", recipe)[0] == 0 and tokensieve("reference", recipe)[0] == 0
    folder = tmp_path / "run" / "reference"
    found = read(folder / "reference.json")
    old = {key: value for key, value in found["inputs"].items() if key != "gate"}
    (folder / "reference.json").unlink()
    for file in folder.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    stage = Stage(folder, "reference.json", old)
    with stage.running():
        stage.finish(target_loss=1.0, student_target_loss=2.0, name="old", digest="0")
    loaded = load_recipe(tmp_path / "recipe.yaml")
    for ask in (train_reference, reference_numbers):
        with pytest.raises(
            UserError, match=r"belongs to another recipe \(gate is None there, 1 here\).* remove .*reference"
        ):
            ask(loaded)


def test_an_existing_reference_is_measured_under_the_recipes_own_seed(recipe, tokensieve, tmp_path):
    """A fresh student is another one under another seed, and so are the gate's numbers."""
    existing = made_before(recipe, tokensieve, tmp_path)
    recipe["reference"] = {"existing": str(existing)}
    assert tokensieve("tokenize", recipe)[0] == 0 and tokensieve("reference", recipe)[0] == 0
    code, _, error = tokensieve("reference", recipe, "seed=1")
    assert code == 2 and "belongs to another recipe (seed is 0 there, 1 here)" in words(error)
