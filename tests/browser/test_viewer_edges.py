"""The viewer's page at the edges: halves, ties, gaps, and text that looks like a pattern."""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tokensieve.viewer.passages import Passage, View

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import MODELS, choose, kept, open_passage, passage, table, view, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
LISTED = "[...document.querySelectorAll('#passages button b')].map(e => +e.textContent - 1)"
PAIR = (MODELS[0], MODELS[2])


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


def scored(student: list[float], documents: list[int] | None = None) -> Passage:
    """A passage whose excess losses are the student's losses."""
    count = len(student)
    return Passage(
        source=0,
        place="p",
        ids=np.arange(count),
        pieces=tuple(f"{i} " for i in range(count)),
        losses={"late": np.array(student, dtype=np.float16), "ref": np.zeros(count, dtype=np.float16)},
        documents=None if documents is None else np.array(documents),
    )


@pytest.mark.parametrize("scope", ["global", "sequence"])
def test_half_a_token_is_a_whole_one(tab: Browser, tmp_path_factory: pytest.TempPathFactory, scope: str) -> None:
    shown = View("t", PAIR, ("s",), (scored([float(i) for i in range(10)]),), ratio=0.25, scope=scope)  # type: ignore[arg-type]
    tab.open(written(shown, tmp_path_factory.mktemp("half")).path)
    assert kept(tab) == [False] * 7 + [True] * 3, "2.5 tokens are 3"
    choose(tab, "ratio", "24")
    assert sum(kept(tab)) == 2


