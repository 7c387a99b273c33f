"""The viewer's page: the scatter, comparing models, links that show the same again, and frames."""

import html
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import Page, choose, kept, open_passage, texts, view, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
OPEN = "document.getElementById('place').textContent"
FOCUSED = "document.activeElement.dataset.i ?? null"


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(view(), tmp_path_factory.mktemp("page"))


def inside(page: Page, x: tuple[float, float], y: tuple[float, float]) -> list[tuple[int, int]]:
    """(passage, token) of the candidates whose losses lie in a rectangle."""
    found = []
    for number, shown in enumerate(page.view.passages):
        across, up = shown.losses["ref"].astype(float), shown.losses["late"].astype(float)
        chosen = (across >= x[0]) & (across <= x[1]) & (up >= y[0]) & (up <= y[1]) & shown.candidates
        found += [(number, int(token)) for token in np.flatnonzero(chosen)]
    return found


def test_ranges_of_losses_list_their_tokens(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for name, value in (("y-from", "2.6"), ("x-to", "0.4")):
        choose(tab, name, value)
    tab.evaluate("document.querySelector('#ranges button').click()")
    right = inside(page, (0, 0.4), (2.6, np.inf))
    assert 3 < len(right) <= 100
    assert tab.evaluate("document.getElementById('points-count').textContent").startswith(f"{len(right)} tokens")
    assert tab.evaluate("document.querySelectorAll('#points li').length") == len(right)
    for i in (0, len(right) - 1):
        tab.evaluate(f"document.querySelectorAll('#points button')[{i}].click()")
        number, token = right[i]
        assert tab.evaluate(OPEN).startswith(f"{number + 1} · ") and tab.evaluate(FOCUSED) == str(token)
        shown = tab.evaluate(f"document.querySelectorAll('#points .glyph')[{i}].textContent")
        assert shown == page.view.passages[number].pieces[token]
    tab.evaluate("document.getElementById('points-clear').click()")
    assert tab.evaluate("document.querySelectorAll('#points li').length") == 0


def test_a_drag_over_the_scatter_lists_its_tokens(tab: Browser, page: Page) -> None:
    tab.open(page.path, height=1400)
    box = tab.evaluate(
        "(() => { const b = document.getElementById('plot').getBoundingClientRect(); return [b.x, b.y]; })()"
    )
    tab.wait("document.getElementById('plot').width > 0")
    tab.mouse((box[0] + 60, box[1] + 20), (box[0] + 90, box[1] + 60), (box[0] + 200, box[1] + 160))
    bounds = tab.evaluate("['x-from', 'x-to', 'y-from', 'y-to'].map(e => +document.getElementById(e).value)")
    assert 0 < bounds[0] < bounds[1] and 0 < bounds[2] < bounds[3]
    count = int(tab.evaluate("document.getElementById('points-count').textContent.split(' ')[0]"))
    # The fields show two decimals of the rectangle that was dragged.
    least = len(inside(page, (bounds[0] + 0.01, bounds[1] - 0.01), (bounds[2] + 0.01, bounds[3] - 0.01)))
    most = len(inside(page, (bounds[0] - 0.01, bounds[1] + 0.01), (bounds[2] - 0.01, bounds[3] + 0.01)))
    assert 0 < least <= count <= most
    assert tab.evaluate("document.querySelectorAll('#points li').length") == min(count, 100)


def test_comparing_side_by_side_and_as_a_difference(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    choose(tab, "student", "early")
    alone = kept(tab)
    choose(tab, "student", "late")
    main = kept(tab)
    choose(tab, "view", "side")
    choose(tab, "a", "early")
    choose(tab, "b", "late")
    assert tab.evaluate("[...document.querySelectorAll('.pane h3')].map(e => e.textContent)") == [
        "A: early checkpoint (student)",
        "B: late checkpoint (student)",
    ]
    assert kept(tab, 0) == alone != main == kept(tab, 1)
    assert texts(tab) == list(page.view.passages[0].pieces) * 2
    tops = "[...document.querySelectorAll('.pane')].map(e => e.getBoundingClientRect().top)"
    first, second = tab.evaluate(tops)
    assert first == second
    tab.evaluate("document.querySelectorAll('.pane')[1].querySelectorAll('.text > span')[9].click()")
    assert tab.evaluate("[...document.querySelectorAll('.here')].map(e => e.dataset.i)") == ["9", "9"]
    choose(tab, "view", "difference")
    shown = page.view.passages[0]
    apart = shown.losses["early"].astype(np.float32) - shown.losses["late"]
    classes = tab.evaluate("[...document.querySelectorAll('.text > span')].map(e => e.classList[0])")
    for value, css in zip(apart, classes, strict=True):
        steps = sum(abs(value) >= step for step in (0.25, 0.75, 1.5, 3.0))
        right = "none" if np.isnan(value) else "z" if steps == 0 else f"{'p' if value > 0 else 'n'}{steps}"
        assert css == right
    assert kept(tab) == main
    tab.open(page.path, width=360, fragment="#view=side&a=ref&b=other")
    first, second = tab.evaluate(tops)
    assert second > first + 100


def test_a_link_shows_the_same_again(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for name, value in (("student", "early"), ("score", "reference_loss"), ("scope", "sequence"), ("ratio", "37")):
        choose(tab, name, value)
    for name, value in (("view", "side"), ("a", "ref"), ("b", "other"), ("colour", "kept"), ("sort", "least")):
        choose(tab, name, value)
    open_passage(tab, 4)
    tab.evaluate("document.querySelectorAll('.text > span')[33].click()")
    tab.wait("location.hash.includes('token=34')")
    fragment = tab.evaluate("location.hash")
    look = """[document.getElementById("place").textContent, document.getElementById("detail").innerText,
        ...["student", "score", "scope", "ratio", "view", "a", "b", "colour", "sort"]
            .map(e => document.getElementById(e).value),
        [...document.querySelectorAll(".text > span")].map(e => e.className).join("|")]"""
    before = tab.evaluate(look)
    tab.open(page.path, fragment=fragment)
    assert tab.evaluate(look) == before
    tab.open(page.path)
    tab.evaluate(f"location.hash = {json.dumps(fragment)}")
    tab.wait(f"document.getElementById('place').textContent === {json.dumps(before[0])}")
    assert tab.evaluate(look) == before


@pytest.mark.parametrize(
    "fragment",
    [
        "#",
        "#text",
        "#passage=0&token=-1",
        "#passage=999&ratio=7",
        "#passage=2&token=1e9",
        "#ratio=&student=ref&a=nobody",
    ]
    + ["#score=random&scope=batch&colour=pink&view=x&sort=y&source=9", "#%E0%A4%A", "#ratio=0.6&passage=1.5&token=NaN"],
)
def test_a_broken_link_shows_the_page(tab: Browser, page: Page, fragment: str) -> None:
    tab.open(page.path, fragment=fragment)
    assert tab.evaluate("document.querySelectorAll('.text > span').length") > 0
    assert tab.evaluate("document.getElementById('score').value") == "excess_loss"
    assert tab.evaluate("document.getElementById('student').value") == "late"
    assert tab.evaluate("document.getElementById('percent').value") == "60"
    assert tab.complaints() == []


def test_it_works_in_a_sandboxed_frame(tab: Browser, page: Page) -> None:
    document = html.escape(page.path.read_text(encoding="utf-8"), quote=True)
    outer = page.path.with_name("outer.html")
    frame = f"<iframe sandbox='allow-scripts' width=900 height=700 srcdoc=\"{document}\">"
    outer.write_text(f"<!doctype html><title>outer</title>{frame}", encoding="utf-8")
    tab.open(outer)
    created = [
        event["params"]["context"] for event in tab.events if event["method"] == "Runtime.executionContextCreated"
    ]
    main = tab.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    (context,) = {found["id"] for found in created if found["auxData"]["frameId"] != main}

    def inside_frame(expression: str) -> Any:
        found = tab.send("Runtime.evaluate", expression=expression, contextId=context, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    assert inside_frame("origin") == "null"
    assert inside_frame("document.querySelectorAll('.text > span').length") == len(page.view.passages[0].pieces)
    inside_frame("document.querySelectorAll('#passages button')[2].click()")
    inside_frame("document.querySelectorAll('.text > span')[3].click()")
    inside_frame("new Promise(done => setTimeout(done, 600))")
    assert inside_frame("document.querySelectorAll('.text > span').length") == len(page.view.passages[2].pieces)
    tab.evaluate("new Promise(done => setTimeout(done, 10))")
    assert tab.complaints() == []
