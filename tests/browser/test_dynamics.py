"""The page of an analysis and its drawings in a real browser: quiet, within their width, legible in both schemes."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokensieve.report.dynamics import write_dynamics, write_figures

from .chromium import PROGRAM, Browser, browser

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
SAMPLE = Path(__file__).parents[1] / "unit" / "report" / "dynamics.json"
HOSTILE = '<b onclick="x()">bold</b></style><script>document.title = "owned"</script>\u202e'
SHOWN = HOSTILE.replace("\u202e", "⟨U+202E⟩")
OPEN_ALL = "document.querySelectorAll('details').forEach(e => { e.open = true; })"
WEAK = """(() => {
    const rgb = s => s.match(/[\\d.]+/g).map(Number);
    const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const ground = e => { for (; e; e = e.parentElement) {
        const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } };
    const texts = [...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && e.checkVisibility())
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .map(e => [ratio(rgb(getComputedStyle(e).color), ground(e)), 4.5, e.outerHTML.slice(0, 90)]);
    const lines = [...document.querySelectorAll("svg path:not(.grid, .axis)")]
        .map(e => [ratio(rgb(getComputedStyle(e).stroke), rgb(getComputedStyle(document.body).backgroundColor)), 3,
            e.getAttribute("class")]);
    return [...texts, ...lines].filter(([found, least]) => found < least);
})()"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def analysis() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    loaded["title"] = "A title with a" + "n" * 200 + "endless word"
    loaded["warnings"].append("w" * 300)
    loaded["not_shown"].append("figure 99: " + "n" * 300)
    loaded["text"]["description"] = "d" * 150
    loaded["runs"]["random"]["label"] = HOSTILE + "l" * 120
    loaded["runs"]["clm"]["checkpoints"][0]["name"] = "c" * 150
    for category in loaded["categories"].values():
        for rows in category["by"].values():
            rows[0]["name"] = "z" * 120
    loaded["fluctuating"]["low_to_low"][0] |= {"token": "t" * 90, "before": HOSTILE + "b" * 90, "after": "a" * 90}
    loaded["examples"][0]["place"] = HOSTILE + "p" * 120
    loaded["examples"][0]["tokens"][3]["text"] = HOSTILE + "x" * 200
    loaded["examples"][0]["tokens"][4]["text"] = "א\u200fב 123 "
    loaded["recipe"]["r" * 200] = HOSTILE
    return loaded


@pytest.fixture(scope="module")
def page(analysis: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_dynamics(analysis, folder / "dynamics.html")
    write_figures(analysis, folder / "figures")
    return folder / "dynamics.html"


def complaints(tab: Browser) -> list[dict[str, Any]]:
    methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [event for event in tab.events if event.get("method") in methods]


def test_it_loads_without_network_or_complaints(tab: Browser, page: Path) -> None:
    tab.open(page)
    asked = [event["params"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"]
    assert [request["request"]["url"] for request in asked] == [page.resolve().as_uri()]
    assert complaints(tab) == []


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1280, 1920])
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


def test_the_main_tables_need_no_scrolling_on_a_phone(tab: Browser, page: Path) -> None:
    tab.open(page, width=320)
    boxes = "[...document.querySelectorAll('.groups, .scroll:has(table.kinds)')]"
    assert tab.evaluate(f"{boxes}.map(e => e.scrollWidth <= e.clientWidth)") == [True] * 4
    labels = tab.evaluate("""[...document.querySelectorAll("table.kinds td")]
        .map(e => getComputedStyle(e, "::before").content).filter(text => text.length < 6)""")
    assert labels == []


def test_hostile_text_is_shown_as_text(tab: Browser, page: Path) -> None:
    tab.open(page)
    assert tab.evaluate("document.title").startswith("A title")
    assert tab.evaluate("document.querySelectorAll('script, [onclick]').length") == 0
    assert tab.evaluate("document.body.textContent").count(SHOWN) > 5


@pytest.mark.parametrize("width", [360, 1280])
def test_labels_of_lines_do_not_cover_each_other(tab: Browser, page: Path, width: int) -> None:
    tab.open(page, width=width)
    overlaps = tab.evaluate(
        """[...document.querySelectorAll(".plot")].flatMap(plot => {
            const boxes = [...plot.querySelectorAll(".end, .x-label")].map(e => e.getBoundingClientRect());
            return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3).map(() => plot.parentElement.innerText));
        })"""
    )
    assert overlaps == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_and_lines_have_enough_contrast(tab: Browser, page: Path, dark: bool) -> None:
    tab.open(page, dark=dark)
    tab.evaluate(OPEN_ALL)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background.strip("rgb()").split(",")) < 200) is dark
    assert tab.evaluate(WEAK) == []


def test_tokens_are_told_apart_without_colour(tab: Browser, page: Path) -> None:
    tab.open(page)
    looks = tab.evaluate(
        """[...document.querySelectorAll(".keys > div")].map(key => [...key.querySelectorAll(".sample")].map(e => {
            const style = getComputedStyle(e); return style.borderBottomStyle + style.borderBottomWidth; }))"""
    )
    assert [len(key) for key in looks] == [4, 2, 5]
    for key in looks:
        assert len(set(key)) == len(key)
    shown = tab.evaluate(
        "[...document.querySelectorAll('.tokens > .hh')].map(e => getComputedStyle(e).borderBottomStyle)"
    )
    assert set(shown) == {"dotted"} and tab.evaluate(
        "[...document.querySelectorAll('.tokens > span')].every(e => e.title)"
    )


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
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_drawings_are_inside_their_plots_and_have_words(tab: Browser, page: Path) -> None:
    tab.open(page, width=360)
    plots = tab.evaluate(
        """[...document.querySelectorAll("svg[role=img]")].map(svg => [svg.getBoundingClientRect().width,
            svg.querySelector("desc").textContent.length, svg.querySelectorAll("path:not(.grid)").length])"""
    )
    assert len(plots) == 13
    for width, words, lines in plots:
        assert width > 180 and words > 60 and lines >= 2


@pytest.mark.parametrize("dark", [False, True])
def test_the_files_are_legible_alone(tab: Browser, page: Path, dark: bool) -> None:
    drawings = sorted((page.parent / "figures").glob("*.svg"))
    assert len(drawings) == 8
    for path in drawings:
        tab.open(path, dark=dark)
        assert complaints(tab) == [], path.name
        found = tab.evaluate(
            """(() => {
                const rgb = s => s.match(/[\\d.]+/g).map(Number);
                const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
                const page = light(rgb(getComputedStyle(document.querySelector(".page")).fill));
                const ratio = c => (Math.max(light(c), page) + 0.05) / (Math.min(light(c), page) + 0.05);
                const root = document.documentElement.getBoundingClientRect();
                const box = document.querySelector(".page").getBoundingClientRect();
                return [page, [...document.querySelectorAll("text")].filter(e =>
                    ratio(rgb(getComputedStyle(e).fill)) < 4.5 || e.getBoundingClientRect().right > box.right ||
                    e.getBoundingClientRect().bottom > box.bottom).map(e => e.textContent)];
            })()"""
        )
        assert (found[0] < 0.2) is dark
        assert found[1] == [], path.name


def test_it_prints(tab: Browser, page: Path) -> None:
    tab.open(page, width=794)
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 794
    pdf = base64.b64decode(tab.send("Page.printToPDF", printBackground=True)["data"])
    tab.send("Emulation.setEmulatedMedia", media="")
    assert pdf.startswith(b"%PDF") and 3 < pdf.count(b"/Type /Page\n") < 40
