"""The sentences of a comparison: what is shown, what is not, and never more than that."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.compare.statistics import Difference, DocumentSums, paired_difference, seeds_needed
from tokensieve.compare.verdicts import answer, sentence


def difference(verdict: str = "undecided", **changes: Any) -> Difference:
    """A difference of three seeds; `estimate`, `low` and `high` fit the verdict unless they are given."""
    estimate, low, high = {"better": (-0.021, -0.027, -0.015), "worse": (0.021, 0.015, 0.027)}.get(
        verdict, (0.0042, -0.0041, 0.0126)
    )
    settings: dict[str, Any] = {
        "estimate": estimate, "low": low, "high": high, "confidence": 0.95, "p": 0.01, "per_seed": (estimate,) * 3,
        "seed_sd": 0.009, "document_error": 0.0, "effect_size": 1.0, "verdict": verdict, "detectable": 0.02,
        "seed_error": 0.009 / 3**0.5, "document_freedom": 99.0,
    }  # fmt: skip
    return Difference(**(settings | changes))


def one_seed(estimate: float) -> Difference:
    nothing = dict.fromkeys(("low", "high", "p", "seed_sd", "effect_size", "detectable", "seed_error"))
    return difference(estimate=estimate, per_seed=(estimate,), **nothing)


def one_document(estimate: float) -> Difference:
    nothing = dict.fromkeys(
        ("low", "high", "p", "document_error", "detectable", "seed_error", "document_freedom", "effect_size")
    )
    return difference(estimate=estimate, **nothing)


def test_a_shown_difference_names_amount_and_interval() -> None:
    other = "random selection"
    assert sentence(difference("better"), other) == (
        "better than random selection by 0.021 nats a token (0.015 to 0.027)"
    )
    assert sentence(difference("worse"), other) == (
        "worse than random selection by 0.021 nats a token (0.015 to 0.027)"
    )


def test_accuracy_is_told_in_percentage_points_and_higher_is_better() -> None:
    gain = difference("better", estimate=0.0213, low=0.0148, high=0.0271)
    assert sentence(gain, "plain training", unit="accuracy") == (
        "better than plain training by 2.1 percentage points (1.5 to 2.7)"
    )
    open_ = difference(estimate=0.0042, low=-0.0041, high=0.0126)
    assert sentence(open_, "plain training", unit="accuracy").startswith(
        "no difference from plain training that this experiment could see (between 0.4 worse and 1.3 better); to see "
        "1 percentage point it would need about "
    )
    assert sentence(open_, "plain training", unit="accuracy", size=0.085).endswith("seen 8.5 percentage points")


def test_no_shown_difference_says_what_it_would_take() -> None:
    found = difference()
    needed = seeds_needed(found, 0.01)
    assert needed is not None and needed > 3
    assert sentence(found, "random selection") == (
        "no difference from random selection that this experiment could see (between 0.004 better and 0.013 worse); "
        f"to see 0.01 nats it would need about {needed} seeds"
    )
    assert sentence(found, "random selection", size=0.5).endswith("; it would probably have seen 0.5 nats")
    few = difference(document_error=0.02)
    assert sentence(few, "random selection").endswith(
        "; to see 0.01 nats it would need more evaluation documents, whatever the number of seeds"
    )


def test_one_seed_says_nothing_of_chance() -> None:
    basis = "with one seed, which says nothing of chance; use at least 3 seeds"
    assert sentence(one_seed(-0.021), "random selection") == f"0.021 nats a token below random selection {basis}"
    assert sentence(one_seed(0.021), "random selection") == f"0.021 nats a token above random selection {basis}"
    assert sentence(one_seed(0.0), "random selection") == f"level with random selection {basis}"
    told = sentence(one_seed(0.021), "random selection", unit="accuracy")
    assert told == f"2.1 percentage points above random selection {basis}"


def test_one_document_says_nothing_of_other_text() -> None:
    told = sentence(one_document(-0.021), "plain training")
    assert told.startswith("0.021 nats a token below plain training on one document, which says nothing of other text")


def test_equal_arms_are_called_equal() -> None:
    same = difference(estimate=0.0, low=0.0, high=0.0, seed_error=0.0)
    assert sentence(same, "plain training") == ("no difference from plain training: the two were equal with every seed")


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-0.00021, -0.00002, "0.00012 nats a token (0.00002 to 0.00021)"),
        (-0.0302, -0.0004, "0.0153 nats a token (0.0004 to 0.0302)"),
        (-0.03, -1e-9, "0.01500 nats a token (0.00000 to 0.03000)"),
        (-3e-7, -1e-7, "0.0000002 nats a token (0.0000001 to 0.0000003)"),
    ],
)
def test_small_numbers_get_the_decimals_they_need(low: float, high: float, shown: str) -> None:
    assert sentence(difference("better", estimate=(low + high) / 2, low=low, high=high), "it").endswith(shown)


@given(st.floats(1e-7, 5), st.floats(1e-7, 5))
def test_no_sentence_shows_only_zeros_or_a_sign(near: float, far: float) -> None:
    low, high = -near - far, -near
    told = sentence(difference("better", estimate=(low + high) / 2, low=low, high=high), "it")
    shown = [float(word.strip("()")) for word in told.split() if word.strip("()").replace(".", "").isdigit()]
    assert len(shown) == 3 and shown[0] > 0 and shown[1] <= shown[0] <= shown[2]
    assert "-" not in told and "\u2212" not in told


BETTER, WORSE, OPEN = difference("better"), difference("worse"), difference()


@pytest.mark.parametrize(
    ("clm", "random", "verdict", "lead"),
    [
        (BETTER, BETTER, "better", "Selection is shown to help"),
        (BETTER, None, "better", "Shown to be better than plain training"),
        (None, BETTER, "better", "Shown to be better than random selection"),
        (BETTER, OPEN, "mixed", "Fewer tokens helped; choosing them is not shown to"),
        (BETTER, WORSE, "mixed", "Fewer tokens helped; choosing them is not shown to"),
        (OPEN, BETTER, "mixed", "Better than random selection, not shown better than plain training"),
        (WORSE, BETTER, "mixed", "Better than random selection, not shown better than plain training"),
        (WORSE, WORSE, "worse", "Shown to be worse than plain training and random selection"),
        (WORSE, OPEN, "worse", "Shown to be worse than plain training"),
        (OPEN, WORSE, "worse", "Shown to be worse than random selection"),
        (WORSE, None, "worse", "Shown to be worse than plain training"),
        (OPEN, OPEN, "undecided", "No difference is shown"),
        (OPEN, None, "undecided", "No difference is shown"),
        (None, None, "undecided", "Nothing to compare with"),
        (one_seed(-0.3), one_seed(-0.2), "undecided", "One seed shows nothing"),
        (one_document(-0.3), one_document(-0.2), "undecided", "One document shows nothing"),
    ],
)
def test_the_answer_weighs_both_controls(
    clm: Difference | None, random: Difference | None, verdict: str, lead: str
) -> None:
    told = answer(clm, random, share=0.62)
    assert (told["verdict"], told["lead"]) == (verdict, lead)
    assert told["sentence"].startswith("Selective training ") and told["sentence"].endswith(".")
    assert told["sentence"].count(". ") <= 3 and ".." not in told["sentence"]
    assert "prove" not in told["sentence"].lower()


def test_the_answer_reads_as_a_whole() -> None:
    told = answer(BETTER, difference("better", estimate=-0.0182), label="Selective, 40 %", share=0.617)
    assert told["sentence"] == (
        "Selective, 40 % was better than plain training by 0.021 nats a token (0.015 to 0.027) and was better than "
        "random selection by 0.018 nats a token (0.015 to 0.027). It reached the final loss of plain training after "
        "62\u202f% of the tokens."
    )
    mixed = answer(BETTER, OPEN)["sentence"]
    assert mixed.startswith("Selective training was better than plain training by 0.021 nats a token (0.015 to 0.027).")
    assert " It showed no difference from random selection that this experiment could see (between " in mixed
    assert mixed.endswith(" Training on fewer tokens helped; that it matters which ones is not shown.")
    single = answer(one_seed(-0.021), one_seed(0.003), share=0.5)["sentence"]
    assert single == (
        "Selective training ended 0.021 nats a token below plain training and 0.003 nats a token above random "
        "selection with one seed, which says nothing of chance; use at least 3 seeds."
    )


def test_a_missing_control_is_named() -> None:
    assert (
        "There was no random selection, so that it matters which tokens are kept is not shown."
        in (answer(BETTER, None)["sentence"])
    )
    assert "There was no plain training, so a gain over it is not shown." in answer(None, BETTER)["sentence"]


def test_the_pace_is_told_only_where_a_difference_is_shown() -> None:
    reached = "It reached the final loss of plain training after 90\u202f% of the tokens"
    assert answer(BETTER, OPEN, share=0.9)["sentence"].endswith(f"{reached}.")
    assert answer(WORSE, WORSE, share=0.9)["sentence"].endswith(f"{reached}, but did not stay below it.")
    assert "reached" not in answer(OPEN, OPEN, share=0.9)["sentence"]
    assert "reached" not in answer(BETTER, BETTER)["sentence"]
    assert "reached" not in answer(None, BETTER, share=0.9)["sentence"]


def runs(means: Sequence[float], spread: float) -> list[DocumentSums]:
    counts_D = np.full(200, 50)
    noise_SD = spread * np.random.default_rng(len(means)).standard_normal((len(means), 200))
    return [DocumentSums((mean + noise_D) * 50, counts_D) for mean, noise_D in zip(means, noise_SD, strict=True)]


def test_runs_to_words() -> None:
    found = paired_difference(runs([3.001, 2.999, 3.0], 0.001), runs([3.1, 3.101, 3.102], 0.0))
    told = answer(found, found)
    assert told["verdict"] == "better" and "by 0.101 nats a token (0.0" in told["sentence"]
    open_ = paired_difference(runs([3.00, 2.98, 3.0], 0.001), runs([3.0, 3.001, 2.98], 0.0))
    assert " seeds" in sentence(open_, "plain training") and "could see" in sentence(open_, "plain training")
