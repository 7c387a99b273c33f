"""Every Python block of docs/integrate.md runs, and does what the page says: the loss falls, the share is kept."""

import functools
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

for package in ("peft", "trl"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tokensieve[sft]'")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrate.md"
SHARED = "What the examples share"
TWO_PROCESSES = ("accelerate", "FSDP2")


def sections() -> dict[str, str]:
    """The Python blocks of each section, joined."""
    found = {}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        blocks = re.findall(r"^```python\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[part.splitlines()[0]] = "\n".join(blocks)
    return found


def assert_falling(losses: list[float]) -> None:
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0] - 0.2, losses


def check_trainer(names: dict[str, Any]) -> None:
    lines = [line for line in names["trainer"].state.log_history if "ratio_kept" in line]
    assert len(lines) == 4
    assert all(line["ratio_kept"] == pytest.approx(0.6, abs=0.02) for line in lines)
    assert all(line["loss_selected"] > line["loss_unselected"] for line in lines)
    assert_falling([line["loss_all"] for line in lines])


def check_plain(names: dict[str, Any]) -> None:
    assert names["ratio_kept"] == pytest.approx(0.6, abs=0.01)
    assert type(names["model"].model).__name__ == "OptimizedModule"
    assert_falling(names["losses"])


def check_lora(names: dict[str, Any]) -> None:
    sums = names["handle"].stats.read()
    assert sums["selected"] / sums["valid"] == pytest.approx(0.6, abs=0.01)
    assert all(("lora" in name) == weight.requires_grad for name, weight in names["model"].named_parameters())
    assert names["losses"][-1] < names["losses"][0]


def check_schedule(names: dict[str, Any]) -> None:
    expected = [1.0] * 4 + [0.9 - 0.05 * step for step in range(8)] + [0.5] * 4
    assert names["kept"] == pytest.approx(expected, abs=0.01)
    assert_falling(names["losses"])


def check_online(names: dict[str, Any]) -> None:
    assert "reference_loss" not in names["inputs"]
    sums = names["handle"].stats.read()
    assert sums["selected"] / sums["valid"] == pytest.approx(0.6, abs=0.01)
    # The same loop over stored columns; the page's model is made anew, the losses must agree step by step.
    exec(sections()[SHARED], stored := {"__name__": "page"})
    handle = stored["make_selective"](stored["model"], stored["policy"])
    optimizer = torch.optim.AdamW(stored["model"].parameters(), lr=1e-2)
    losses = []
    for batch in stored["loader"]():
        losses.append(handle.model(**batch).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert names["losses"] == pytest.approx([loss.item() for loss in losses], abs=2e-3)
    for model in ("model", "reference_model"):
        assert "forward" not in vars(names[model])
    assert_falling(names["losses"])


def check_rows(names: dict[str, Any]) -> None:
    sums = names["handle"].stats.read()
    assert sums["valid"] == sum(11 + i % 12 for i in range(64))
    assert sums["selected"] / sums["valid"] == pytest.approx(0.6, abs=0.01)
    assert_falling(names["losses"])


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "transformers.Trainer": check_trainer,
    "TRL's SFTTrainer": check_trainer,
    "A plain PyTorch loop": check_plain,
    "LoRA": check_lora,
    "Warm-up and a ratio schedule": check_schedule,
    "Online: the reference beside the student": check_online,
    "Rows of different length": check_rows,
}


def test_every_block_of_the_page_is_run() -> None:
    assert set(sections()) == {SHARED, *CHECKS, *TWO_PROCESSES}
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(sections())


@pytest.mark.parametrize("name", CHECKS)
def test_section_runs_in_one_process(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CI", "1")
    # Graphs are captured and differentiated as always; code generation alone is left out, which takes a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(sections()[SHARED], f"{PAGE}: {SHARED}", "exec"), names)
    exec(compile(sections()[name], f"{PAGE}: {name}", "exec"), names)
    CHECKS[name](names)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run_as_a_rank(ports: list[str]) -> None:
    """What each of the two processes runs: the sections one after the other, and what they found as JSON."""
    found = {}
    for name, port in zip(TWO_PROCESSES, ports, strict=True):
        os.environ["MASTER_PORT"] = port
        names: dict[str, Any] = {"__name__": "page"}
        exec(compile(sections()[SHARED] + sections()[name], f"{PAGE}: {name}", "exec"), names)
        found[name] = names["losses"], names["handle"].stats.read()
    Path(f"found{os.environ['RANK']}").write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.slow
def test_sections_run_in_two_processes(tmp_path: Path) -> None:
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, __file__, *(free_port() for _ in TWO_PROCESSES)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}, cwd=tmp_path)
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    ranks = [json.loads((tmp_path / f"found{rank}").read_text(encoding="utf-8")) for rank in (0, 1)]
    for name in TWO_PROCESSES:
        sums = [found[name][1] for found in ranks]
        for found in ranks:
            assert_falling(found[name][0])
        kept = sum(each["selected"] for each in sums) / sum(each["valid"] for each in sums)
        assert kept == pytest.approx(0.6, abs=0.01)
        # One ranking over both ranks: together they keep the share, each by itself hardly ever.
        assert sums[0]["selected"] != sums[1]["selected"]


if __name__ == "__main__":
    run_as_a_rank(sys.argv[1:])
