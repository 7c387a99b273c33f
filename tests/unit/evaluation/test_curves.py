"""What it took to reach a loss."""

import pytest

from tokensieve.evaluation.curves import to_reach


def test_the_way_to_a_loss() -> None:
    curve = [(0.0, 5.0), (10.0, 4.0), (20.0, 4.5), (30.0, 3.0)]
    assert to_reach(curve, 4.5) == 5.0
    assert to_reach(curve, 4.25) == 7.5
    assert to_reach(curve, 3.75) == 25.0
    assert to_reach(curve, 3.0) == 30.0
    assert to_reach(curve, 2.9) is None
    assert to_reach(curve, 6.0) == 0.0
    assert to_reach([], 1.0) is None
    assert to_reach([(0.0, 1.0), (3.0, 0.0)], 2 / 3) == pytest.approx(1.0)
