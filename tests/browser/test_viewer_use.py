"""Using the viewer's page: keyboard, names, sorting, finding."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import Page, choose, kept, open_passage, view, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
LISTED = "[...document.querySelectorAll('#passages button b')].map(e => +e.textContent - 1)"
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


def differences(page: Page, first: str, second: str) -> list[np.ndarray]:
    """Loss differences of the candidates of each passage."""
    return [
        (shown.losses[first].astype(np.float32) - shown.losses[second])[shown.candidates]
        for shown in page.view.passages
    ]


def test_arrows_move_between_tokens_and_there_is_one_tab_stop(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    assert tab.evaluate("document.querySelectorAll('.text [tabindex]').length") == 1
    tab.evaluate("document.querySelector('.text > span').focus()")
    for key, token in (("ArrowRight", "1"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("End", "89"), ("Home", "0")):
        tab.key(key)
        assert tab.evaluate(FOCUSED) == token
        assert tab.evaluate("[...document.querySelectorAll('.text [tabindex]')].map(e => e.dataset.i)") == [token]
    tab.key("ArrowLeft")
    assert tab.evaluate(FOCUSED) == "0"
    top = "document.activeElement.getClientRects()[0].top"
    before = tab.evaluate(top)
    tab.key("ArrowDown")
    assert tab.evaluate(top) > before
    tab.key("ArrowUp")
    assert tab.evaluate(top) == before
    tab.key("ArrowRight")
    tab.wait("document.getElementById('spoken').textContent.includes('Rank')")
    assert "loss" in tab.evaluate("document.getElementById('spoken').textContent")
    tab.key("Escape")
    assert tab.evaluate("document.querySelector('#detail .hint') !== null && document.activeElement === document.body")


@pytest.mark.parametrize("key", ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"])
def test_the_first_arrow_leads_to_the_first_token_in_sight(tab: Browser, page: Page, key: str) -> None:
    tab.open(page.path)
    tab.key(key)
    assert tab.evaluate(FOCUSED) == "0" and tab.evaluate("document.querySelector('.here').dataset.i") == "0"
    tab.key("ArrowRight")
    assert tab.evaluate(FOCUSED) == "1"
    # Let go of, it begins anew; a token that is chosen is gone back to.
    tab.key("Escape")
    tab.key("j")
    tab.key(key)
    assert tab.evaluate(FOCUSED) == "0" and tab.evaluate(OPEN).startswith("2 · ")
    tab.evaluate("document.querySelectorAll('.text > span')[7].click(); document.getElementById('help-open').focus()")
    tab.key(key)
    assert tab.evaluate(FOCUSED) == "7"


def test_what_was_scrolled_away_is_not_the_first_in_sight(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    long = written(view(2, 1500), tmp_path_factory.mktemp("long"))
    for width, scroll in ((1280, "document.querySelector('.text').scrollTop = 400"), (375, "scrollTo(0, 1500)")):
        tab.open(long.path, width=width)
        tab.evaluate(scroll)
        first = tab.evaluate(
            """(() => { const top = Math.max(0, document.querySelector(".text").getBoundingClientRect().top);
                return [...document.querySelectorAll(".text > span")]
                    .filter(e => e.getClientRects()[0].top >= top)[0].dataset.i; })()"""
        )
        tab.key("ArrowDown")
        assert int(first) > 20 and tab.evaluate(FOCUSED) == first


def test_arrows_stay_with_what_they_move(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for selector in ("#query", "#source", "#sort", "#ratio", "#percent", "#score", "[name=drawn]", "#y-from"):
        tab.evaluate(f"document.querySelector('{selector}').focus()")
        tab.key("ArrowRight")
        assert tab.evaluate("document.querySelector('.here')") is None, selector
    tab.evaluate("document.querySelector('#passages button').focus()")
    tab.key("ArrowRight")
    tab.evaluate("document.getElementById('help-open').click()")
    tab.key("ArrowDown")
    tab.evaluate("document.getElementById('help').close(); document.activeElement.blur()")
    tab.evaluate("document.querySelector('#ranges button').click(); document.querySelector('#points button').focus()")
    tab.key("ArrowDown")
    assert tab.evaluate("document.querySelector('.here')") is None


def test_shift_enter_goes_to_the_match_before_the_open_passage(tab: Browser, page: Page) -> None:
    text = ["".join(shown.pieces).lower() for shown in page.view.passages]
    places = [number for number, whole in enumerate(text) for _ in range(whole.count("value"))]
    assert 0 in places and 2 in places
    for start, last in ((3, max(place for place in places if place < 3)), (0, places[-1])):
        tab.open(page.path, fragment=f"#passage={start + 1}&find=value")
        tab.evaluate("document.getElementById('query').focus()")
        tab.key("Enter", shift=True)
        at = len(places) if start == 0 else sum(place < start for place in places)
        assert tab.evaluate(OPEN).startswith(f"{last + 1} · ")
        assert tab.evaluate("document.getElementById('matches').textContent").startswith(f"{at} of {len(places)} ")
        if start:
            tab.key("Enter")
            assert tab.evaluate("document.getElementById('matches').textContent").startswith(f"{at + 1} of ")


def test_keys_move_passages_and_ratio(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for key, place in (("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
        tab.key(key)
        assert tab.evaluate(OPEN).startswith(f"{place + 1} · ")
    for key, percent in (("]", "61"), ("[", "60"), ("[", "59")):
        tab.key(key)
        assert tab.evaluate("document.getElementById('percent').value") == percent
    tab.key("?", shift=True)
    assert tab.evaluate("document.getElementById('help').open")
    tab.evaluate("document.getElementById('shortcuts').click()")
    tab.key("Escape")
    assert not tab.evaluate("document.getElementById('help').open")
    tab.key("j")
    assert tab.evaluate(OPEN).startswith("1 · "), "single keys were switched off"
    tab.evaluate("document.getElementById('shortcuts').click()")
    tab.key("/")
    assert tab.evaluate("document.activeElement.id") == "query"
    tab.key("j")
    assert tab.evaluate("document.getElementById('query').value") == "j" and tab.evaluate(OPEN).startswith("1 · ")


def test_the_list_has_one_tab_stop_and_arrows(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    stops = "[...document.querySelectorAll('#passages button')].filter(e => e.tabIndex === 0).length"
    assert tab.evaluate(stops) == 1
    tab.evaluate("document.querySelector('#passages button').focus()")
    for key, place in (("ArrowDown", 2), ("End", 6), ("ArrowDown", 6), ("ArrowUp", 5), ("Home", 1)):
        tab.key(key)
        assert tab.evaluate(OPEN).startswith(f"{place} · ")
        assert tab.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
        assert tab.evaluate(stops) == 1


def test_every_control_is_reached_and_has_a_name(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    names = tab.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas, nav, main, aside, [role=group]")]
            .filter(e => e.checkVisibility() && [e.getAttribute("aria-label"), e.labels?.[0]?.textContent,
                e.tagName === "BUTTON" ? e.textContent : "",
                document.getElementById(e.getAttribute("aria-labelledby"))?.textContent].join("").trim() === "")
            .map(e => e.outerHTML.slice(0, 90))"""
    )
    assert names == []
    landmarks = tab.evaluate("['header', 'nav', 'main', 'aside'].map(e => document.querySelectorAll(e).length)")
    assert landmarks == [1, 1, 1, 1]
    reached = set()
    for _ in range(60):
        tab.key("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.className.split(' ')[0]"))
    wanted = {"help-open", "query", "source", "sort", "passage", "ratio", "percent", "score", "scope", "student"}
    wanted |= {"reference", "view", "colour", "numbers-open", "y-from", "y-to", "x-from", "x-to"}
    assert wanted <= reached


