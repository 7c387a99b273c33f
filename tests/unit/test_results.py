"""What the summary says of curves."""

import pytest

from tokensieve.results import target_curve, tokens_to_loss

CURVE = [[0, 8.0], [100, 6.0], [200, 5.0], [300, 5.5], [400, 4.0]]


@pytest.mark.parametrize(
    "loss, tokens",
    [(9.0, 0), (8.0, 0), (7.0, 50), (6.0, 100), (5.5, 150), (5.0, 200), (4.5, 367), (4.0, 400), (3.9, None)],
)
def test_tokens_to_a_loss_are_interpolated_at_the_first_crossing(loss, tokens):
    assert tokens_to_loss(CURVE, loss) == tokens


def test_no_target_loss_is_no_number():
    assert tokens_to_loss(CURVE, None) is None
    assert tokens_to_loss([], 1.0) is None


def test_the_target_curve_takes_evaluations_only():
    lines = [{"tokens_seen": 0, "target_loss": 3.0}, {"tokens_seen": 5, "loss_all": 1.0}]
    assert target_curve(lines) == [[0, 3.0]]
