"""How fast tokens are classified by their training dynamics, against numpy.polyfit.

    python benchmarks/dynamics.py [--tokens 10000000] [--checkpoints 15]

Writes float16 losses (memory-mapped files in a temporary folder, in the page cache; one token in fifty is no
candidate) and classifies all of them as the paper does. The baseline is the same analysis as one would write it down:
all losses in float64, numpy.polyfit, four masks. It runs on a part of the tokens, since it holds them all in memory,
and its time is scaled up. Categories must agree there, but where the exact change is the threshold itself (the
rounding of numpy.polyfit then decides). "course" is what else the report needs of a run: mean losses
and fluctuation of every category. Repeats are interleaved; medians are printed.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.dynamics.categories import CATEGORIES, UNKNOWN, classify, fitted_change
from tokensieve.dynamics.curves import course
from tokensieve.dynamics.trajectories import Checkpoint, Trajectory

GOAL = 5.0
"""Seconds for ten million tokens at fifteen checkpoints, on two cores."""
_PIECE = 1 << 20


def make_columns(folder: Path, tokens: int, checkpoints: int) -> list[np.ndarray]:
    """Losses that fall, rise and fluctuate; one memory map a checkpoint."""
    draw = np.random.default_rng(0)
    files = [(folder / f"{i}.f16").open("wb") for i in range(checkpoints)]
    for begin in range(0, tokens, _PIECE):
        n = min(_PIECE, tokens - begin)
        base = draw.exponential(2, n)
        base[draw.random(n) < 0.02] = np.nan
        slope = draw.normal(0, 0.03, n) * (draw.random(n) < 0.6)
        for i, file in enumerate(files):
            losses = np.maximum(base + slope * i + draw.normal(0, 0.1, n), 0)
            file.write(losses.astype("<f2").tobytes())
    for file in files:
        file.close()
    return [np.memmap(folder / f"{i}.f16", dtype="<f2", mode="r") for i in range(checkpoints)]


def by_polyfit(columns: Sequence[np.ndarray], level: float) -> np.ndarray:
    """The paper's appendix D, written down directly."""
    losses = np.stack(columns).astype(np.float64)
    live = ~np.isnan(losses[0])
    x = np.arange(len(columns))
    slope, start = np.polyfit(x, losses[:, live], 1)
    change = (slope * x[-1] + start) - start
    last = losses[-1, live]
    found = np.where(last <= level, 1, 2)
    found[change < -0.2] = 0
    found[change > 0.2] = 3
    of = np.full(len(live), UNKNOWN, dtype=np.uint8)
    of[live] = found
    return of


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def processor() -> str:
    """The processor's name and the number of usable cores."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--checkpoints", type=int, default=15)
    parser.add_argument("--part", type=int, default=500_000, help="tokens that numpy.polyfit gets")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    N, C = arguments.tokens, arguments.checkpoints
    part = min(arguments.part, N)
    taken: dict[str, list[float]] = {"classify": [], "polyfit": [], "course": []}
    with tempfile.TemporaryDirectory() as temporary:
        columns = make_columns(Path(temporary), N, C)
        run = Trajectory(tuple(Checkpoint(str(i), i) for i in range(C)), tuple(columns))
        first = [np.array(column[:part]) for column in columns]
        classify(columns)  # the files are in the page cache from here on
        for _ in range(arguments.repeats):
            seconds, found = timed(lambda: classify(columns))
            taken["classify"].append(seconds)
            level = found.level
            seconds, plain = timed(lambda level=level: by_polyfit(first, level))
            taken["polyfit"].append(seconds * N / part)
            other = np.flatnonzero(plain != found.of[:part])
            if (np.abs(fitted_change([column[other] for column in first])) != found.change).any():
                raise SystemExit("numpy.polyfit finds other categories")
            taken["course"].append(timed(lambda of=found.of: course(run, of))[0])
    medians = {name: statistics.median(times) for name, times in taken.items()}
    shares = ", ".join(
        f"{key} {count / sum(found.counts):.2f}" for key, count in zip(CATEGORIES, found.counts, strict=True)
    )
    met = "met" if medians["classify"] < GOAL else "missed"
    print(f"{processor()}; {N:,} tokens x {C} checkpoints, float16; numpy {np.__version__}")
    print(f"numpy.polyfit on the first {part:,} tokens: {len(other)} differ, all at the very threshold ({shares})")
    print(f"{'classify':>10} {medians['classify']:>8.2f} s   (goal {GOAL:g} s: {met})")
    print(f"{'polyfit':>10} {medians['polyfit']:>8.2f} s   (scaled up from {part:,} tokens)")
    print(f"{'ratio':>10} {medians['polyfit'] / medians['classify']:>8.1f}")
    print(f"{'course':>10} {medians['course']:>8.2f} s")


if __name__ == "__main__":
    main()
