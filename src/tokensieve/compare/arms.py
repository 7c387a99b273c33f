"""From a recipe's `compare` section to the arms: what each is called, and the resolved recipe of each of its runs.

An arm's run is an ordinary training run of an ordinary recipe: the user's, changed in the arm's own setting and
the seed. So what differs between two arms can be read off their recipes (see `matching.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokensieve.errors import UserError
from tokensieve.online import reference_columns
from tokensieve.recipe import Recipe, ReferenceSection
from tokensieve.selection import SelectionPolicy
from tokensieve.training.arms import arm_policy

COMPARE_FOLDER = "compare"
SELECTING = ("random", "slm", "weak", "self")


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison, whatever the seed."""

    key: str
    """Its name in comparison.json."""
    place: str
    """Its folder's name: always with ratio and score, so that its runs are found again when the grid grows."""
    kind: str
    """One of `recipe.COMPARE_ARMS`."""
    label: str
    """What tables and figures call it."""
    phrase: str
    """What sentences call it."""
    recipe: Recipe
    """The user's, with the arm's own setting; the seed is not the run's yet."""
    text: str
    """The token store it is trained on: `corpus`, `clean` or `mixed`."""

    @property
    def policy(self) -> SelectionPolicy:
        """What it selects, with the recipe's seed."""
        return arm_policy(self.recipe, {"random": "random", "clm": "clm"}.get(self.trained_as, "slm"))

    @property
    def trained_as(self) -> str:
        """`clm`, `random` or `slm`: how its runs select."""
        return {"random": "random", "slm": "slm", "weak": "slm", "self": "slm"}.get(self.kind, "clm")

    @property
    def selects(self) -> bool:
        """Whether it leaves tokens out."""
        return self.kind in SELECTING

    @property
    def scored(self) -> bool:
        """Whether its selection reads a reference's scores."""
        return self.kind in ("slm", "weak", "self") and bool(reference_columns(self.policy))

    def run(self, seed: int) -> Recipe:
        """The resolved recipe of its run with one seed."""
        recipe = replace(self.recipe, seed=seed)
        if not recipe.compare.reference_per_seed:
            return recipe
        return with_reference(recipe, replace(recipe.reference, name=f"{recipe.reference.name}-seed-{seed}"))

    def folder(self, seed: int) -> Path:
        """Where the run with one seed lies."""
        return self.recipe.folder / COMPARE_FOLDER / self.place / f"seed-{seed}"


def comparison_arms(recipe: Recipe) -> list[Arm]:
    """The arms that a recipe's `compare` section names, in the order in which reports show them.

    Raises:
        UserError: an arm that this recipe cannot have.
    """
    section = recipe.compare
    unusable = sorted({"random"} & set(recipe.train.selection.scores))
    if unusable:
        raise UserError(f"train.selection.score: {unusable[0]} is the control, not the method; name another score")
    if recipe.train.selection.selects_everything:
        raise UserError("train.selection keeps every token: there is no selection to compare; set its ratio below 1")
    wanted = recipe.train.selection
    ratios = section.ratios or (wanted.ratio,)
    scores = section.scores or (wanted.score,)
    # Arms with another reference stand beside the main arm, so they select as it does.
    nearest = min(ratios, key=lambda ratio: abs(ratio - wanted.ratio))
    score = wanted.score if wanted.score in scores else scores[0]
    like_main = _selecting(recipe, "slm", nearest, score, ratios, scores).recipe
    arms = []
    for kind in ("clm", "random", "slm", "weak", "self", "clean", "mixed"):
        if kind not in section.arms:
            continue
        if kind == "clm":
            arms.append(Arm("clm", "clm", kind, "Plain training", "plain training", recipe, "corpus"))
        elif kind == "random":
            arms += [_selecting(recipe, kind, ratio, None, ratios, scores) for ratio in ratios]
        elif kind == "slm":
            arms += [_selecting(recipe, kind, ratio, score, ratios, scores) for score in scores for ratio in ratios]
        elif kind == "weak":
            changed = with_reference(like_main, weaker_reference(recipe))
            phrase = "selective training with a weaker reference"
            arms.append(Arm("weak", "weak", kind, "Selective, weaker reference", phrase, changed, "corpus"))
        elif kind == "self":
            changed = with_reference(like_main, self_reference(recipe))
            phrase = "selective training with a reference trained on the corpus itself"
            arms.append(Arm("self", "self", kind, "Selective, self-reference", phrase, changed, "corpus"))
        elif kind == "clean":
            _need_clean_text(recipe, kind)
            phrase = "plain training on the clean text"
            arms.append(Arm("clean", "clean", kind, "Plain, clean text alone", phrase, recipe, "clean"))
        else:
            _need_clean_text(recipe, kind)
            if not recipe.corpus.sources:
                raise UserError("compare.arms: mixed needs corpus.sources, to mix the clean text into; remove it")
            phrase = "plain training with the clean text mixed in"
            arms.append(Arm("mixed", "mixed", kind, "Plain, clean text mixed in", phrase, recipe, "mixed"))
    for arm in arms:
        if arm.kind in ("weak", "self") and not arm.scored:
            raise UserError(
                f"compare.arms: {arm.kind} changes the reference, which the score {arm.policy.score} does not read; "
                f"remove it, or set train.selection.score"
            )
    return arms


