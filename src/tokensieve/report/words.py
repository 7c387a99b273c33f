"""Numbers and sentences for people: 0.62M tokens, 4 min 12 s, and the verdict in plain words.

The verdict is the sentence that most readers will remember, so it must stay honest: it says when selection
lost, when only the smaller share helped and not the choice of tokens, and when there is nothing to compare.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

MISSING = "–"
"""What stands where there is no number."""

ARM_NAMES = {"clm": "Plain training", "random": "Random selection", "slm": "Selective training"}
"""What the page calls the arms, in the order it shows them."""

_UNITS = ((1e12, "T"), (1e9, "B"), (1e5, "M"), (1e3, "k"))
_SCALES = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3, "": 1.0}
_SAME = 0.0005
"""Below this many nats two losses print alike and are called equal."""
_KEPT_FORMATS = frozenset("\u00ad\u200c\u200d")
"""Invisible characters that words and emoji need: soft hyphen, zero-width non-joiner and joiner."""


@dataclass(frozen=True)
class Verdict:
    """What a run says about selection."""

    lead: str
    """A few words: did it help?"""
    sentence: str
    """One sentence with the numbers."""
    tone: str
    """`good`, `bad` or `open`."""


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def unit_of(value: float) -> str:
    """The unit a count is written in: "", "k", "M" (from 100,000 on), "B" or "T"."""
    value = abs(float(f"{value:.3g}"))
    return next((unit for least, unit in _UNITS if value >= least), "")


def count(value: float | None, unit: str | None = None) -> str:
    """A number of tokens or parameters with three digits: 950, 12.3k, 0.62M, 15B."""
    if not is_number(value):
        return MISSING
    if value == 0:
        return "0"
    unit = unit_of(value) if unit is None else unit
    return f"{float(f'{value / _SCALES[unit]:.3g}'):.10g}{unit}"


def fixed(value: float | None, digits: int = 3) -> str:
    """A loss or bits a byte with a fixed number of decimals."""
    return f"{value:.{digits}f}".replace("-", "−") if is_number(value) else MISSING


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, a true minus among them."""
    return f"{value:+.{digits}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return f"{100 * share:.0f}\u202f%" if is_number(share) else MISSING


def duration(seconds: float | None) -> str:
    """A time: 0.4 s, 48 s, 4 min 12 s, 3 h 05 min."""
    if not is_number(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def printable(text: str) -> str:
    """Text in which every character that would vanish or rearrange the page is spelled out.

    Control characters become their Unicode pictures, other invisible ones their code point, because HTML
    drops or normalises them and because bidirectional controls would reorder what stands beside them.
    """
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    category = unicodedata.category(character)
    hidden = category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and character not in _KEPT_FORMATS)
    # HTML forbids the noncharacters; U+FFFE and U+FFFF end every plane.
    if hidden or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
        return f"⟨U+{code:04X}⟩"
    return character


def verdict(report: Mapping[str, Any]) -> Verdict:
    """Whether selection helped, from the arms' final target losses (nats a token, lower is better)."""
    arms: Mapping[str, Mapping[str, Any]] = report["arms"]
    final = {name: arms[name]["target_loss"] for name in ARM_NAMES if name in arms}
    if not report["targets"] or not any(value is not None for value in final.values()):
        sentence = "Nothing was evaluated, so this run cannot say whether selection helps."
        return Verdict("No target text", sentence, "open")
    broken = [name for name, value in final.items() if not is_number(value)]
    if broken:
        names = " and ".join(ARM_NAMES[name].lower() for name in broken)
        return Verdict("No usable result", f"The final target loss of {names} is not a finite number.", "bad")
    if "slm" not in final:
        return _without_selection(final)
    if "clm" not in final and "random" not in final:
        ended = f"ended at {fixed(final['slm'])} nats a token on the target text"
        return Verdict("Nothing to compare with", f"Selective training, the only arm, {ended}.", "open")
    return _with_selection(report, final)


def gate(report: Mapping[str, Any]) -> Verdict | None:
    """Whether the reference was better than the untrained student on the target text; None without a reference."""
    if report["reference"] is None:
        return None
    found = report["reference"]["gate"]
    pooled: Mapping[str, float] | None = found["pooled"]
    if pooled is None:
        sentence = f"The reference was not compared with the student before training: {found['unknown']}."
        return Verdict("Unknown", sentence, "open")
    gain = pooled["student_loss"] - pooled["reference_loss"]
    worse = [name for name, numbers in found["targets"].items() if numbers["reference_loss"] >= numbers["student_loss"]]
    sentence = (
        f"Before training, the reference predicted the target text {fixed(abs(gain))} nats a token "
        f"{'better' if gain > 0 else 'worse'} than the untrained student"
    )
    if gain <= 0:
        return Verdict("No better than the student", sentence + ": its scores do not point at that text.", "bad")
    if worse:
        return Verdict("Better, but not everywhere", f"{sentence}, but no better on {', '.join(worse)}.", "bad")
    return Verdict("Better than the student", sentence + ".", "good")


def _with_selection(report: Mapping[str, Any], final: Mapping[str, float]) -> Verdict:
    gains = {name: final[name] - final["slm"] for name in ("clm", "random") if name in final}
    parts = [_distance(gain, ARM_NAMES[name].lower(), final[name]) for name, gain in gains.items()]
    mixed = len(gains) == 2 and (gains["clm"] > 0) != (gains["random"] > 0)
    sentence = f"On the target text selective training ended at {fixed(final['slm'])} nats a token, "
    sentence += (", but " if mixed else " and ").join(parts)
    if "clm" in gains:
        sentence += _pace(report, gains["clm"])
    return _judge(gains, sentence + ".")


def _judge(gains: Mapping[str, float], sentence: str) -> Verdict:
    if all(abs(gain) < _SAME for gain in gains.values()):
        return Verdict("Selection made no difference", sentence, "open")
    if "clm" not in gains:
        better = "Better" if gains["random"] >= _SAME else "No better"
        return Verdict(f"{better} than random selection", sentence, "open")
    if gains["clm"] < _SAME:
        return Verdict("Selection did not help", sentence, "bad")
    if "random" not in gains:
        return Verdict("Better than plain training", sentence[:-1] + "; there is no random control.", "open")
    if gains["random"] < _SAME:
        return Verdict("Fewer tokens helped, choosing them did not", sentence, "bad")
    return Verdict("Selection helped", sentence, "good")


def _distance(gain: float, other: str, loss: float) -> str:
    if abs(gain) < _SAME:
        return f"level with {other}"
    return f"{fixed(abs(gain))} {'better' if gain > 0 else 'worse'} than {other} ({fixed(loss)})"


def _pace(report: Mapping[str, Any], gain: float) -> str:
    reached, seen = report["tokens_to_clm"], report["arms"]["clm"]["tokens_seen"]
    if reached is None:
        # A better final loss with no recorded crossing is for the run to explain, not for this sentence.
        return "" if gain >= _SAME else "; it never reached plain training’s final loss"
    ending = " and lost it again" if gain <= -_SAME else ""
    return f"; it reached plain training’s final loss after {percent(reached / seen)} of the tokens{ending}"


def _without_selection(final: Mapping[str, float]) -> Verdict:
    losses = " and ".join(f"{ARM_NAMES[name].lower()} at {fixed(value)}" for name, value in final.items())
    sentence = f"This run has no selective arm; it ended with {losses} nats a token on the target text."
    return Verdict("Selection was not tried", sentence, "open")
