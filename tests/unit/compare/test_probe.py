"""Figures 6 and 8 from probe files written by hand, against a computation token by token."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.compare.world import AT, LENGTH, PER_STEP, arms_of, make_run, make_scores, make_stores, recipe

from tokensieve.compare.arms import Arm
from tokensieve.compare.probe import over_time, split
from tokensieve.compare.runs import ArmRuns, read_runs
from tokensieve.recipe import Recipe

SEEDS = (3, 4)
RATIO = 0.3
NUMBERS = np.array([11, 2, 5, 8, 14])
"""Windows of the probe, not in order; the stored rows are in the order of their numbers."""


class World:
    """A finished comparison of `arms`, with random scores and probe losses; `token` finds them again."""

    def __init__(self, folder: Path, changes: dict[str, Any], keys: tuple[str, ...]) -> None:
        self.recipe = recipe(folder, {"compare.seeds": list(SEEDS), "train.selection.ratio": RATIO, **changes})
        self.arms = arms_of(self.recipe)
        self.corpus = make_stores(folder)
        self.draw = np.random.default_rng(0)
        self.scores: dict[str, list[np.ndarray]] = {}
        self.losses: dict[tuple[str, int, int], np.ndarray] = {}
        for arm in self.arms.values():
            for seed in SEEDS:
                self._score(arm.run(seed))
        self.runs = {key: self._run(self.arms[key]) for key in keys}

    def _score(self, run: Recipe) -> None:
        if run.score.name in self.scores:
            return
        losses = []
        for shard in self.corpus.shards:
            # Few values, so that there are ties, and tokens that were never scored.
            values = self.draw.integers(0, 6, shard.tokens).astype(np.float64)
            values[self.draw.random(shard.tokens) < 0.1] = np.nan
            losses.append(values)
        self.scores[run.score.name] = losses
        make_scores(run, self.corpus, losses)

    def _run(self, arm: Arm) -> ArmRuns:
        for seed in SEEDS:
            make_run(arm, seed, [3.0, 2.5, 2.0])
            (arm.folder(seed) / "probe").mkdir()
            for step in AT:
                rows = self.draw.integers(0, 8, (len(NUMBERS), LENGTH)).astype(np.float32)
                if step == 0:  # all arms begin alike
                    rows = self.losses.get(("first", seed, 0), rows)
                    self.losses["first", seed, 0] = rows
                self.losses[arm.key, seed, step] = rows
                np.save(arm.folder(seed) / "probe" / f"{step}.npy", rows)
        return read_runs(arm, SEEDS)

    def tokens(self, score: str) -> list[tuple[int, int, float]]:
        """(row, column, the reference's loss) of each token of the probe that counts."""
        places = [
            (i, begin) for i, s in enumerate(self.corpus.shards) for begin in range(0, s.tokens - LENGTH + 1, LENGTH)
        ]
        found = []
        for row, number in enumerate(sorted(NUMBERS.tolist())):
            shard, begin = places[number]
            starts = {0, *self.corpus.document_ends(shard).tolist()}
            for column in range(LENGTH):
                loss = self.scores[score][shard][begin + column]
                if column > 0 and begin + column not in starts and not math.isnan(loss):
                    found.append((row, column, float(loss)))
        return found

    def chosen(self, tokens: list[tuple[int, int, float]], losses: np.ndarray, low: bool = False) -> set[int]:
        """Numbers of the tokens with the highest excess (or the lowest reference loss), earlier ones first."""
        value = [-reference if low else losses[row, column] - reference for row, column, reference in tokens]
        order = sorted(range(len(tokens)), key=lambda i: (-value[i], i))
        return set(order[: math.floor(RATIO * len(tokens) + 0.5)])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., World]:
    def made(changes: dict[str, Any] | None = None, keys: tuple[str, ...] = ("clm", "random", "slm")) -> World:
        return World(tmp_path, changes or {}, keys)

    return made


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def split_by_hand(world: World, key: str, score: Callable[[int], str]) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {"selected": [], "unselected": []}
    for step in AT:
        by_seed: dict[str, list[float]] = {"selected": [], "unselected": []}
        for seed in SEEDS:
            tokens = world.tokens(score(seed))
            chosen = world.chosen(tokens, world.losses[key, seed, 0])
            losses = world.losses[key, seed, step]
            values = [float(losses[row, column]) for row, column, _ in tokens]
            by_seed["selected"].append(mean([value for i, value in enumerate(values) if i in chosen]))
            by_seed["unselected"].append(mean([value for i, value in enumerate(values) if i not in chosen]))
        for name, values in by_seed.items():
            curves[name].append([step * PER_STEP, mean(values)])
    return curves


