"""The two loss figures: on target text, and on the training text kept apart by what was selected.

Losses on all tokens, on selected and on unselected ones answer different questions, so each gets its own
panel: the selected loss is high by construction, because selection picks tokens still badly predicted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokensieve.report.charts import Chart, Points, line_chart, loss_range
from tokensieve.report.words import ARM_NAMES, is_number, percent

_PANELS = (
    ("train-all", "All tokens", 1),
    ("train-kept", "Selected tokens", 2),
    ("train-left", "Unselected tokens", 3),
)
"""Key, title and column of `train_curve`."""


def target_charts(report: Mapping[str, Any]) -> list[Chart]:
    """Loss on target text by tokens seen, and the run's second half enlarged where that shows more."""
    arms = report["arms"]
    curves = {arm: _finite(arms[arm]["target_curve"]) for arm in ARM_NAMES if arm in arms}
    curves = {arm: points for arm, points in curves.items() if points}
    if not curves:
        return []
    level = None if report["reference"] is None else report["reference"]["target_loss"]
    levels = [level] if is_number(level) else []
    losses = [y for points in curves.values() for _, y in points]
    mark = _crossing(report)
    whole = line_chart(
        "target",
        "Whole run",
        curves,
        x_range=_tokens_range(curves),
        y_range=loss_range(losses + levels),
        level=level,
        mark=mark,
    )
    start, end = _tokens_range(curves)
    middle = (start + end) / 2
    late = [y for points in curves.values() for x, y in points if x >= middle]
    if len(late) < 3 * len(curves) or max(late) - min(late) > 0.5 * (max(losses) - min(losses)):
        return [whole]
    enlarged = line_chart(
        "target-late",
        "Second half, enlarged",
        curves,
        x_range=(middle, end),
        y_range=loss_range(late),
        level=level,
        mark=mark,
    )
    return [whole, enlarged]


def training_charts(report: Mapping[str, Any]) -> list[Chart]:
    """Loss on the training text: all tokens, selected ones, unselected ones, on one scale."""
    arms = report["arms"]
    found: list[tuple[str, str, dict[str, Points]]] = []
    for key, title, column in _PANELS:
        curves = {}
        for arm in ARM_NAMES:
            rows: Sequence[Sequence[float | None]] = arms[arm]["train_curve"] if arm in arms else ()
            # Plain training selects everything: its selected loss is its loss on all tokens, shown once.
            selects = any(row[3] is not None for row in rows)
            points = _finite([(row[0], row[column]) for row in rows]) if column == 1 or selects else []
            if points:
                curves[arm] = points
        if curves:
            found.append((key, title, curves))
    if not found:
        return []
    losses = [y for _, _, curves in found for points in curves.values() for _, y in points]
    x_range, y_range = _tokens_range(*(curves for _, _, curves in found)), loss_range(losses)
    return [line_chart(key, title, curves, x_range=x_range, y_range=y_range) for key, title, curves in found]


def _crossing(report: Mapping[str, Any]) -> tuple[float, float, str] | None:
    reached, plain = report["tokens_to_clm"], report["arms"].get("clm")
    if reached is None or plain is None or not is_number(plain["target_loss"]):
        return None
    return reached, plain["target_loss"], percent(reached / plain["tokens_seen"])


def _finite(rows: Sequence[Sequence[float | None]]) -> Points:
    return [(x, y) for x, y in rows if is_number(x) and is_number(y)]


def _tokens_range(*groups: Mapping[str, Points]) -> tuple[float, float]:
    values = [x for curves in groups for points in curves.values() for x, _ in points]
    low, high = min(values), max(values)
    # A run's axis starts at its beginning, where its curve does not.
    return (0.0, high) if high > 0 else (low, low + 1)
