"""The comparison's page in a real browser: quiet, within its width, legible in both schemes, and on paper."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokensieve.report.comparison import write_comparison

from .chromium import PROGRAM, Browser, browser

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
SAMPLE = Path(__file__).parents[1] / "unit" / "report" / "comparison.json"
HOSTILE = '<b onclick="x()">bold</b></style><script>document.title = "owned"</script>\u202e'
SHOWN = HOSTILE.replace("\u202e", "⟨U+202E⟩")
OPEN_ALL = "document.querySelectorAll('details').forEach(e => { e.open = true; })"


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    loaded["title"] = "A title with a" + "n" * 200 + "endless word"
    loaded["warnings"].append("w" * 300)
    loaded["arms"]["mixed"]["label"] = HOSTILE + "l" * 150
    loaded["arms"]["mixed"]["changes"]["k" * 90] = "v" * 90
    loaded["tasks"][0]["name"] = "t" * 120
    for row in loaded["differences"]:
        row["sentence"] = row["sentence"] if row["other"] != "mixed" else "s" * 200
        row["text"] = "t" * 120 if row["text"] == "gsm8k_choice" else row["text"]
    for arm in loaded["arms"].values():
        for rows in (arm["keep_rates"] or {}).values():
            rows[0]["name"] = "z" * 120
    loaded["matched"]["same"].append("s" * 200)
    loaded["matched"]["differ"]["d" * 90] = dict.fromkeys(loaded["arms"], "x" * 90)
    loaded["measured"]["hardware"] = "h" * 200
    loaded["recipe"]["r" * 200] = HOSTILE
    return loaded


@pytest.fixture(scope="module")
def page(comparison: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    write_comparison(comparison, path)
    return path


def test_it_loads_without_network_or_complaints(tab: Browser, page: Path) -> None:
    tab.open(page)
    asked = [event["params"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"]
    assert [request["request"]["url"] for request in asked] == [page.resolve().as_uri()]
    methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event for event in tab.events if event.get("method") in methods] == []


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1920])
def test_nothing_sticks_out_even_with_all_tables_open(tab: Browser, page: Path, width: int) -> None:
    tab.open(page, width=width)
    for everything in (False, True):
        if everything:
            tab.evaluate(OPEN_ALL)
        assert tab.evaluate("window.innerWidth") == width
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # Wide tables scroll in a box of their own; everything else keeps to the page.
        outside = f"""[...document.querySelectorAll("body *")]
            .filter(e => e.getClientRects().length && !e.closest("svg, pre") && !e.closest(".scroll > *"))
            .filter(e => e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80))"""
        assert tab.evaluate(outside) == []


def test_hostile_names_are_shown_as_text(tab: Browser, page: Path) -> None:
    tab.open(page)
    assert tab.evaluate("document.title").startswith("A title")
    assert tab.evaluate("document.querySelectorAll('script, [onclick]').length") == 0
    assert tab.evaluate("document.body.textContent").count(SHOWN) > 5


def test_labels_of_lines_do_not_cover_each_other(tab: Browser, page: Path) -> None:
    for width in (360, 1280):
        tab.open(page, width=width)
        overlaps = tab.evaluate(
            """[...document.querySelectorAll(".plot")].flatMap(plot => {
                const boxes = [...plot.querySelectorAll(".end")].map(e => e.getBoundingClientRect());
                return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3).map(() => plot.parentElement.innerText));
            })"""
        )
        assert overlaps == []


def test_lines_are_told_apart_without_colour(tab: Browser, page: Path) -> None:
    tab.open(page)
    looks = tab.evaluate(
        """[...document.querySelectorAll("#equal ~ figure .legend path")].map(p => {
            const style = getComputedStyle(p); return style.strokeDasharray + style.strokeWidth; })"""
    )
    assert len(looks) == 7 == len(set(looks))
    ends = tab.evaluate(
        "[...document.querySelectorAll('#equal ~ figure .plot')].map(p => p.querySelectorAll('.end b').length)"
    )
    assert ends == [6, 6, 6, 6]


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_enough_contrast(tab: Browser, page: Path, dark: bool) -> None:
    tab.open(page, dark=dark)
    tab.evaluate(OPEN_ALL)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background.strip("rgb()").split(",")) < 200) is dark
    weak = tab.evaluate(
        """(() => {
            const rgb = s => s.match(/[\\d.]+/g).map(Number);
            const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const ground = e => { for (; e; e = e.parentElement) {
                const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } };
            return [...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && e.checkVisibility())
                .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
                .map(e => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
                    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 90)]; })
                .filter(([ratio]) => ratio < 4.5);
        })()"""
    )
    assert weak == []


def test_every_part_is_reached_by_the_keyboard_and_has_a_name(tab: Browser, page: Path) -> None:
    tab.open(page, width=360)
    tab.evaluate(OPEN_ALL)
    unreachable = tab.evaluate(
        """[...document.querySelectorAll(".scroll, pre")]
            .filter(e => e.tabIndex !== 0 ||
                !(e.ariaLabel || document.getElementById(e.getAttribute("aria-labelledby"))))
            .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert unreachable == []
    assert tab.evaluate(
        "[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash)?.tagName === 'H2')"
    )
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_drawings_are_inside_their_plots_and_have_words(tab: Browser, page: Path) -> None:
    tab.open(page, width=360)
    plots = tab.evaluate(
        """[...document.querySelectorAll("svg[role=img]")].map(svg => [svg.getBoundingClientRect().width,
            svg.querySelector("desc").textContent.length, svg.querySelectorAll("path:not(.grid)").length])"""
    )
    assert len(plots) == 10
    for width, words, lines in plots:
        assert width > 200 and words > 60 and lines >= 3
    outside = tab.evaluate(
        """[...document.querySelectorAll(".axis")].filter(e => e.checkVisibility()).flatMap(axis => {
            const own = axis.getBoundingClientRect();
            return [...axis.querySelectorAll(".point, .range, .level, .unseen")].map(e => e.getBoundingClientRect())
                .filter(b => b.left < own.left - 8 || b.right > own.right + 8); }).length"""
    )
    assert outside == 0


def test_it_prints(tab: Browser, page: Path) -> None:
    tab.open(page, width=794)
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 794
    pdf = base64.b64decode(tab.send("Page.printToPDF", printBackground=True)["data"])
    tab.send("Emulation.setEmulatedMedia", media="")
    assert pdf.startswith(b"%PDF") and 3 < pdf.count(b"/Type /Page\n") < 40
