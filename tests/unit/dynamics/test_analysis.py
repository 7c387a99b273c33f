"""dynamics.json from losses made by hand: its shape, its numbers, and what it says where something is missing."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.compare.world import recipe
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tokensieve.corpus.pieces import token_pieces
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.token_classes import CLASSES
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.dynamics import analysis
from tokensieve.dynamics.analysis import analyse
from tokensieve.dynamics.categories import CATEGORIES
from tokensieve.dynamics.trajectories import Checkpoint, Measured, Trajectory
from tokensieve.errors import UserError

T = 8
WORDS = "selective training keeps the tokens that are worth learning and drops noise "
LABELS = {"clm": "Plain training", "slm": "Selective training"}


@pytest.fixture(scope="module")
def tokenizer(bpe_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(bpe_folder)


@pytest.fixture
def windows(tmp_path: Path, make_store: Callable[..., TokenStore], tokenizer: PreTrainedTokenizerBase) -> Windows:
    """Twelve windows of two sources with two regions; only every second one is measured."""
    ids = tokenizer.encode(WORDS * 20)[: T * 12]
    shards = [[ids[:30], ids[30:48]], [ids[48:96]]]
    store = make_store(
        tmp_path / "store", shards, sources=[0, 1], weights=(None, None), regions=("other", "noise"), vocab_size=330
    )
    return Windows(store, T, order=np.arange(0, 12, 2))


def live_of(windows: Windows) -> np.ndarray:
    return (windows.__getitems__(list(range(len(windows))))["labels"] != IGNORED).numpy().reshape(-1)


def trajectory(losses: np.ndarray, known: bool = True) -> Trajectory:
    points = tuple(Checkpoint(f"c{i + 1}", 100 * (i + 1) if known else None) for i in range(len(losses)))
    return Trajectory(points, tuple(losses.astype(np.float16)))


def measured(windows: Windows, C: int = 4, seed: int = 0) -> Measured:
    draw = np.random.default_rng(seed)
    live = live_of(windows)

    def column(scale: float) -> np.ndarray:
        return np.where(live, draw.exponential(scale, len(live)), np.nan)

    base = column(3)
    clm = np.stack([base * draw.choice([1, 1, 1.1, 0.8], len(live)) ** i for i in range(C)])
    slm = np.stack([base + column(0.5) - 0.1 * i for i in range(C + 1)]).clip(min=0)
    runs = {"clm": trajectory(clm), "slm": trajectory(slm)}
    return Measured(windows, runs, column(3).astype(np.float16), column(2).astype(np.float16))


Analyse = Callable[..., tuple[dict[str, Any], np.ndarray]]


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerBase) -> Analyse:
    def made(found: Measured, changes: dict[str, Any] | None = None, **options: Any) -> tuple[dict, np.ndarray]:
        settings: dict[str, Any] = {
            "policy_arm": "slm",
            "target_curves": {"clm": [[0, 5.0], [400, 4.0]], "other": [[0, 1.0]]},
            "sweep": None,
            "accuracies": None,
            "tasks": [],
            "labels": LABELS,
            "warnings": ["mind this"],
            "description": "held-out windows",
            "tokenizer": tokenizer,
            "change": 0.2,
            "level": None,
            "examples": 2,
        }
        result, categories = analyse(found, recipe("folder/run", changes), **{**settings, **options})
        json.dumps(result, allow_nan=False)  # plain data
        return result, categories

    return made


def test_the_contract(run: Analyse, windows: Windows) -> None:
    found, categories = run(measured(windows))
    assert list(found) == [
        "format", "title", "versions", "recipe", "warnings", "text", "thresholds", "runs", "categories",
        "trajectories", "paper_trajectories", "fluctuation", "fluctuating", "selection", "split", "over_time",
        "sweep", "accuracy", "examples", "not_shown",
    ]  # fmt: skip
    live = live_of(windows)
    assert found["format"] == 1 and found["title"] == "Training dynamics: run"
    assert found["recipe"]["context"]["length"] == T and found["warnings"] == ["mind this"]
    assert found["text"] == {"description": "held-out windows", "tokens": int(live.sum()), "windows": 6, "length": T}
    assert found["thresholds"] == {"change": 0.2, "level": found["runs"]["clm"]["loss"][-1], "level_is_mean": True}
    assert found["runs"]["clm"]["label"] == "Plain training"
    assert found["runs"]["clm"]["checkpoints"][1] == {"name": "c2", "tokens": 200}
    assert list(found["runs"]) == list(found["trajectories"]) == list(found["fluctuation"]) == ["clm", "slm"]
    for part in (found["categories"], found["paper_trajectories"], found["selection"]["kept"]):
        assert list(part) == list(CATEGORIES)
    assert (categories != 255).tolist() == live.tolist()
    assert found["categories"]["high_to_low"]["paper"] == {"TinyLlama-1.1B": 0.26, "Mistral-7B": 0.28}
    for model in ("TinyLlama-1.1B", "Mistral-7B"):
        assert sum(found["categories"][key]["paper"][model] for key in CATEGORIES) == pytest.approx(1)


def test_shares_and_trajectories_are_those_of_the_categories(run: Analyse, windows: Windows) -> None:
    given = measured(windows)
    found, categories = run(given)
    for i, key in enumerate(CATEGORIES):
        own = categories == i
        assert found["categories"][key]["tokens"] == own.sum()
        assert found["categories"][key]["share"] == own.sum() / live_of(windows).sum()
        for arm, line in found["trajectories"].items():
            means = [column[own].astype(float).mean() for column in given.runs[arm].losses]
            assert line[key] == pytest.approx(means) if own.any() else line[key] is None
    assert len(set(categories.tolist())) >= 4


def test_groups_are_counted_under_the_token_itself(
    run: Analyse, windows: Windows, tokenizer: PreTrainedTokenizerBase
) -> None:
    found, categories = run(measured(windows))
    live = live_of(windows)
    sources = np.repeat(["s0", "s0", "s0", "s1", "s1", "s1"], T)
    places = np.concatenate([np.arange(T) + T * 2 * i for i in range(3)] * 2)
    regions = np.array(["other", "noise"])[places % 2]
    for number, key in enumerate(CATEGORIES):
        for name, of in (("source", sources), ("region", regions)):
            rows = {row["name"]: row for row in found["categories"][key]["by"][name]}
            assert set(rows) == set(of.tolist())
            for group, row in rows.items():
                own = live & (of == group)
                assert (row["tokens"], row["share"]) == (own.sum(), (categories[own] == number).mean())
        classes = found["categories"][key]["by"]["class"]
        assert {row["name"] for row in classes} <= set(CLASSES)
        assert sum(row["tokens"] for row in classes) == live.sum()
        assert set(found["categories"][key]["by"]) == {"source", "region", "class"}
    assert sum(found["categories"][key]["by"]["class"][0]["share"] for key in CATEGORIES) == pytest.approx(1)


def kept_by_hand(given: Measured, column: np.ndarray, ratio: float) -> np.ndarray:
    """The candidates with the highest excess, in float64 and in the order of the text."""
    assert given.reference is not None
    live = np.flatnonzero(given.candidates)
    excess = column[live].astype(float) - given.reference[live].astype(float)
    kept = np.zeros(len(column), dtype=bool)
    kept[live[np.argsort(-excess, kind="stable")[: math.floor(ratio * len(live) + 0.5)]]] = True
    return kept


@pytest.mark.parametrize("ratio", [0.25, 0.6])
def test_the_policy_is_applied_to_the_whole_text_at_each_checkpoint(
    run: Analyse, windows: Windows, tokenizer: PreTrainedTokenizerBase, ratio: float
) -> None:
    given = measured(windows)
    found, categories = run(given, {"train.selection.ratio": ratio})
    selection = found["selection"]
    assert (selection["arm"], selection["score"], selection["ratio"]) == ("slm", "excess_loss", ratio)
    kept = [kept_by_hand(given, column, ratio) for column in given.runs["slm"].losses]
    for i, key in enumerate(CATEGORIES):
        own = categories == i
        assert selection["kept"][key] == (pytest.approx([row[own].mean() for row in kept]) if own.any() else None)
    for passage in found["examples"]:
        shown = [token["kept"] for token in passage["tokens"]]
        number = next(
            i for i in range(6) if texts(windows, tokenizer, i) == [token["text"] for token in passage["tokens"]]
        )
        wanted = [bool(k) if a else None for k, a in zip(kept[-1], given.candidates, strict=True)]
        assert shown == wanted[number * T : (number + 1) * T]
    # Figure 8: the same sets, followed through the run.
    assert [item["at"] for item in found["over_time"]["sets"]] == [100, 200, 300, 400, 500]
    for row, item in zip(kept, found["over_time"]["sets"], strict=True):
        losses = [float(np.exp(column[row].astype(float).mean())) for column in given.runs["slm"].losses]
        assert [x for x, _ in item["curve"]] == [100, 200, 300, 400, 500]
        assert [y for _, y in item["curve"]] == pytest.approx(losses)


def texts(windows: Windows, tokenizer: PreTrainedTokenizerBase, number: int) -> list[str]:
    return token_pieces(tokenizer, windows[number]["input_ids"].tolist())


def test_warm_up_and_schedule_are_over(run: Analyse, windows: Windows) -> None:
    given = measured(windows)
    plain, _ = run(given)
    late, _ = run(given, {"train.selection.warmup_steps": 3, "train.selection.ratio_schedule": [[0, 1.0], [4, 0.5]]})
    assert late["selection"]["kept"] == plain["selection"]["kept"]


@pytest.mark.parametrize("score", ["random", "reference_loss", "current_loss"])
def test_other_scores_are_applied_as_well(run: Analyse, windows: Windows, score: str) -> None:
    given = measured(windows)
    found, categories = run(given, {"train.selection.score": score, "train.selection.ratio": 0.5})
    counts = [found["categories"][key]["tokens"] for key in CATEGORIES]
    for at in range(5):
        kept = sum(n * found["selection"]["kept"][key][at] for n, key in zip(counts, CATEGORIES, strict=True) if n)
        assert kept == pytest.approx(math.floor(sum(counts) / 2 + 0.5))
    told = " ".join(found["not_shown"])
    assert (found["over_time"] is None) == (score != "current_loss") == ("does not follow the model" in told)
    assert (found["examples"][0]["tokens"][1]["tendency"] is None) == (score != "current_loss")


def test_whole_documents_are_kept_under_scope_document(run: Analyse, windows: Windows) -> None:
    given = measured(windows)
    found, _ = run(given, {"train.selection.scope": "document", "train.selection.ratio": 0.7}, examples=6)
    shown = [{token["kept"] for token in passage["tokens"][1:]} - {None} for passage in found["examples"]]
    # One window holds the end of a document and the beginning of another.
    assert sum(len(kinds) == 1 for kinds in shown) >= len(shown) - 1 and {True} in shown and {False} in shown


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train.selection.score": "current_entropy"}, "reads entropy, and only losses are measured"),
        (
            {"train.selection.score": "reference_entropy", "score.entropy": True},
            "reads reference_entropy, and only losses are measured",
        ),
        ({"train.selection.ratio": 1.0}, "the policy keeps every token"),
    ],
)
def test_a_policy_that_cannot_be_applied_is_named(
    run: Analyse, windows: Windows, changes: dict[str, Any], told: str
) -> None:
    found, _ = run(measured(windows), changes)
    assert found["selection"] is None and found["over_time"] is None
    assert any(told in line for line in found["not_shown"])
    assert all(token["kept"] is None for passage in found["examples"] for token in passage["tokens"])


def test_what_is_missing_is_null_and_named(run: Analyse, windows: Windows) -> None:
    given = measured(windows)
    bare = replace(given, start=None, reference=None)
    found, _ = run(bare)
    assert [found[key] for key in ("selection", "split", "over_time", "sweep", "accuracy")] == [None] * 5
    told = "\n".join(found["not_shown"])
    for figure in ("figures 8, 13 and 14", "figure 6", "figure 7", "figure 9"):
        assert figure in told
    found, _ = run(given, policy_arm=None)
    assert found["selection"] is None and found["split"] is not None
    assert any("no selective run" in line for line in found["not_shown"])
    found, _ = run(given, sweep={"score": "excess_loss", "plain": None, "points": []})
    assert found["sweep"] == {"score": "excess_loss", "plain": None, "points": []}
    assert not any("figure 9" in line for line in found["not_shown"])


def test_split_is_decided_by_the_start_or_by_the_first_checkpoint(run: Analyse, windows: Windows) -> None:
    given = measured(windows)
    for start, by in ((given.start, "untouched start"), (None, "first checkpoint (c1) of Plain training")):
        found, _ = run(replace(given, start=start), {"train.selection.ratio": 0.4})
        split = found["split"]
        assert by in split["decided_by"] and split["selected_share"] == 0.4
        chosen = kept_by_hand(given, given.runs["clm"].losses[0] if start is None else start, 0.4)
        rest = given.candidates & ~chosen
        assert split["tokens"] == given.candidates.sum()
        for arm, curves in split["arms"].items():
            for side, own in (("selected", chosen), ("unselected", rest)):
                means = [column[own].astype(float).mean() for column in given.runs[arm].losses]
                assert [y for _, y in curves[side]] == pytest.approx(means)
        assert split["target"] == {"clm": [[0, 5.0], [400, 4.0]]}


def test_accuracy_is_set_against_the_losses_of_figure_6_and_fitted_over_all_arms(
    run: Analyse, windows: Windows
) -> None:
    given = measured(windows)
    split = run(given)[0]["split"]["arms"]
    exact = {arm: [math.log(-0.1 * loss + 1.9) for _, loss in curves["selected"]] for arm, curves in split.items()}
    found, _ = run(given, accuracies=exact, tasks=["sums"])
    accuracy = found["accuracy"]
    assert accuracy["tasks"] == ["sums"] and list(accuracy["arms"]) == ["clm", "slm"]
    assert accuracy["arms"]["slm"][2] == {
        "tokens": 300,
        "accuracy": exact["slm"][2],
        "selected": split["slm"]["selected"][2][1],
        "unselected": split["slm"]["unselected"][2][1],
    }
    assert accuracy["fit"]["selected"] == pytest.approx({"a": -0.1, "c": 1.9}, rel=1e-6)
    assert set(accuracy["fit"]["unselected"]) == {"a", "c"}


def test_tendency_is_the_fifth_of_the_score_at_four_moments(
    run: Analyse, windows: Windows, tokenizer: PreTrainedTokenizerBase
) -> None:
    given = measured(windows)
    found, _ = run(given, examples=6)
    slm = given.runs["slm"].losses
    # 33 and 66 % of 500 tokens lie nearest to 200 and 300.
    moments = [given.start, slm[1], slm[2], slm[4]]
    live = np.flatnonzero(given.candidates)
    levels = np.zeros((4, len(given.candidates)), dtype=int)
    for row, column in zip(levels, moments, strict=True):
        excess = (column.astype(float) - given.reference.astype(float))[live]
        row[live] = np.argsort(np.argsort(excess)) * 5 // len(live)
    shown = {tuple(token["text"] for token in passage["tokens"]): passage for passage in found["examples"]}
    seen = 0
    for number in range(6):
        passage = shown.get(tuple(texts(windows, tokenizer, number)))
        if passage is None:
            continue
        for i, token in enumerate(passage["tokens"]):
            at = number * T + i
            if token["tendency"] is not None:
                # On the very border a rank and a quantile may differ by one.
                assert np.abs(levels[:, at] - token["tendency"]).max() <= 1
                seen += int((levels[:, at] == token["tendency"]).sum())
    assert seen > 0.9 * 4 * 20
    every = [token["tendency"] for passage in found["examples"] for token in passage["tokens"] if token["tendency"]]
    assert {level for levels in every for level in levels} == {0, 1, 2, 3, 4}


def test_no_text_of_the_corpus_is_in_the_numbers_without_examples(
    run: Analyse, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = measured(windows)
    monkeypatch.setattr(analysis, "token_pieces", lambda tokenizer, ids: ["SECRET"] * len(ids))
    with_text, _ = run(given, examples=3)
    assert all("SECRET" in json.dumps(with_text[key]) for key in ("examples", "fluctuating"))
    without, _ = run(given, examples=0)
    assert "SECRET" not in json.dumps(without)
    assert without["examples"] == [] and without["fluctuating"] == {"low_to_low": [], "high_to_high": []}
    words = {word for text in strings(without) for word in text.split()}
    assert not words & {"worth", "learning", "drops"}
    assert any("dynamics.examples is 0" in line for line in without["not_shown"])
    # Nothing else depends on it.
    for key in ("categories", "selection", "split", "over_time", "trajectories", "fluctuation"):
        assert without[key] == with_text[key]


def strings(data: Any) -> list[str]:
    """Every string in plain data."""
    if isinstance(data, dict):
        return [text for key, value in data.items() for text in (key, *strings(value))]
    if isinstance(data, list):
        return [text for value in data for text in strings(value)]
    return [data] if isinstance(data, str) else []


@pytest.mark.parametrize("C", [2, 3, 7])
def test_any_number_of_checkpoints_from_two(run: Analyse, windows: Windows, C: int) -> None:
    found, _ = run(measured(windows, C))
    assert len(found["runs"]["clm"]["loss"]) == C and len(found["runs"]["slm"]["loss"]) == C + 1
    assert (C < 3) == any("fluctuation under Plain training" in line for line in found["not_shown"])
    assert (C < 3) == (found["fluctuation"]["clm"]["low_to_low"] is None)
    assert (C < 3) == (found["fluctuating"]["low_to_low"] == [])
    kept = next(shares for shares in found["selection"]["kept"].values() if shares)
    assert len(kept) == C + 1 and len(found["over_time"]["sets"]) == min(5, C + 1)


def test_checkpoints_without_token_counts_are_numbered(run: Analyse, windows: Windows) -> None:
    given = measured(windows)
    runs = {arm: trajectory(np.array(item.losses), known=False) for arm, item in given.runs.items()}
    found, _ = run(replace(given, runs=runs))
    assert found["runs"]["clm"]["checkpoints"][0] == {"name": "c1", "tokens": None}
    assert [x for x, _ in found["split"]["arms"]["clm"]["selected"]] == [1, 2, 3, 4]
    assert [item["at"] for item in found["over_time"]["sets"]] == [1, 2, 3, 4, 5]


def cut(given: Measured, arm: str, losses: tuple[np.ndarray, ...]) -> Measured:
    points = given.runs[arm].checkpoints[: len(losses)]
    return replace(given, runs={**given.runs, arm: Trajectory(points, losses)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: cut(m, "clm", m.runs["clm"].losses[:1]), "at least two"),
        (lambda m: cut(m, "slm", ()), "slm: no checkpoint was measured"),
        (lambda m: cut(m, "slm", tuple(c[:-1] for c in m.runs["slm"].losses)), "has 47 tokens"),
        (lambda m: replace(m, reference=m.reference[:-8]), "has 40 tokens"),
        (lambda m: Measured(m.windows, {"clm": trajectory(np.ones((2, 40)))}, None, None), "the measured text 48"),
        (lambda m: replace(m, reference=np.full(48, np.nan, dtype=np.float16)), "holds nan for token"),
        (lambda m: replace(m, start=np.ones(48, dtype=np.float16)), "holds 1.0 for token 0"),
    ],
)
def test_measurements_that_do_not_fit_are_refused(
    run: Analyse, windows: Windows, change: Callable[[Measured], Measured], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        run(change(measured(windows)))


def test_a_text_without_candidates_is_refused(run: Analyse, windows: Windows) -> None:
    nothing = trajectory(np.full((2, 48), np.nan))
    with pytest.raises(UserError, match="no token of the measured text has a loss"):
        run(Measured(windows, {"clm": nothing}, None, None), policy_arm=None)
