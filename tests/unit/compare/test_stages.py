"""What the arms share: requests that cannot be answered, references, mixed text, and the held-out probe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.compare.world import LENGTH, arms_of, make_scores, make_stores, recipe

from tokensieve.compare import stages
from tokensieve.compare.arms import comparison_arms
from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import COMPARE_ARMS
from tokensieve.stage import write_manifest

MakeStore = Callable[..., TokenStore]


def windows(count: int) -> list[list[int]]:
    """A shard of `count` windows, and a tail that fills none."""
    return [[1] * (LENGTH - 1) + [0]] * count + [[1, 0]]


# Requests


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {}}, "name held-out text under evaluation.targets"),
        ({"score.online": True}, "score.online: compare scores the corpus once"),
        (
            {"evaluation.targets": [{"path": "t.jsonl", "name": "general"}, {"path": "u.jsonl"}]},
            "a text is called 'general', as the report calls all such text",
        ),
        ({"train.tokens": 31}, "train.tokens: a budget of 31 tokens is below one step of 32"),
        ({"train.selection.warmup_steps": 4}, "warmup_steps: 4 steps of plain training, and an arm has only 4"),
        ({"context.length": 65, "train.tokens": 640}, "context.length 65 is above"),
        ({"train.trainer.learning_rat": 1.0}, "unknown option 'learning_rat'"),
        ({"compare.arms": ["clm", "weak"], "compare.weak_tokens": 31}, "reference.tokens: a budget of 31 tokens"),
        ({"compare.arms": ["clm", "weak"], "reference.tokens": 319}, "reference.tokens: a budget of 31 tokens"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    made = recipe(changes=changes)
    with pytest.raises(UserError) as caught:
        stages.check_request(made, comparison_arms(made))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("compare", "told"),
    [
        ({}, []),
        ({"seeds": [0, 1]}, ["2 seeds: intervals from so few are very wide"]),
        ({"seeds": [7]}, ["one seed: nothing here says how much of a difference is chance"]),
        ({"arms": ["slm", "random"]}, ["no arm clm: whether selection is better than ordinary training"]),
        ({"arms": ["clm", "weak"]}, ["no arm random: whether it matters which tokens are kept"]),
        ({"arms": ["clm", "random"]}, ["no selective arm: this comparison says nothing of selection"]),
        ({"arms": ["clean", "mixed"], "seeds": [1]}, ["one seed", "no selective arm", "no arm clm", "no arm random"]),
    ],
)
def test_what_will_say_little_is_told_with_its_cure(compare: dict[str, Any], told: list[str]) -> None:
    made = recipe(changes={f"compare.{key}": value for key, value in compare.items()})
    warnings = stages.check_request(made, comparison_arms(made))
    assert len(warnings) == len(told)
    for warning, start in zip(warnings, told, strict=True):
        assert warning.startswith(start) and "compare." in warning


# References


def names(changes: dict[str, Any]) -> list[tuple[str, str, int]]:
    made = recipe(changes=changes)
    found = stages.reference_recipes(made, comparison_arms(made))
    return [(item.reference.name, item.score.name, item.seed) for item in found]


def test_each_reference_that_an_arm_reads_is_made_once() -> None:
    assert names({"compare.seeds": [0, 1, 2]}) == [("reference", "reference", 5)]  # of the recipe's own seed
    assert names({"compare.arms": list(COMPARE_ARMS), "compare.ratios": [0.3, 0.4]}) == [
        ("reference", "reference", 5),
        ("weak", "weak", 5),
        ("self", "self", 5),
    ]
    assert names({"train.selection.score": "current_loss"}) == []
    assert names({"train.selection.score": "current_loss", "compare.scores": ["current_loss", "excess_loss"]}) == [
        ("reference", "reference", 5)
    ]


def test_a_reference_for_each_seed_is_trained_with_that_seed() -> None:
    per_seed = {"compare.reference_per_seed": True, "compare.seeds": [7, 9], "score.name": "reference-512"}
    assert names(per_seed) == [
        ("reference-seed-7", "reference-seed-7-512", 7),
        ("reference-seed-9", "reference-seed-9-512", 9),
    ]
    found = names({**per_seed, "compare.arms": ["clm", "slm", "weak"], "score.name": "reference"})
    assert {name for name, _, _ in found} == {
        f"{name}-seed-{seed}" for name in ("reference", "weak") for seed in (7, 9)
    }
    assert all(name.endswith(f"-{seed}") for name, _, seed in found)


def test_the_weaker_reference_s_recipe_has_its_budget_and_every_other_setting() -> None:
    made = recipe(changes={"compare.arms": ["clm", "weak", "self"]})
    plain, weak, own = stages.reference_recipes(made, comparison_arms(made))
    assert (plain.reference.tokens, weak.reference.tokens, own.reference.tokens) == (640, 64, 128)
    assert own.clean_store == "corpus" and weak.clean_store == plain.clean_store == "clean"
    assert plain.train == weak.train == own.train and plain.reference.trainer == weak.reference.trainer


def test_entropy_is_stored_where_an_arm_reads_it() -> None:
    made = recipe(changes={"score.entropy": True, "compare.scores": ["excess_loss", "reference_entropy"]})
    assert [item.score.entropy for item in stages.reference_recipes(made, comparison_arms(made))] == [True]
    made = recipe()
    assert [item.score.entropy for item in stages.reference_recipes(made, comparison_arms(made))] == [False]


# Mixed text


def mixed_world(folder: Path, make_store: MakeStore, weights: tuple[float | None, ...], **compare: Any) -> Any:
    """A corpus of 82 and 242 tokens, clean text of 42 and 122."""
    make_store(folder / "corpus", [windows(10), windows(30)], sources=[0, 1], weights=weights)
    make_store(folder / "clean", [windows(5), windows(15)], sources=[0, 1], weights=(None, None))
    sources = [{"path": f"{name}.jsonl"} for name in ("a", "b")]
    for source, weight in zip(sources, weights, strict=True):
        source |= {"regions_field": "kinds", "weight": weight} if weight is not None else {"regions_field": "kinds"}
    clean = [{"path": "gold.jsonl", "regions_field": "kinds"}, {"path": "silver.jsonl", "every": 2}]
    changes = {"corpus.sources": sources, "reference.sources": clean, "compare.arms": ["clm", "mixed"]}
    return recipe(folder, changes | {f"compare.{key}": value for key, value in compare.items()})


@pytest.mark.parametrize(
    ("weights", "within"),
    [
        ((None, None), (82 / 324, 242 / 324)),  # by their tokens
        ((3.0, 1.0), (0.75, 0.25)),  # as the user weighted them
    ],
)
def test_the_clean_text_has_its_share_and_the_rest_is_mixed_as_before(
    tmp_path: Path, make_store: MakeStore, weights: tuple[float | None, ...], within: tuple[float, float]
) -> None:
    made = mixed_world(tmp_path, make_store, weights, mixed_share=0.3)
    found = stages.mixed_sources(made)
    assert [source.weight for source in found] == pytest.approx(
        [0.7 * within[0], 0.7 * within[1], 0.3 * 42 / 164, 0.3 * 122 / 164]
    )
    assert sum(source.weight for source in found) == pytest.approx(1)
    assert [source.label for source in found] == ["a", "b", "clean-gold", "clean-silver"]
    assert [source.regions_field for source in found] == ["kinds", "kinds", None, None]
    assert [source.every for source in found] == [1, 1, 1, 2] and found[2].path == "gold.jsonl"


def test_without_a_share_the_clean_text_has_that_of_its_tokens(tmp_path: Path, make_store: MakeStore) -> None:
    made = mixed_world(tmp_path, make_store, (None, None))
    assert stages.mixed_share(made) == 164 / (164 + 324)
    assert sum(source.weight for source in stages.mixed_sources(made)[2:]) == pytest.approx(stages.mixed_share(made))
    assert stages.mixed_share(mixed_world(tmp_path / "given", make_store, (None, None), mixed_share=0.9)) == 0.9


def test_very_little_clean_text_still_has_a_share(tmp_path: Path, make_store: MakeStore) -> None:
    """Below one in 20,000 tokens the share rounds to 0, and a bare ValueError comes up."""
    make_store(tmp_path / "corpus", [[[1] * 49_999 + [0]]])
    make_store(tmp_path / "clean", [[[1, 0]]])
    made = recipe(tmp_path, {"compare.arms": ["clm", "mixed"]})
    found = stages.mixed_sources(made)
    assert found[-1].weight == pytest.approx(2 / 50_002, rel=0.1)


# Overlap and seconds


def test_overlap_is_looked_for_once_in_all_text_that_arms_or_references_read(tmp_path: Path, monkeypatch: Any) -> None:
    make_stores(tmp_path)
    made = recipe(tmp_path)
    looked = []

    def look(targets: dict[str, Any], training: list[TokenStore]) -> dict[str, Any]:
        looked.append((sorted(targets), [store.folder.name for store in training]))
        return {"ngram": 13, "targets": {}}

    monkeypatch.setattr(stages, "find_overlap", look)
    found = stages.overlap(made)
    assert looked == [(["held-out"], ["corpus", "clean"])]
    assert stages.overlap(made) == found and len(looked) == 1
    # Whatever the arms, so that more of them may be added.
    stages.overlap(recipe(tmp_path, {"compare.arms": ["clm", "random"]}))
    assert len(looked) == 1


def test_seconds_of_the_shared_stages_are_those_of_their_manifests(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"compare.arms": ["clm", "slm", "weak"]})
    corpus = make_stores(tmp_path)
    for key, seconds in (("slm", 3.0), ("weak", 4.0)):
        scores = [np.ones(shard.tokens) for shard in corpus.shards]
        make_scores(arms_of(made)[key].recipe, corpus, scores, seconds=seconds)
    write_manifest(tmp_path / "corpus" / "corpus.json", {"inputs": {}, "finished": True, "seconds": 9.5, "outputs": {}})
    assert stages.stage_seconds(made, comparison_arms(made)) == {
        "tokenize": 9.5, "reference": 2.0, "scores reference": 3.0, "weak": 2.0, "scores weak": 4.0
    }  # fmt: skip


# The probe


def probe(folder: Path, make_store: MakeStore, sizes: list[int], wanted: int, sources: list[int] | None = None) -> Any:
    count = max(sources or [0]) + 1
    make_store(folder / "corpus", [windows(size) for size in sizes], sources=sources, weights=(None,) * count)
    return stages.probe_numbers(recipe(folder, {"compare.probe_windows": wanted}))


@pytest.mark.parametrize(
    ("size", "wanted", "count"),
    [(100, 4, 4), (100, 10, 10), (100, 64, 10), (40, 64, 4), (10, 64, 1), (1000, 64, 64), (100, 1, 1)],
)
def test_the_probe_has_as_many_windows_as_asked_and_at_most_a_tenth(
    tmp_path: Path, make_store: MakeStore, size: int, wanted: int, count: int
) -> None:
    found = probe(tmp_path, make_store, [size], wanted)
    assert len(found) == count == len(set(found.tolist()))
    # The middle of equal parts.
    assert found.tolist() == [int((i + 0.5) * size / count) for i in range(count)]


@pytest.mark.parametrize("sizes", [[9], [1], [0, 3], [0]])
def test_a_corpus_that_is_too_small_has_no_probe(tmp_path: Path, make_store: MakeStore, sizes: list[int]) -> None:
    assert probe(tmp_path, make_store, sizes, 64) is None


def test_each_source_gives_its_share_and_a_small_one_gives_none(tmp_path: Path, make_store: MakeStore) -> None:
    found = probe(tmp_path, make_store, [60, 9, 20, 40], 64, sources=[0, 1, 2, 0])
    # Windows 0-59 and 89-128 are of source 0, 60-68 of source 1, 69-88 of source 2.
    of_source = [0 if n < 60 or n >= 89 else 1 if n < 69 else 2 for n in found.tolist()]
    assert [of_source.count(source) for source in range(3)] == [10, 0, 2]
    assert (np.diff(found) > 0).all()
    assert sum(n >= 89 for n in found) == 4  # spread over both of its shards


def test_the_probe_is_the_same_for_every_seed_and_arm(tmp_path: Path, make_store: MakeStore) -> None:
    first = probe(tmp_path, make_store, [70, 30], 8)
    for changes in ({"seed": 9}, {"compare.seeds": [4]}, {"compare.arms": ["clm", "weak"]}, {"train.tokens": 999}):
        again = stages.probe_numbers(recipe(tmp_path, {"compare.probe_windows": 8, **changes}))
        assert again.tolist() == first.tolist()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    wanted=st.integers(1, 80),
)
def test_what_is_held_out_leaves_every_source_windows_to_train_on(
    tmp_path_factory: pytest.TempPathFactory, make_store: MakeStore, sizes: list[int], wanted: int
) -> None:
    folder = tmp_path_factory.mktemp("probe")
    found = probe(folder, make_store, sizes, wanted, sources=list(range(len(sizes))))
    if found is None:
        return
    assert len(found) <= wanted + len(sizes)  # rounded for each source
    order = sample_order(TokenStore(folder / "corpus"), LENGTH, 3 * sum(sizes), seed=1, held_out=found)
    assert not set((order % sum(sizes)).tolist()) & set(found.tolist())
    assert set((order % sum(sizes)).tolist()) | set(found.tolist()) == set(range(sum(sizes)))


@pytest.mark.parametrize("size", [15, 59])
def test_no_source_gives_more_than_a_tenth(tmp_path: Path, make_store: MakeStore, size: int) -> None:
    """The share is rounded to the nearest window: 15 windows give 2, although it says at most."""
    found = probe(tmp_path, make_store, [size], 64)
    assert len(found) <= 0.1 * size
