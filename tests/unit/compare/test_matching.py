"""Arms that differ in anything but their own setting are not compared; what differs is listed."""

from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.compare.world import arms_of, recipe, tampered

from tokensieve.compare.arms import Arm, comparison_arms
from tokensieve.compare.matching import changes, check_matched, settings
from tokensieve.errors import UserError
from tokensieve.recipe import COMPARE_ARMS, Recipe

SEEDS = (3, 4)
TRAINER = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True}


@dataclass(frozen=True)
class AnotherSeed(Arm):
    """An arm whose runs are of another seed than they are called by."""

    def run(self, seed: int) -> Recipe:
        return super().run(seed + 1)


def test_all_kinds_of_arms_are_matched_and_their_own_settings_listed() -> None:
    arms = comparison_arms(recipe(changes={"compare.arms": list(COMPARE_ARMS), "compare.ratios": [0.25, 0.5]}))
    found = check_matched(arms, SEEDS)
    expected = {"seed", "train.tokens", "train.trainer.learning_rate", "model.fresh.hidden_size", "context.length"}
    assert expected | {"evaluation.count", "corpus.sources", "tokenizer.train_vocab"} <= set(found["same"])
    assert not set(found["same"]) & set(found["differ"])
    assert found["differ"]["train.selection.ratio"] == {
        "clm": 1, "random-0.25": 0.25, "random-0.5": 0.5, "slm-0.25": 0.25, "slm-0.5": 0.5, "weak": 0.5, "self": 0.5,
        "clean": 1, "mixed": 1,
    }  # fmt: skip
    assert found["differ"]["text"]["clean"] == "clean" and found["differ"]["text"]["slm-0.5"] == "corpus"
    # Only those that read a reference are asked about theirs.
    assert found["differ"]["reference.name"] == {
        "slm-0.25": "reference", "slm-0.5": "reference", "weak": "weak", "self": "self"
    }  # fmt: skip
    assert found["differ"]["reference.tokens"]["weak"] == 64
    assert not any(key.startswith(("out", "compare", "plan", "tasks", "storage", "data_dir")) for key in found["same"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train": {"tokens": 160}}, "train.tokens"),  # other steps
        ({"train": {"trainer": {**TRAINER, "learning_rate": 2e-2}}}, "train.trainer.learning_rate"),
        ({"train": {"trainer": {**TRAINER, "per_device_train_batch_size": 2}}}, "train.trainer.per_device_train_batc"),
        ({"evaluation": {"count": 3}}, "evaluation.count"),
        ({"evaluation": {"batch_size": 1}}, "evaluation.batch_size"),
        ({"context": {"length": 16}}, "context.length"),
        ({"context": {"document_mask": False}}, "context.document_mask"),
        ({"model": {"dtype": "bfloat16"}}, "model.dtype"),
        ({"tokenizer": {"train_vocab": 300}}, "tokenizer.train_vocab"),
        ({"corpus": {"shard_tokens": 999}}, "corpus.shard_tokens"),
    ],
)
@pytest.mark.parametrize("which", ["clm", "random", "slm", "weak", "self", "clean", "mixed"])
def test_a_control_that_is_not_matched_is_an_error_that_names_the_key(
    which: str, change: dict[str, Any], key: str
) -> None:
    arms = arms_of(recipe(changes={"compare.arms": list(COMPARE_ARMS)}))
    arms[which] = tampered(arms[which], **change)
    with pytest.raises(UserError, match=rf"arms \w+ and \w+ differ in {key}.* they cannot be compared") as caught:
        check_matched(list(arms.values()), SEEDS)
    assert which in str(caught.value).split(" differ in ")[0] and "\n" not in str(caught.value)


def test_another_seed_is_an_error_and_a_recipe_s_own_seed_decides_no_run() -> None:
    arms = arms_of(recipe())
    other = arms["random"]
    arms["random"] = AnotherSeed(
        other.key, other.place, other.kind, other.label, other.phrase, other.recipe, other.text
    )
    with pytest.raises(UserError, match=r"arms clm and random differ in seed \(3 and 4\)"):
        check_matched(list(arms.values()), SEEDS)
    arms["random"] = tampered(other, seed=77)
    assert check_matched(list(arms.values()), SEEDS) == check_matched(comparison_arms(recipe()), SEEDS)


def test_a_difference_in_the_reference_belongs_to_weak_and_self_alone() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["slm", "clm", "weak"], "compare.ratios": [0.25, 0.5]}))
    arms["slm-0.5"] = tampered(arms["slm-0.5"], reference={"tokens": 320})
    with pytest.raises(UserError, match=r"slm-0.25 and slm-0.5 differ in reference.tokens \(640 and 320\)"):
        check_matched(list(arms.values()), SEEDS)
    arms = arms_of(recipe(changes={"compare.arms": ["slm", "clm"], "compare.ratios": [0.25, 0.5]}))
    arms["slm-0.5"] = tampered(arms["slm-0.5"], score={"dtype": "bfloat16"})
    with pytest.raises(UserError, match="differ in score.dtype"):
        check_matched(list(arms.values()), SEEDS)


def test_another_text_belongs_to_clean_and_mixed_alone() -> None:
    arms = arms_of(recipe())
    odd = arms["slm"]
    arms["slm"] = Arm(odd.key, odd.place, odd.kind, odd.label, odd.phrase, odd.recipe, "clean")
    with pytest.raises(UserError, match=r"differ in text \('corpus' and 'clean'\)"):
        check_matched(list(arms.values()), SEEDS)


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"trainer": {**TRAINER, "weight_decay": 0.1}}},
        {"train": {"trainer": {}}},
        {"model": {"fresh": {**recipe().model.fresh, "rms_norm_eps": 1e-3}}},
    ],
)
def test_a_setting_that_one_arm_alone_has_is_an_error_and_never_listed_as_equal(change: dict[str, Any]) -> None:
    """Keys of one arm alone are not compared, and `matched.same` lists them as equal in all arms."""
    arms = arms_of(recipe())
    arms["slm"] = tampered(arms["slm"], **change)
    with pytest.raises(UserError, match="they cannot be compared"):
        check_matched(list(arms.values()), SEEDS)


def test_what_changes_is_told_against_plain_training_with_the_reference_by_name() -> None:
    arms = arms_of(recipe(changes={"compare.arms": list(COMPARE_ARMS), "train.selection": {"ratio": 0.6}}))
    plain = arms["clm"]
    assert changes(plain, plain, 3) == {}
    assert changes(arms["random"], plain, 3) == {"train.selection.score": "random", "train.selection.ratio": 0.6}
    assert changes(arms["slm"], plain, 3) == {"train.selection.ratio": 0.6, "reference": "reference"}
    assert changes(arms["weak"], plain, 3) == {"train.selection.ratio": 0.6, "reference": "weak"}
    assert changes(arms["clean"], plain, 3) == {"text": "clean"}
    assert changes(arms["mixed"], plain, 3) == {"text": "mixed"}


def test_settings_are_those_of_the_run_with_its_seed() -> None:
    arms = arms_of(recipe(changes={"compare.reference_per_seed": True}))
    found = settings(arms["slm"], 4)
    assert found["seed"] == found["train.selection.seed"] == 4
    assert found["reference.name"] == found["score.name"] == "reference-seed-4"
    assert "train.arms" not in found and not any(key.startswith(("compare.", "tasks", "out")) for key in found)
    plain = settings(arms["clm"], 4)
    assert not any(key.startswith(("reference.", "score.")) for key in plain) and plain["seed"] == 4
