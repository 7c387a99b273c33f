"""Documents that would like to be more than text: on the viewer's page they are text."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from tokensieve.viewer.passages import Model, View

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import Page, choose, open_passage, passage, table, texts, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)
RUN = "document.title='owned'"
DOCUMENTS = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</ScRiPt ><script>{RUN}//",
    f"<!-- <script> --> <script>{RUN}</script>",
    "<!--<script>",
    "]]><![CDATA[<script>",
    "--><!DOCTYPE html><html><head><title>owned</title>",
    f"`${{{RUN}}}`",
    f"\\u003cscript>{RUN}\\u003c/script>",
    f'"}}]}}</script><script>{RUN}</script>',
    '","passages":[],"x":"',
    "\\\\\" \\' \\n \\",
    f'<img src=x onerror="{RUN}">',
    f'<svg onload="{RUN}"><script>{RUN}</script></svg>',
    f'<svg><animate onbegin="{RUN}" attributeName=x dur=1s>',
    f'<body onload="{RUN}">',
    f'<details open ontoggle="{RUN}">',
    f'<a href="javascript:{RUN}">link</a>',
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    '<iframe src="https://example.org/"></iframe>',
    f"</textarea><script>{RUN}</script>",
    f"</title></style></noscript></template><script>{RUN}</script>",
    "</pre></div></main></body></html>",
    "<style>* { display: none !important }</style>",
    "}</style> body { display: none } /*",
    '<link rel=stylesheet href="https://example.org/x.css">',
    '<meta http-equiv=refresh content="0;url=https://example.org/">',
    '<base href="https://example.org/"><form action=//example.org><input name=x>',
    "<object data=\"data:text/html,<script>parent.document.title='owned'</script>\"></object>",
    f"data:text/html;base64,PHNjcmlwdD57fTwvc2NyaXB0Pg== <embed src=data:text/html,{RUN}>",
    "&lt;b&gt; &amp;amp; &#60;script&#62; &nbsp;&ZeroWidthSpace;",
    "{{ 7 * 7 }} {% raw %} ${7*7} <%= 7*7 %> #{7*7}",
    "null\x00byte \x01\x08\x0b\x0c\x0e\x1f\x7f\x80\x9f",
    "\x1b[31mred\x1b[0m \x1b]0;owned\x07",
    "line\u2028separator\u2029paragraph\x85next",
    "\u202eevil\u202d \u2066isolate \u2069\u200f\u200e\u061c",
    "zero\u200bwidth\u2060joiner\ufeff bom \u00ad shy",
    "\u0301\u0302\u0303 lone marks \u200d\u200c " + "\u0335" * 200,
    "A" * 10_000,
    "\U000e0041\U000e0042 tags \ufffe\uffff \U0010ffff private \ue000",
    "__proto__ constructor toString hasOwnProperty",
    "\r\n\r mixed \n\r line ends\t\t",
    "🏳️‍🌈👩🏽‍🚀 \ufffd \u1160\u3164 fillers",
    '=HYPERLINK("https://example.org")',
)
NAMES = ("__proto__", "constructor", f'<img src=x onerror="{RUN}">', "\u202e</script>", "toString", "\x00\t\n")


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    rng = np.random.default_rng(5)
    models = tuple(
        Model(name, "student" if i % 2 == 0 else "reference", f"{name} label") for i, name in enumerate(NAMES)
    )
    passages = []
    for i, document in enumerate(DOCUMENTS):
        cuts = sorted({0, len(document), *rng.integers(0, len(document), 6).tolist()})
        pieces = [document[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
        passages.append(passage([*pieces, "", "."], rng, models, i % len(NAMES), document[:60]))
    title = f"</title><script>{RUN}</script>\u202e"
    notes = (f'<b onclick="{RUN}">note</b>',)
    shown = View(title, models, NAMES, tuple(passages), regions=NAMES[:2], notes=notes)
    return written(shown, tmp_path_factory.mktemp("page"))


def test_there_are_many() -> None:
    assert len(set(DOCUMENTS)) >= 30


def test_hostile_documents_are_text(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    title = tab.evaluate("document.title")
    count = "document.querySelectorAll('script, style, meta, link, iframe, object, embed, img, svg, base').length"
    elements = tab.evaluate(count)
    assert elements == 9
    for number, shown in enumerate(page.view.passages):
        open_passage(tab, number)
        assert texts(tab) == list(shown.pieces), DOCUMENTS[number]
        tab.evaluate("document.querySelectorAll('.text > span').forEach(e => e.click())")
        assert len(table(tab)) == len(shown.pieces)
        # Nothing but spans with marks in them, and no attribute that came from the text.
        kinds = tab.evaluate(
            """[...new Set([...document.querySelectorAll(".text *, #detail .glyph *")].map(e => e.tagName))]"""
        )
        assert set(kinds) <= {"SPAN", "I"}
    everywhere = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes].map(a => a.name))"
    assert not [name for name in set(tab.evaluate(everywhere)) if name.startswith("on")]
    assert title.startswith("</title>") and tab.evaluate("document.title") == title
    assert tab.evaluate(count) == elements
    assert tab.requests() == [page.path.resolve().as_uri()]
    assert tab.complaints() == []


def test_hostile_names_are_text_and_work(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    shown = tab.evaluate("[...document.querySelectorAll('#share-groups .name')].map(e => e.textContent)")
    assert "__proto__" in shown and "constructor" in shown and NAMES[2] in shown
    choose(tab, "reference", "constructor")
    choose(tab, "student", "__proto__")
    for state in ("side", "difference"):
        choose(tab, "view", state)
        choose(tab, "a", "toString")
        choose(tab, "b", "__proto__")
    assert tab.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0")
    rows = table(tab)
    first = page.view.passages[0]
    assert [float(row["loss __proto__ label"] or "nan") for row in rows][1:] == first.losses["__proto__"][1:].tolist()
    choose(tab, "source", "3")
    assert tab.evaluate("document.querySelectorAll('#passages li').length") == sum(
        shown.source == 3 for shown in page.view.passages
    )
    assert tab.complaints() == []


def test_nothing_invisible_stays_unseen(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    labels = set()
    for number in range(len(page.view.passages)):
        open_passage(tab, number)
        labels |= set(
            tab.evaluate(
                """[...document.querySelectorAll(".text i.c")].map(e => [e.dataset.c, getComputedStyle(e, "::before")
                    .content.length > 3, getComputedStyle(e).unicodeBidi, getComputedStyle(e).fontSize].join())"""
            )
        )
    wanted = ("NUL", "ESC", "CR", "DEL", "U+0080", "LS", "PS", "NEL", "RLO", "LRO", "LRI", "PDI", "RLM", "ZWSP", "BOM")
    assert {f"{name},true,isolate,0px" for name in (*wanted, "U+E0041")} <= labels


def test_an_override_does_not_turn_its_neighbours_around(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    open_passage(tab, next(i for i, document in enumerate(DOCUMENTS) if document.startswith("\u202eevil")))
    lefts = tab.evaluate(
        """(() => { const walker = document.createTreeWalker(document.querySelector(".text"), NodeFilter.SHOW_TEXT);
            const found = []; while (walker.nextNode()) { const at = walker.currentNode.data.indexOf("evil");
            for (let i = 0; i < walker.currentNode.length; i += 1) { const range = new Range();
                if (!/[a-z]/.test(walker.currentNode.data[i])) continue;
                range.setStart(walker.currentNode, i); range.setEnd(walker.currentNode, i + 1);
                found.push(range.getBoundingClientRect().left); } } return found; })()"""
    )
    assert len(lefts) == len("evilisolate") and lefts == sorted(lefts)
