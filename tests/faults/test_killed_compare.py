"""SIGKILL while a comparison runs: started again, it ends with the same comparison.json."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.conftest import sentences, write_jsonl

from tokensieve.compare.comparing import compare
from tokensieve.recipe import load_recipe

from .world import exit_code, finish, fork, kill


class Comparison:
    """A comparison of three arms and two seeds that can be killed.

    Args:
        folder: for the text and the comparisons.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        for number, (name, count) in enumerate({"noisy": 30, "clean": 20, "target": 6}.items()):
            write_jsonl(folder / f"{name}.jsonl", [{"text": text} for text in sentences(number, count)])
        trainer = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_steps": 2, "use_cpu": True}
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        data = {
            "out": "",
            "corpus": {"sources": [{"path": str(folder / "noisy.jsonl")}]},
            "tokenizer": {"train_vocab": 300},
            "context": {"length": 32},
            "model": {"fresh": {"model_type": "llama", **sizes, "max_position_embeddings": 32}},
            "reference": {"sources": [{"path": str(folder / "clean.jsonl")}], "epochs": 1, "trainer": trainer},
            "train": {"tokens": 8 * 4 * 32, "trainer": trainer},
            "evaluation": {"targets": [{"path": str(folder / "target.jsonl"), "name": "held-out"}], "count": 2},
            "compare": {"seeds": [0, 1], "probe_windows": 4},
        }
        self.path = folder / "recipe.yaml"
        self.path.write_text(yaml.safe_dump(data), encoding="utf-8")
        started = time.monotonic()
        finish(self.start("undisturbed"), self.log)
        self.seconds = time.monotonic() - started
        self.undisturbed = self.result("undisturbed")

    def start(self, name: str) -> int:
        """In a process of its own, whatever is there already; returns its id."""
        return fork(lambda: compare(load_recipe(self.path, [f"out={self.folder / name}"])), self.log)

    def result(self, name: str) -> dict[str, Any]:
        """comparison.json without what depends on the clock or the folder's name."""
        found = json.loads((self.folder / name / "comparison.json").read_text(encoding="utf-8"))
        assert found.pop("measured")["arms"] and found.pop("title").endswith(name)
        found["recipe"].pop("out")
        return found


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return Comparison(tmp_path_factory.mktemp("comparison"))


def kill_comparison(run: Comparison, name: str, kills: int, draw: random.Random) -> int:
    """Kill at random moments and start again; one that ends before that is checked, and another begun."""
    killed = ended = 0
    while killed < kills:
        process = run.start(f"{name}{ended}")
        time.sleep(draw.uniform(0, run.seconds / 2))
        code = exit_code(process)
        if code is None:
            killed += kill(process)
            continue
        assert code == 0, run.log.read_text()[-4000:]
        assert run.result(f"{name}{ended}") == run.undisturbed
        ended += 1
    finish(run.start(f"{name}{ended}"), run.log)
    assert run.result(f"{name}{ended}") == run.undisturbed
    return killed


def test_killed_at_random_moments(comparison: Comparison) -> None:
    assert kill_comparison(comparison, "few", 5, random.Random(3)) == 5


@pytest.mark.soak
def test_killed_at_25_random_moments(comparison: Comparison) -> None:
    assert kill_comparison(comparison, "many", 25, random.Random(4)) == 25
