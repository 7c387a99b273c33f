"""What the page says in words: numbers for people, and a verdict that stays honest."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.report.words import count, duration, fixed, percent, printable, verdict

SAMPLE = json.loads((Path(__file__).parent / "sample.json").read_text(encoding="utf-8"))


def run(*, reached: float | None = None, **losses: float | None) -> dict[str, Any]:
    """The sample report with other final losses and only the arms named."""
    report = copy.deepcopy(SAMPLE)
    report["arms"] = {arm: {**report["arms"][arm], "target_loss": loss} for arm, loss in losses.items()}
    report["tokens_to_clm"] = reached
    return report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (950, "950"), (12_345, "12.3k"), (99_999, "0.1M"), (620_000, "0.62M"), (2_623_488, "2.62M"),
        (999_999_999, "1B"), (15e9, "15B"), (3e12, "3T"), (None, "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_count(value: float | None, text: str) -> None:
    assert count(value) == text


@given(st.integers(1, 10**14))
def test_count_never_strays_by_more_than_three_digits_allow(value: int) -> None:
    text = count(value)
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    shown = float(text[:-1]) * scale[text[-1]] if text[-1] in scale else float(text)
    assert abs(shown - value) <= 0.0051 * value
    assert "e" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (48, "48 s"), (59.7, "1 min 00 s"), (252, "4 min 12 s"), (11_100, "3 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_missing_numbers_are_a_dash_everywhere() -> None:
    assert {fixed(None), percent(None), duration(None), fixed(float("inf"))} == {"–"}


def test_selection_that_wins_against_both_is_said_to_help() -> None:
    found = verdict(run(reached=452_600, clm=5.667, random=5.688, slm=5.527))
    assert (found.lead, found.tone) == ("Selection helped", "good")
    for part in ("5.527", "0.140 better than plain", "0.161 better than random", "after 73\u202f% of"):
        assert part in found.sentence


def test_selection_that_loses_is_said_not_to_help() -> None:
    found = verdict(run(clm=5.6, random=5.5, slm=5.7))
    assert (found.lead, found.tone) == ("Selection did not help", "bad")
    assert "0.100 worse than plain" in found.sentence and "never reached" in found.sentence


def test_a_gain_that_random_selection_shares_is_not_credited_to_the_choice() -> None:
    found = verdict(run(reached=600_000, clm=5.7, random=5.5, slm=5.6))
    assert (found.lead, found.tone) == ("Fewer tokens helped, choosing them did not", "bad")
    assert ", but 0.100 worse than random" in found.sentence


def test_a_loss_that_was_touched_and_lost_again() -> None:
    assert "lost it again" in verdict(run(reached=310_000, clm=5.6, slm=5.7)).sentence


def test_equal_losses_make_no_difference() -> None:
    assert verdict(run(reached=620_000, clm=5.6, random=5.6, slm=5.6)).lead == "Selection made no difference"


@pytest.mark.parametrize(
    ("losses", "lead"),
    [
        ({"clm": 5.6}, "Selection was not tried"),
        ({"clm": 5.6, "random": 5.7}, "Selection was not tried"),
        ({"slm": 5.6}, "Nothing to compare with"),
        ({"random": 5.6, "slm": 5.5}, "Better than random selection"),
        ({"random": 5.5, "slm": 5.6}, "No better than random selection"),
        ({"clm": 5.6, "slm": 5.5}, "Better than plain training"),
        ({"clm": 5.6, "slm": float("nan")}, "No usable result"),
        ({"clm": None, "slm": None}, "No target text"),
    ],
)
def test_any_subset_of_arms_gets_a_verdict(losses: dict[str, float | None], lead: str) -> None:
    assert verdict(run(**losses)).lead == lead


def test_printable_spells_out_what_would_vanish_or_reorder() -> None:
    assert printable("a\x00\x1b\u202eb\ud800\u2028") == "a␀␛⟨U+202E⟩b⟨U+D800⟩⟨U+2028⟩"
    assert printable("naïve 日本 👩\u200d🔬 مرحبا") == "naïve 日本 👩\u200d🔬 مرحبا"


@given(st.text(st.characters()))
def test_printable_text_can_always_be_written(text: str) -> None:
    printable(text).encode("utf-8")
