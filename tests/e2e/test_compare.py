"""`tokensieve compare` as users run it: every arm, a finished comparison, two processes, bad requests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.e2e.conftest import sentences, write_jsonl

from tokensieve.stage import read_manifest

SECONDS = 240
KINDS = ["clm", "random", "slm", "weak", "self", "clean", "mixed"]


@pytest.fixture
def comparison(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two seeds of every arm, two ratios, general text."""
    write_jsonl(tmp_path / "general.jsonl", [{"text": text} for text in sentences(4, 8)])
    recipe["evaluation"]["general"] = [{"path": str(tmp_path / "general.jsonl"), "name": "other"}]
    recipe["compare"] = {"arms": KINDS, "seeds": [3, 4], "ratios": [0.3, 0.5], "probe_windows": 4}
    recipe["train"]["tokens"] = 6 * 4 * 32
    return recipe


def small(recipe: dict[str, Any]) -> dict[str, Any]:
    """Three arms, two seeds."""
    recipe["compare"] = {"seeds": [0, 1], "probe_windows": 4}
    recipe["train"]["tokens"] = 8 * 4 * 32
    recipe["train"]["trainer"]["save_steps"] = 2
    return recipe


def lasting(folder: Path) -> dict[str, Any]:
    """comparison.json without what depends on the clock."""
    data = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    data.pop("measured")
    for key in ("out", "compare"):
        data["recipe"].pop(key)
    return {**data, "title": ""}


def test_every_arm_is_trained_once_and_the_result_says_what_was_compared(
    comparison: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    code, printed, errors = tokensieve("compare", comparison)
    assert code == 0, errors
    run = tmp_path / "run"
    found = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    arms = found["arms"]
    assert list(arms) == [
        "clm", "random-0.3", "random-0.5", "slm-0.3", "slm-0.5", "weak", "self", "clean", "mixed"
    ]  # fmt: skip
    assert found["main"] == "slm-0.5" and "slm-0.5" in printed and "comparison.html" in printed
    assert "2 seeds: intervals from so few are very wide" in printed
    # Every arm begins as plain training does, sees as many tokens, and back-propagates its own share of them.
    for arm in arms.values():
        assert arm["curve"][0]["target_loss"] == arms["clm"]["curve"][0]["target_loss"]
        assert arm["tokens_seen"] == arms["clm"]["tokens_seen"] and len(arm["curve"]) == 4
        assert arm["general_loss"]["mean"] > 0 and [seed["seed"] for seed in arm["seeds"]] == [3, 4]
    assert arms["slm-0.3"]["tokens_selected"] == arms["random-0.3"]["tokens_selected"]
    assert abs(arms["slm-0.3"]["tokens_selected"]["mean"] / arms["clm"]["tokens_selected"]["mean"] - 0.3) < 0.02
    # What an arm costs includes its reference and the scoring; the weaker reference is cheaper.
    assert (
        arms["clm"]["flops"]["reference"]
        == arms["random-0.5"]["flops"]["scoring"]
        == arms["clean"]["flops"]["reference"]
        == 0
    )
    assert arms["slm-0.5"]["flops"]["reference"] > arms["weak"]["flops"]["reference"] > 0
    assert (
        arms["slm-0.5"]["curve"][0]["flops"]
        == arms["slm-0.5"]["flops"]["reference"] + arms["slm-0.5"]["flops"]["scoring"]
    )
    # Against plain training, random of the same ratio, and the main arm against those without selection.
    pairs = {(item["arm"], item["other"]) for item in found["differences"] if item["text"] == "target"}
    assert {("slm-0.3", "random-0.3"), ("slm-0.5", "clm"), ("weak", "random-0.5"), ("slm-0.5", "clean")} < pairs
    assert ("slm-0.3", "random-0.5") not in pairs
    one = next(item for item in found["differences"] if (item["arm"], item["other"]) == ("slm-0.5", "clm"))
    by_hand = [
        a["target_loss"] - b["target_loss"] for a, b in zip(arms["slm-0.5"]["seeds"], arms["clm"]["seeds"], strict=True)
    ]
    assert one["per_seed"] == pytest.approx(by_hand, abs=1e-9)
    assert one["estimate"] == pytest.approx(sum(by_hand) / 2, abs=1e-9) and one["low"] < one["estimate"] < one["high"]
    # Nothing but the arm's own setting differs.
    assert set(arms["slm-0.3"]["changes"]) == {"train.selection.ratio", "reference"} | {"train.selection.score"} & set(
        arms["slm-0.3"]["changes"]
    )
    assert arms["clean"]["changes"] == {"text": "clean"}
    assert "model.fresh.hidden_size" in found["matched"]["same"] and "train.tokens" in found["matched"]["same"]
    assert found["split"]["tokens"] > 0 and set(found["split"]["arms"]) == set(arms) - {"clean", "mixed"}
    assert len(found["over_time"]["sets"]) == 3
    assert [point["ratio"] for point in found["sweep"][0]["points"]] == [0.3, 0.5]
    rates = arms["slm-0.5"]["keep_rates"]
    assert {"source", "region", "position", "class", "frequency"} <= set(rates)
    kept = sum(row["kept"] for row in rates["region"])
    assert kept == sum(seed["tokens_selected"] for seed in arms["slm-0.5"]["seeds"])
    assert found["overlap"]["targets"]["held-out"]["documents"] == 8
    assert (run / "comparison.html").stat().st_size > 10_000
    assert yaml.safe_load((run / "recipe.yaml").read_text())["reference"]["name"] == "reference"

    # Again: nothing is trained, and the result is the same.
    made = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name in ("run.json", "model.safetensors")}
    before = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    assert tokensieve("compare", comparison)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert json.loads((run / "comparison.json").read_text(encoding="utf-8")) == before

    # One seed more: only its runs are trained.
    assert tokensieve("compare", comparison, "compare.seeds=[3,4,5]")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert json.loads((run / "comparison.json").read_text(encoding="utf-8"))["seeds"] == [3, 4, 5]


