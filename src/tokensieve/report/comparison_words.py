"""Numbers of a comparison for people: differences with their sign, intervals, operations, memory, settings."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokensieve.report.words import MISSING, duration, fixed, is_number, percent, signed

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = str.maketrans("-", "−")


def difference(value: float | None, unit: str) -> str:
    """A difference with its sign: nats with three decimals, accuracy in percentage points with one."""
    if not is_number(value):
        return MISSING
    value, digits = (100 * value, 1) if unit == "accuracy" else (value, 3)
    # A sign before zeros would promise a direction that the number does not show.
    return fixed(0.0, digits) if round(value, digits) == 0 else signed(value, digits)


def size(value: float | None, unit: str) -> str:
    """A difference without a sign, with its unit."""
    if not is_number(value):
        return MISSING
    return f"{fixed(100 * value, 1)} points" if unit == "accuracy" else f"{fixed(value)} nats"


def span(interval: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """The ends of an interval; empty where one seed gave none."""
    if interval is None or not is_number(interval["low"]) or not is_number(interval["high"]):
        return ""
    return f"{fixed(interval['low'], digits)} to {fixed(interval['high'], digits)}"


def percent_span(interval: Mapping[str, float | None]) -> str:
    """The ends of an interval of shares, as percentages with one decimal."""
    low, high = interval["low"], interval["high"]
    return f"{fixed(100 * low, 1)} to {fixed(100 * high, 1)}" if is_number(low) and is_number(high) else ""


def share(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return f"{fixed(100 * value, 1)}\u202f%" if is_number(value) else MISSING


def exponent_of(values: Iterable[float]) -> int:
    """The power of ten, in steps of three, that the greatest value is written in."""
    greatest = max([abs(value) for value in values if is_number(value)], default=0.0)
    return 3 * math.floor(math.log10(greatest) / 3 + 1e-9) if greatest > 0 else 0


def power_of_ten(exponent: int) -> str:
    """10¹⁵, and so on."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def scaled(value: float | None, exponent: int) -> str:
    """A value in units of a power of ten, with three digits."""
    return f"{float(f'{value / 10.0**exponent:.3g}'):.10g}".translate(_MINUS) if is_number(value) else MISSING


def memory(value: float | None) -> str:
    """Bytes of memory: 841 MB, 2.84 GB."""
    if not is_number(value):
        return MISSING
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def p_value(value: float | None) -> str:
    """A probability, never written as zero."""
    if not is_number(value):
        return MISSING
    return "below 0.001" if value < 0.001 else fixed(value)


def least_and_most(values: Sequence[str]) -> tuple[str, str]:
    """The first and last of sorted, already written numbers; one alone where they are written alike."""
    return (MISSING, "") if not values else (values[0], "" if values[0] == values[-1] else values[-1])


def durations(seconds: Iterable[float | None]) -> tuple[str, str]:
    """The shortest and longest of several times."""
    return least_and_most([duration(value) for value in sorted(value for value in seconds if is_number(value))])


def memories(sizes: Iterable[float | None]) -> tuple[str, str]:
    """The least and greatest of several sizes."""
    return least_and_most([memory(value) for value in sorted(value for value in sizes if is_number(value))])


def reached(found: Mapping[str, Any] | None) -> str:
    """What it took to reach plain training's final loss, as a share of plain training's own."""
    if found is None:
        return MISSING
    if found["share"] is not None:
        return percent(found["share"])
    return f"in {found['reached']} of {found['seeds']} seeds" if found["reached"] else "never"


def sentence(text: str) -> str:
    """A clause that was written to follow an arm's name, as a sentence of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def no_interval(per_seed: Sequence[float]) -> str:
    """Why a difference has none."""
    return f"one {'seed' if len(per_seed) == 1 else 'document'}: no interval"


def setting(value: Any) -> str:
    """The value of a recipe's setting, as one would write it there."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
