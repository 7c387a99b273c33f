"""Views for the browser tests of the viewer: random numbers with many ties, and helpers that read a page back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.viewer.page import write_page
from tokensieve.viewer.passages import Model, Passage, View

from .chromium import Browser

WORDS = (" the", " sum", "\n", "x", " = ", "é", " value", "\t", "42", " שלום", "", "👩\u200d🔬", " e", "\u0301", ".")
MODELS = (
    Model("late", "student", "late checkpoint"),
    Model("early", "student", "early checkpoint"),
    Model("ref", "reference", "reference"),
    Model("other", "reference", "other reference"),
)


def passage(
    pieces: Sequence[str], rng: np.random.Generator, models: Sequence[Model] = MODELS, source: int = 0, place: str = "p"
) -> Passage:
    """A passage with losses from few values, so that scores tie; its first token is no candidate."""
    count = len(pieces)

    def column() -> np.ndarray:
        # Steps of float16 between 0 and 9 differ in size: differences need more than float16 holds.
        values = np.where(rng.random(count) < 0.5, rng.integers(0, 12, count) / 4, rng.gamma(1.0, 2.0, count))
        return values.astype(np.float16)

    losses = {model.key: column() for model in models}
    entropies = {model.key: column() for model in models}
    for values in losses.values():
        values[:1] = np.nan
    return Passage(
        source=source,
        place=place,
        ids=rng.integers(0, 200_000, count),
        pieces=tuple(map(str, pieces)),
        losses=losses,
        entropies=entropies,
        regions=rng.integers(0, 2, count).astype(np.uint8),
        categories=rng.choice(np.array([0, 1, 2, 3, 255], dtype=np.uint8), count),
        documents=np.cumsum(rng.random(count) < 0.08).astype(np.int64),
    )


def view(passages: int = 6, tokens: int = 90, models: Sequence[Model] = MODELS, **fields: Any) -> View:
    """A view of random passages of three sources."""
    rng = np.random.default_rng(7)
    found = [
        passage(["x", *rng.choice(WORDS, tokens + 5 * i - 1)], rng, models, i % 3, f"document {i} of shard 00000")
        for i in range(passages)
    ]
    sources, regions = ("books", "web pages", "noise"), ("prose", "code")
    given: dict[str, Any] = {"title": "A view", "models": tuple(models), "sources": sources, "regions": regions}
    return View(passages=tuple(found), **(given | fields))


@dataclass
class Page:
    """A view, and the file that shows it."""

    view: View
    path: Path


def written(shown: View, folder: Path) -> Page:
    """Write the page of a view into a folder."""
    path = folder / "view.html"
    write_page(shown, path)
    return Page(shown, path)


def with_data(page: Page, data: dict[str, Any], remove: Sequence[str] = ()) -> Page:
    """The same page with other values at the top of its data, in a file beside it."""
    html = page.path.read_text(encoding="utf-8")
    before, found, rest = html.partition('<script type="application/json" id="data">')
    held, end, after = rest.partition("</script>")
    kept = {name: value for name, value in json.loads(held).items() if name not in remove}
    path = page.path.with_name("with_data.html")
    path.write_text(before + found + json.dumps(kept | data).replace("<", "\\u003c") + end + after, encoding="utf-8")
    return Page(page.view, path)


def choose(tab: Browser, name: str, value: str) -> None:
    """Choose a value of a select, or type it into a field."""
    tab.evaluate(
        f"""(() => {{ const e = document.getElementById({json.dumps(name)}); e.value = {json.dumps(value)};
            e.dispatchEvent(new Event("input")); e.dispatchEvent(new Event("change")); }})()"""
    )


def open_passage(tab: Browser, number: int) -> None:
    """Open a passage by its number from 0, through the list."""
    tab.evaluate(
        f"""[...document.querySelectorAll("#passages button")]
            .find(b => b.querySelector("b").textContent === "{number + 1}").click()"""
    )


def table(tab: Browser) -> list[dict[str, str]]:
    """The numbers of the open passage, one row a token."""
    text = tab.evaluate(
        """(() => { document.getElementById("numbers-open").click();
            const text = document.getElementById("numbers-table").value;
            document.getElementById("numbers").close(); return text; })()"""
    )
    names, *rows = (line.split("\t") for line in text.split("\n"))
    return [dict(zip(names, row, strict=True)) for row in rows]


def kept(tab: Browser, pane: int = 0) -> list[bool]:
    """Which tokens of a pane are marked as kept."""
    result: list[bool] = tab.evaluate(
        f"""[...document.querySelectorAll(".pane")[{pane}].querySelectorAll(".text > span")]
            .map(e => e.classList.contains("kept"))"""
    )
    return result


def kept_everywhere(tab: Browser) -> list[list[bool]]:
    """Which tokens are marked as kept, passage by passage in the order of the list."""
    result: list[list[bool]] = tab.evaluate(
        """[...document.querySelectorAll("#passages button")].map(button => { button.click();
            return [...document.querySelectorAll(".text > span")].map(e => e.classList.contains("kept")); })"""
    )
    return result


def texts(tab: Browser) -> list[str]:
    """The textContent of every token of the open passage."""
    result: list[str] = tab.evaluate("[...document.querySelectorAll('.text > span')].map(e => e.textContent)")
    return result