def main_arm(recipe: Recipe, arms: Sequence[Arm]) -> Arm | None:
    """The selective arm that the headline is about: the recipe's own setting, so decided before anything ran.

    Where the grid leaves that setting out, the one nearest to it in ratio, of the first score.
    """
    found = [arm for arm in arms if arm.kind == "slm"]
    wanted = recipe.train.selection
    return min(
        found,
        key=lambda arm: (arm.policy.score != wanted.score, abs(arm.policy.ratio - wanted.ratio)),
        default=next((arm for arm in arms if arm.kind in ("weak", "self")), None),
    )


def with_reference(recipe: Recipe, reference: ReferenceSection) -> Recipe:
    """The same recipe with another reference, and scores of that reference's name."""
    name = recipe.score.name.replace(recipe.reference.name, reference.name, 1)
    if name == recipe.score.name:
        name = f"{recipe.score.name}-{reference.name}"
    return replace(recipe, reference=reference, score=replace(recipe.score, name=name))


def weaker_reference(recipe: Recipe) -> ReferenceSection:
    """The recipe's reference, trained on fewer tokens of the same text."""
    section = recipe.reference
    if section.existing is not None:
        raise UserError(
            "compare.arms: weak trains the reference on fewer tokens, and reference.existing is not trained"
        )
    if recipe.compare.weak_tokens is not None:
        if section.tokens is not None and recipe.compare.weak_tokens >= section.tokens:
            raise UserError(
                f"compare.weak_tokens: {recipe.compare.weak_tokens:,} tokens make no weaker reference than "
                f"reference.tokens, {section.tokens:,}; lower it"
            )
        return replace(section, name="weak", tokens=recipe.compare.weak_tokens, epochs=None)
    if section.tokens is not None:
        return replace(section, name="weak", tokens=max(1, section.tokens // 10))
    assert section.epochs is not None
    return replace(section, name="weak", epochs=section.epochs / 10)


def self_reference(recipe: Recipe) -> ReferenceSection:
    """A reference trained on the corpus itself, for as many tokens as an arm (the paper's: plain training's model)."""
    options = recipe.reference.trainer or recipe.train.trainer
    return replace(
        recipe.reference,
        name="self",
        existing=None,
        sources=(),
        on_corpus=True,
        epochs=None,
        tokens=recipe.train.tokens,
        trainer=options,
    )


def _selecting(
    recipe: Recipe, kind: str, ratio: float, score: str | None, ratios: Sequence[float], scores: Sequence[str]
) -> Arm:
    """A random or selective arm at one ratio; `score` is None for random."""
    selection: dict[str, Any] = {"ratio": ratio}
    if score is not None and score != recipe.train.selection.score:
        selection |= {"score": score, "parts": (), "reference_loss_cap": None, "threshold": None}
    if recipe.train.selection.ratio_schedule and ratio != recipe.train.selection.ratio:
        selection["ratio_schedule"] = ()
    try:
        policy = replace(recipe.train.selection, **selection)
        changed = replace(recipe, train=replace(recipe.train, selection=policy))
    except ValueError as error:
        raise UserError(f"compare: {kind} at ratio {ratio:g}: {error}") from error
    key, place, name, phrase = kind, kind, "Random", "random selection"
    if score is not None:
        name, phrase = "Selective", "selective training"
        if score != recipe.train.selection.score:
            place = f"{place}-{score}"
        if len(scores) > 1:
            by = f"by {score.replace('_', ' ')}"
            key, name, phrase = f"{key}-{score}", f"{name} {by}", f"{phrase} {by}"
    if len(ratios) > 1:
        key = f"{key}-{ratio!r}"
    share = f"{100 * ratio:.4g}\u202f%"
    return Arm(key, f"{place}-{ratio!r}", kind, f"{name}, {share}", f"{phrase} at {share}", changed, "corpus")


def _need_clean_text(recipe: Recipe, kind: str) -> None:
    if not recipe.reference.sources:
        raise UserError(f"compare.arms: {kind} trains on the reference's clean text, and reference.sources names none")
