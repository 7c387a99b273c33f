"""The viewer's page in a real browser: quiet, within its width, legible, and its text exactly the text."""

import base64
import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tokensieve.viewer.passages import Model, View

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import MODELS, Page, choose, kept, open_passage, passage, texts, view, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
ARABIC = ["مر", "حبا", " بالعا", "لم", ",", " ok", "\n", "abc", " שלום"]
LONG = "A" * 10_000
COLOURS = ("excess_loss", "student_loss", "reference_loss", "student_entropy", "reference_entropy", "category", "kept")


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Every width, script and length that could break a layout."""
    rng = np.random.default_rng(3)
    models = (*MODELS[:3], Model("m", "student", "a label of one endless word " + "m" * 150))
    shown = view(models=models)
    long = passage([LONG, "\n", *("word " * 3999).split(" ")], rng, models, 2, "d" * 200)
    right = passage(ARABIC, rng, models, 1, "document 9")
    return written(
        View(
            title="A title with a" + "n" * 200 + "endless word",
            models=models,
            sources=("s" * 200, "web", "noise"),
            regions=("r" * 200, "code"),
            passages=(*shown.passages, long, right),
            notes=("w" * 300, "Two notes."),
        ),
        tmp_path_factory.mktemp("page"),
    )


def test_it_loads_without_network_or_complaints(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for colour in COLOURS:
        choose(tab, "colour", colour)
    for state in ("side", "difference", "one"):
        choose(tab, "view", state)
    assert tab.requests() == [page.path.resolve().as_uri()]
    assert tab.complaints() == []


def test_it_leaves_nothing_in_the_global_scope(tab: Browser, page: Page) -> None:
    names = "Object.getOwnPropertyNames(window).filter(name => !/^\\d+$/.test(name)).sort()"
    blank = page.path.with_name("blank.html")
    blank.write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    tab.open(blank)
    before = tab.evaluate(names)
    tab.open(page.path)
    assert tab.evaluate(names) == before


@pytest.mark.parametrize("width", [320, 360, 768, 1000, 1280, 1920])
def test_nothing_sticks_out(tab: Browser, page: Page, width: int) -> None:
    tab.open(page.path, width=width)
    assert tab.evaluate("window.innerWidth") == width
    for button in ("list-toggle", "fields-toggle"):
        tab.evaluate(f"document.getElementById('{button}').click()")
    for number, state in ((0, "one"), (6, "side"), (7, "difference")):
        open_passage(tab, number)
        choose(tab, "view", state)
        tab.evaluate("document.querySelector('.text > span').click()")
        choose(tab, "y-from", "0")
        tab.evaluate("document.querySelector('#ranges button').click()")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        outside = f"""[...document.querySelectorAll("body *")]
            .filter(e => e.checkVisibility() && !e.closest(".hidden, option"))
            .filter(e => e.getBoundingClientRect().right > {width} + 0.5 || e.getBoundingClientRect().left < -0.5)
            .map(e => e.outerHTML.slice(0, 90))"""
        assert tab.evaluate(outside) == []
        # However much there is around it, the passage has room.
        assert tab.evaluate("document.querySelector('.text').getBoundingClientRect().height") > 60


WEAK = """(() => {
    const rgb = s => s.match(/[\\d.]+/g).map(Number);
    const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = e => { for (; e; e = e.parentElement) {
        const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } };
    const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const found = [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.disabled)
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.dataset.c
            || ["INPUT", "SELECT", "TEXTAREA"].includes(e.tagName))
        .map(e => { const ink = light(rgb(getComputedStyle(e, e.dataset.c ? "::before" : null).color));
            return [contrast(ink, light(ground(e))), e.outerHTML.slice(0, 90)]; });
    for (const name of ["match", "current"]) {
        const style = getComputedStyle(document.querySelector(".text"), `::highlight(${name})`);
        found.push([contrast(light(rgb(style.color)), light(rgb(style.backgroundColor))), name]);
    }
    return [found.length, found.filter(([ratio]) => !(ratio >= 4.5))];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_enough_contrast(tab: Browser, page: Page, dark: bool) -> None:
    tab.open(page.path, dark=dark)
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground.strip("rgb()").split(",")) < 200) is dark
    tab.evaluate("document.querySelectorAll('.text > span')[5].click()")
    seen = set()
    for colour in COLOURS:
        choose(tab, "colour", colour)
        seen |= set(tab.evaluate("[...document.querySelectorAll('.text > span')].flatMap(e => [...e.classList])"))
        checked, weak = tab.evaluate(WEAK)
        assert checked > 100 and weak == []
    classes = {f"{kind}{step}" for kind, steps in (("s", 6), ("c", 4)) for step in range(steps)}
    classes |= {f"{kind}{step}" for kind in "pn" for step in range(1, 5)} | {"z", "yes", "no", "none", "kept", "here"}
    assert seen == classes
    for dialog in ("help-open", "numbers-open"):
        tab.evaluate(f"document.getElementById('{dialog}').click()")
        assert tab.evaluate(WEAK)[1] == []


def test_kept_tokens_are_underlined_whatever_the_colours(tab: Browser, page: Page) -> None:
    for features in ([], [{"name": "forced-colors", "value": "active"}]):
        tab.open(page.path)
        tab.send("Emulation.setEmulatedMedia", features=features)
        lines = tab.evaluate(
            """[...document.querySelectorAll(".text > span")]
                .map(e => getComputedStyle(e).textDecorationLine === "underline")"""
        )
        assert lines == kept(tab) and 0 < sum(lines) < len(lines)


