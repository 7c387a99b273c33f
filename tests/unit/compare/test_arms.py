"""From the `compare` section to the arms: their names, what each changes, and which one the headline is about."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.compare.world import PER_STEP, STEPS, arms_of, recipe

from tokensieve.compare.arms import (
    SELECTING,
    comparison_arms,
    main_arm,
    self_reference,
    weaker_reference,
    with_reference,
)
from tokensieve.errors import UserError
from tokensieve.recipe import COMPARE_ARMS

ALL = list(COMPARE_ARMS)
PARTS = [{"score": "excess_loss", "ratio": 0.5}, {"score": "reference_loss", "ratio": 0.5}]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, ["clm", "random", "slm"]),
        ({"compare.arms": ["slm", "clm"]}, ["clm", "slm"]),  # reports have one order, whatever the recipe's
        ({"compare.arms": ALL}, ["clm", "random", "slm", "weak", "self", "clean", "mixed"]),
        ({"compare.ratios": [0.5]}, ["clm", "random", "slm"]),
        (
            {"compare.ratios": [0.6, 0.25]},
            ["clm", "random-0.6", "random-0.25", "slm-0.6", "slm-0.25"],
        ),
        (
            {"compare.scores": ["excess_loss", "current_loss"]},
            ["clm", "random", "slm-excess_loss", "slm-current_loss"],
        ),
        (
            {"compare.arms": ["slm", "random"], "compare.scores": ["current_loss", "excess_loss"]}
            | {"compare.ratios": [0.3, 0.4]},
            ["random-0.3", "random-0.4"]
            + ["slm-current_loss-0.3", "slm-current_loss-0.4", "slm-excess_loss-0.3", "slm-excess_loss-0.4"],
        ),
        ({"compare.scores": ["current_loss"]}, ["clm", "random", "slm"]),
        ({"compare.arms": ["clm", "weak"], "compare.ratios": [0.3, 0.4]}, ["clm", "weak"]),
    ],
)
def test_an_arm_has_a_key_of_its_own_with_no_more_in_it_than_tells_it_apart(
    changes: dict[str, Any], keys: list[str]
) -> None:
    made = recipe(changes=changes)
    arms = comparison_arms(made)
    assert [arm.key for arm in arms] == keys
    assert len({arm.folder(0) for arm in arms} | {arm.folder(1) for arm in arms}) == 2 * len(arms)


def test_labels_and_phrases_say_what_an_arm_is() -> None:
    space = "\u202f"
    made = recipe(
        changes={"compare.arms": ALL, "compare.ratios": [0.25, 0.125]}
        | {"compare.scores": ["excess_loss", "current_loss"]}
    )
    arms = arms_of(made)
    assert (arms["clm"].label, arms["clm"].phrase) == ("Plain training", "plain training")
    assert (arms["random-0.25"].label, arms["random-0.25"].phrase) == (
        f"Random, 25{space}%",
        f"random selection at 25{space}%",
    )
    assert (arms["slm-excess_loss-0.125"].label, arms["slm-excess_loss-0.125"].phrase) == (
        f"Selective by excess loss, 12.5{space}%",
        f"selective training by excess loss at 12.5{space}%",
    )
    assert "weaker reference" in arms["weak"].label and "weaker reference" in arms["weak"].phrase
    assert "self-reference" in arms["self"].label and "corpus itself" in arms["self"].phrase
    assert "clean text alone" in arms["clean"].label and "mixed in" in arms["mixed"].phrase
    assert len({arm.label for arm in arms.values()}) == len({arm.phrase for arm in arms.values()}) == len(arms)
    assert arms_of(recipe())["slm"].label == f"Selective, 50{space}%"


def test_an_arm_is_what_its_kind_says() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ALL}))
    assert {key: arm.trained_as for key, arm in arms.items()} == {
        "clm": "clm", "clean": "clm", "mixed": "clm", "random": "random", "slm": "slm", "weak": "slm", "self": "slm"
    }  # fmt: skip
    assert {key for key, arm in arms.items() if arm.selects} == set(SELECTING)
    assert {key for key, arm in arms.items() if arm.scored} == {"slm", "weak", "self"}
    assert {key: arm.text for key, arm in arms.items() if arm.text != "corpus"} == {"clean": "clean", "mixed": "mixed"}
    for key, arm in arms.items():
        assert arm.policy.selects_everything == (key in ("clm", "clean", "mixed"))
        assert arm.policy.ratio == (0.5 if arm.selects else 1)
    # A score that reads no reference needs none.
    assert not arms_of(recipe(changes={"train.selection.score": "current_loss"}))["slm"].scored


def test_the_grid_changes_ratio_and_score_and_nothing_else() -> None:
    selection = {"ratio": 0.5, "scope": "sequence", "alpha": 0.7, "warmup_steps": 1, "reference_loss_cap": 4.0}
    made = recipe(
        changes={"train.selection": selection, "compare.ratios": [0.5, 0.2]}
        | {"compare.scores": ["excess_loss", "current_loss"]}
    )
    arms = arms_of(made)
    for key, score, ratio, cap in (
        ("slm-excess_loss-0.5", "excess_loss", 0.5, 4.0),
        ("slm-excess_loss-0.2", "excess_loss", 0.2, 4.0),
        ("slm-current_loss-0.2", "current_loss", 0.2, None),  # the cap belongs to excess_loss
        ("random-0.2", "random", 0.2, None),
    ):
        policy = arms[key].policy
        assert (policy.score, policy.ratio, policy.reference_loss_cap) == (score, ratio, cap)
        assert (policy.scope, policy.alpha, policy.warmup_steps) == ("sequence", 0.7, 1)


def test_a_schedule_stays_with_the_ratio_that_it_ends_at() -> None:
    schedule = [[0, 1.0], [3, 0.5]]
    made = recipe(changes={"train.selection.ratio_schedule": schedule, "compare.ratios": [0.5, 0.3]})
    arms = arms_of(made)
    assert arms["slm-0.5"].policy.ratio_schedule == arms["random-0.5"].policy.ratio_schedule == ((0, 1.0), (3, 0.5))
    assert arms["slm-0.3"].policy.ratio_schedule == arms["random-0.3"].policy.ratio_schedule == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.selection.ratio": 1.0}, "keeps every token: there is no selection to compare; set its ratio below 1"),
        (
            {"compare.arms": ["clm", "weak"], "train.selection.score": "current_loss"},
            "compare.arms: weak changes the reference, which the score current_loss does not read",
        ),
        (
            {"compare.arms": ["clm", "self"], "train.selection.score": "current_entropy"},
            "compare.arms: self changes the reference, which the score current_entropy does not read",
        ),
        (
            {"compare.arms": ["clm", "weak"], "reference": {"existing": "somewhere"}},
            "weak trains the reference on fewer tokens, and reference.existing is not trained",
        ),
        (
            {"compare.arms": ["clm", "clean"], "reference": {"existing": "somewhere"}},
            "clean trains on the reference's clean text, and reference.sources names none",
        ),
        (
            {"compare.arms": ["clm", "mixed"], "reference": {"on_corpus": True, "epochs": 1}},
            "mixed trains on the reference's clean text, and reference.sources names none",
        ),
        (
            {"compare.arms": ["clm", "mixed"], "corpus": {"existing": "store"}, "tokenizer": {"name": "given"}},
            "mixed needs corpus.sources, to mix the clean text into",
        ),
        (
            {"compare.scores": ["excess_loss", "reference_entropy"]},
            "slm at ratio 0.5: train.selection reads reference_entropy, .*score.entropy: true",
        ),
    ],
)
def test_an_arm_that_cannot_be_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        comparison_arms(recipe(changes=changes))
    assert "\n" not in str(caught.value)


def test_simple_scores_stand_beside_a_recipe_that_combines_two() -> None:
    selection = {"score": "union", "ratio": 0.7, "parts": PARTS}
    alone = arms_of(recipe(changes={"train.selection": selection}))["slm"].policy
    assert alone.score == "union" and len(alone.parts) == 2
    arms = arms_of(recipe(changes={"train.selection": selection, "compare.scores": ["excess_loss"]}))
    assert (arms["slm"].policy.score, arms["slm"].policy.parts, arms["slm"].policy.ratio) == ("excess_loss", (), 0.7)


@pytest.mark.parametrize(
    ("changes", "main"),
    [
        ({}, "slm"),
        ({"compare.ratios": [0.2, 0.5, 0.8]}, "slm-0.5"),
        ({"compare.ratios": [0.2, 0.65]}, "slm-0.65"),  # the nearest
        ({"compare.ratios": [0.75, 0.25]}, "slm-0.75"),  # equally near: the first that the recipe names
        ({"compare.scores": ["current_loss", "excess_loss"]}, "slm-excess_loss"),
        ({"compare.scores": ["current_loss", "current_entropy"]}, "slm-current_loss"),
        ({"compare.arms": ["clm", "weak", "self", "slm"]}, "slm"),
        ({"compare.arms": ["clm", "self", "weak"]}, "weak"),
        ({"compare.arms": ["clm", "random", "clean"]}, None),
    ],
)
def test_the_headline_is_about_the_recipe_s_own_setting(changes: dict[str, Any], main: str | None) -> None:
    made = recipe(changes=changes)
    found = main_arm(made, comparison_arms(made))
    assert (found and found.key) == main


def test_the_main_arm_never_depends_on_results(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"compare.arms": ALL, "compare.ratios": [0.2, 0.5, 0.8]})
    arms = comparison_arms(made)
    before = main_arm(made, arms)
    assert before is not None
    for arm in arms:  # every other arm looks better
        folder = arm.folder(0)
        folder.mkdir(parents=True)
        loss = 9.0 if arm is before else 0.1
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "target_loss": loss}))
    (tmp_path / "comparison.json").write_text(json.dumps({"main": "slm-0.8"}))
    assert main_arm(made, comparison_arms(made)) == before
    for some in itertools.permutations(arms[1:6]):
        assert main_arm(made, some) == before


def test_a_weaker_reference_has_a_tenth_of_the_budget_unless_the_recipe_says_how_much() -> None:
    by_tokens = weaker_reference(recipe())
    assert (by_tokens.name, by_tokens.tokens, by_tokens.epochs) == ("weak", 64, None)
    by_epochs = weaker_reference(recipe(changes={"reference.tokens": None, "reference.epochs": 3.0}))
    assert (by_epochs.name, by_epochs.tokens, by_epochs.epochs) == ("weak", None, pytest.approx(0.3))
    for budget in ({}, {"reference.tokens": None, "reference.epochs": 3.0}):
        given = weaker_reference(recipe(changes={**budget, "compare.weak_tokens": 96}))
        assert (given.tokens, given.epochs) == (96, None)
    same = recipe().reference
    assert (by_tokens.sources, by_tokens.trainer, by_tokens.model) == (same.sources, same.trainer, same.model)


def test_a_self_reference_sees_the_corpus_for_as_long_as_an_arm_does() -> None:
    for changes in ({}, {"reference.tokens": None, "reference.epochs": 3.0}, {"reference": {"existing": "somewhere"}}):
        made = recipe(changes=changes)
        found = self_reference(made)
        assert (found.name, found.on_corpus, found.sources, found.existing) == ("self", True, (), None)
        assert (found.tokens, found.epochs) == (STEPS * PER_STEP, None)
        assert found.trainer == (made.reference.trainer or made.train.trainer) and found.trainer
    arm = arms_of(recipe(changes={"compare.arms": ["clm", "self"]}))["self"]
    assert arm.recipe.clean_store == "corpus"


@pytest.mark.parametrize(
    ("score", "reference", "expected"),
    [
        ("reference", "reference", "weak"),
        ("reference-512", "reference", "weak-512"),
        ("long", "reference", "long-weak"),
        ("maths", "gold", "maths-weak"),
        ("gold", "gold", "weak"),
    ],
)
def test_another_reference_has_scores_of_its_own_name(score: str, reference: str, expected: str) -> None:
    made = recipe(changes={"score.name": score, "reference.name": reference})
    changed = with_reference(made, weaker_reference(made))
    assert changed.score.name == expected != made.score.name
    assert changed.reference.name == "weak" and changed.train == made.train


def test_a_run_is_the_arm_s_recipe_with_a_seed_and_with_its_own_reference_only_if_asked() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm", "weak"]}))
    for arm in arms.values():
        assert arm.run(8).seed == 8 and arm.run(8).reference == arm.recipe.reference
        assert arm.run(8).score == arm.recipe.score
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm", "weak"], "compare.reference_per_seed": True}))
    names = {
        key: [(run.reference.name, run.score.name) for run in (arm.run(3), arm.run(4))] for key, arm in arms.items()
    }
    assert names["slm"] == names["clm"] == [("reference-seed-3",) * 2, ("reference-seed-4",) * 2]
    assert names["weak"] == [("weak-seed-3",) * 2, ("weak-seed-4",) * 2]


def test_a_random_choice_by_the_name_of_selective_training_is_refused() -> None:
    """`train.selection.score: random` makes slm the very run that random is: a baseline like no other."""
    with pytest.raises(UserError, match="random"):
        comparison_arms(recipe(changes={"train.selection.score": "random"}))
