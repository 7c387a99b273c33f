"""Which arms stand against which, on which texts, and that no difference is told of other sums than its own."""

from typing import Any

import pytest
from tests.unit.compare.world import arms_of, hand_runs, recipe

from tokensieve.compare.arms import Arm
from tokensieve.compare.differences import differences, headline, judged_tasks
from tokensieve.compare.runs import ArmRuns
from tokensieve.recipe import COMPARE_ARMS

CURVE = [[5.0, 4.0, 3.0], [5.0, 4.0, 3.0]]


def runs_of(arms: dict[str, Arm], **finals: list[float]) -> dict[str, ArmRuns]:
    """Two seeds of each arm; final losses by key, 3.0 if none are given."""
    found = {}
    for key, arm in arms.items():
        ends = finals.get(key.replace("-", "_").replace(".", "_"), [3.0, 3.0])
        found[key] = hand_runs(arm, [[5.0, 4.0, end] for end in ends])
    return found


def pairs(changes: dict[str, Any], main: str | None) -> list[tuple[str, str]]:
    arms = arms_of(recipe(changes=changes))
    judged = differences(runs_of(arms), None if main is None else arms[main])
    assert {item.text for item in judged} <= {"target"}
    return [(item.arm, item.other) for item in judged]


def test_every_selecting_arm_stands_against_plain_training_and_random_of_its_ratio() -> None:
    found = pairs({"compare.ratios": [0.3, 0.5]}, "slm-0.5")
    assert found == [
        ("random-0.3", "clm"),
        ("random-0.5", "clm"),
        ("slm-0.3", "clm"),
        ("slm-0.3", "random-0.3"),
        ("slm-0.5", "clm"),
        ("slm-0.5", "random-0.5"),
    ]


def test_the_main_arm_stands_against_everything_that_does_without_it_and_no_pair_twice() -> None:
    found = pairs({"compare.arms": list(COMPARE_ARMS), "compare.ratios": [0.3, 0.5]}, "slm-0.5")
    assert {("slm-0.5", other) for other in ("clm", "random-0.5", "weak", "self", "clean", "mixed")} <= set(found)
    assert {("weak", "clm"), ("weak", "random-0.5"), ("clean", "clm"), ("mixed", "clm")} <= set(found)
    assert len(set(found)) == len(found) == len({frozenset(pair) for pair in found})
    assert ("clean", "random-0.5") not in found and ("slm-0.3", "weak") not in found


def test_controls_that_are_missing_leave_out_their_pairs_alone() -> None:
    assert pairs({"compare.arms": ["random", "slm"]}, "slm") == [("slm", "random")]
    assert pairs({"compare.arms": ["clm", "slm"]}, "slm") == [("slm", "clm")]
    assert pairs({"compare.arms": ["clm", "clean"]}, None) == [("clean", "clm")]
    assert pairs({"compare.arms": ["slm", "clean"]}, "slm") == [("slm", "clean")]
    assert pairs({"compare.arms": ["self", "weak"]}, "weak") == [("weak", "self")]


def test_texts_and_tasks_are_judged_each_by_their_own_documents() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm"]}))
    # Documents of 6 and 4 tokens; `one` and `two` are targets, `other` is general text of 6 tokens.
    plain = [{"one": [12, 8], "two": [6, 4], "other": [6]}, {"one": [12, 8], "two": [6, 4], "other": [6]}]
    ours = [{"one": [7, 3], "two": [6, 4], "other": [12]}, {"one": [6, 4], "two": [7, 3], "other": [18]}]
    found = {
        "clm": hand_runs(arms["clm"], CURVE, documents=plain, tasks=[{"quiz": [1, 0, 0, 0]}] * 2),
        "slm": hand_runs(arms["slm"], CURVE, documents=ours, tasks=[{"quiz": [1, 1, 1, 0]}, {"quiz": [1, 0, 1, 0]}]),
    }
    judged = {item.text: item for item in differences(found, arms["slm"])}
    assert list(judged) == ["target", "one", "two", "general", "quiz"]
    # one: 1 nat a token less on 10 tokens; two: nothing; the target is both as one text of 20 tokens.
    assert judged["target"].found.per_seed == pytest.approx((-0.5, -0.5))
    assert judged["one"].found.per_seed == pytest.approx((-1.0, -1.0))
    assert judged["two"].found.per_seed == pytest.approx((0.0, 0.0))
    assert judged["general"].found.per_seed == pytest.approx((1.0, 2.0))
    assert judged["quiz"].found.per_seed == pytest.approx((0.5, 0.25))
    assert {text: item.unit for text, item in judged.items()} == {
        "target": "nats", "one": "nats", "two": "nats", "general": "nats", "quiz": "accuracy"
    }  # fmt: skip
    plain_entry = judged["quiz"].plain()
    assert (plain_entry["arm"], plain_entry["other"], plain_entry["text"]) == ("slm", "clm", "quiz")
    assert plain_entry["estimate"] == pytest.approx(0.375) and list(plain_entry["seeds_needed"]) == ["0.01"]
    assert "plain training" in plain_entry["sentence"]


