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


def select(tab: Browser, **ranges: str) -> None:
    """List the tokens of ranges of losses."""
    for name, value in ranges.items():
        choose(tab, name.replace("_", "-"), value)
    tab.evaluate("document.querySelector('#ranges button').click()")


COUNT = "document.getElementById('points-count').textContent"


def test_listed_tokens_follow_slider_models_and_passage(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    select(tab, y_from="2.6", x_to="0.4")
    first = inside(page, (0, 0.4), (2.6, np.inf))
    underlined = "document.querySelectorAll('#points .glyph.kept').length"
    counts = set()
    for percent in ("5", "60", "100"):
        choose(tab, "ratio", percent)
        count = tab.evaluate(underlined)
        counts.add(count)
        assert tab.evaluate(COUNT) == f"{len(first)} tokens, {count} kept"
    assert len(counts) >= 2 and max(counts) == len(first)
    tab.evaluate("document.querySelector('input[name=drawn][value=one]').click()")
    assert tab.evaluate("document.querySelectorAll('#points li').length") == 0, "other tokens are drawn now"
    select(tab, y_from="2.6", x_to="0.4")
    for number in (0, 3):
        open_passage(tab, number)
        right = [token for place, token in first if place == number]
        assert tab.evaluate("document.querySelectorAll('#points li').length") == len(right)
        assert tab.evaluate(COUNT).startswith(f"{len(right)} token")
    tab.evaluate("document.querySelector('input[name=drawn][value=all]').click()")
    select(tab, y_from="2.6", x_to="0.4")
    choose(tab, "student", "early")
    other = 0
    for shown in page.view.passages:
        up, across = shown.losses["early"].astype(float), shown.losses["ref"].astype(float)
        other += int((shown.candidates & (across <= 0.4) & (up >= 2.6)).sum())
    assert other != len(first)
    assert tab.evaluate(COUNT).startswith(f"{other} tokens, ")


def test_of_many_tokens_an_even_sample_is_listed(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    select(tab, y_from="0")
    everything = inside(page, (0, np.inf), (0, np.inf))
    assert len(everything) > 300
    assert f"{len(everything)} tokens, " in tab.evaluate(COUNT)
    assert tab.evaluate(COUNT).endswith("; 100 of them, evenly spread")
    listed = tab.evaluate(
        "[...document.querySelectorAll('#points small')].map(e => parseInt(e.textContent.slice(8)) - 1)"
    )
    wanted = [everything[int(i * len(everything) / 100)][0] for i in range(100)]
    assert listed == wanted and listed[-1] == len(page.view.passages) - 1


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (1000, 700), (375, 700)])
@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_a_selection_brings_its_list_into_sight(tab: Browser, page: Page, width: int, height: int, motion: str) -> None:
    tab.open(page.path, width=width, height=height)
    tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": motion}])
    tab.evaluate("document.getElementById('plot').scrollIntoView({ block: 'center' })")
    seen = """[document.getElementById("points-count"), ...[...document.querySelectorAll("#points li")].slice(0, 3)]
        .every(e => { const box = e.getBoundingClientRect();
            const top = e.closest("aside").getBoundingClientRect().top;
            return box.height > 0 && box.top >= Math.max(0, top) - 1 && box.bottom <= innerHeight + 1; })"""
    select(tab, y_from="0")
    if motion == "reduce":
        assert tab.evaluate(seen), "at once"
    tab.wait(seen)
    # A selection of nothing shows that it is one.
    tab.evaluate("document.getElementById('shares').scrollIntoView()")
    select(tab, y_from="90", y_to="91")
    tab.wait(
        """(() => { const box = document.getElementById("points-count").getBoundingClientRect();
            return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight; })()"""
    )
    assert tab.evaluate(COUNT) == "0 tokens, 0 kept"


def test_a_line_is_drawn_only_where_one_threshold_decides(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    key = "document.getElementById('scatter-key').textContent.includes('The line is')"
    for scope, drawn, line in (
        ("global", "all", True),
        ("global", "one", True),
        ("sequence", "all", False),
        ("sequence", "one", True),
        ("document", "all", False),
        ("document", "one", False),
    ):
        choose(tab, "scope", scope)
        tab.evaluate(f"document.querySelector('input[name=drawn][value={drawn}]').click()")
        assert tab.evaluate(key) is line, (scope, drawn)
    choose(tab, "scope", "global")
    for score, line in (("reference_loss", True), ("current_loss", True), ("current_entropy", False)):
        choose(tab, "score", score)
        assert tab.evaluate(key) is line, score


def test_two_panes_scroll_together(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    tab.open(written(view(2, 900), tmp_path_factory.mktemp("long")).path, fragment="#view=side")
    tops = "[...document.querySelectorAll('.pane .text')].map(e => e.scrollTop)"
    for pane, top in ((0, 300), (1, 120)):
        tab.evaluate(f"document.querySelectorAll('.pane .text')[{pane}].scrollTop = {top}")
        tab.wait(f"{tops}.every(top => top === {top})")
    open_passage(tab, 1)
    tab.wait(f"{tops}.every(top => top === 0)")


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
