"""The paper's kinds of reference, from text to summary: curated, self-reference, weak to strong.

What a run selected is recorded while it trains and compared with what plain numpy chooses from the stored scores,
and losses with those of plain logits.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.recipe import ContextSection, load_recipe
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.store import ScoreStore
from tokensieve.training.keep_rates import KeepRates
from tokensieve.training.setup import load

LENGTH = 32


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def choices(monkeypatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(corpus position, candidate, selected) of every micro-step that is trained, each [B, T-1]."""
    found = []
    count = KeepRates.add

    def record(self, token_index, valid, selected):
        found.append(tuple(tensor.clone().numpy() for tensor in (token_index % self.store.tokens, valid, selected)))
        count(self, token_index, valid, selected)

    monkeypatch.setattr(KeepRates, "add", record)
    return found


def stored(out: Path, column: str) -> np.ndarray:
    """A score of every corpus token, [tokens] float32."""
    corpus = TokenStore(out / "corpus")
    scores = ScoreStore(out / "scores" / "reference", corpus, ContextSection(length=LENGTH))
    return np.concatenate([shard[:] for shard in scores.column(column)]).astype(np.float32)


def lowest(values: np.ndarray, share: float) -> np.ndarray:
    """The share of values that are lowest, [N] bool; of equal ones the first."""
    kept = np.zeros(len(values), dtype=bool)
    kept[np.argsort(values, kind="stable")[: int(np.floor(share * len(values) + 0.5))]] = True
    return kept


def logit_losses(model: Any, store: TokenStore) -> tuple[np.ndarray, np.ndarray]:
    """Positions and losses of all labelled tokens, from plain logits of unpacked documents."""
    windows = Windows(store, LENGTH)
    positions, losses = [], []
    model.eval()
    for i in range(len(windows)):
        row = windows[i]
        starts = [*np.flatnonzero(row["position_ids"] == 0), LENGTH]
        for begin, end in zip(starts, starts[1:], strict=False):
            ids = row["input_ids"][begin:end]
            with torch.no_grad():
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            assert (row["labels"][begin + 1 : end] != IGNORED).all()
            losses.append(F.cross_entropy(logits, ids[1:], reduction="none").numpy())
            positions.append(row["token_index"][begin + 1 : end].numpy())
    return np.concatenate(positions), np.concatenate(losses)


def student_of(recipe: dict[str, Any], tmp_path: Path) -> Any:
    """The student before its first step."""
    loaded = load_recipe(tmp_path / "recipe.yaml")
    return load(loaded, loaded.model)


def check_gate(gate: dict[str, Any], reference: Any, student: Any, store: TokenStore) -> None:
    """The gate's numbers are those of plain logits over all target tokens."""
    (_, of_reference), (_, of_student) = logit_losses(reference, store), logit_losses(student, store)
    found = gate["pooled"]
    assert found["tokens"] == len(of_reference)
    assert found["reference_loss"] == pytest.approx(of_reference.mean(), abs=1e-4)
    assert found["student_loss"] == pytest.approx(of_student.mean(), abs=1e-4)
    assert found["negative_excess"] == pytest.approx(np.mean(of_student < of_reference), abs=0.01)
    assert found["correlation"] == pytest.approx(np.corrcoef(of_reference, of_student)[0, 1], abs=1e-3)
    assert gate["targets"] == {"held-out": found}


def test_a_curated_reference_selects_the_highest_excess_loss(recipe, tokensieve, choices, tmp_path):
    code, _, error = tokensieve("run", recipe, "train.arms=[slm]")
    assert code == 0, error
    out = tmp_path / "run"
    student = student_of(recipe, tmp_path)
    position, valid, selected = choices[0]
    # In the first step the student is still the one that is loaded.
    places, losses = logit_losses(student, TokenStore(out / "corpus"))
    live = np.full(TokenStore(out / "corpus").tokens, np.nan, dtype=np.float32)
    live[places] = losses
    excess = (live - stored(out, "loss"))[position]
    assert selected.sum() == int(np.floor(0.5 * valid.sum() + 0.5)) and not (selected & ~valid).any()
    assert excess[selected].min() >= excess[valid & ~selected].max() - 1e-3
    assert excess[selected].min() > excess[valid].min() + 0.1
    summary = read(out / "summary.json")
    assert summary["arms"]["slm"]["tokens_selected"] == sum(kept.sum() for _, _, kept in choices)
    reference = AutoModelForCausalLM.from_pretrained(out / "reference")
    check_gate(summary["reference"]["gate"], reference, student, TokenStore(out / "targets" / "held-out"))
    assert summary["reference"]["target_loss"] == summary["reference"]["gate"]["pooled"]["reference_loss"]


