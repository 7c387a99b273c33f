"""A corpus of tokens that are there already: imported from another run's .ds files, then every stage on top of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokensieve.corpus.store import TokenStore
from tokensieve.planning import plan
from tokensieve.recipe import load_recipe


def words(text: str) -> str:
    """Without the line breaks of the console."""
    return " ".join(text.split())


@pytest.fixture
def imported(recipe: dict[str, Any], tokensieve: Callable, tmp_path: Path) -> dict[str, Any]:
    """The recipe on the .ds files of a run of another recipe, imported."""
    del recipe["corpus"]["sources"][0]["regions_field"]
    code, _, error = tokensieve("tokenize", recipe)
    assert code == 0, error
    (tmp_path / "run").rename(tmp_path / "other run")
    other, out = tmp_path / "other run", tmp_path / "tokens"
    options = ("--tokenizer", str(other / "tokenizer"), "--out", str(out))
    code, output, error = tokensieve("import", None, str(other / "corpus"), *options)
    assert code == 0 and "documents" in output, error
    recipe["corpus"] = {"existing": str(out / "corpus")}
    recipe["tokenizer"] = {"name": str(out / "tokenizer")}
    return recipe


def test_all_stages_run_on_imported_tokens(imported: dict[str, Any], tokensieve: Callable, tmp_path: Path) -> None:
    code, output, error = tokensieve("run", imported)
    assert code == 0, error
    out = tmp_path / "run"
    assert not (out / "corpus").exists()
    theirs, ours = TokenStore(tmp_path / "other run" / "corpus"), TokenStore(tmp_path / "tokens" / "corpus")
    for name in ("00000.ds", "00000.ds.index"):
        assert (theirs.folder / name).read_bytes() == (ours.folder / name).read_bytes()
    assert (ours.tokens, ours.bytes, ours.tokenizer) == (theirs.tokens, theirs.bytes, theirs.tokenizer)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["arms"]) == {"clm", "random", "slm"}
    assert summary["arms"]["slm"]["tokens_seen"] == 12 * 4 * 32
    assert 0 < summary["arms"]["slm"]["tokens_selected"] < 12 * 4 * 32
    manifest = json.loads((out / "models" / "slm" / "run.json").read_text())
    assert manifest["inputs"]["corpus"]["shards"] == [[shard.name, shard.tokens, shard.digest] for shard in ours.shards]
    report = json.loads((out / "report.json").read_text())
    assert report["regions"] is None and report["passages"]
    # Again: nothing is left to do, and another command finds what it needs.
    before = {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*") if path.is_file()}
    code, _, error = tokensieve("run", imported)
    assert code == 0, error
    assert {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*") if path.is_file()} == before


def test_the_commands_on_stores_find_the_corpus_of_such_a_run(
    imported: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    for command in ("tokenize", "reference", "score"):
        code, _, error = tokensieve(command, imported)
        assert code == 0, error
    scores = str(tmp_path / "run" / "scores" / "reference")
    for words_of in (
        ("verify", scores, "--sample", "3"),
        ("inspect", scores),
        ("export", scores, str(tmp_path / "a.jsonl"), "--keep", "0.5"),
    ):
        code, _, error = tokensieve(words_of[0], None, *words_of[1:])
        assert code == 0, error
    lines = [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    texts = {json.loads(line)["text"] for line in (tmp_path / "noisy.jsonl").read_text().splitlines()}
    assert 0 < len(lines) < len(texts) and set(lines) <= texts


def test_another_tokenizer_than_the_corpus_was_made_with_is_refused(
    imported: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    own = {**imported, "out": str(tmp_path / "third"), "tokenizer": {"train_vocab": 310}}
    own["corpus"] = {"sources": [{"path": str(tmp_path / "noisy.jsonl")}]}
    assert tokensieve("tokenize", own)[0] == 0
    imported["tokenizer"] = {"name": str(tmp_path / "third" / "tokenizer")}
    for command in ("tokenize", "run"):
        code, _, error = tokensieve(command, imported)
        assert code == 2
        assert "made with another tokenizer (digest" in words(error) and "set tokenizer.name to the one" in words(error)
    assert not (tmp_path / "run" / "clean").exists() and not (tmp_path / "run" / "models").exists()


def test_a_corpus_that_changed_after_it_was_scored_is_refused(
    imported: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    for command in ("tokenize", "reference", "score"):
        code, _, error = tokensieve(command, imported)
        assert code == 0, error
    write = tmp_path / "noisy.jsonl"
    lines = write.read_text().splitlines(keepends=True)
    write.write_text("".join(lines[::-1]))
    again = {**imported, "out": str(tmp_path / "again"), "corpus": {"sources": [{"path": str(write)}]}}
    assert tokensieve("tokenize", again)[0] == 0
    code, _, error = tokensieve("train", imported, f"corpus.existing={tmp_path / 'again' / 'corpus'}")
    assert code == 2 and "corpus" in words(error)
    assert not (tmp_path / "run" / "models").exists()


def test_its_size_is_known_to_the_plan_and_it_takes_no_room(
    imported: dict[str, Any], tokensieve: Callable, tmp_path: Path
) -> None:
    code, _, error = tokensieve("plan", imported, "plan.clean_tokens=1000")
    assert code == 0, error
    planned = plan(load_recipe(tmp_path / "recipe.yaml"), hardware="h100", devices=1, clean_tokens=1000)
    assert planned["corpus_tokens"] == TokenStore(tmp_path / "tokens" / "corpus").tokens
    assert planned["storage"]["token store"] == 0 < planned["storage"]["score store"]
    missing = {**imported, "corpus": {"existing": str(tmp_path / "nowhere")}}
    code, _, error = tokensieve("plan", missing, "plan.clean_tokens=1000")
    assert code == 2 and "nowhere" in error and "plan.corpus_tokens=NUMBER" in words(error)
    code, _, error = tokensieve("tokenize", missing)
    assert code == 2 and "nowhere" in error
