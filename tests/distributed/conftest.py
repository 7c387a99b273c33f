"""Starts the two processes of a test file.

Starting torch takes seconds, so a file starts one pair, which runs all of its cases; the tests then only compare.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SECONDS = 150


@pytest.fixture(scope="session")
def two_ranks() -> Callable[..., list[Any]]:
    """Runs `python SCRIPT RANK FOLDER` for ranks 0 and 1; returns what they saved as FOLDER/RANK.pt."""

    def run(script: str, folder: Path) -> list[Any]:
        logs = [folder / f"{rank}.log" for rank in (0, 1)]
        processes = []
        try:
            for rank, log in enumerate(logs):
                command = [sys.executable, script, str(rank), str(folder)]
                with log.open("w") as output:
                    processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
            codes = [process.wait(timeout=SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]

    return run
