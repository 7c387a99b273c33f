"""Ways in which a comparison could mislead or lose work; each test is one of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.compare.world import AT, LENGTH, arms_of, hand_runs, make_run, make_scores, make_stores, recipe

from tokensieve.compare import cells, gathering, probe, running, runs, stages
from tokensieve.compare.arms import comparison_arms, main_arm
from tokensieve.compare.differences import differences
from tokensieve.errors import UserError
from tokensieve.stage import write_manifest


def test_an_arm_may_be_added_to_a_finished_comparison(tmp_path: Path) -> None:
    """The overlap is a stage with inputs: with an arm more, it looked at more text before."""
    make_stores(tmp_path)
    for kinds in (["clm", "random"], ["clm", "random", "slm"]):
        made = recipe(tmp_path, {"compare.arms": kinds})
        stages.overlap(made)


def test_two_arms_are_compared_only_at_one_ratio_and_score() -> None:
    """A weaker reference at another ratio than the main arm's differs from it in two things."""
    made = recipe(changes={"compare.arms": ["clm", "random", "slm", "weak"], "compare.ratios": [0.2, 0.3]})
    arms = comparison_arms(made)
    found = {arm.key: hand_runs(arm, [[5, 3, 2.0], [5, 3, 2.1]]) for arm in arms}
    for item in differences(found, main_arm(made, arms)):
        ours, theirs = found[item.arm].arm, found[item.other].arm
        if ours.selects and theirs.selects:
            assert ours.policy.ratio == theirs.policy.ratio, (item.arm, item.other)


def test_a_task_may_not_have_the_name_of_a_text(tmp_path: Path) -> None:
    """`differences` would give the task's accuracies as the text's nats."""
    item = {"question": "two", "choices": ["a", "b"], "answer": "a"}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    texts = [{"path": "t.jsonl", "name": "quiz"}, {"path": "u.jsonl", "name": "other"}]
    task = {"path": str(tmp_path / "quiz.jsonl"), "kind": "multiple_choice"}
    with pytest.raises(UserError, match="quiz"):
        made = recipe(tmp_path, {"evaluation.targets": texts, "tasks": [task]})
        stages.check_request(made, comparison_arms(made))


def test_a_task_s_accuracy_is_never_told_as_a_text_s_nats() -> None:
    arms = arms_of(recipe())
    documents = [{"quiz": [6.0, 4.0], "more": [6.0, 4.0]}] * 2
    tasks = [{"quiz": [1.0, 0.0, 1.0]}] * 2
    found = {key: hand_runs(arm, [[5, 3, 2.0]] * 2, documents=documents, tasks=tasks) for key, arm in arms.items()}
    worse = [{"quiz": [0.0, 0.0, 0.0]}] * 2
    found["slm"] = hand_runs(arms["slm"], [[5, 3, 2.0]] * 2, documents=documents, tasks=worse)
    for item in differences(found, arms["slm"]):
        if item.unit == "nats":
            assert item.found.estimate == 0, (item.arm, item.other, item.text, item.sentence)


def test_scoring_by_an_existing_reference_costs_what_that_model_costs(tmp_path: Path) -> None:
    corpus = make_stores(tmp_path)
    config = dict(recipe().model.fresh or {}) | {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 257}
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    large = {"reference.existing": str(tmp_path / "large"), "reference.sources": None, "reference.tokens": None}
    spent = []
    for changes in ({}, {**large}):
        made = recipe(tmp_path, {"reference.name": f"r{len(changes)}", "score.name": f"s{len(changes)}", **changes})
        make_scores(made, corpus, [np.ones(shard.tokens) for shard in corpus.shards])
        spent.append(runs._before(arms_of(made)["slm"], [0])[1])
    assert spent[1] > 4 * spent[0]


def test_a_reference_that_is_not_trained_does_not_vary_with_the_seed() -> None:
    there = {"reference.existing": "there", "reference.sources": None, "reference.tokens": None}
    made = recipe(changes={**there, "compare.reference_per_seed": True})
    try:
        stages.check_request(made, comparison_arms(made))
    except UserError:
        return  # refused: as good
    assert "reference" not in gathering._varies(made, comparison_arms(made))


