"""What the viewer's page opens with: the models in their order, what the data ask for, and what a link says."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tokensieve.viewer.passages import Model

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import MODELS, Page, choose, kept, view, with_data, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
CHOSEN = "['a', 'b', 'view', 'colour'].map(id => document.getElementById(id).value)"
ROW_IS_SEEN = """(() => { const row = document.querySelector("#passages [aria-current]").getBoundingClientRect();
    const list = document.getElementById("passages").getBoundingClientRect();
    return row.height > 0 && row.top >= list.top - 1 && row.bottom <= list.bottom + 1; })()"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(view(), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(view(40, 20), tmp_path_factory.mktemp("many"))


@pytest.mark.parametrize(
    ("models", "pair"),
    [((0, 1, 2), ["late", "early"]), ((2, 0, 3), ["ref", "other"]), ((2, 0), ["ref", "late"]), ((1,), ["early"] * 2)],
)
def test_a_and_b_are_the_first_two_in_the_order_given(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory, models: tuple[int, ...], pair: list[str]
) -> None:
    tab.open(written(view(2, models=[MODELS[i] for i in models]), tmp_path_factory.mktemp("order")).path)
    assert tab.evaluate(CHOSEN)[:2] == pair


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({}, ["one", "excess_loss"]),
        ({"colour": None, "compare": False}, ["one", "excess_loss"]),
        ({"colour": "category"}, ["one", "category"]),
        ({"colour": "kept", "compare": True}, ["side", "kept"]),
        ({"colour": "pink", "compare": "yes"}, ["one", "excess_loss"]),
    ],
)
def test_the_data_say_what_it_opens_with(tab: Browser, page: Page, data: dict[str, Any], shown: list[str]) -> None:
    tab.open(with_data(page, data, remove=("colour", "compare")).path)
    assert tab.evaluate(CHOSEN)[2:] == shown
    assert tab.evaluate("document.querySelectorAll('.pane').length") == (2 if shown[0] == "side" else 1)
    assert tab.complaints() == []


