"""The page in a real browser: quiet, complete, as wide as a phone, and really dark in the dark."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokensieve.report import write_report

from .chromium import PROGRAM, Browser, browser

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
SAMPLE = Path(__file__).parents[1] / "unit" / "report" / "sample.json"
NASTY = {
    "<b>bold</b>": "<b>bold</b>",
    "A" * 700: "A" * 700,
    " \t \t ": " \t \t ",
    "\x1b[31m": "␛[31m",
    "日本語のトークン": "日本語のトークン",
    "مرحبا": "مرحبا",
    "\u202eabc": "⟨U+202E⟩abc",
    "</details>": "</details>",
    "\r\n": "␍\n",
    "👩\u200d🔬": "👩\u200d🔬",
}
"""Token texts, and what the page shows for each."""


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    tokens = [{"text": text, "student": 2.0, "reference": 0.3, "kept": len(text) > 3} for text in NASTY]
    loaded["passages"].append({"source": "x" * 300, "tokens": tokens})
    loaded["title"] = "A title with a" + "n" * 200 + "endless word"
    loaded["warnings"] = ["w" * 300]
    loaded["targets"] = ["one", "t" * 80]
    gate = loaded["reference"]["gate"]
    gate["targets"] = {name: {**gate["pooled"], "reference_loss": 9.1} for name in loaded["targets"]}
    for arm in loaded["arms"].values():
        arm["targets"] = {name: {"loss": 5.5, "bits_per_byte": 2.0} for name in loaded["targets"]}
    return loaded


@pytest.fixture(scope="module")
def page(report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(report, path)
    return path


def test_it_loads_without_network_or_complaints(tab: Browser, page: Path) -> None:
    tab.open(page)
    asked = [event["params"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"]
    assert [request["request"]["url"] for request in asked] == [page.resolve().as_uri()]
    methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event for event in tab.events if event.get("method") in methods] == []


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_sticks_out(tab: Browser, page: Path, width: int) -> None:
    tab.open(page, width=width)
    assert tab.evaluate("window.innerWidth") == width
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"""[...document.querySelectorAll("body *")]
        .filter(e => e.getClientRects().length && !e.closest("svg"))
        .filter(e => e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80))"""
    assert tab.evaluate(outside) == []


def test_dark_is_dark_and_light_is_light(tab: Browser, page: Path) -> None:
    def colours(dark: bool) -> list[int]:
        tab.open(page, dark=dark)
        found = tab.evaluate(
            """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                getComputedStyle(document.querySelector("path.slm")).stroke,
                getComputedStyle(document.querySelector(".tokens .p2")).backgroundColor]"""
        )
        return [sum(int(part) for part in colour.strip("rgb()").split(",")) for colour in found]

    light, dark = colours(False), colours(True)
    assert light[0] > 600 > 200 > dark[0]
    assert light[1] < 200 < 600 < dark[1]
    assert light[2] < dark[2] and light[3] > dark[3]


def test_every_token_is_there_with_its_numbers(tab: Browser, page: Path, report: dict[str, Any]) -> None:
    tab.open(page)
    shown = tab.evaluate(
        """[...document.querySelectorAll('.tokens')]
            .map(p => [...p.children].map(t => [t.textContent, t.title]))"""
    )
    ordinary = [[token["text"] for token in passage["tokens"]] for passage in report["passages"][:-1]]
    assert [[text for text, _ in passage] for passage in shown[:-1]] == ordinary
    assert [text for text, _ in shown[-1]] == list(NASTY.values())
    assert all(title for passage in shown for _, title in passage)


def test_kept_tokens_are_told_apart_without_colour(tab: Browser, page: Path) -> None:
    tab.open(page)
    style = "[...document.querySelectorAll('.tokens > {}')].map(t => getComputedStyle(t).borderBottomWidth)"
    assert set(tab.evaluate(style.format(".k"))) == {"2px"}
    assert set(tab.evaluate(style.format(":not(.k)"))) == {"0px"}


def test_lines_are_drawn_inside_their_plots(tab: Browser, page: Path) -> None:
    tab.open(page, width=360)
    boxes = tab.evaluate(
        """[...document.querySelectorAll("svg[role=img] path.slm")].map(p => {
            const line = p.getBoundingClientRect(), plot = p.ownerSVGElement.getBoundingClientRect();
            return [line.width / plot.width, line.height / plot.height, plot.width];
        })"""
    )
    # The drawing is stretched to the page's width; its strokes must not be.
    assert tab.evaluate("getComputedStyle(document.querySelector('path.slm')).vectorEffect") == "non-scaling-stroke"
    assert len(boxes) == 5
    for width, height, plot in boxes:
        assert width > 0.9 and height > 0.2 and plot > 200


def test_a_tap_shows_a_tokens_numbers(tab: Browser, page: Path) -> None:
    tab.open(page, width=360)
    assert tab.evaluate("document.getElementById('shown').checkVisibility()") is False
    tab.evaluate("document.querySelector('.tokens .k').click()")
    assert "excess" in tab.evaluate("document.getElementById('shown').textContent")
    assert tab.evaluate("document.getElementById('shown').checkVisibility()") is True
    tab.evaluate("document.querySelector('h1').click()")
    assert tab.evaluate("document.getElementById('shown').checkVisibility()") is False
