"""The terminal view: the project's own selection, marks without colour, and nothing that a terminal would obey."""

import io
import re
import unicodedata

import numpy as np
import pytest
from rich.console import Console

from tokensieve.errors import UserError
from tokensieve.viewer.terminal import QUANTITIES, select, terminal_view

NAN = float("nan")
WORDS = (["The", " cat", " sat", "\n", "on"], [NAN, 3.0, 1.0, 2.0, 5.0], [NAN, 1.0, 1.0, 3.0, 1.0])
MORE = (["A", " dog"], [NAN, 4.0], [NAN, 1.5])


def shown(view, *, colour=False, width=160, **options) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=colour, width=width, color_system="truecolor" if colour else None)
    terminal_view(view, console, **options)
    return output.getvalue()


def test_kept_tokens_stand_between_marks_without_colour(make_view):
    text = shown(make_view(WORDS, MORE), ratio=0.6)
    assert "The⟦ cat⟧ sat↵\n⟦on⟧" in text
    assert "A⟦ dog⟧" in text
    assert "\x1b" not in text
    assert "⟦kept⟧ tokens stand between marks" in text
    assert "my/student" in text and "excess_loss, 0.6 kept" in text


def test_marks_follow_the_ratio_and_the_score(make_view):
    view = make_view(WORDS, MORE)
    assert "The cat sat↵\n⟦on⟧" in shown(view, ratio=0.2)
    assert "The⟦ cat sat↵\non⟧" in shown(view, ratio=1)
    assert "The⟦ cat sat⟧↵\non" in shown(view, ratio=0.4, score="reference_loss")


def test_select_is_exact_and_ties_go_to_the_earlier_token(make_view):
    tied = (["a"] * 6, [NAN, 1.0, 1.0, 1.0, 1.0, 1.0], [NAN, 0.5, 0.5, 0.5, 0.5, 0.5])
    (kept,) = select(make_view(tied), 0.5, "excess_loss")
    assert kept.tolist() == [False, True, True, True, False, False]
    whole = make_view(WORDS, MORE)
    assert [row.sum() for row in select(whole, 0.5, "excess_loss")] == [2, 1]
    assert [row.sum() for row in select(make_view(WORDS, MORE, scope="sequence"), 0.5, "excess_loss")] == [2, 1]
    assert [row.sum() for row in select(make_view(WORDS, MORE), 0.2, "excess_loss")] == [1, 0]
    assert [row.sum() for row in select(make_view(WORDS, MORE, scope="sequence"), 0.2, "excess_loss")] == [1, 0]


def test_a_token_that_one_model_has_no_loss_for_is_no_candidate(make_view):
    (kept,) = select(make_view((["a", "b", "c"], [NAN, 2.0, 3.0], [NAN, 1.0, NAN])), 1, "excess_loss")
    assert kept.tolist() == [False, True, False]


def test_shares_by_source_and_region(make_view):
    text = shown(make_view(WORDS, MORE), ratio=0.6)
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert rows["all passages"][-3:] == ["60", "%", "5"]
    assert rows["source web"][-3:] == ["50", "%", "4"]
    assert rows["source books"][-3:] == ["100", "%", "1"]
    assert rows["region code"][-1] == "3"


def test_colour_says_the_quantity_and_kept_is_underlined(make_view):
    text = shown(make_view(WORDS, MORE), colour=True, ratio=0.6)
    assert "⟦" not in text
    cat = re.search(r"\x1b\[([0-9;]*)m cat", text)
    sat = re.search(r"(\x1b\[[0-9;]*m)? sat", text)
    assert cat and "4" in cat.group(1).split(";") and "48;2;255;184;112" in cat.group(1)
    assert sat and "4;" not in (sat.group(1) or "")
    for quantity in QUANTITIES[:3]:
        assert f"{quantity} in nats" in shown(make_view(WORDS), colour=True, quantity=quantity)


def test_no_color_is_obeyed(make_view, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    terminal_view(make_view(WORDS), Console(file=output, force_terminal=True, width=100))
    assert "⟦" in output.getvalue() and "38;2" not in output.getvalue() and "48;2" not in output.getvalue()


HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\r",
    "\x00\x08",
    "\u202eabc\u2066",
    "[bold red]",
    ":smile:",
    "\x7f",
    "\u2028",
]


def test_what_a_terminal_would_obey_never_reaches_it(make_view):
    losses = [1.0] * len(HOSTILE)
    view = make_view(
        (HOSTILE, losses, losses), title="\x1b[31mtitle", notes=("\x07note",), sources=("\x1b]8;;x", "b\u202e")
    )
    for colour in (False, True):
        text = re.sub(r"\x1b\[[0-9;]*m", "", shown(view, colour=colour))
        wrong = [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]
        assert wrong == []
    plain = shown(view)
    assert "␛[2J" in plain and "[bold red]" in plain and ":smile:" in plain and "⟨U+202E⟩" in plain


def test_long_lines_wrap_and_nothing_is_lost(make_view):
    piece = "q" * 300
    text = shown(make_view(([piece, " y"], [1.0, 1.0], [0.0, 2.0])), width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert text.replace("\n", "").count("q") == 300


def test_a_terminal_that_knows_ascii_only(make_view):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=100)
    terminal_view(make_view((["日", " cat"], [NAN, 2.0], [NAN, 1.0])), console, ratio=1)
    text = raw.getvalue().decode("ascii")
    assert "\\u65e5{{ cat}}" in text


def test_what_the_view_has_no_numbers_for_is_refused(make_view):
    view = make_view(WORDS)
    for options, message in (
        ({"ratio": 0}, "ratio must be above 0"),
        ({"ratio": 1.5}, "ratio must be above 0"),
        ({"score": "current_entropy"}, "no entropies of a student"),
        ({"score": "random"}, "unknown score 'random'"),
        ({"quantity": "entropy"}, "no entropies"),
        ({"quantity": "loss"}, "unknown quantity 'loss'"),
    ):
        with pytest.raises(UserError, match=message):
            shown(view, **options)


def test_a_view_of_a_reference_alone(make_view):
    view = make_view(WORDS)
    alone = [
        type(p)(p.source, p.place, p.ids, p.pieces, {"r": p.losses["r"]}, {"r": p.losses["r"]}) for p in view.passages
    ]
    view = type(view)("t", view.models[1:], view.sources, tuple(alone), score="reference_loss")
    assert "The⟦ cat sat⟧↵\non" in shown(view, ratio=0.5)
    assert shown(view, quantity="entropy")
    assert np.array_equal(select(view, 0.5, "reference_entropy")[0], select(view, 0.5, "reference_loss")[0])