@pytest.mark.parametrize("right", [2, 4])
def test_arms_that_differ_alike_on_every_item_with_every_seed_are_compared(right: int) -> None:
    """Without any spread, two seeds or two documents end in OverflowError, after all is trained."""
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm"]}))
    seeds = (0, 1) if right == 4 else (0, 1, 2)
    found = {
        key: hand_runs(arms[key], [CURVE[0]] * len(seeds), tasks=[{"quiz": items}] * len(seeds), seeds=seeds)
        for key, items in (("clm", [0] * right), ("slm", [1] * right))
    }
    judged = {item.text: item.found for item in differences(found, arms["slm"])}
    assert judged["quiz"].verdict == "better" and judged["quiz"].p < 0.001


def test_one_text_is_not_told_twice() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm"]}))
    documents = [{"one": [12, 8], "other": [6]}] * 2
    found = {key: hand_runs(arms[key], CURVE, documents=documents) for key in ("clm", "slm")}
    assert [item.text for item in differences(found, arms["slm"])] == ["target", "general"]


def test_lower_is_better_for_losses_and_higher_for_accuracies() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm"], "compare.seeds": [0, 1, 2]}))
    curves = [[5.0, 4.0, 3.0]] * 3
    low, high = [{"one": [6, 4]}] * 3, [{"one": [12, 8.001]}] * 3
    right, wrong = [{"quiz": [1] * 40}] * 3, [{"quiz": [1] * 9 + [0] * 31}] * 3
    seeds = (0, 1, 2)
    found = {
        "clm": hand_runs(arms["clm"], curves, documents=high, tasks=right, seeds=seeds),
        "slm": hand_runs(arms["slm"], curves, documents=low, tasks=wrong, seeds=seeds),
    }
    judged = {item.text: item.found.verdict for item in differences(found, arms["slm"])}
    assert judged == {"target": "better", "quiz": "worse"}


def test_the_headline_is_of_the_main_arm_s_two_controls() -> None:
    arms = arms_of(recipe(changes={"compare.ratios": [0.3, 0.5]}))
    # slm-0.3 beats everything by far; the main arm, slm-0.5, is worse than both controls.
    finals = {"slm_0_3": [1.0, 1.001], "slm_0_5": [4.0, 4.001]}
    found = runs_of(arms, **finals)
    main = arms["slm-0.5"]
    told = headline(differences(found, main), found, main, None, {})
    assert told["verdict"] == "worse" and told["sentence"].startswith("Selective training at 50")
    reaches = {"tokens": {"share": 0.25}, "flops": {"share": 3.0}}
    told = headline(differences(found, arms["slm-0.3"]), found, arms["slm-0.3"], reaches, {})
    assert told["verdict"] == "better" and "after 25" in told["sentence"]
    assert "300\u202f% of the FLOPs" in told["sentence"]


def test_without_a_selective_arm_nothing_is_said_of_selection() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "random"]}))
    found = runs_of(arms)
    told = headline(differences(found, None), found, None, None, {})
    assert told["verdict"] == "undecided" and "says nothing of selection" in told["sentence"]


def test_accuracies_stand_beside_those_of_start_and_reference() -> None:
    arms = arms_of(recipe(changes={"compare.arms": ["clm", "slm"]}))
    found = {
        "clm": hand_runs(arms["clm"], CURVE, tasks=[{"quiz": [1, 0, 0, 0]}, {"quiz": [1, 1, 0, 0]}]),
        "slm": hand_runs(arms["slm"], CURVE, tasks=[{"quiz": [1, 1, 1, 1]}] * 2),
    }
    start = {"quiz": {"metric": "acc", "kind": "multiple_choice", "items": [0, 0, 0, 1], "value": 0.25}}
    [row] = judged_tasks(found, start, {"quiz": {"value": 0.75}})
    assert (row["name"], row["metric"], row["items"], row["kind"]) == ("quiz", "acc", 4, "multiple_choice")
    assert (row["arms"]["clm"]["mean"], row["arms"]["slm"]["mean"]) == (0.375, 1.0)
    assert (row["start"], row["reference"]) == (0.25, 0.75)
    assert judged_tasks(found, start, {})[0]["reference"] is None