def test_a_bad_reference_of_any_arm_is_in_the_warnings(tmp_path: Path) -> None:
    changes = {"compare.arms": ["clm", "random", "slm", "self"], "compare.seeds": [3, 4]}
    made = recipe(tmp_path, changes)
    corpus = make_stores(tmp_path)
    arms = comparison_arms(made)
    for variant in stages.reference_recipes(made, arms):
        make_scores(variant, corpus, [np.ones(shard.tokens) for shard in corpus.shards])
        if variant.reference.name == "self":
            path = variant.reference_folder / "reference.json"
            data = json.loads(path.read_text())
            numbers = {
                "tokens": 9, "reference_loss": 3.0, "student_loss": 2.0, "negative_excess": 0.5, "correlation": 0.9
            }  # fmt: skip
            data["outputs"]["gate"] = {"targets": {"held-out": numbers}, "pooled": numbers, "unknown": None}
            write_manifest(path, {key: data[key] for key in ("inputs", "finished", "seconds", "outputs")})
    for arm in arms:
        for seed in (3, 4):
            make_run(arm, seed, [5.0, 3.0, 2.0], kept={})
    found = gathering.gather(made, arms, None, [])
    assert any("no better than the untrained student" in warning for warning in found["warnings"]), found["warnings"]


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_a_probe_with_no_token_on_one_side_gives_no_nan(tmp_path: Path, ratio: float) -> None:
    made = recipe(tmp_path, {"compare.seeds": [3], "train.selection.ratio": ratio, "compare.arms": ["clm", "slm"]})
    corpus = make_stores(tmp_path)
    arms = comparison_arms(made)
    for variant in stages.reference_recipes(made, arms):
        make_scores(variant, corpus, [np.ones(shard.tokens) for shard in corpus.shards])
    for arm in arms:
        make_run(arm, 3, [5.0, 3.0, 2.0], kept={})
        (arm.folder(3) / "probe").mkdir()
        for step in AT:
            np.save(arm.folder(3) / "probe" / f"{step}.npy", np.ones((1, LENGTH), dtype=np.float32))
    found = gathering.gather(made, arms, np.array([2]), [])
    json.dumps(found, allow_nan=False)


def test_over_time_follows_what_the_arm_really_selects(tmp_path: Path) -> None:
    """An arm that keeps what the reference finds easy does not keep what has a high excess."""
    made = recipe(tmp_path, {"compare.seeds": [3], "train.selection.score": "reference_loss"})
    corpus = make_stores(tmp_path)
    arm = arms_of(made)["slm"]
    draw = np.random.default_rng(0)
    for variant in stages.reference_recipes(made, [arm]):
        make_scores(variant, corpus, [draw.random(shard.tokens) * 6 for shard in corpus.shards])
    make_run(arm, 3, [5.0, 3.0, 2.0], kept={})
    (arm.folder(3) / "probe").mkdir()
    for step in AT:
        np.save(arm.folder(3) / "probe" / f"{step}.npy", draw.random((4, LENGTH)).astype(np.float32) * 6)
    found = probe.over_time(runs.read_runs(arm, [3]), np.array([2, 5, 8, 11]))
    if found is not None:  # a choice that does not follow the model is the same at every checkpoint
        assert all(one["curve"] == found["sets"][0]["curve"] for one in found["sets"])


def test_a_loss_that_is_not_finite_at_the_end_is_one_line(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"compare.seeds": [3], "compare.arms": ["clm", "random"]})
    make_stores(tmp_path)
    arms = comparison_arms(made)
    for arm in arms:
        make_run(arm, 3, [5.0, 3.0, float("nan") if arm.key == "random" else 2.0], kept={})
    with pytest.raises(UserError):
        gathering.gather(made, arms, None, [])


