"""Training all cells: one after the other, or several at once where there are devices for them.

Every cell is resumable and belongs to its own folder, so an interruption, of whatever kind, costs the steps since
the last checkpoints; the same command goes on.
"""

import contextlib
import fcntl
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tokensieve.compare.arms import COMPARE_FOLDER
from tokensieve.compare.cells import Cell, train_cell
from tokensieve.errors import UserError
from tokensieve.pipeline import console
from tokensieve.recipe import Recipe

_LOOK = 1.0
"""Seconds between two looks at whether the parent still lives."""


def process_count(recipe: Recipe) -> int:
    """How many cells are trained at once."""
    devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 1
    count = recipe.compare.processes or devices
    if torch.accelerator.is_available() and count > devices:
        raise UserError(f"compare.processes: {count} processes for {devices} devices; each needs one of its own")
    return count


def train_cells(recipe: Recipe, cells: Sequence[Cell]) -> None:
    """Train every cell that is not finished.

    Raises:
        UserError: a cell's; those that are finished stay.
    """
    left = [cell for cell in cells if not cell.finished]
    console.print(f"compare: {len(cells)} runs, {len(cells) - len(left)} of them finished")
    for cell in cells:
        if cell.finished:
            train_cell(cell)  # trains nothing: refuses what was made with other settings, before hours are spent
    count = min(process_count(recipe), len(left))
    if count > 1:
        console.print(
            f"each process writes to {recipe.folder / COMPARE_FOLDER}/log-N.txt", markup=False, soft_wrap=True
        )
        _train_at_once(recipe, left, count)
        left = []
    for cell in left:
        train_cell(cell)


@contextlib.contextmanager
def alone(recipe: Recipe) -> Iterator[None]:
    """Hold the comparison's folder.

    Raises:
        UserError: another process compares here.
    """
    folder = recipe.folder / COMPARE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another `tokensieve compare` is at work here; wait for it") from error
        yield


def _train_at_once(recipe: Recipe, cells: Sequence[Cell], count: int) -> None:
    logs = recipe.folder / COMPARE_FOLDER
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    # On a CPU the processes share the cores.
    threads = None if torch.accelerator.is_available() else max(1, torch.get_num_threads() // count)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    pool = ProcessPoolExecutor(count, context, _prepare, (numbers, logs, threads, os.getpid()))
    with progress:
        bar = progress.add_task(f"{count} at once", total=len(cells))
        waiting: dict[Future[Any], Cell] = {}
        try:
            for cell in cells:
                waiting[pool.submit(train_cell, cell)] = cell
            while waiting:
                done, _ = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = waiting.pop(future)
                    future.result()
                    progress.console.print(f"{cell.arm.key}, seed {cell.seed}: finished", markup=False)
                    progress.advance(bar)
        except BrokenProcessPool as error:
            raise UserError(
                f"a process was killed while it trained (too little memory for {count} at once?), see "
                f"{logs}/log-*.txt; the same command goes on, with compare.processes=1 one run at a time"
            ) from error
        finally:
            for process in list(pool._processes.values()):  # no public way to end what runs
                if waiting:
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare(numbers: Any, logs: Path, threads: int | None, parent: int) -> None:
    """In each process, before anything touches a device: its device, its threads, its log."""
    number = numbers.get()
    if threads is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number] if visible else str(number)
    else:
        torch.set_num_threads(threads)
    log = os.open(logs / f"log-{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent that was killed cannot tell: its children would train on, unseen."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