def test_two_processes_at_once_give_the_same_result(
    recipe: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    recipe = small(recipe)
    code, _, errors = tokensieve("compare", recipe)
    assert code == 0, errors
    wanted = lasting(tmp_path / "run")
    recipe["out"] = str(tmp_path / "two")
    recipe["compare"]["processes"] = 2
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "tokensieve.cli", "compare", str(path)]
    # As many threads for each process as the one had.
    environment = os.environ | {"OMP_NUM_THREADS": str(2 * torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "slm, seed 1: finished" in done.stderr
    assert lasting(tmp_path / "two") == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": {}}, "name held-out text under evaluation.targets"),
        ({"compare": {"ratios": []}}, "ratios is empty"),
        ({"compare": {"seeds": []}}, "seeds is empty"),
        ({"compare": {"seeds": [1, 1]}}, "seeds names one twice"),
        ({"compare": {"arms": ["slm"]}}, "nothing to compare it with"),
        ({"compare": {"arms": ["slm", "plain"]}}, "unknown arm 'plain'"),
        ({"compare": {"ratios": [1.0]}}, "1 is the arm clm"),
        ({"score": {"online": True}}, "score.online"),
        (
            {"compare": {"arms": ["clm", "weak"]}, "reference": {"existing": "somewhere"}},
            "reference.existing is not trained",
        ),
        (
            {"compare": {"arms": ["clm", "clean"]}, "reference": {"existing": "somewhere"}},
            "reference.sources names none",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_before_anything_runs(
    recipe: dict[str, Any], tokensieve: Callable, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    code, _, errors = tokensieve("compare", {**recipe, **change})
    assert code == 2 and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_one_seed_and_target_text_in_the_corpus_are_told_loudly(
    recipe: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    recipe["compare"] = {"seeds": [0], "arms": ["clm", "slm"], "probe_windows": 4}
    recipe["train"]["tokens"] = 4 * 4 * 32
    texts = [json.loads(line) for line in (tmp_path / "target.jsonl").read_text().splitlines()]
    with (tmp_path / "noisy.jsonl").open("a") as file:
        file.write(
            "".join(json.dumps({**text, "regions": [[0, len(text["text"]), "prose"]]}) + "\n" for text in texts[:3])
        )
    code, printed, _ = tokensieve("compare", recipe)
    assert code == 0
    assert "warning: one seed" in printed and "no arm random" in printed and "3 of 8" in printed
    found = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert found["overlap"]["targets"]["held-out"]["documents_mostly"] == 3
    assert found["answer"]["verdict"] == "undecided" and any("3 of 8" in warning for warning in found["warnings"])
    assert all(item["low"] is None and item["verdict"] == "undecided" for item in found["differences"])


def test_a_run_made_from_something_else_is_refused(
    recipe: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    recipe = small(recipe)
    recipe["compare"]["arms"] = ["clm", "slm"]
    assert tokensieve("compare", recipe)[0] == 0
    path = tmp_path / "run" / "compare" / "slm-0.5" / "seed-1" / "run.json"
    assert read_manifest(path)["finished"]
    code, _, errors = tokensieve("compare", recipe, "train.trainer.learning_rate=0.5")
    assert code == 2 and "belongs to another recipe (trainer.learning_rate" in errors