def test_a_folder_of_another_recipe_is_found_before_hours_of_training(monkeypatch: Any, tmp_path: Path) -> None:
    """The finished run of seed 3 was made by another recipe: seed 4 must not be trained first."""
    made = recipe(tmp_path, {"compare.seeds": [3, 4]})
    arm = arms_of(made)["clm"]
    make_run(arm, 3, [5.0, 3.0, 2.0])
    trained = []

    def train(cell: cells.Cell) -> None:
        if cell.finished:
            raise UserError("belongs to another recipe")
        trained.append(cell.seed)

    monkeypatch.setattr(running, "train_cell", train)
    with pytest.raises(UserError, match="another recipe"):
        running.train_cells(made, [cells.Cell(arm, seed, None) for seed in (3, 4)])
    assert trained == []


def test_adding_a_ratio_trains_only_what_is_new() -> None:
    """docs/compare.md says so."""
    one = recipe(changes={"compare.ratios": [0.5]})
    two = recipe(changes={"compare.ratios": [0.5, 0.3]})
    folders = {arm.policy: arm.folder(0) for arm in comparison_arms(two)}
    for arm in comparison_arms(one):
        assert folders[arm.policy] == arm.folder(0)


def test_two_close_ratios_do_not_share_a_key() -> None:
    made = recipe(changes={"compare.ratios": [0.3333333, 0.3333334]})
    keys = [arm.key for arm in comparison_arms(made)]
    assert len(set(keys)) == len(keys)


def test_a_weaker_reference_is_weaker() -> None:
    made = recipe(changes={"compare.arms": ["clm", "weak"], "compare.weak_tokens": 6400})
    with pytest.raises(UserError, match="weak_tokens"):
        stages.check_request(made, comparison_arms(made))


def test_a_reference_called_as_another_folder_of_the_comparison_is_refused() -> None:
    for name, kind in (("weak", "weak"), ("self", "self"), ("mixed", "mixed"), ("compare", "slm")):
        kinds = list(dict.fromkeys(["clm", "slm", kind]))
        made = recipe(changes={"reference.name": name, "compare.arms": kinds})
        with pytest.raises(UserError, match="name"):
            stages.check_request(made, comparison_arms(made))


def test_probe_of_each_seed_uses_its_own_reference(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"compare.seeds": [3, 4], "compare.reference_per_seed": True})
    corpus = make_stores(tmp_path)
    arm = arms_of(made)["slm"]
    draw = np.random.default_rng(0)
    rows = draw.random((4, LENGTH)).astype(np.float32)
    curves = []
    for swap in (False, True):
        tables = [
            [np.random.default_rng(100 * swap + i).random(shard.tokens) * 6 for i, shard in enumerate(corpus.shards)],
            [np.random.default_rng(7 + 100 * swap + i).random(shard.tokens) for i, shard in enumerate(corpus.shards)],
        ]
        make_scores(arm.run(3), corpus, [np.random.default_rng(1).random(shard.tokens) for shard in corpus.shards])
        make_scores(arm.run(4), corpus, tables[0])
        for seed in (3, 4):
            if not swap:
                make_run(arm, seed, [5.0, 3.0, 2.0], kept={})
                (arm.folder(seed) / "probe").mkdir()
            for step in AT:
                np.save(arm.folder(seed) / "probe" / f"{step}.npy", rows)
        found = probe.split([runs.read_runs(arm, [3, 4])], arm, np.array([2, 5, 8, 11]))
        curves.append(found["arms"]["slm"]["selected"])
    assert curves[0] != curves[1]  # seed 4's own reference decides seed 4's tokens


def test_the_probe_is_no_part_of_the_mixed_text() -> None:
    """It is tokenized anew, so its windows are others: the probe's figures leave that arm out, and the docs say so."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert "`mixed` reads the corpus anew" in text


def test_a_task_of_the_reference_is_not_bound_to_which_arm_comes_first() -> None:
    """compare/reference/tasks names the first reference's digest: adding slm to [weak] makes it another recipe's."""
    first = []
    for kinds in (["clm", "weak"], ["clm", "slm", "weak"]):
        made = recipe(changes={"compare.arms": kinds})
        first.append(next(stages.reference_recipes(made, comparison_arms(made))).reference.name)
    assert first[0] == first[1]
