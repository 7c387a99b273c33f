"""What a comparison found, in sentences that a reader may paste into a decision.

They say "shown" and "not shown": an interval that leaves out zero shows a difference, one that does not shows nothing,
and neither proves anything. Selection is called better only if it beats both controls. Beating plain training alone is
what training on fewer tokens would do too; beating random selection alone says that choosing is better than chance,
not that leaving tokens out was worth it.
"""

from typing import Literal

from tokensieve.compare.statistics import Difference, Outcome, seeds_needed

Unit = Literal["nats", "accuracy"]

_MOST_DIGITS = 8


def sentence(difference: Difference, other: str, *, unit: Unit = "nats", size: float = 0.01) -> str:
    """One difference in words, to follow an arm's name; lower case, without a full stop.

    Args:
        difference: Ours minus theirs.
        other: What the other arm is called: "random selection".
        unit: "nats" a token, lower is better; or "accuracy", a share of items, higher is better, told in points.
        size: The difference worth finding, in nats or as a share: how many seeds it takes is told if none was found.
    """
    low, high = difference.low, difference.high
    if low is None or high is None:
        return f"{_distance(difference, other, unit)} {_basis(difference)}"
    if difference.verdict != "undecided":
        amount, least, most = _amounts(unit, abs(difference.estimate), *sorted((abs(low), abs(high))))
        return f"{difference.verdict} than {other} by {amount} {_name(unit)} ({least} to {most})"
    if low == high == 0:
        return f"no difference from {other}: the two were equal with every seed"
    lower, upper = _amounts(unit, abs(low), abs(high))
    down, up = ("better", "worse") if unit == "nats" else ("worse", "better")
    seen = f"no difference from {other} that this experiment could see (between {lower} {down} and {upper} {up})"
    return f"{seen}; {_reach(difference, unit, size)}"


def answer(
    clm: Difference | None,
    random: Difference | None,
    *,
    label: str = "Selective training",
    clm_label: str = "plain training",
    random_label: str = "random selection",
    share: float | None = None,
    flops: float | None = None,
) -> dict[str, str]:
    """The headline of a comparison: {"verdict", "lead", "sentence"}, from the main arm's target loss in nats a token.

    Args:
        clm: The main arm minus plain training; None if that arm was not run.
        random: The main arm minus random selection at the same ratio; None if that arm was not run.
        label: The main arm's name, at the start of a sentence.
        clm_label: Plain training's name within a sentence.
        random_label: Random selection's name within a sentence.
        share: Part of plain training's tokens after which the arm reached its final target loss; None if unknown, or
            not reached with every seed.
        flops: The same of plain training's FLOPs, the arm's reference and scoring included.

    Returns:
        verdict "better" (than every control there is), "mixed" (better than one, not shown better than the other),
        "worse" (than one, better than none) or "undecided".
    """
    controls = [(found, name) for found, name in ((clm, clm_label), (random, random_label)) if found is not None]
    if not controls:
        only = f"{label} was compared with neither {clm_label} nor {random_label}."
        return {"verdict": "undecided", "lead": "Nothing to compare with", "sentence": only}
    untold = next((found for found, _ in controls if found.p is None), None)
    if untold is not None:
        distances = " and ".join(_distance(found, name, "nats") for found, name in controls)
        lead = f"One {'seed' if len(untold.per_seed) == 1 else 'document'} shows nothing"
        told = f"{label} ended {distances} {_basis(untold)}."
        return {"verdict": "undecided", "lead": lead, "sentence": told}
    verdict, lead, comment = _weigh(clm, random, clm_label, random_label)
    clauses = [f"{_verb(found)} {sentence(found, name)}" for found, name in controls]
    told = f"{label} " + (" and ".join(clauses) if verdict == "better" else ". It ".join(clauses)) + "."
    return {"verdict": verdict, "lead": lead, "sentence": told + comment + _pace(clm, clm_label, share, flops)}


