"""The gate's numbers are those of plain numpy over all tokens at once; its words say what the numbers say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.errors import UserError
from tokensieve.evaluation.reference_gate import (
    NO_TARGETS,
    PairedLosses,
    compare_losses,
    gate_lines,
    gate_of,
    gate_warnings,
    pool,
    token_losses,
    unknown_gate,
)
from tokensieve.evaluation.target_loss import Targets
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

loss = st.integers(0, 30_000).map(lambda number: number / 1000)


def numbers(reference: float, student: float, correlation: float | None = 0.5) -> dict[str, float | int | None]:
    return {
        "tokens": 1000,
        "reference_loss": reference,
        "student_loss": student,
        "negative_excess": 0.25,
        "correlation": correlation,
    }


@given(st.lists(st.lists(st.tuples(loss, loss), max_size=8), min_size=1, max_size=6))
def test_merging_batches_gives_what_numpy_gives_for_all_tokens_at_once(batches):
    found = PairedLosses()
    for batch in batches:
        columns = torch.tensor(batch, dtype=torch.float32).reshape(-1, 2)
        found = found.merged(PairedLosses.of(columns[:, 0], columns[:, 1]))
    everything = np.array([pair for batch in batches for pair in batch], dtype=np.float32).astype(np.float64)
    assert found.tokens == len(everything)
    if len(everything) == 0:
        return
    reference, student = everything.reshape(-1, 2).T
    assert found.reference_mean == pytest.approx(reference.mean(), rel=1e-12, abs=1e-12)
    assert found.student_mean == pytest.approx(student.mean(), rel=1e-12, abs=1e-12)
    assert found.plain()["negative_excess"] == np.mean(student < reference)
    assert found.different == np.sum(student != reference)
    spreads = [values.std() / max(values.mean(), 1e-30) for values in (reference, student)]
    if min(spreads) > 1e-6:
        assert found.correlation == pytest.approx(np.corrcoef(reference, student)[0, 1], abs=1e-6)
    elif min(spreads) < 1e-8:
        assert found.correlation is None


def test_small_spread_around_a_large_mean_keeps_its_correlation():
    """A fresh student is nearly as sure of every token: naive sums of squares would lose such a spread."""
    draw = np.random.default_rng(0)
    common = draw.normal(size=200_000)
    student = (10.8 + 1e-4 * (common + draw.normal(size=len(common)))).astype(np.float32)
    reference = (4 + common).astype(np.float32)
    found = PairedLosses()
    for start in range(0, len(common), 1000):
        batch = slice(start, start + 1000)
        found = found.merged(PairedLosses.of(torch.from_numpy(reference[batch]), torch.from_numpy(student[batch])))
    expected = np.corrcoef(reference.astype(np.float64), student.astype(np.float64))[0, 1]
    assert found.correlation == pytest.approx(expected, abs=1e-9)
    assert 0.5 < expected < 0.8


def test_two_models_are_compared_token_by_token_on_the_same_windows(store, tiny_model):
    targets = Targets({"one": store, "two": store}, 16, True, 3)
    student, reference = tiny_model(1), tiny_model(2)
    found = compare_losses(
        list(token_losses(targets, student, "student")), token_losses(targets, reference, "reference")
    )
    evaluated = targets.evaluate(make_selective(reference, SelectionPolicy(ratio=1)))
    for name in ("one", "two"):
        assert found[name].tokens == evaluated[name].tokens
        assert found[name].reference_mean == pytest.approx(evaluated[name].loss, rel=1e-6)
    whole = pool(found)
    assert whole.tokens == 2 * found["one"].tokens
    assert whole.correlation == pytest.approx(found["one"].correlation, abs=1e-9)
    assert 0 < whole.different <= whole.tokens and 0 < whole.student_ahead < whole.tokens
    # The patch is undone and the mode is what it was.
    assert student.training and "forward" not in vars(student)


def test_a_model_against_itself_differs_nowhere(store, tiny_model):
    targets = Targets({"one": store}, 16, True, 3)
    found = compare_losses(
        list(token_losses(targets, tiny_model(1), "student")), token_losses(targets, tiny_model(1), "reference")
    )
    assert pool(found).different == 0 and pool(found).student_ahead == 0
    assert pool(found).correlation == pytest.approx(1)


def test_a_loss_that_is_not_finite_is_refused(store, tiny_model):
    model = tiny_model(1)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = math.nan
    with pytest.raises(UserError, match="reference: its loss on the target one is not finite"):
        list(token_losses(Targets({"one": store}, 16, True, 3), model, "reference"))


def test_lines_name_each_target_and_all_of_them():
    found = {"a": PairedLosses.of(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.5]))}
    (line,) = gate_lines(gate_of(found))
    assert line == (
        "a: 1.5000 nats a token, the untrained student 2.2500: 0.7500 better; the student is ahead on 50.0% "
        "of 2 tokens; correlation -1.00"
    )
    found["b"] = PairedLosses.of(torch.tensor([4.0, 4.0]), torch.tensor([3.0, 1.5]))
    lines = gate_lines(gate_of(found))
    assert [text.split(":")[0] for text in lines] == ["a", "b", "all targets"]
    assert "NO BETTER, 1.7500 worse" in lines[1] and "correlation undefined" in lines[1]
    assert "of 4 tokens" in lines[2]


@pytest.mark.parametrize(
    "targets, pooled, expected",
    [
        ({"a": (1, 2)}, (1, 2), []),
        ({"a": (2, 2)}, (2, 2), ["no better than the untrained student on the target text (2.000 against 2.000"]),
        ({"a": (1, 2), "b": (3, 2.5)}, (2, 2.25), ["over all targets, but no better on b (3.000 against 2.500)"]),
        ({"a": (1, 2), "b": (9, 2)}, (5, 2), ["(5.000 against 2.000 nats a token; it is on some, not on b (9.000"]),
        ({"a": (3, 2), "b": (9, 2)}, (6, 2), ["(6.000 against 2.000 nats a token): its scores"]),
    ],
)
def test_it_warns_when_the_reference_is_not_better(targets, pooled, expected):
    gate = {
        "targets": {name: numbers(*pair) for name, pair in targets.items()},
        "pooled": numbers(*pooled),
        "unknown": None,
    }
    warnings = gate_warnings(gate)
    assert len(warnings) == len(expected)
    for text, part in zip(warnings, expected, strict=True):
        assert part in text


def test_without_target_text_nothing_is_known():
    gate = unknown_gate(NO_TARGETS)
    assert gate_lines(gate) == ["not compared with the student: the recipe names no target text"]
    (warning,) = gate_warnings(gate)
    assert "it is not known whether" in warning and "name some under evaluation.targets" in warning
