"""The viewer's page as a file: complete, small, sealed, and written whole or not at all."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokensieve.viewer
from tokensieve.viewer.encoding import page_data
from tokensieve.viewer.page import SCRIPTS, embedded, render, write_page
from tokensieve.viewer.passages import Model, Passage, View

TEMPLATES = Path(tokensieve.viewer.__file__).parent / "templates"
MODELS = (Model("a", "student", "one"), Model("b", "student", "two"), Model("r", "reference", "reference"))
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def view(passages: int = 2, tokens: int = 5, text: str = "word ", **fields: Any) -> View:
    rng = np.random.default_rng(0)

    def passage(number: int) -> Passage:
        columns = {model.key: rng.gamma(1.0, 2.0, tokens).astype(np.float16) for model in MODELS}
        return Passage(
            source=0,
            place=f"document {number}",
            ids=rng.integers(0, 150_000, tokens),
            pieces=(text,) * tokens,
            losses=columns,
            entropies=columns,
            regions=rng.integers(0, 2, tokens).astype(np.uint8),
            categories=rng.integers(0, 4, tokens).astype(np.uint8),
            documents=np.zeros(tokens, dtype=np.int64),
        )

    found = tuple(passage(i) for i in range(passages))
    given: dict[str, Any] = {"title": "t", "models": MODELS, "sources": ("s",), "regions": ("x", "y")}
    return View(passages=found, **(given | fields))


def data_of(html: str) -> str:
    """The text of the data element as an HTML parser sees it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', html, re.DOTALL | re.IGNORECASE)
    assert found is not None
    return found[1]


def test_the_data_are_those_of_the_view() -> None:
    shown = view(text="é\U0001f469\u2028</script>\x00\r\n")
    assert json.loads(data_of(render(shown))) == page_data(shown)


@given(title=ANY_TEXT, piece=ANY_TEXT, label=ANY_TEXT)
def test_no_text_can_end_the_data(title: str, piece: str, label: str) -> None:
    shown = view(1, 2, piece, title=title, notes=(label,), sources=(label,))
    html = render(shown)
    data = data_of(html)
    assert json.loads(data) == page_data(shown)
    assert not re.search("[<>&\u2028\u2029\x00\r\n]", data)
    assert html.count("<script") == 2 and html.count("</script>") == 2


def test_markup_in_every_place_stays_text() -> None:
    evil = "</script></title><script>x()</script><!--"
    html = render(view(text=evil, title=evil, notes=(evil,), sources=(evil,), regions=(evil, evil)))
    assert evil not in html and html.count("<script") == 2


def test_embedded_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded({"ratio": float("nan")})


def test_the_policy_allows_this_script_and_this_style_and_no_network() -> None:
    html = render(view())
    policy = html.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    inline = {"style-src": html.split("<style>")[1].split("</style>")[0]}
    inline["script-src"] = html.rsplit("<script>", 1)[1].split("</script>")[0]
    for name, text in inline.items():
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=[\"'](?!data:,)", html.split('id="data"')[0])


def test_the_script_never_parses_text_as_markup() -> None:
    names = sorted(path.name for path in TEMPLATES.glob("*.js"))
    assert sorted(SCRIPTS) == names
    for name in names:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        assert text.startswith("// ") and 20 <= len(text.splitlines()) <= 250
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|fetch\(", text
        )
        assert not re.search(r"localStorage|sessionStorage|import\(|XMLHttpRequest", text)


def test_200_passages_of_512_tokens_stay_below_5_mb(tmp_path: Path) -> None:
    size = write_page(view(200, 512), tmp_path / "view.html")
    assert size == (tmp_path / "view.html").stat().st_size < 5_000_000


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "view.html"
    write_page(view(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_page(view(title="other"), path)
    assert path.read_bytes() == before and [child.name for child in tmp_path.iterdir()] == ["view.html"]


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match="without passages"):
        render(view(0))
    with pytest.raises(ValueError, match="without models"):
        render(view(models=()))


def test_invisible_characters_of_the_title_are_spelled_out() -> None:
    assert "<title>a⟨U+202E⟩b</title>" in render(view(title="a\u202eb"))
