"""A reference with another tokenizer, from text to trained student: scored in its tokens, carried over, trained on."""

import json
from pathlib import Path

import numpy as np
import pytest

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.planning import plan
from tokensieve.recipe import ContextSection, load_recipe
from tokensieve.reference.store import ScoreStore


@pytest.fixture
def with_foreign_reference(recipe, tokensieve, tmp_path):
    """A recipe of vocabulary 300 whose reference was trained by another recipe, with vocabulary 330."""
    own = {**recipe, "out": str(tmp_path / "reference run"), "tokenizer": {"train_vocab": 330}}
    for command in ("tokenize", "reference"):
        code, _, error = tokensieve(command, own)
        assert code == 0, error
    recipe["reference"] = {"existing": str(tmp_path / "reference run" / "reference")}
    recipe["score"] = {"carry_over": True, "name": "carried"}
    return recipe


def test_a_student_is_trained_on_carried_scores(with_foreign_reference, tokensieve, tmp_path):
    data = {**with_foreign_reference, "train": {**with_foreign_reference["train"], "arms": ["slm"]}}
    code, _, error = tokensieve("run", data)
    assert code == 0, error
    corpus = TokenStore(tmp_path / "run" / "corpus")
    context = ContextSection(length=32)
    store = ScoreStore(tmp_path / "run" / "scores" / "carried", corpus, context)
    assert not list(store.verify())
    foreign = TokenStore(store.folder / "foreign" / "corpus")
    assert foreign.vocab_size == 330 and foreign.documents == corpus.documents and foreign.bytes == corpus.bytes
    theirs = ScoreStore(store.folder / "foreign" / "scores", foreign, context)
    ours, native = (
        sum(float(np.nansum(column[:].astype(np.float64))) for column in scores.column("loss"))
        for scores in (store, theirs)
    )
    assert ours == pytest.approx(native, rel=1e-4)
    labels = Windows(corpus, 32, columns={"reference_loss": store.column("loss")}).__getitems__([0, 1])["labels"]
    assert (labels != -100).float().mean() > 0.8
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["passages"] and report["reference"]["gate"]["pooled"] is None
    assert "the reference has a tokenizer of its own" in report["warnings"][0]
    assert not list((tmp_path / "run").rglob(".workers"))
    planned = plan(load_recipe(tmp_path / "recipe.yaml"), hardware="h100", devices=1)["storage"]
    assert planned["carried-over store"] == pytest.approx(4 * corpus.tokens / 1e9)
    lines = (tmp_path / "run" / "models" / "slm" / "metrics.jsonl").read_text().splitlines()
    assert any("ratio_kept" in json.loads(line) for line in lines)


def test_a_reference_of_the_corpus_tokenizer_has_nothing_to_carry(recipe, tokensieve, tmp_path):
    for command in ("tokenize", "reference"):
        assert tokensieve(command, {**recipe, "out": str(tmp_path / "reference run")})[0] == 0
    recipe["reference"] = {"existing": str(tmp_path / "reference run" / "reference")}
    recipe["tokenizer"] = {"name": str(tmp_path / "reference run" / "tokenizer")}
    recipe["score"] = {"carry_over": True}
    for command in ("tokenize", "reference"):
        assert tokensieve(command, recipe)[0] == 0
    code, _, error = tokensieve("score", recipe)
    assert code == 2
    assert "nothing to carry over; remove score.carry_over" in error
    assert not Path(tmp_path / "run" / "scores").exists() or not list((tmp_path / "run" / "scores").iterdir())


def test_a_reference_trained_in_the_same_recipe_is_refused(recipe, tokensieve):
    recipe["score"] = {"carry_over": True}
    code, _, error = tokensieve("run", recipe)
    assert code == 2 and "score.carry_over: a reference that is trained here" in error
    # Before an hour of tokenizing.
    assert not Path(recipe["out"]).exists()
    assert tokensieve("tokenize", recipe)[0] == 0
    code, _, error = tokensieve("reference", recipe)
    assert code == 2
    assert "score.carry_over" in error