def _weigh(
    clm: Difference | None, random: Difference | None, clm_label: str, random_label: str
) -> tuple[Outcome | Literal["mixed"], str, str]:
    """The verdict, its lead, and a sentence (with a space before it) on what the two differences say together."""
    plain, chance = clm.verdict if clm else None, random.verdict if random else None
    if plain == "better" and chance == "better":
        return "better", "Selection is shown to help", ""
    if plain == "better" and chance is None:
        comment = f" There was no {random_label}, so that it matters which tokens are kept is not shown."
        return "better", f"Shown to be better than {clm_label}", comment
    if chance == "better" and plain is None:
        comment = f" There was no {clm_label}, so a gain over it is not shown."
        return "better", f"Shown to be better than {random_label}", comment
    if plain == "better":
        comment = " Training on fewer tokens helped; that it matters which ones is not shown."
        if chance == "worse":
            comment = " Training on fewer tokens helped, but tokens kept at random helped more."
        return "mixed", "Fewer tokens helped; choosing them is not shown to", comment
    if chance == "better":
        comment = f" Choosing tokens was better than chance; a gain over {clm_label} is not shown."
        if plain == "worse":
            comment = " Choosing tokens was better than chance, but keeping them all was better still."
        return "mixed", f"Better than {random_label}, not shown better than {clm_label}", comment
    if "worse" in (plain, chance):
        names = [name for name, found in ((clm_label, plain), (random_label, chance)) if found == "worse"]
        return "worse", f"Shown to be worse than {' and '.join(names)}", ""
    return "undecided", "No difference is shown", ""


def _verb(difference: Difference) -> str:
    return "showed" if difference.verdict == "undecided" else "was"


def _pace(clm: Difference | None, clm_label: str, share: float | None, flops: float | None) -> str:
    # Without a shown difference two curves cross by chance, and the place says nothing.
    if clm is None or share is None or clm.verdict == "undecided":
        return ""
    reached = f" It reached the final loss of {clm_label} after {100 * share:.0f}\u202f% of the tokens"
    if flops is not None:
        reached += f" and {100 * flops:.0f}\u202f% of the FLOPs, reference and scoring included"
    return f"{reached}, but did not stay below it." if clm.verdict == "worse" else f"{reached}."


def _distance(difference: Difference, other: str, unit: Unit) -> str:
    if difference.estimate == 0:
        return f"level with {other}"
    (amount,) = _amounts(unit, abs(difference.estimate))
    return f"{amount} {_name(unit)} {'below' if difference.estimate < 0 else 'above'} {other}"


def _basis(difference: Difference) -> str:
    if len(difference.per_seed) == 1:
        return "with one seed, which says nothing of chance; use at least 3 seeds"
    return "on one document, which says nothing of other text; use at least 20 documents"


def _reach(difference: Difference, unit: Unit, size: float) -> str:
    needed = seeds_needed(difference, size)
    amount = _amounts(unit, size)[0].rstrip("0").rstrip(".")
    wanted = f"{amount} {'nats' if unit == 'nats' else 'percentage point' if amount == '1' else 'percentage points'}"
    if needed is None:
        return f"to see {wanted} it would need more evaluation documents, whatever the number of seeds"
    if needed <= len(difference.per_seed):
        return f"it would probably have seen {wanted}"
    return f"to see {wanted} it would need about {needed} seeds"


def _name(unit: Unit) -> str:
    return "nats a token" if unit == "nats" else "percentage points"


def _amounts(unit: Unit, *values: float) -> list[str]:
    """Sizes with one number of decimals: 3 (1 for points), or as many more as keep one that is not 0 from looking so.

    A small number among large ones gets at most two more.
    """
    scale, least = (1.0, 3) if unit == "nats" else (100.0, 1)
    scaled = [scale * value for value in values]
    digits = least
    while digits < _MOST_DIGITS:
        vanish = [float(f"{value:.{digits}f}") == 0 for value in scaled if value > 0]
        if not any(vanish) or (digits >= least + 2 and not all(vanish)):
            break
        digits += 1
    return [f"{value:.{digits}f}" for value in scaled]