def test_sorting(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    count = len(page.view.passages)
    assert tab.evaluate(LISTED) == list(range(count))
    apart = [float(np.abs(values.astype(np.float64)).mean()) for values in differences(page, "late", "ref")]
    choose(tab, "sort", "disagreement")
    assert tab.evaluate(LISTED) == sorted(range(count), key=lambda p: -apart[p])
    shown = tab.evaluate("[...document.querySelectorAll('#passages .rival')].map(e => e.textContent)")
    assert shown == [f"{value:.2f} nats apart" for value in sorted(apart, reverse=True)]
    assert "“0.59 nats apart”" in tab.evaluate("document.getElementById('help').textContent")
    shares = []
    for number in range(count):
        open_passage(tab, number)
        shares.append(sum(kept(tab)) / int(page.view.passages[number].candidates.sum()))
    choose(tab, "sort", "most")
    assert tab.evaluate(LISTED) == sorted(range(count), key=lambda p: (-shares[p], p))
    choose(tab, "sort", "least")
    assert tab.evaluate(LISTED) == sorted(range(count), key=lambda p: (shares[p], p))


def test_finding_by_source_and_text(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    choose(tab, "source", "1")
    assert tab.evaluate(LISTED) == [i for i, shown in enumerate(page.view.passages) if shown.source == 1]
    choose(tab, "source", "")
    wanted = "VALUE\t"
    places = []
    for number, shown in enumerate(page.view.passages):
        text = "".join(shown.pieces).lower()
        places += [(number, i) for i in range(len(text)) if text.startswith(wanted.lower(), i)]
    assert len(places) >= 4
    choose(tab, "query", wanted)
    passages = sorted({number for number, _ in places})
    tab.wait(f"document.getElementById('matches').textContent.startsWith('{len(places)} matches')")
    assert tab.evaluate(LISTED) == passages
    marked = """[...CSS.highlights.get("match")].map(range => { const before = new Range();
        before.setStart(document.querySelector(".text"), 0); before.setEnd(range.startContainer, range.startOffset);
        return [before.toString().length, range.toString()]; })"""

    def units(number: int, index: int) -> int:
        return len("".join(page.view.passages[number].pieces)[:index].encode("utf-16-le")) // 2

    tab.evaluate("document.getElementById('query').focus()")
    for number, index in places:
        tab.key("Enter")
        assert tab.evaluate(OPEN).startswith(f"{number + 1} · ")
        assert tab.evaluate(marked) == [[units(n, i), "value\t"] for n, i in places if n == number] or all(
            text.lower() == "value\t" for _, text in tab.evaluate(marked)
        )
        current = tab.evaluate(marked.replace('"match"', '"current"'))
        assert current == [[units(number, index), " value\t"[1:]]]
    tab.key("Enter", shift=True)
    assert tab.evaluate(OPEN).startswith(f"{places[-2][0] + 1} · ")
    assert tab.evaluate("document.activeElement.id") == "query"
    choose(tab, "query", "(no such text")
    tab.wait("document.getElementById('matches').textContent === 'Found nowhere.'")
    assert tab.evaluate(LISTED) == []
    assert tab.complaints() == []
