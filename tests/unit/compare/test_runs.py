"""What an arm's runs came to: hand numbers for the price of plain training's loss, and folders read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.compare.world import (
    LENGTH,
    PER_STEP,
    ROWS,
    STEPS,
    arms_of,
    hand_runs,
    make_run,
    make_scores,
    make_stores,
    recipe,
)

from tokensieve.compare import accounting
from tokensieve.compare.accounting import reference_flops, run_flops, scoring_flops
from tokensieve.compare.runs import curve_of, read_runs, reference_cost, seconds_of, to_plain
from tokensieve.errors import UserError
from tokensieve.planning.shape import model_shape
from tokensieve.recipe import COMPARE_ARMS

# Plain training ends at 2.0 with one seed and at 3.0 with the other; tokens seen are 0, 64, 128.
PLAIN = [[5.0, 4.0, 2.0], [5.0, 4.0, 3.0]]


def plain(**more: Any) -> Any:
    return hand_runs(arms_of(recipe())["clm"], PLAIN, selected=[[0, 60, 120], [0, 60, 120]], **more)


def slm(curves: list[list[float]], **more: Any) -> Any:
    return hand_runs(arms_of(recipe())["slm"], curves, selected=[[0, 30, 60], [0, 20, 40]], **more)


def test_what_it_took_is_read_off_the_curve_of_the_same_seed() -> None:
    # Seed 0 reaches 2.0 halfway between 3.0 (64 tokens) and 1.0 (128). Seed 1 reaches 3.0 a quarter of the way to 64.
    ours = slm([[5.0, 3.0, 1.0], [3.5, 1.5, 1.0]])
    found = to_plain(ours, plain(), "tokens")
    assert found == {"share": pytest.approx((96 / 128 + 16 / 128) / 2), "reached": 2, "seeds": 2, "per_seed": [96, 16]}
    # Tokens back-propagated: 45 of plain training's 120, and 5 of 120.
    found = to_plain(ours, plain(), "selected")
    assert found["per_seed"] == [45, 5] and found["share"] == pytest.approx((45 / 120 + 5 / 120) / 2)


def test_flops_and_seconds_begin_with_the_reference_and_the_scoring() -> None:
    curves = [[5.0, 3.0, 1.0], [3.5, 1.5, 1.0]]
    free, paid = slm(curves), slm(curves, before=(1000.0, 200.0), shared_seconds=7.0)
    # Spent after steps 0, 2, 4: 0, 200, 400; halfway from 200 to 400, and a quarter of 200.
    assert to_plain(free, plain(), "flops")["per_seed"] == [300, 50]
    found = to_plain(paid, plain(), "flops")
    assert found["per_seed"] == [1500, 1250]
    assert found["share"] == pytest.approx((1500 / 400 + 1250 / 400) / 2)  # above 1: plain training was cheaper
    assert to_plain(paid, plain(), "seconds")["per_seed"] == [8.5, 7.2]  # 1.5 and 0.25 s, rounded to a tenth
    assert to_plain(paid, plain(), "tokens") == to_plain(free, plain(), "tokens")


def test_a_seed_that_never_comes_there_leaves_no_share() -> None:
    found = to_plain(slm([[5.0, 4.0, 2.5], [3.5, 1.5, 1.0]]), plain(), "tokens")
    assert found == {"share": None, "reached": 1, "seeds": 2, "per_seed": [None, 16]}
    found = to_plain(slm([[5.0, 4.0, 2.5], [5.0, 4.0, 3.1]]), plain(), "flops")
    assert found == {"share": None, "reached": 0, "seeds": 2, "per_seed": [None, None]}


def test_plain_training_takes_itself_as_long_as_it_is() -> None:
    for axis in ("tokens", "selected", "flops", "seconds"):
        assert to_plain(plain(), plain(), axis)["share"] == pytest.approx(1.0)


def test_an_arm_that_begins_there_has_used_only_what_it_spent_before() -> None:
    ours = slm([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], before=(30.0, 10.0))
    assert to_plain(ours, plain(), "tokens")["per_seed"] == [0, 0]
    assert to_plain(ours, plain(), "flops")["share"] == pytest.approx(40 / 400)


def test_runs_are_paired_by_seed_and_never_by_place() -> None:
    with pytest.raises(AssertionError):
        to_plain(slm([[5.0, 3.0, 1.0], [3.5, 1.5, 1.0]], seeds=(1, 0)), plain(), "tokens")


def test_curves_are_means_over_the_seeds_at_each_evaluation() -> None:
    ours = slm([[5.0, 3.0, 1.0], [4.0, 2.0, 1.5]], before=(1000.0, 200.0), shared_seconds=7.0)
    points = curve_of(ours)
    assert [point["step"] for point in points] == [0, 2, 4]
    assert [point["tokens_seen"] for point in points] == [0, 64, 128]
    assert [point["tokens_selected"] for point in points] == [0, 25, 50]
    assert [point["flops"] for point in points] == [1200, 1400, 1600]
    assert [point["target_loss"]["mean"] for point in points] == [4.5, 2.5, 1.25]
    assert points[0]["target_loss"]["low"] < 4.5 < points[0]["target_loss"]["high"]
    assert all(point["general_loss"] is None for point in points)
    assert seconds_of(ours) == [7.0, 8.0, 9.0]
    for run in ours.runs:
        for line in run.evaluations:
            line["general_loss"] = 10.0 + run.seed
    assert [point["general_loss"]["mean"] for point in curve_of(ours)] == [10.5] * 3


def test_one_seed_has_a_mean_without_an_interval() -> None:
    one = hand_runs(arms_of(recipe())["slm"], [[5.0, 3.0, 1.0]], seeds=(4,))
    assert curve_of(one)[1]["target_loss"] == {"mean": 3.0, "low": None, "high": None}


def test_folders_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"compare.arms": list(COMPARE_ARMS)})
    corpus = make_stores(tmp_path)
    arms = arms_of(made)
    for name in ("slm", "weak"):
        make_scores(arms[name].recipe, corpus, [np.ones(shard.tokens) for shard in corpus.shards], seconds=3.0)
    for arm in (arms["clm"], arms["slm"], arms["weak"]):
        for seed in (3, 4):
            make_run(arm, seed, [5.0, 3.0, 2.0 + seed], general=[1.0, 2.0, 3.0])
    plain, ours = read_runs(arms["clm"], (3, 4)), read_runs(arms["slm"], (3, 4))
    assert [run.seed for run in ours.runs] == [3, 4] and ours.losses() == [5.0, 6.0]
    # Only lines with a target loss are evaluations; losses over an arm's own choice are on no curve.
    assert [line["step"] for line in ours.runs[0].evaluations] == [0, 2, 4]
    assert ours.runs[0].documents["held-out"].sums_D.tolist() == [30.0, 20.0]
    assert ours.runs[0].documents["held-out"].counts_D.tolist() == [6, 4] and set(ours.runs[0].documents) == {
        "held-out",
        "other",
    }
    assert ours.runs[0].inputs["seed"] == 3 and ours.runs[0].tasks == {}

    # FLOPs by the formulas of `plan`: a run's own, its reference's training, and the pass over the corpus.
    shape = model_shape(made.model, made)
    by_hand = run_flops(shape, arms["slm"].policy, LENGTH, PER_STEP, STEPS, False, ROWS * LENGTH)
    np.testing.assert_allclose(ours.runs[1].flops, by_hand)
    assert len(ours.runs[0].flops) == STEPS + 1 and ours.runs[0].flops[0] == 0
    assert plain.runs[0].flops[-1] == pytest.approx(reference_flops(shape, LENGTH, STEPS * PER_STEP))
    assert ours.reference_flops == pytest.approx(reference_flops(shape, LENGTH, 640))
    assert ours.scoring_flops == pytest.approx(scoring_flops(shape, LENGTH, corpus.tokens))
    assert ours.shared_seconds == 5.0  # 2 of reference.json and 3 of scores.json
    assert (plain.reference_flops, plain.scoring_flops, plain.shared_seconds) == (0, 0, 0)
    # A weaker reference is cheaper: 64 tokens, so two steps of 32.
    assert read_runs(arms["weak"], (3, 4)).reference_flops == pytest.approx(reference_flops(shape, LENGTH, 64))


def test_a_step_of_several_micro_steps_is_counted_by_its_micro_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first pass of the head goes chunk by chunk: a micro-step of 16 rows in chunks of 10 leaves 6 of 16 rows.
    monkeypatch.setattr(accounting, "default_chunk_rows", lambda vocabulary: 10)
    changes = {"train.trainer": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "use_cpu": True}}
    make_stores(tmp_path)
    made = recipe(tmp_path, {**changes, "train.selection.score": "current_loss"})
    arm = arms_of(made)["slm"]
    make_run(arm, 3, [3.0, 2.0, 1.0])
    shape = model_shape(made.model, made)
    of_micro, of_step = (run_flops(shape, arm.policy, LENGTH, PER_STEP, STEPS, False, rows * LENGTH) for rows in (2, 4))
    np.testing.assert_allclose(read_runs(arm, (3,)).runs[0].flops, of_micro)
    assert of_micro[-1] != pytest.approx(of_step[-1], rel=1e-6)


def test_a_reference_that_was_there_costs_nothing_and_one_per_seed_is_paid_once_a_run(tmp_path: Path) -> None:
    assert reference_cost(recipe(changes={"reference": {"existing": "somewhere"}})) == 0
    made = recipe(tmp_path, {"compare.reference_per_seed": True})
    corpus = make_stores(tmp_path)
    arm = arms_of(made)["slm"]
    for seed in (3, 4):
        make_scores(arm.run(seed), corpus, [np.ones(shard.tokens) for shard in corpus.shards])
        make_run(arm, seed, [3.0, 2.0, 1.0])
    assert read_runs(arm, (3, 4)).reference_flops == pytest.approx(reference_cost(recipe()))


def test_a_missing_run_is_one_line(tmp_path: Path) -> None:
    make_stores(tmp_path)
    arm = arms_of(recipe(tmp_path))["clm"]
    make_run(arm, 3, [3.0, 2.0, 1.0])
    with pytest.raises(UserError, match="seed-4/run.json: cannot read"):
        read_runs(arm, (3, 4))