def over_time_by_hand(world: World, key: str, score: Callable[[int], str], low: bool = False) -> list[dict[str, Any]]:
    sets = []
    for at in AT[1:]:
        curve = []
        for step in AT:
            means = []
            for seed in SEEDS:
                tokens = world.tokens(score(seed))
                chosen = world.chosen(tokens, world.losses[key, seed, at], low)
                losses = world.losses[key, seed, step]
                means.append(mean([float(losses[row, col]) for i, (row, col, _) in enumerate(tokens) if i in chosen]))
            curve.append([step * PER_STEP, mean(means)])
        sets.append({"at": at * PER_STEP, "curve": curve})
    return sets


def near(found: Any, wanted: Any) -> None:
    """Equal in names and shape, and in numbers up to rounding."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            near(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            near(ours, theirs)
    else:
        assert found == pytest.approx(wanted, rel=1e-12)


def test_split_is_decided_by_the_untouched_start_and_measured_on_the_same_tokens_for_every_arm(make: Any) -> None:
    world = make()
    found = split(list(world.runs.values()), world.arms["slm"], NUMBERS)
    tokens = world.tokens("reference")
    assert (found["tokens"], found["selected_share"]) == (len(tokens), RATIO) and len(tokens) > 15
    assert list(found["arms"]) == ["clm", "random", "slm"]
    for key, curves in found["arms"].items():
        near(curves, split_by_hand(world, key, lambda seed: "reference"))
    # All arms begin alike, and then differ.
    assert len({tuple(curves["selected"][0]) for curves in found["arms"].values()}) == 1
    assert len({tuple(curves["selected"][-1]) for curves in found["arms"].values()}) > 1


def test_over_time_follows_the_tokens_selected_at_each_checkpoint_through_the_whole_run(make: Any) -> None:
    world = make(keys=("slm",))
    found = over_time(world.runs["slm"], NUMBERS)
    assert found["arm"] == "slm"
    near(found["sets"], over_time_by_hand(world, "slm", lambda seed: "reference"))
    near(over_time(world.runs["slm"], NUMBERS, most=1)["sets"], found["sets"][:1])


def test_the_main_arm_may_have_another_reference(make: Any) -> None:
    world = make({"compare.arms": ["clm", "weak"]}, ("clm", "weak"))
    found = split(list(world.runs.values()), world.arms["weak"], NUMBERS)
    near(found["arms"]["clm"], split_by_hand(world, "clm", lambda seed: "weak"))


def test_the_order_in_which_the_probe_is_named_changes_nothing(make: Any) -> None:
    world = make()
    items = list(world.runs.values())
    assert split(items, world.arms["slm"], NUMBERS) == split(items, world.arms["slm"], np.sort(NUMBERS))
    assert over_time(items[2], NUMBERS) == over_time(items[2], np.sort(NUMBERS))


def test_tokens_without_a_score_and_first_tokens_never_count(make: Any) -> None:
    world = make(keys=("slm",))
    counted = np.zeros((len(NUMBERS), LENGTH), dtype=bool)
    for row, column, _ in world.tokens("reference"):
        counted[row, column] = True
    before = over_time(world.runs["slm"], NUMBERS), split([world.runs["slm"]], world.arms["slm"], NUMBERS)
    for seed in SEEDS:
        for step in AT:
            path = world.arms["slm"].folder(seed) / "probe" / f"{step}.npy"
            rows = np.load(path)
            rows[~counted] = 1e9
            np.save(path, rows)
    assert (~counted).sum() > len(NUMBERS)
    assert (over_time(world.runs["slm"], NUMBERS), split([world.runs["slm"]], world.arms["slm"], NUMBERS)) == before


@pytest.mark.parametrize("figure", ["split", "over_time"])
def test_each_seed_has_the_choice_of_its_own_reference(make: Any, figure: str) -> None:
    """With compare.reference_per_seed every seed's choice is made with the first seed's reference."""
    world = make({"compare.reference_per_seed": True}, ("clm", "slm"))
    assert set(world.scores) == {"reference-seed-3", "reference-seed-4"}
    # Both references scored the same tokens, so that every seed counts the same ones.
    for i, values in enumerate(world.scores["reference-seed-4"]):
        world.scores["reference-seed-4"][i] = np.where(np.isnan(world.scores["reference-seed-3"][i]), np.nan, values)
        hole = np.isnan(values) & ~np.isnan(world.scores["reference-seed-3"][i])
        world.scores["reference-seed-4"][i][hole] = 1.0
    make_scores(world.arms["slm"].run(4), world.corpus, world.scores["reference-seed-4"])
    if figure == "split":
        found = split(list(world.runs.values()), world.arms["slm"], NUMBERS)["arms"]["clm"]
        near(found, split_by_hand(world, "clm", lambda seed: f"reference-seed-{seed}"))
    else:
        sets = over_time(world.runs["slm"], NUMBERS)["sets"]
        near(sets, over_time_by_hand(world, "slm", lambda seed: f"reference-seed-{seed}"))


def test_a_score_that_does_not_follow_the_model_has_no_tokens_over_time(make: Any) -> None:
    world = make({"train.selection.score": "reference_loss"}, ("slm",))
    assert over_time(world.runs["slm"], NUMBERS) is None
