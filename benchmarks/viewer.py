"""How large the viewer's page is, how soon it is painted, and how fast it follows its reader.

    python benchmarks/viewer.py [--passages 200] [--tokens 512] [--repeats 5]

Makes a view of random tokens (two students and a reference with losses and entropies, regions, categories) in a
temporary folder and opens it in headless Chromium at 1280 x 900. "first paint" is the first frame after the script has
built passage and list, in milliseconds from the start of the navigation; the browser paints the frame of the page
earlier ("contentful"). "switching" is a click on another passage until its layout is done, "slider step" one step of
the ratio with layout, "search" typing a word that occurs everywhere. Medians are printed, with the goals beside them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tokensieve.viewer.page import write_page
from tokensieve.viewer.passages import Model, Passage, View

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser.chromium import Browser, browser  # noqa: E402

GOAL_PAINT = 1000.0
"""Milliseconds to the first paint of 200 passages of 512 tokens."""
GOAL_SIZE = 5_000_000
"""Bytes of the same page."""
WORDS = ("the ", "value ", "of ", "sum", "(", "x", ")", "\n", " = ", "é", "return ", "    ", "42", ".", "integral ")
PAINTED = """addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => requestAnimationFrame(() => {
    window.painted = performance.now(); })));"""
"""The second frame begins when the first, with everything in it, is done."""
MODELS = (Model("a", "student", "late"), Model("b", "student", "early"), Model("r", "reference", "reference"))


def make_view(passages: int, tokens: int) -> View:
    """Random passages."""
    rng = np.random.default_rng(0)

    def passage(number: int) -> Passage:
        def columns() -> dict[str, np.ndarray]:
            return {model.key: rng.gamma(0.8, 2.0, tokens).astype(np.float16) for model in MODELS}

        return Passage(
            source=number % 3,
            place=f"document {number} of shard 00000",
            ids=rng.integers(0, 50_000, tokens),
            pieces=tuple(map(str, rng.choice(WORDS, tokens))),
            losses=columns(),
            entropies=columns(),
            regions=rng.integers(0, 2, tokens).astype(np.uint8),
            categories=rng.integers(0, 4, tokens).astype(np.uint8),
            documents=np.zeros(tokens, dtype=np.int64),
        )

    found = tuple(passage(number) for number in range(passages))
    return View("A benchmark", MODELS, ("books", "code", "web"), found, ("prose", "code"))


def timed(tab: Browser, action: str) -> float:
    """Milliseconds of an action and the layout it causes."""
    timing = f"const from = performance.now(); {action}; document.querySelector('.text').offsetHeight;"
    return float(tab.evaluate(f"(() => {{ {timing} return performance.now() - from; }})()"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    view = make_view(given.passages, given.tokens)
    with tempfile.TemporaryDirectory() as folder, browser() as tab:
        path = Path(folder) / "view.html"
        started = time.perf_counter()
        size = write_page(view, path)
        writing = time.perf_counter() - started
        paints, early, switches, slides, searches = [], [], [], [], []
        tab.send("Page.addScriptToEvaluateOnNewDocument", source=PAINTED)
        for _ in range(given.repeats):
            tab.open(path)
            tab.wait("window.painted !== undefined")
            paints.append(tab.evaluate("window.painted"))
            early.append(tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            button = "document.querySelectorAll('#passages button')"
            switches += [timed(tab, f"{button}[{number}].click()") for number in (1, given.passages - 1, 0)]
            slide = "e.value = {}; e.dispatchEvent(new Event('input'))"
            slides += [
                timed(tab, f"const e = document.getElementById('ratio'); {slide.format(percent)}")
                for percent in (20, 50, 80)
            ]
            search = (
                "const e = document.getElementById('query'); e.value = 'value'; e.dispatchEvent(new Event('input'))"
            )
            tab.evaluate(f"(() => {{ window.from = performance.now(); {search}; }})()")
            tab.wait("document.getElementById('matches').textContent !== ''")
            searches.append(tab.evaluate("performance.now() - window.from"))
    tokens = given.passages * given.tokens
    print(f"{given.passages} passages x {given.tokens} tokens = {tokens:,} tokens, {len(MODELS)} models")
    print(f"size         {size / 1e6:8.2f} MB   {size / tokens:.1f} bytes a token   goal {GOAL_SIZE / 1e6:.0f} MB")
    print(f"writing      {1e3 * writing:8.0f} ms")
    print(f"first paint  {statistics.median(paints):8.0f} ms   goal {GOAL_PAINT:.0f} ms")
    print(f"  contentful {statistics.median(early):8.0f} ms")
    for name, values in (("switching", switches), ("slider step", slides), ("search", searches)):
        print(f"{name:12} {statistics.median(values):8.1f} ms")


if __name__ == "__main__":
    main()