PARTS = [{"score": "reference_entropy", "ratio": 0.7}, {"score": "reference_loss", "ratio": 0.5}]
SELF_REFERENCE: dict[str, dict[str, Any]] = {
    "reference_loss": {"score": "reference_loss", "ratio": 0.6},
    "reference_entropy": {"score": "reference_entropy", "ratio": 0.6},
    "intersection": {"score": "intersection", "ratio": 0.4, "parts": PARTS},
    "union": {"score": "union", "ratio": 0.8, "parts": PARTS},
}


@pytest.mark.parametrize("score", SELF_REFERENCE)
def test_self_reference_selects_by_the_stored_scores_alone(recipe, tokensieve, choices, tmp_path, score):
    recipe["reference"]["sources"] = [{"path": recipe["corpus"]["sources"][0]["path"]}]
    recipe["score"] = {"entropy": True}
    recipe["train"] |= {"selection": SELF_REFERENCE[score], "arms": ["slm"]}
    code, _, error = tokensieve("run", recipe)
    assert code == 0, error
    out = tmp_path / "run"
    # The reference learned the corpus itself: the same tokens.
    corpus, clean = (TokenStore(out / name) for name in ("corpus", "clean"))
    assert corpus.tokens == clean.tokens and np.array_equal(corpus.shard_tokens(0)[:], clean.shard_tokens(0)[:])
    loss, entropy = stored(out, "loss"), stored(out, "entropy")
    assert not np.array_equal(loss, entropy, equal_nan=True)
    assert len(choices) == 12
    kept = 0
    for position, valid, selected in choices:
        place, chosen = position[valid], selected[valid]
        by_loss = lowest(loss[place], 0.5 if "parts" in SELF_REFERENCE[score] else 0.6)
        by_entropy = lowest(entropy[place], 0.7 if "parts" in SELF_REFERENCE[score] else 0.6)
        expected = {
            "reference_loss": by_loss,
            "reference_entropy": by_entropy,
            "intersection": by_loss & by_entropy,
            "union": by_loss | by_entropy,
        }[score]
        assert not (selected & ~valid).any()
        assert np.array_equal(chosen, expected)
        if score == "intersection":
            assert (chosen <= by_loss).all() and (chosen <= by_entropy).all()
            assert 0 < chosen.sum() < min(by_loss.sum(), by_entropy.sum())
        if score == "union":
            assert (by_loss <= chosen).all() and (by_entropy <= chosen).all()
            assert len(chosen) > chosen.sum() > max(by_loss.sum(), by_entropy.sum())
        kept += int(chosen.sum())
    summary, run = read(out / "summary.json"), read(out / "models" / "slm" / "run.json")["outputs"]
    assert summary["arms"]["slm"]["tokens_selected"] == kept
    assert run["ratio_kept"] == pytest.approx(kept / sum(valid.sum() for _, valid, _ in choices))
    assert summary["arms"]["slm"]["target_loss"] < summary["reference"]["gate"]["pooled"]["student_loss"]


def test_a_weak_reference_chooses_for_a_stronger_student(recipe, tokensieve, choices, tmp_path):
    weak = recipe["model"]["fresh"]
    recipe["model"] = {"fresh": {**weak, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}}
    recipe["reference"]["model"] = {"fresh": weak}
    recipe["train"]["arms"] = ["slm"]
    code, _, error = tokensieve("run", recipe)
    assert code == 0, error
    out = tmp_path / "run"
    reference = AutoModelForCausalLM.from_pretrained(out / "reference")
    assert (reference.config.hidden_size, reference.config.num_hidden_layers) == (16, 1)
    trained = AutoModelForCausalLM.from_pretrained(out / "models" / "slm")
    assert (trained.config.hidden_size, trained.config.num_hidden_layers) == (32, 2)
    # The weak model's weights are bound: by the reference, and by the scores that it gave.
    digest = weights_digest(reference)
    numbers = read(out / "reference" / "reference.json")["outputs"]
    student = student_of(recipe, tmp_path)
    assert numbers["digest"] == digest and numbers["student_digest"] == weights_digest(student) != digest
    assert read(out / "scores" / "reference" / "scores.json")["inputs"]["reference"] == digest
    assert read(out / "models" / "slm" / "run.json")["inputs"]["scores"]["reference"] == digest
    # The stored scores are its losses.
    places, losses = logit_losses(reference, TokenStore(out / "corpus"))
    np.testing.assert_allclose(stored(out, "loss")[places], losses, atol=5e-3)
    summary = read(out / "summary.json")
    check_gate(summary["reference"]["gate"], reference, student, TokenStore(out / "targets" / "held-out"))
    assert summary["arms"]["slm"]["tokens_selected"] == sum(kept.sum() for _, _, kept in choices)
    # Scores of another weak model are not taken for its own.
    recipe["reference"]["existing"] = str(out / "models" / "slm")
    del recipe["reference"]["sources"], recipe["reference"]["epochs"]
    (out / "reference").rename(tmp_path / "weak")
    assert tokensieve("reference", recipe)[0] == 0
    code, _, error = tokensieve("train", recipe)
    assert code == 2 and "made by another reference" in " ".join(error.split())
