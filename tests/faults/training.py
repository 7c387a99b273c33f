"""A training run that can be killed: a dozen steps, a checkpoint every third."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.corpus.windows import Windows, sample_order
from tokensieve.evaluation.target_loss import Targets
from tokensieve.selection import SelectionPolicy
from tokensieve.training.loop import Run, read_metrics, train

from .world import exit_code, finish, fork, kill, make_corpus, make_reference

LENGTH, ROWS, STEPS = 16, 4, 24


class Training:
    """One training run with stored scores.

    Args:
        folder: for the corpus and the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.corpus = make_corpus(folder / "corpus", shards=4, documents=20)
        self.scores = [np.linspace(0.1, 6, shard.tokens).astype("<f2") for shard in self.corpus.shards]
        self.tokenizer = train_bpe(["some text to learn from"], 258)
        started = time.monotonic()
        finish(self.start("undisturbed"), self.log)
        self.seconds = time.monotonic() - started
        self.undisturbed = self.result("undisturbed")

    def start(self, name: str) -> int:
        """In a process of its own, whatever is there already; returns its id."""

        def work() -> None:
            model = make_reference(seed=3).train()
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            order = sample_order(self.corpus, LENGTH, STEPS * ROWS, seed=0)
            windows = Windows(self.corpus, LENGTH, columns={"reference_loss": self.scores}, order=order)
            options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
            train(
                Run(
                    folder=folder,
                    model=model,
                    tokenizer=self.tokenizer,
                    windows=windows,
                    steps=STEPS,
                    tokens_per_step=ROWS * LENGTH,
                    policy=SelectionPolicy(ratio=0.6),
                    options={**options, "save_steps": 3, "logging_steps": 2, "use_cpu": True},
                    place="train.trainer",
                    targets=Targets({"held-out": self.corpus}, LENGTH, True, 4),
                    evaluations=2,
                    seed=0,
                    reference=None,
                )
            )

        return fork(work, self.log)

    def result(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Weights, and metrics but their times."""
        lines = [
            {key: value for key, value in line.items() if key != "seconds"} for line in read_metrics(self.folder / name)
        ]
        return load_file(self.folder / name / "model.safetensors"), lines

    def check(self, name: str) -> None:
        """Weights and metrics are bit for bit those of the undisturbed run."""
        (weights, lines), (wanted, wanted_lines) = self.result(name), self.undisturbed
        assert weights.keys() == wanted.keys()
        assert all(torch.equal(weights[key], wanted[key]) for key in wanted)
        assert lines == wanted_lines


def kill_training(
    run: Training, name: str, kills: int, draw: random.Random, deadline: float = float("inf")
) -> dict[str, int]:
    """Kill at random moments and start again until so many were killed, then let it finish and check the model.

    Args:
        run: what is run.
        name: prefix of the runs' folders.
        kills: how many.
        draw: the moments.
        deadline: of `time.monotonic()`: stop killing then.

    Returns:
        Counts: `kills`, `models`.
    """
    killed = models = 0
    while True:
        folder = f"{name}-{models}"
        while killed < kills and time.monotonic() < deadline:
            process = run.start(folder)
            time.sleep(draw.uniform(0, run.seconds))
            code = exit_code(process)
            if code is not None:
                assert code == 0, run.log.read_text()[-4000:]
                break
            killed += kill(process)
        else:
            finish(run.start(folder), run.log)
        run.check(folder)
        models += 1
        if killed >= kills or time.monotonic() >= deadline:
            return {"kills": killed, "models": models}
