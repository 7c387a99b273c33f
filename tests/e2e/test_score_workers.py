"""`tokensieve score` as users start it: under torchrun, twice at once, on a finished store, with a changed recipe."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokensieve.stage import read_manifest

SECONDS = 150


def test_two_ranks_make_the_bytes_of_one_process_with_one_bar(
    recipe: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    recipe["corpus"]["shard_tokens"] = 400
    recipe["score"] = {"entropy": True, "correct": True}
    run, path = tmp_path / "run", tmp_path / "recipe.yaml"
    for command in ("tokenize", "reference"):
        assert tokensieve(command, recipe)[0] == 0
    command = [sys.executable, "-m", "tokensieve.cli", "score", str(path)]
    path.write_text(yaml.safe_dump(recipe))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # what torchrun sets: threads may change the last bits
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command[1:]]
    together = subprocess.run(ranks, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert together.returncode == 0, together.stderr[-3000:]
    # Ranks do not wait for each other. A first rank that comes after the other has done it all draws no bar; one that
    # draws it says how the sample came out, and neither says anything twice.
    bars, agreed = together.stderr.count("scoring"), together.stdout.count("a sample, scored again, agrees")
    assert agreed + together.stdout.count("finished already") == 1 and bars <= agreed
    scores = run / "scores" / "reference"
    made = {file.name: file.read_bytes() for file in scores.iterdir() if file.name != "scores.json"}
    manifest = read_manifest(scores / "scores.json")
    assert manifest["finished"] and manifest["outputs"]["gate"]["tokens"] > 0 and len(made) > 16

    # Two at once on the finished store: both end well and change nothing.
    twice = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    for process in twice:
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors[-3000:]
    assert {file.name: file.read_bytes() for file in scores.iterdir() if file.name != "scores.json"} == made

    # Alone, with as many threads as each rank had.
    shutil.rmtree(scores)
    assert subprocess.run(command, capture_output=True, timeout=SECONDS, env=environment).returncode == 0
    assert {file.name: file.read_bytes() for file in scores.iterdir() if file.name != "scores.json"} == made


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("score.dtype=bfloat16", "belongs to another recipe (score.dtype float32 there, bfloat16 here)"),
        (
            "context.length=16",
            "scored under the context {'length': 32, 'document_mask': True}, training uses {'length'",
        ),
    ],
)
def test_training_refuses_scores_of_another_recipe_with_both_values(
    recipe: dict[str, Any], tokensieve: Callable, override: str, message: str
) -> None:
    for command in ("tokenize", "reference", "score"):
        assert tokensieve(command, recipe)[0] == 0
    code, _, errors = tokensieve("train", recipe, override)
    assert code == 2 and message in errors and "score.name=ANOTHER" in errors and errors.count("\n") == 1
