"""Traps 39 to 45: comparisons whose control, text, cost or options are not what they are called."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.faults.world import VOCABULARY, make_corpus
from tests.unit.compare.world import (
    LENGTH,
    arms_of,
    hand_runs,
    make_run,
    make_scores,
    make_stores,
    recipe,
    tampered,
)

from tokensieve.compare import gathering, stages
from tokensieve.compare.arm_results import arm_result
from tokensieve.compare.arms import comparison_arms
from tokensieve.compare.cells import all_cells
from tokensieve.compare.differences import differences
from tokensieve.compare.matching import check_matched
from tokensieve.compare.running import process_count
from tokensieve.compare.runs import curve_of, read_runs, to_plain
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED
from tokensieve.errors import UserError
from tokensieve.evaluation.overlap import overlap_warnings
from tokensieve.recipe import COMPARE_ARMS, CompareSection, Recipe
from tokensieve.selection.apply import apply_policy
from tokensieve.selection.scores import TokenColumns
from tokensieve.stats import log_entries
from tokensieve.training.arms import arm_policy, training_windows
from tokensieve.training.keep_rates import KeepRates
from tokensieve.training.setup import windows_for

PROBE = np.array([2, 5, 40])


@pytest.fixture
def comparison(tmp_path: Path) -> tuple[Recipe, TokenStore]:
    """A recipe of three arms and two seeds, its stores, and scores of random reference losses."""
    made = recipe(tmp_path, {"compare.seeds": [3, 4], "train.tokens": 80 * 32})
    corpus = make_stores(tmp_path)
    draw = np.random.default_rng(0)
    make_scores(made, corpus, [6 * draw.random(shard.tokens) for shard in corpus.shards])
    return made, corpus


def gathered(made: Recipe) -> dict[str, Any]:
    """The result of two of its arms, with losses by hand."""
    made = replace(made, compare=replace(made.compare, arms=("clm", "random")))
    rates = {"position": [{"name": "1", "tokens": 4, "kept": 2}]}
    for arm in comparison_arms(made):
        for seed in made.compare.seeds:
            make_run(arm, seed, [5.0, 3.0, 2.0 + seed / 100], kept=rates)
    return gathering.gather(made, comparison_arms(made), None, [])


KINDS = {"compare.arms": list(COMPARE_ARMS)}
OPTIONS: dict[str, tuple[Any, Callable[[Recipe], Any]]] = {
    "arms": (["clm", "slm"], lambda made: [cell.folder for cell in all_cells(made, comparison_arms(made), None)]),
    "seeds": ([3, 4, 5], lambda made: [cell.folder for cell in all_cells(made, comparison_arms(made), None)]),
    "ratios": ([0.2, 0.5], lambda made: [arm.policy for arm in comparison_arms(made)]),
    "scores": (["reference_loss"], lambda made: [arm.policy for arm in comparison_arms(made)]),
    "reference_per_seed": (
        True,
        lambda made: [item.reference_folder for item in stages.reference_recipes(made, comparison_arms(made))],
    ),
    "mixed_share": (0.125, lambda made: [source.weight for source in stages.mixed_sources(made)]),
    "weak_tokens": (96, lambda made: arms_of(made)["weak"].recipe.reference.tokens),
    "probe_windows": (2, lambda made: stages.probe_numbers(made).tolist()),
    "processes": (3, process_count),
    "title": ("My text", lambda made: gathered(made)["title"]),
}


@pytest.mark.parametrize("name", [item.name for item in fields(CompareSection)])
def test_every_option_of_a_comparison_changes_what_is_run(
    name: str, comparison: tuple[Recipe, TokenStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 39: an option that is read and then left alone makes two runs alike that are called different."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    value, outcome = OPTIONS[name]
    before = recipe(tmp_path, KINDS)
    after = recipe(tmp_path, {**KINDS, f"compare.{name}": value})
    assert outcome(before) != outcome(after)
    assert outcome(after) == outcome(recipe(tmp_path, {**KINDS, f"compare.{name}": value}))


def test_plain_training_keeps_every_token_and_random_others_than_the_method(
    comparison: tuple[Recipe, TokenStore],
) -> None:
    """Trap 40: a baseline that runs the method's configuration, or sees its data in another order, is none."""
    arms = arms_of(comparison[0])
    for seed in (3, 4):
        orders, kept, valid = {}, {}, {}
        for key, arm in arms.items():
            windows = training_windows(arm.run(seed), PROBE)
            batch = windows.__getitems__(list(range(32)))
            orders[key] = windows.order.tolist()
            valid[key] = batch["labels"] != IGNORED
            live = torch.rand(valid[key].shape, generator=torch.Generator().manual_seed(seed)) * 6
            reference = batch["reference_loss"].view(torch.float16).float()
            columns = TokenColumns(loss=live, reference_loss=reference, token_index=batch["token_index"])
            policy = arm_policy(arm.run(seed), arm.trained_as)
            kept[key] = apply_policy(policy, columns, valid[key]).selected
        assert orders["clm"] == orders["random"] == orders["slm"] != sorted(orders["clm"])
        assert torch.equal(valid["clm"], valid["slm"]) and torch.equal(kept["clm"], valid["clm"])
        assert int(kept["slm"].sum()) == int(kept["random"].sum()) == int(int(valid["clm"].sum()) * 0.5 + 0.5)
        # Independent choices of a half have about a half in common; one choice has all.
        shared = int((kept["slm"] & kept["random"]).sum()) / int(kept["slm"].sum())
        assert 0.3 < shared < 0.7
    first, second = (training_windows(arms["clm"].run(seed), PROBE).order for seed in (3, 4))
    assert first.tolist() != second.tolist()


