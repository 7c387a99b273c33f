"""A run that takes seconds: tiny text, a tiny model, the whole pipeline."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokensieve import cli

WORDS = ["sum", "prove", "let", "angle", "def", "return", "mail", "menu", "home", "click", "seven", "line", "point"]


def sentences(seed: int, count: int, words: int = 40) -> list[str]:
    """Documents of random words: every even word repeats the one before, so that there is something to learn."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        chosen = [draw.choice(WORDS) for _ in range(words // 2)]
        texts.append(" ".join(word for word in chosen for word in (word, word)))
    return texts


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """A recipe as plain data, with its text on disk."""
    noisy = []
    for text in sentences(1, 40):
        noise = "".join(random.Random(text).choices("0123456789,", k=120))
        noisy.append(
            {"text": f"{text} {noise}", "regions": [[0, len(text), "prose"], [len(text), len(text) + 121, "dump"]]}
        )
    write_jsonl(tmp_path / "noisy.jsonl", noisy)
    write_jsonl(tmp_path / "clean.jsonl", [{"text": text} for text in sentences(2, 40)])
    write_jsonl(tmp_path / "target.jsonl", [{"text": text} for text in sentences(3, 8)])
    trainer = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_steps": 4, "use_cpu": True}
    return {
        "out": str(tmp_path / "run"),
        "corpus": {"sources": [{"path": str(tmp_path / "noisy.jsonl"), "regions_field": "regions"}]},
        "tokenizer": {"train_vocab": 300},
        "context": {"length": 32},
        "model": {
            "fresh": {
                "model_type": "llama",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 32,
            }
        },
        "reference": {"sources": [{"path": str(tmp_path / "clean.jsonl")}], "epochs": 2, "trainer": dict(trainer)},
        "train": {"tokens": 12 * 4 * 32, "trainer": dict(trainer), "selection": {"ratio": 0.5}},
        "evaluation": {"targets": [{"path": str(tmp_path / "target.jsonl"), "name": "held-out"}], "count": 3},
    }


@pytest.fixture
def tokensieve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Runs a command in this process: (command, recipe data, *overrides) -> (exit code, stdout, stderr)."""

    def call(command: str, data: dict[str, Any] | None, *overrides: str) -> tuple[int, str, str]:
        arguments = [command]
        if data is not None:
            path = tmp_path / "recipe.yaml"
            path.write_text(yaml.safe_dump(data), encoding="utf-8")
            arguments.append(str(path))
        monkeypatch.setattr(sys, "argv", ["tokensieve", *arguments, *overrides])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return call