def test_joined_tokens_are_the_text(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for number, shown in enumerate(page.view.passages):
        open_passage(tab, number)
        assert texts(tab) == list(shown.pieces)
        assert tab.evaluate("document.querySelector('.text').textContent") == "".join(shown.pieces)


def test_4000_tokens_are_shown_and_stay_quick(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    open_passage(tab, 6)
    assert len(texts(tab)) == len(page.view.passages[6].pieces) > 4000
    moved = """(() => { const slider = document.getElementById("ratio"); const from = performance.now();
        for (let i = 10; i < 20; i += 1) { slider.value = i; slider.dispatchEvent(new Event("input")); }
        return (performance.now() - from) / 10; })()"""
    assert tab.evaluate(moved) < 250
    # A token of 10,000 characters wraps inside its box.
    assert tab.evaluate("document.querySelector('.text > span').getClientRects().length") > 50


def test_letters_join_and_marks_combine_across_tokens(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    open_passage(tab, 7)
    boxes = tab.evaluate(
        """[...document.querySelectorAll(".text > span")].map(e => { const s = getComputedStyle(e);
            return [s.paddingLeft, s.paddingRight, s.marginLeft, s.marginRight, s.borderLeftWidth, s.borderRightWidth,
                s.display]; })"""
    )
    assert {tuple(box) for box in boxes} == {("0px",) * 6 + ("inline",)}
    # Joined, the two pieces of one Arabic word are as wide as the word in one piece.
    widths = tab.evaluate(
        """(() => { const spans = [...document.querySelectorAll(".text > span")].slice(0, 2);
            const apart = spans.reduce((sum, e) => sum + e.getBoundingClientRect().width, 0);
            const whole = document.createElement("span"); whole.textContent = spans.map(e => e.textContent).join("");
            document.querySelector(".text").append(whole); return [apart, whole.getBoundingClientRect().width]; })()"""
    )
    assert abs(widths[0] - widths[1]) < 0.1


def test_right_to_left_paragraphs_begin_on_the_right(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    open_passage(tab, 7)
    lefts = tab.evaluate("[...document.querySelectorAll('.text > span')].map(e => e.getBoundingClientRect().left)")
    assert lefts[0] > lefts[1] > lefts[2] > lefts[5], "Arabic runs leftwards, and so does Latin text inside it"
    assert lefts[7] < lefts[8] < lefts[0], "the next paragraph begins on the left"
    tab.evaluate("document.querySelector('.text > span').focus()")
    for key, token in (("ArrowLeft", "1"), ("ArrowLeft", "2"), ("ArrowRight", "1")):
        tab.key(key)
        assert tab.evaluate("document.activeElement.dataset.i") == token


def test_half_characters_have_a_mark_that_takes_no_room(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    empty = tab.evaluate(
        """[...document.querySelectorAll(".text > span:empty")].map(e => [e.getBoundingClientRect().width,
            parseFloat(getComputedStyle(e, "::before").width), getComputedStyle(e, "::before").position])"""
    )
    assert len(empty) == page.view.passages[0].pieces.count("") > 0
    assert all(own == 0 and mark > 2 and position == "absolute" for own, mark, position in empty)
    tab.evaluate("document.querySelector('.text > span:empty').click()")
    assert "part of a character" in tab.evaluate("document.getElementById('detail').textContent")


@pytest.mark.parametrize("models", [(0,), (2,), (0, 1), (2, 3)])
def test_without_a_student_or_a_reference_nothing_is_meaningless(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory, models: tuple[int, ...]
) -> None:
    alone = written(view(3, models=[MODELS[i] for i in models]), tmp_path_factory.mktemp("alone"))
    tab.open(alone.path)
    both = ("excess", "student") if MODELS[models[0]].kind == "reference" else ("excess", "reference")
    offered = tab.evaluate(
        "[...document.querySelectorAll('#score option, #colour option')].map(e => e.textContent.toLowerCase())"
    )
    assert offered and not any(word in name for name in offered for word in both)
    tab.evaluate("document.querySelectorAll('.text > span')[4].click()")
    for state in ("one", "side", "difference"):
        choose(tab, "view", state)
        shown = tab.evaluate("document.querySelector('.house').innerText")
        assert "NaN" not in shown and "undefined" not in shown and "null" not in shown
    assert "excess" not in tab.evaluate("document.querySelector('.house').innerText").lower()
    visible = tab.evaluate("document.getElementById('scatter').checkVisibility()")
    assert visible is (len(models) > 1)
    assert "cannot be computed" in tab.evaluate("document.getElementById('notes').textContent")
    assert tab.complaints() == []


def test_passages_without_a_candidate_are_shown(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(1)
    empty = replace(passage([], rng, MODELS[:1]), documents=None)
    bare = View("t", MODELS[:1], ("s",), (passage(["one"], rng, MODELS[:1]), empty))
    tab.open(written(bare, tmp_path_factory.mktemp("bare")).path)
    assert texts(tab) == ["one"]
    tab.evaluate("document.querySelector('.text > span').click()")
    open_passage(tab, 1)
    assert texts(tab) == [] and "NaN" not in tab.evaluate("document.body.innerText")
    assert tab.complaints() == []


def test_it_prints_the_open_passage(tab: Browser, page: Page) -> None:
    tab.open(page.path, width=1280)
    open_passage(tab, 6)
    tab.send("Emulation.setEmulatedMedia", media="print")
    hidden = tab.evaluate(
        "['.list', '.choose', 'aside', '#detail'].filter(e => document.querySelector(e).checkVisibility())"
    )
    pdf = base64.b64decode(tab.send("Page.printToPDF", printBackground=True)["data"])
    tab.send("Emulation.setEmulatedMedia", media="")
    assert hidden == []
    assert pdf.startswith(b"%PDF") and 4 < pdf.count(b"/Type /Page\n") < 40, "4,000 tokens need several sheets"
