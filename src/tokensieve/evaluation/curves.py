"""Reading a loss curve: what it took to reach a loss."""

from collections.abc import Sequence


def to_reach(curve: Sequence[tuple[float, float]], loss: float) -> float | None:
    """Where a curve first reaches a loss.

    Args:
        curve: (x, loss) in the order of training; x is tokens, FLOPs or seconds.
        loss: in the unit of the curve's losses.

    Returns:
        The x, on a straight line between two points; the first x if it begins there; None if it never comes there.
    """
    before = None
    for x, value in curve:
        if value <= loss:
            if before is None:
                return float(x)
            share = (before[1] - loss) / (before[1] - value)
            return float(before[0] + share * (x - before[0]))
        before = (x, value)
    return None