def test_nobody_trains_on_the_probe(comparison: tuple[Recipe, TokenStore]) -> None:
    """Trap 41: losses of selected and unselected tokens are measured on windows that no arm ever sees."""
    made, corpus = comparison
    total = int(corpus.windows_per_shard(LENGTH).sum())
    numbers = stages.probe_numbers(made)
    assert numbers is not None and 1 < len(numbers) < total
    for arm in comparison_arms(made):
        for seed in made.compare.seeds:
            drawn = set((training_windows(arm.run(seed), numbers).order % total).tolist())
            assert drawn == set(range(total)) - set(numbers.tolist())  # and everything else is seen
    without = windows_for(made, corpus, 80 * 32, {})
    assert set(numbers.tolist()) <= set((without.order % total).tolist())


def test_target_text_in_the_training_text_is_told(tmp_path: Path) -> None:
    """Trap 41: a loss on text that was trained on measures memory. Also where only the reference saw it."""
    draw = np.random.default_rng(0)
    texts = [draw.integers(1, VOCABULARY, 60) for _ in range(3)]
    for place in (None, "corpus", "clean"):
        folder = tmp_path / str(place)
        made = recipe(folder)
        make_corpus(folder / "targets" / "held-out", ids=[texts[0].copy()])
        for i, name in enumerate(("corpus", "clean"), start=1):
            own = texts[i] if name != place else np.concatenate([texts[i], texts[0]])
            make_corpus(folder / name, ids=[own.copy()])
        told = overlap_warnings(stages.overlap(made))
        assert len(told) == (place is not None)
        assert all("held-out: 1 of 1 documents" in line and "memory" in line for line in told)


def test_arms_are_compared_on_the_same_tokens_and_never_on_those_that_each_selected(tmp_path: Path) -> None:
    """Trap 42: the loss over an arm's own choice is higher by construction."""
    counted = {
        "valid": 10,
        "selected": 4,
        "measured_valid": 10,
        "measured_selected": 4,
        "loss": 30,
        "loss_selected": 20,
    }
    logged = log_entries({name: float(value) for name, value in counted.items()})
    assert (logged["loss_all"], logged["loss_selected"], logged["loss_unselected"]) == (3.0, 5.0, pytest.approx(10 / 6))

    made = recipe(tmp_path, {"compare.arms": ["clm", "slm"], "train.selection.score": "current_loss"})
    make_stores(tmp_path)
    arms = arms_of(made)
    for key, extra in (("clm", 1.0), ("slm", 50.0)):
        for seed in (0, 1, 2):
            make_run(arms[key], seed, [5.0, 4.0, 2.0 + seed / 100])
            path = arms[key].folder(seed) / "metrics.jsonl"
            path.write_text(path.read_text().replace('"loss_selected": 8.0', f'"loss_selected": {8 + extra}'))
    found = {key: read_runs(arm, (0, 1, 2)) for key, arm in arms.items()}
    assert found["slm"].runs[0].evaluations[-1]["loss_selected"] == 58.0
    assert [item.found.estimate for item in differences(found, arms["slm"])] == [0.0]
    ours, plain = (curve_of(found[key]) for key in ("slm", "clm"))
    assert [point["target_loss"] for point in ours] == [point["target_loss"] for point in plain]


def test_a_control_that_is_not_matched_is_an_error() -> None:
    """Trap 43: other steps, seeds, grids or learning rates have turned results around."""
    arms = arms_of(recipe())
    check_matched(list(arms.values()), (0, 1, 2))
    trainer = {**recipe().train.trainer, "learning_rate": 0.02}
    for change in ({"train": {"tokens": 160}}, {"evaluation": {"count": 5}}, {"train": {"trainer": trainer}}):
        control = tampered(arms["random"], **change)
        with pytest.raises(UserError, match="arms clm and random differ in .* they cannot be compared"):
            check_matched([arms["clm"], control, arms["slm"]], (0, 1, 2))


