"""The arms share what decides how much is trained on and when; they differ in which tokens."""

from pathlib import Path

import numpy as np
import pytest

from tokensieve.corpus.store import TokenStore
from tokensieve.recipe import Recipe, build
from tokensieve.selection import SelectionPolicy
from tokensieve.training.arms import arm_policy, training_windows


def recipe(selection: dict, out: str = "run") -> Recipe:
    data = {
        "out": out,
        "seed": 3,
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": "a.jsonl"}]},
        "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 1},
        "context": {"length": 8},
        "train": {"tokens": 64, "selection": selection, "trainer": {"per_device_train_batch_size": 2, "use_cpu": True}},
    }
    return build(Recipe, data, "recipe")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (
            {"ratio": 0.5, "scope": "document", "alpha": 0.7, "warmup_steps": 4, "ratio_schedule": [[0, 1], [9, 0.5]]},
            {"ratio": 0.5, "scope": "document", "alpha": 0.7, "warmup_steps": 4, "ratio_schedule": ((0, 1), (9, 0.5))},
        ),
        ({"ratio": 0.4, "threshold": 0.1}, {"ratio": 0.4}),
        ({"ratio": 0.4, "temperature": 2.0, "scope": "sequence"}, {"ratio": 0.4, "scope": "sequence"}),
        ({"reference_loss_cap": 5.0}, {}),
        (
            {"score": "union", "ratio": 0.7, "parts": [{"score": s, "ratio": 0.5} for s in ("random", "current_loss")]},
            {"ratio": 0.7},
        ),
    ],
)
def test_the_random_arm_trains_on_as_much_at_the_same_time(selection: dict, expected: dict) -> None:
    assert arm_policy(recipe(selection), "random") == SelectionPolicy("random", seed=3, **expected)


def test_the_other_arms_are_the_recipe_s_policy_and_plain_training() -> None:
    made = recipe({"ratio": 0.5, "warmup_steps": 4, "threshold": 1.0})
    assert arm_policy(made, "slm") == SelectionPolicy(ratio=0.5, warmup_steps=4, threshold=1.0, seed=3)
    plain = arm_policy(made, "clm")
    assert plain.selects_everything and not plain.follows_steps and plain.columns == ()


@pytest.mark.parametrize("scope", ["document", "global"])
def test_windows_carry_document_ids_where_the_policy_keeps_whole_documents(
    scope: str, tmp_path: Path, store: TokenStore
) -> None:
    (tmp_path / "corpus").symlink_to(store.folder)
    windows = training_windows(recipe({"score": "current_loss", "scope": scope}, str(tmp_path)))
    batch = windows.__getitems__(range(4))
    assert ("document_ids" in batch) == (scope == "document")
    if scope == "document":
        ids, index = batch["document_ids"].numpy(), batch["token_index"].numpy()
        ends = np.concatenate([store.document_ends(i).astype(int) + s.start for i, s in enumerate(store.shards)])
        np.testing.assert_array_equal(ids, np.searchsorted(ends, index % store.tokens, side="right"))
