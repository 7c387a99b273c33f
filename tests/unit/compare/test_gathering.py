"""comparison.json from runs that were written by hand: every number is that of its manifest, and the schema holds."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tests.unit.compare.world import (
    AT,
    LENGTH,
    PER_STEP,
    arms_of,
    hand_runs,
    make_run,
    make_scores,
    make_stores,
    recipe,
)

from tokensieve.compare import gathering
from tokensieve.compare.arm_results import sweep
from tokensieve.compare.arms import comparison_arms
from tokensieve.compare.gathering import gather
from tokensieve.compare.stages import reference_recipes
from tokensieve.errors import UserError
from tokensieve.recipe import COMPARE_ARMS, Recipe

SCHEMA = json.loads(files("tokensieve.compare").joinpath("comparison.schema.json").read_text(encoding="utf-8"))
SEEDS = [3, 4]
PROBE = np.array([2, 5])
CHANGES = {"compare.seeds": SEEDS, "compare.ratios": [0.25, 0.5]}


def kept_of(ratio: float) -> dict[str, Any]:
    rows = [{"name": f"{i + 1}", "tokens": 100, "kept": round(100 * ratio) + i} for i in range(2)]
    return {"source": rows[:1], "position": rows}


def finished(folder: Path, changes: dict[str, Any], losses: dict[str, Sequence[float]] | None = None) -> Recipe:
    """A comparison whose runs are all there; the final loss of an arm and a seed is `losses[key]` + seed / 100."""
    made = recipe(folder, {**CHANGES, **changes})
    corpus = make_stores(folder)
    for variant in reference_recipes(made, comparison_arms(made)):
        make_scores(variant, corpus, [np.ones(shard.tokens) for shard in corpus.shards])
    for arm in comparison_arms(made):
        for seed in SEEDS:
            end = (losses or {}).get(arm.key, [2.0])[0]
            make_run(arm, seed, [5.0 + seed, 3.0, end + seed / 100], kept=kept_of(arm.policy.ratio))
            (arm.folder(seed) / "probe").mkdir()
            for step in AT:
                rows = np.random.default_rng(step).random((len(PROBE), LENGTH), dtype=np.float32)
                np.save(arm.folder(seed) / "probe" / f"{step}.npy", rows)
    return made


def test_what_is_gathered_is_valid_and_is_what_lies_in_the_folders(tmp_path: Path) -> None:
    losses = {"clm": [2.0], "random-0.25": [2.2], "random-0.5": [2.1], "slm-0.25": [1.5], "slm-0.5": [1.9]}
    made = finished(tmp_path, {}, losses)
    arms = comparison_arms(made)
    found = gather(made, arms, PROBE, ["said before anything ran"])
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found)))

    assert (found["format"], found["seeds"], found["tokens"]) == (1, SEEDS, AT[-1] * PER_STEP)
    assert found["main"] == "slm-0.5" and found["warnings"][0] == "said before anything ran"
    assert {key: arm["target_loss"]["mean"] for key, arm in found["arms"].items()} == {
        key: pytest.approx(end + 0.035) for key, (end,) in losses.items()
    }
    slm = found["arms"]["slm-0.5"]
    assert (slm["kind"], slm["ratio"], slm["score"], slm["scope"]) == ("slm", 0.5, "excess_loss", "global")
    assert (slm["reference"], slm["text"]) == ("reference", "corpus")
    assert [seed["target_loss"] for seed in slm["seeds"]] == pytest.approx([1.93, 1.94])
    assert slm["bits_per_byte"]["mean"] == pytest.approx(1.935 / 2)
    assert (found["arms"]["clm"]["score"], found["arms"]["clm"]["scope"], found["arms"]["clm"]["ratio"]) == (
        None,
        None,
        1,
    )
    # The start is the mean of what all arms begin with.
    assert found["start"] == {"target_loss": 8.5, "targets": {"held-out": 8.5}, "general": {}}
    # Kept tokens are those of both seeds together; arms that keep all have no rates.
    assert slm["keep_rates"]["source"] == [{"name": "1", "tokens": 200, "kept": 100}]
    assert slm["keep_rates"]["position"][1] == {"name": "2", "tokens": 200, "kept": 102}
    assert found["arms"]["clm"]["keep_rates"] is None
    # Plain training has nobody to reach.
    assert found["arms"]["clm"]["to_plain"] is None and set(slm["to_plain"]) == {"tokens", "selected", "flops"}
    assert slm["to_plain"]["tokens"]["reached"] == 2
    assert found["sweep"] == [
        {
            "score": "excess_loss",
            "plain": found["arms"]["clm"]["target_loss"],
            "points": [
                {
                    "ratio": ratio,
                    "slm": found["arms"][f"slm-{ratio}"]["target_loss"],
                    "random": found["arms"][f"random-{ratio}"]["target_loss"],
                }
                for ratio in (0.25, 0.5)
            ],
        }
    ]
    assert set(found["split"]["arms"]) == set(found["arms"]) and found["over_time"]["arm"] == "slm-0.5"
    assert found["reference"]["target_loss"] == 2.5 and found["reference"]["flops"] == slm["flops"]["reference"] > 0
    assert slm["flops"]["total"] == sum(slm["flops"][key] for key in ("training", "reference", "scoring"))
    assert found["measured"]["arms"]["slm-0.5"]["seconds"] == [8.0, 8.0]
    assert found["targets"] == [{"name": "held-out", "documents": 5, "tokens": found["targets"][0]["tokens"]}]


def test_what_depends_on_the_clock_stands_under_measured_alone(tmp_path: Path) -> None:
    made = finished(tmp_path, {})
    first = gather(made, comparison_arms(made), PROBE, [])
    for arm in comparison_arms(made):
        for seed in SEEDS:
            make_run(
                arm, seed, [5.0 + seed, 3.0, 2.0 + seed / 100], kept=kept_of(arm.policy.ratio), seconds=(0, 70, 99)
            )
    second = gather(made, comparison_arms(made), PROBE, [])
    assert first.pop("measured") != second.pop("measured")
    assert first == second


def test_all_kinds_of_arms_are_gathered(tmp_path: Path) -> None:
    made = finished(tmp_path, {"compare.arms": list(COMPARE_ARMS), "compare.ratios": None})
    found = gather(made, comparison_arms(made), PROBE, [])
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found)))
    # Clean and mixed text was trained on: the probe would not be held out there.
    assert set(found["split"]["arms"]) == {"clm", "random", "slm", "weak", "self"}
    assert found["sweep"] == [] and found["arms"]["weak"]["reference"] == "weak"
    assert found["arms"]["clean"]["flops"]["reference"] == found["arms"]["mixed"]["flops"]["scoring"] == 0
    assert any("other ratios (compare.ratios)" in line for line in found["not_run"])


@pytest.mark.parametrize("kinds", [["clm", "random"], ["slm", "clean"], ["clm", "weak"]])
def test_fewer_arms_make_a_smaller_and_still_valid_comparison(tmp_path: Path, kinds: list[str]) -> None:
    made = finished(tmp_path, {"compare.arms": kinds, "compare.ratios": None})
    found = gather(made, comparison_arms(made), PROBE, [])
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found)))
    selective = bool({"slm", "weak"} & set(kinds))
    assert (found["split"] is not None) == (found["reference"] is not None) == selective
    assert (found["main"] is not None) == selective
    assert all(
        (arm["to_plain"] is None) == ("clm" not in kinds or arm["kind"] == "clm") for arm in found["arms"].values()
    )


def test_without_a_probe_there_are_no_figures_of_it(tmp_path: Path) -> None:
    made = finished(tmp_path, {})
    found = gather(made, comparison_arms(made), None, [])
    assert found["split"] is None and found["over_time"] is None
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found)))


@pytest.mark.parametrize(
    ("inputs", "refused"),
    [
        ({"tokens": 999}, True),
        ({"seed": 9}, True),
        ({"corpus": "another"}, True),
        ({"something": "more"}, True),
        ({"policy": {"score": "random"}, "scores": {"reference": "x"}}, False),  # an arm's own
    ],
)
def test_a_run_that_was_made_from_something_else_is_refused(
    tmp_path: Path, inputs: dict[str, Any], refused: bool
) -> None:
    made = finished(tmp_path, {})
    arms = arms_of(made)
    make_run(arms["slm-0.5"], 4, [9.0, 3.0, 2.04], inputs=inputs, kept=kept_of(0.5))
    if not refused:
        gather(made, list(arms.values()), None, [])
        return
    with pytest.raises(UserError, match=r"slm-0.5/seed-4: made with \w+ .*, and arm clm with .* cannot be compared"):
        gather(made, list(arms.values()), None, [])


def test_clean_and_mixed_text_may_be_another_corpus_and_nothing_else(tmp_path: Path) -> None:
    made = finished(tmp_path, {"compare.arms": ["clean", "clm", "mixed"], "compare.ratios": None})
    arms = arms_of(made)
    for name in ("clean", "mixed"):
        for seed in SEEDS:
            make_run(arms[name], seed, [5.0 + seed, 3.0, 2.0], inputs={"corpus": name})
    gather(made, list(arms.values()), None, [])
    make_run(arms["mixed"], 3, [8.0, 3.0, 2.0], inputs={"corpus": "mixed", "trainer": {"learning_rate": 1}})
    with pytest.raises(UserError, match="mixed/seed-3: made with trainer"):
        gather(made, list(arms.values()), None, [])


def test_an_arm_that_kept_another_share_than_its_ratio_is_told() -> None:
    arms = arms_of(recipe(changes={"compare.ratios": [0.25, 0.5]}))

    def kept(key: str, share: float) -> Any:
        return hand_runs(arms[key], [[3.0, 2.0, 1.0]] * 2, numbers={"ratio_kept": share})

    assert gathering._reach_warnings({"slm-0.5": kept("slm-0.5", 0.54), "clm": kept("clm", 0.2)}) == []
    [line] = gathering._reach_warnings({"slm-0.5": kept("slm-0.5", 0.56), "random-0.5": kept("random-0.5", 0.5)})
    assert line.startswith("slm-0.5 kept 0.56") and "0.5: no control has its size" in line
    # A warm-up keeps more by intention.
    arms = arms_of(recipe(changes={"train.selection.warmup_steps": 2}))
    assert gathering._reach_warnings({"slm": kept("slm", 0.8)}) == []


@pytest.mark.parametrize(
    ("changes", "varies"),
    [
        ({}, ["initialisation", "order of data", "random selection"]),
        ({"compare.arms": ["clm", "slm"]}, ["initialisation", "order of data"]),
        (
            {"compare.arms": ["clm", "slm"], "model": {"name": "given"}, "compare.reference_per_seed": True},
            ["order of data", "reference"],
        ),
        ({"compare.arms": ["clm", "clean"], "compare.reference_per_seed": True}, ["initialisation", "order of data"]),
    ],
)
def test_what_a_seed_changes_is_stated(changes: dict[str, Any], varies: list[str]) -> None:
    made = recipe(changes=changes)
    assert gathering._varies(made, comparison_arms(made)) == varies


def test_what_was_not_run_is_listed_until_it_is() -> None:
    made = recipe()
    told = " ".join(gathering._not_run(made, comparison_arms(made), True))
    for what in ("compare.arms: clean", "compare.arms: mixed", "compare.arms: weak", "compare.arms: self"):
        assert what in told
    for what in ("compare.ratios", "compare.reference_per_seed", "evaluation.general", "(tasks)"):
        assert what in told
    assert "compare.arms: slm" not in told and "compare.arms: clm" not in told
    everything = recipe(
        changes={"compare.arms": list(COMPARE_ARMS), "compare.ratios": [0.3, 0.5], "compare.reference_per_seed": True}
        | {"evaluation.general": [{"path": "g.jsonl", "name": "other"}], "tasks": [{"task": "arc_easy"}]}
    )
    assert gathering._not_run(everything, comparison_arms(everything), True) == []


def test_the_sweep_has_a_line_for_each_score_and_a_gap_where_an_arm_is_missing() -> None:
    changes = {"compare.ratios": [0.5, 0.25], "compare.scores": ["excess_loss", "current_loss"]}
    made = recipe(changes={**changes, "compare.arms": ["slm", "clm"]})
    found = {key: hand_runs(arm, [[3.0, 2.0, arm.policy.ratio]] * 2) for key, arm in arms_of(made).items()}
    lines = sweep(made, found)
    assert [line["score"] for line in lines] == ["excess_loss", "current_loss"]
    for line in lines:
        assert [(point["ratio"], point["slm"]["mean"], point["random"]) for point in line["points"]] == [
            (0.25, 0.25, None),
            (0.5, 0.5, None),
        ]
        assert line["plain"]["mean"] == 1.0
    assert sweep(recipe(), found) == []