def test_of_documents_with_equal_means_the_earlier_is_kept(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = scored([2, 4, 3, 3, 1, 1], [0, 0, 1, 1, 2, 2]), scored([3, 3, 3, 3, 0, 0], [0, 0, 1, 1, 2, 2])
    shown = View("t", PAIR, ("s",), (first, second), ratio=0.5, scope="document")
    tab.open(written(shown, tmp_path_factory.mktemp("ties")).path)
    assert kept(tab) == [True] * 4 + [False] * 2
    open_passage(tab, 1)
    assert kept(tab) == [True] * 2 + [False] * 4


def test_passages_without_a_candidate_come_last(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    nothing = scored([np.nan, np.nan])
    shown = View("t", PAIR, ("s",), (nothing, scored([1, 1]), nothing, scored([5, 5]), scored([3, 0])), ratio=0.5)
    tab.open(written(shown, tmp_path_factory.mktemp("nothing")).path)
    for order, right in (
        ("disagreement", [3, 4, 1, 0, 2]),
        ("most", [3, 4, 1, 0, 2]),
        ("least", [1, 4, 3, 0, 2]),
        ("corpus", [0, 1, 2, 3, 4]),
    ):
        choose(tab, "sort", order)
        assert tab.evaluate(LISTED) == right, order
    assert "NaN" not in tab.evaluate("document.body.innerText")


@pytest.mark.parametrize("query", ["-", "a-b", r"\d", "[a-z]+", "(?:", ".", "/", "^$", "&#x", "{2}", "\\", "é|"])
def test_what_looks_like_a_pattern_is_found_as_it_stands(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory, query: str
) -> None:
    rng = np.random.default_rng(1)
    passages = (passage(["a", "b 1"], rng, PAIR), passage(["x ", query, " y ", query], rng, PAIR))
    page = written(View("t", PAIR, ("s",), passages), tmp_path_factory.mktemp("find"))
    tab.open(page.path)
    choose(tab, "query", query)
    tab.wait("document.getElementById('matches').textContent !== ''")
    assert tab.evaluate("document.getElementById('matches').textContent") == "2 matches in 1 passage"
    assert tab.evaluate(LISTED) == [1]
    tab.wait("location.hash.includes('find=')")
    fragment = tab.evaluate("location.hash")
    fragments = [fragment, "#find=-"] if query == "-" else [fragment]
    for link in fragments:
        tab.open(page.path, fragment=link)
        assert tab.evaluate("document.getElementById('query').value") == query
        assert tab.evaluate(LISTED) == [1]
        assert tab.complaints() == []


def test_of_two_models_one_may_have_no_entropies(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    shown = view(2)
    without = tuple(
        replace(p, entropies={key: column for key, column in p.entropies.items() if key != "early"})
        for p in shown.passages
    )
    page = written(replace(shown, passages=without), tmp_path_factory.mktemp("one"))
    tinted = """[...document.querySelectorAll(".pane")].map(pane =>
        [...pane.querySelectorAll(".text > span")].filter(e => /^s[0-5]/.test(e.className)).length)"""
    for fragment in ("#view=side&a=late&b=early", "#view=side&a=early&b=late&score=current_entropy"):
        tab.open(page.path, fragment=f"{fragment}&colour=student_entropy")
        order = ("late", "early") if "a=late" in fragment else ("early", "late")
        counts = dict(zip(order, tab.evaluate(tinted), strict=True))
        assert counts["late"] > 50 and counts["early"] == 0
        for pane in (0, 1):
            tab.evaluate(f"document.querySelectorAll('.pane')[{pane}].querySelectorAll('.text > span')[3].click()")
        assert kept(tab, 0) and kept(tab, 1)
        assert tab.complaints() == []
    choose(tab, "colour", "reference_entropy")
    assert tab.evaluate(tinted)[0] == 0, "nor does it borrow those of the reference"
    # A choice by the entropy that one lacks is the pair's choice in both panes.
    assert kept(tab, 0) == kept(tab, 1)


def test_entropies_with_a_gap_are_no_score(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    shown = view(2, models=PAIR)
    gap = shown.passages[1].entropies["ref"].copy()
    gap[5] = np.nan
    last = replace(shown.passages[1], entropies={**shown.passages[1].entropies, "ref": gap})
    page = written(replace(shown, passages=(shown.passages[0], last)), tmp_path_factory.mktemp("gap"))
    tab.open(page.path)
    scores = tab.evaluate("[...document.querySelectorAll('#score option')].map(e => e.value)")
    assert "current_entropy" in scores and "reference_entropy" not in scores


def test_a_browser_without_a_decoder_of_its_own_reads_the_same(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = written(view(3), tmp_path_factory.mktemp("decoder"))
    tab.open(page.path)
    right = table(tab)
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source="delete Uint8Array.fromBase64;")
    try:
        tab.open(page.path)
        assert tab.evaluate("Uint8Array.fromBase64 === undefined")
        assert table(tab) == right and len(right) == len(page.view.passages[0].ids)
    finally:
        tab.send("Page.removeScriptToEvaluateOnNewDocument", **script)


def test_a_region_without_a_name_is_left_out(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    shown = view(2, models=PAIR)
    regions = np.array([255, 255, *[0] * 20], dtype=np.uint8)
    passages = tuple(replace(p, regions=np.resize(regions, len(p.ids))) for p in shown.passages)
    tab.open(written(replace(shown, passages=passages), tmp_path_factory.mktemp("region")).path)
    counts = tab.evaluate(
        """[...document.querySelectorAll("#share-groups li")]
            .filter(e => e.querySelector(".name").textContent === "prose").map(e => +e.dataset.candidates)"""
    )
    assert counts == [sum(int(p.candidates[p.regions == 0].sum()) for p in passages if p.regions is not None)]
    for token, there in ((1, False), (2, True)):
        tab.evaluate(f"document.querySelectorAll('.text > span')[{token}].click()")
        assert tab.evaluate("document.querySelector('#detail .region') !== null") is there
    assert tab.complaints() == []


def test_shortened_text_ends_with_a_whole_character(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(1)
    passages = tuple(passage(["a" * length + "\U0001f52c" * 150], rng, PAIR) for length in (0, 219, 220))
    tab.open(written(View("t", PAIR, ("s",), passages), tmp_path_factory.mktemp("short")).path)
    words = "[...document.querySelectorAll('#passages .words')].map(e => e.textContent)"
    assert tab.evaluate(f"{words}.every(text => text.isWellFormed())")
    # Lists cut at 220 units: the second passage has its first microscope on both sides of the cut.
    assert tab.evaluate(words) == ["\U0001f52c" * 110 + "…", "a" * 219 + "…", "a" * 220 + "…"]
    open_passage(tab, 1)
    tab.evaluate("document.querySelector('.text > span').click()")
    assert tab.evaluate("document.querySelector('#detail .glyph').textContent.isWellFormed()")


def test_one_is_singular(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    shown = View("t", PAIR, ("s",), (replace(scored([1.0]), pieces=("word",)),))
    tab.open(written(shown, tmp_path_factory.mktemp("single")).path)
    choose(tab, "query", "w")
    tab.wait("document.getElementById('matches').textContent === '1 match in 1 passage'")
    choose(tab, "x-from", "0")
    tab.evaluate("document.querySelector('#ranges button').click()")
    tab.evaluate("document.querySelector('.text > span').click()")
    assert tab.evaluate("document.querySelector('#share-groups li').title") == "1 of 1 candidate"
    said = tab.evaluate("document.body.innerText + document.getElementById('plot').getAttribute('aria-label')")
    for wrong in ("1 passages", "1 tokens", "1 matches", "1 documents", "1 candidates", "1 characters"):
        assert wrong not in said
    for right in ("1 of 1 token kept", "1 token\n", "Scatter of 1 token:"):
        assert right in said


DOTS = """(() => {
    const rgb = s => s.match(/[\\d.]+/g).map(Number);
    const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const box = document.querySelector(".text"); const found = {};
    const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    for (const css of "z s0 s1 s2 s3 s4 s5 p1 p2 p3 p4 n1 n2 n3 n4 c0 c1 c2 c3 yes no".split(" ")) {
        const span = document.createElement("span"); span.className = css;
        const marks = ["s", "tab", "end"].map(kind => {
            const mark = document.createElement("i"); mark.className = kind; span.append(mark); return mark; });
        box.append(span);
        let ground = rgb(getComputedStyle(span).backgroundColor);
        if (ground[3] === 0) ground = rgb(getComputedStyle(document.body).backgroundColor);
        const dot = mark => rgb(getComputedStyle(mark).backgroundImage.match(/rgba?\\([^)]*\\)/)[0]);
        const drawn = [dot(marks[0]), dot(marks[1]), rgb(getComputedStyle(marks[2], "::before").color)];
        found[css] = Math.min(...drawn.map(colour => contrast(light(colour), light(ground))));
    }
    return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_white_space_is_seen_on_every_tint(tab: Browser, tmp_path_factory: pytest.TempPathFactory, dark: bool) -> None:
    tab.open(written(view(1, models=PAIR), tmp_path_factory.mktemp("space")).path, dark=dark)
    found = tab.evaluate(DOTS)
    assert len(found) == 21
    assert all(ratio >= 2.4 for ratio in found.values()), found
    assert all(found[css] >= 3 for css in ("s4", "s5", "p3", "p4", "n3", "n4")), found