def test_what_the_data_ask_for_and_the_page_cannot_show_is_left(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone = view(2, models=MODELS[2:3])
    bare = replace(alone, passages=tuple(replace(passage, categories=None) for passage in alone.passages))
    shown = written(bare, tmp_path_factory.mktemp("alone"))
    for colour in ("category", "excess_loss", "student_loss"):
        tab.open(with_data(shown, {"colour": colour, "compare": True}).path)
        assert tab.evaluate(CHOSEN)[2:] == ["one", "reference_loss"]
        assert tab.evaluate("document.querySelectorAll('.pane').length") == 1
        assert tab.complaints() == []


def test_a_link_can_leave_the_comparison_that_a_page_opens_with(tab: Browser, page: Page) -> None:
    comparing = with_data(page, {"compare": True})
    tab.open(comparing.path)
    choose(tab, "view", "one")
    tab.wait("location.hash.includes('view=one')")
    fragment = tab.evaluate("location.hash")
    tab.open(comparing.path, fragment=fragment)
    assert tab.evaluate("document.querySelectorAll('.pane').length") == 1


def test_a_link_pasted_into_the_open_page_starts_from_its_defaults(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    first = kept(tab)
    for name, value in (("score", "reference_loss"), ("ratio", "20"), ("view", "side"), ("a", "ref"), ("find", "sum")):
        choose(tab, "query" if name == "find" else name, value)
    choose(tab, "source", "1")
    tab.wait("location.hash.includes('find=sum')")
    tab.evaluate("location.hash = '#passage=1'")
    tab.wait("document.getElementById('score').value === 'excess_loss'")
    state = tab.evaluate("['percent', 'view', 'a', 'query', 'source'].map(id => document.getElementById(id).value)")
    assert state == ["60", "one", "late", "", ""]
    assert kept(tab) == first


@pytest.mark.parametrize("width", [1280, 1000])
def test_the_row_of_the_passage_that_a_link_opens_is_in_sight(tab: Browser, many: Page, width: int) -> None:
    for number in (1, 20, 40):
        tab.open(many.path, width=width, fragment=f"#passage={number}")
        tab.wait(ROW_IS_SEEN)
        assert tab.evaluate("document.querySelector('#passages [aria-current] b').textContent") == str(number)


def test_the_row_is_in_sight_when_the_list_is_unfolded(tab: Browser, many: Page) -> None:
    tab.open(many.path, width=375, fragment="#passage=30")
    tab.evaluate("document.getElementById('list-toggle').click()")
    tab.wait(ROW_IS_SEEN)


@pytest.mark.parametrize("width", [1280, 375])
def test_numbers_of_passages_stay_on_one_line(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory, width: int
) -> None:
    shown = view(12, 20)
    places = tuple(replace(passage, place="a folder/" + "x" * 200) for passage in shown.passages)
    tab.open(written(replace(shown, passages=places), tmp_path_factory.mktemp("numbers")).path, width=width)
    tab.evaluate("document.getElementById('list-toggle').click()")
    assert tab.evaluate("[...document.querySelectorAll('#passages b')].map(e => e.getClientRects().length)") == [1] * 12
    heights = tab.evaluate("[...document.querySelectorAll('#passages b')].map(e => Math.round(e.offsetHeight))")
    assert heights[0] > 0 and set(heights) == {heights[0]}


LABELS = ("models/slm", "models/clm", "/home/somebody/" + "folder/" * 30 + "of/clean-text")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Page:
    kinds = ("student", "student", "reference")
    models = [Model(f"m{i}", kind, LABELS[i]) for i, kind in enumerate(kinds)]  # type: ignore[arg-type]
    return written(view(2, models=models), tmp_path_factory.mktemp("folders"))


@pytest.mark.parametrize("width", [1280, 375])
def test_it_says_which_models_it_shows_by_their_whole_labels(tab: Browser, folders: Page, width: int) -> None:
    tab.open(folders.path, width=width)
    pair = "document.getElementById('pair').textContent"
    assert tab.evaluate(pair) == f"Student {LABELS[0]}Reference {LABELS[2]}"
    choose(tab, "student", "m1")
    assert tab.evaluate(pair) == f"Student {LABELS[1]}Reference {LABELS[2]}"
    # What does not fit is cut at the beginning.
    ends = tab.evaluate(
        """[...document.querySelectorAll("#pair .tail")].map(box => { const text = box.firstElementChild.firstChild;
            const range = new Range(); range.setStart(text, text.length - 1); range.setEnd(text, text.length);
            const [last, around] = [range.getBoundingClientRect(), box.getBoundingClientRect()];
            return box.checkVisibility() && last.left >= around.left && last.right <= around.right + 1; })"""
    )
    assert ends == [True, True]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_one_student_and_one_reference_are_named_too(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    for models, right in (
        ((0, 2), ["late checkpoint", "reference"]),
        ((2,), ["reference"]),
        ((1,), ["early checkpoint"]),
    ):
        tab.open(written(view(1, models=[MODELS[i] for i in models]), tmp_path_factory.mktemp("one")).path, width=375)
        assert tab.evaluate("[...document.querySelectorAll('#pair .tail')].map(e => e.textContent)") == right
        assert tab.evaluate("document.getElementById('pair').checkVisibility()")


def test_selects_show_the_end_of_labels_that_tells_models_apart(
    tab: Browser, folders: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tab.open(folders.path)
    options = "[...document.querySelectorAll('#{} option')].map(e => [e.textContent, e.title])"
    assert tab.evaluate(options.format("student")) == [["slm", LABELS[0]], ["clm", LABELS[1]]]
    ends = ["slm (student)", "clm (student)", "clean-text (reference)"]
    assert [text for text, _ in tab.evaluate(options.format("a"))] == ends
    labels = ("a/slm/saved/300000", "b/slm/saved/300000", "slm/saved/400000", "slm", "x/", "/", "")
    models = [Model(f"m{i}", "student", label) for i, label in enumerate(labels)]
    tab.open(written(view(1, models=models), tmp_path_factory.mktemp("ends")).path)
    right = [labels[0], labels[1], "saved/400000", "slm", "x/", "/", ""]
    assert [text for text, _ in tab.evaluate(options.format("student"))] == right
    assert tab.complaints() == []


def test_the_first_sentence_is_true_of_every_view(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    lead = tab.evaluate("document.querySelector('.lead').textContent")
    assert "underlined tokens are kept" in lead and "raining" not in lead
