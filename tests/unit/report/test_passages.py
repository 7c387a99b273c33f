"""Tokens on the page: escaped, whole, coloured by excess loss."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.report.passages import level, passage, visible


def text_of(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


@given(st.text(st.sampled_from(" \t\n<>&\"'aé本{}%")))
def test_visible_text_is_the_text(text: str) -> None:
    assert text_of(str(visible(text))) == text


@given(st.text())
def test_nothing_in_a_token_becomes_markup(text: str) -> None:
    tags = set(re.findall(r"<[^>]*>", str(visible(text))))
    assert tags <= {"<i>", "</i>", '<i class="tab">', '<i class="end">'}


@pytest.mark.parametrize(
    ("excess", "css"),
    [(0.0, "z"), (0.24, "z"), (0.25, "p1"), (-0.8, "n2"), (1.5, "p3"), (99, "p4"), (-3, "n4")],
)
def test_level(excess: float, css: str) -> None:
    assert level(excess) == css


def test_a_token_says_its_losses_and_its_fate() -> None:
    laid_out = passage(
        {
            "source": "a",
            "tokens": [
                {"text": "x", "student": None, "reference": None, "kept": None},
                {"text": "y", "student": 3.2, "reference": 1.1, "kept": True},
                {"text": "z\n", "student": 0.5, "reference": 1.0, "kept": False},
            ],
        }
    )
    first, second, third = laid_out.tokens
    assert first.css == "o" and "not a candidate" in first.title
    assert (second.css, second.title) == ("p3 k", "student 3.20 · reference 1.10 · excess +2.10 · kept")
    assert (third.css, third.title) == ("n1 e", "student 0.50 · reference 1.00 · excess −0.50 · left out")
    assert (laid_out.candidates, laid_out.kept, laid_out.decided) == (2, 1, True)
