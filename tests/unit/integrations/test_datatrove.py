"""The datatrove step, run by a real executor: several tasks on one run, killed tasks, tasks that are skipped."""

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
import yaml

pytest.importorskip("datatrove")

from datatrove.executor import LocalPipelineExecutor

from tokensieve.errors import UserError
from tokensieve.integrations.datatrove import ScoreCorpus
from tokensieve.pipeline import reference, score, tokenize
from tokensieve.recipe import load_recipe
from tokensieve.stage import read_manifest

SCRIPT = """
import sys
from datatrove.executor import LocalPipelineExecutor
from tokensieve.integrations.datatrove import ScoreCorpus

if __name__ == "__main__":
    step = ScoreCorpus(sys.argv[1], ["score.name=killed"])
    LocalPipelineExecutor(pipeline=[step], tasks=3, workers=2, logging_dir=sys.argv[2]).run()
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose corpus of many shards waits to be scored, and is scored by one process as `alone`."""
    folder = tmp_path_factory.mktemp("datatrove")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": f"line {i} of {i * i}"}) + "\n" for i in range(400)))
    trainer = {"per_device_train_batch_size": 4, "use_cpu": True}
    model = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
    recipe: dict[str, Any] = {
        "out": str(folder / "run"),
        "corpus": {"sources": [{"path": str(folder / "text.jsonl")}], "shard_tokens": 200},
        "tokenizer": {"train_vocab": 270},
        "context": {"length": 16},
        "model": {"fresh": model},
        "reference": {"sources": [{"path": str(folder / "text.jsonl")}], "tokens": 128, "trainer": trainer},
        "train": {"tokens": 64, "trainer": trainer, "selection": {"ratio": 0.5}},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    tokenize(load_recipe(path))
    reference(load_recipe(path))
    score(load_recipe(path, ["score.name=alone"]))
    return path


def shards(recipe: Path, name: str) -> dict[str, bytes]:
    folder = recipe.parent / "run" / "scores" / name
    assert read_manifest(folder / "scores.json")["finished"]
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "scores.json"}


def test_tasks_make_the_bytes_of_one_process_and_ended_ones_are_skipped(prepared: Path, tmp_path: Path) -> None:
    def run(**options: bool) -> None:
        step = ScoreCorpus(str(prepared), ["score.name=tasks"])
        LocalPipelineExecutor(pipeline=[step], tasks=3, logging_dir=str(tmp_path / "logs"), **options).run()

    run()
    assert shards(prepared, "tasks") == shards(prepared, "alone")
    assert sorted(path.name for path in (tmp_path / "logs" / "completions").iterdir()) == ["00000", "00001", "00002"]
    lost = prepared.parent / "run" / "scores" / "tasks" / "00003.xxh3"
    lost.unlink()
    run()
    assert not lost.exists()
    run(skip_completed=False)
    assert shards(prepared, "tasks") == shards(prepared, "alone")


def test_killed_tasks_start_again_with_the_same_command(
    prepared: Path, tmp_path: Path, wait_for: Callable[[Callable[[], Any]], None]
) -> None:
    script, folder = tmp_path / "job.py", prepared.parent / "run" / "scores" / "killed"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(prepared), str(tmp_path / "logs")]
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_for(lambda: job.poll() is not None or any(folder.glob("*.xxh3")))
        finally:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    assert not read_manifest(folder / "scores.json")["finished"], (tmp_path / "log").read_text()[-3000:]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert shards(prepared, "killed") == shards(prepared, "alone")


def test_a_mistake_in_the_recipe_fails_the_task(prepared: Path, tmp_path: Path) -> None:
    step = ScoreCorpus(str(prepared), ["score.dtyp=float32"])
    with pytest.raises(UserError, match="unknown key 'dtyp'"):
        LocalPipelineExecutor(pipeline=[step], tasks=1, logging_dir=str(tmp_path / "logs")).run()
    assert not (tmp_path / "logs" / "completions" / "00000").exists()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], None]:
    def wait(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.002)

    return wait