def test_a_choice_by_place_in_the_window_shows_in_the_keep_rates(comparison: tuple[Recipe, TokenStore]) -> None:
    """Trap 43: a score may be about position and nothing else; what was kept at each place is always told."""
    made, corpus = comparison
    batch = training_windows(made, PROBE).__getitems__(list(range(16)))
    valid = batch["labels"][:, 1:] != IGNORED
    early = valid & (torch.arange(1, LENGTH) < LENGTH // 2)
    rates = KeepRates(corpus, LENGTH, {})
    rates.add(batch["token_index"][:, 1:], valid, early)
    arm = arms_of(made)["slm"]
    for seed in (3, 4):
        make_run(arm, seed, [5.0, 3.0, 2.0], kept=rates.plain(rates.counts))
    rows = arm_result(read_runs(arm, (3, 4)), None, None, 3)["keep_rates"]["position"]
    assert [row["name"] for row in rows] == [str(i) for i in range(2, LENGTH + 1)]
    shares = [row["kept"] / row["tokens"] for row in rows]
    assert shares == [1.0] * (LENGTH // 2 - 1) + [0.0] * (LENGTH // 2)
    assert sum(row["tokens"] for row in rows) == 2 * int(valid.sum())


def test_what_an_arm_costs_includes_its_reference_and_the_scoring(comparison: tuple[Recipe, TokenStore]) -> None:
    """Trap 44: a counter that leaves the scoring pass out makes selection look almost twice as cheap."""
    made, corpus = comparison
    arms = arms_of(made)
    for arm in arms.values():
        for seed in (3, 4):
            make_run(arm, seed, [5.0, 3.0, 2.0])
    found = {key: read_runs(arm, (3, 4)) for key, arm in arms.items()}
    slm, plain, lot = found["slm"], found["clm"], found["random"]
    assert slm.reference_flops > 0 and slm.scoring_flops > 0 and plain.before == lot.before == 0
    assert slm.scoring_flops / slm.reference_flops == pytest.approx(corpus.tokens / 640 / 3)  # forward alone
    for point, line in zip(curve_of(slm), slm.runs[0].evaluations, strict=True):
        own = slm.runs[0].flops[line["step"]]
        assert point["flops"] == pytest.approx(slm.reference_flops + slm.scoring_flops + own)
    used = to_plain(slm, plain, "flops")
    assert used["share"] == pytest.approx((slm.before + slm.runs[0].flops[4]) / plain.runs[0].flops[4])
    assert to_plain(slm, plain, "tokens")["share"] == 1.0 and to_plain(slm, plain, "seconds")["share"] > 1


@pytest.mark.parametrize("score", ["excess_loss", "current_loss"])
def test_master_weights_in_half_precision_are_told(tmp_path: Path, score: str) -> None:
    """Trap 45: small updates are lost in every arm alike. FAILS: BUG 8, for scores that read no reference."""
    changes = {"compare.arms": ["clm", "slm"], "train.selection.score": score, "model.dtype": "bfloat16"}
    made = recipe(tmp_path, changes)
    corpus = make_stores(tmp_path)
    for variant in stages.reference_recipes(made, comparison_arms(made)):
        make_scores(variant, corpus, [np.ones(shard.tokens) for shard in corpus.shards])
    rates = {"position": [{"name": "1", "tokens": 4, "kept": 2}]}
    for arm in comparison_arms(made):
        for seed in made.compare.seeds:
            make_run(arm, seed, [5.0, 3.0, 2.0 + seed / 100], kept=rates)
    found = gathering.gather(made, comparison_arms(made), None, [])
    assert any("bfloat16: small updates are lost" in warning for warning in found["warnings"])


def test_an_arm_with_no_random_or_plain_control_of_its_ratio_is_set_against_none() -> None:
    """Trap 43: random selection at another ratio is no control of an arm's size."""
    arms = arms_of(recipe(changes={"compare.ratios": [0.25, 0.5]}))
    del arms["random-0.5"]
    found = {key: hand_runs(arm, [[5.0, 4.0, 3.0], [5.0, 4.0, 3.1]]) for key, arm in arms.items()}
    pairs = {(item.arm, item.other) for item in differences(found, arms["slm-0.5"])}
    assert ("slm-0.25", "random-0.25") in pairs and ("slm-0.5", "random-0.25") not in pairs
