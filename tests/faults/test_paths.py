"""A path with spaces, letters of other scripts and signs that mean something to shells, globs and markup."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from tokensieve import cli
from tokensieve.corpus.store import TokenStore
from tokensieve.reference.store import ScoreStore

NAMES = ["ünïcödé 日本語 🙂", "[bold] $HOME 'quoted' *?{x}"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_up_to_scores_in_a_strange_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / name
    home.mkdir()
    for file, words in (
        ("corpus ü.jsonl", "one two three four five six seven eight "),
        ("clean text.jsonl", "one one two two "),
    ):
        lines = [json.dumps({"text": words * (i % 7 + 1)}) + "\n" for i in range(20)]
        (home / file).write_text("".join(lines), encoding="utf-8")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    recipe = {
        "out": str(home / "out put"),
        "corpus": {"sources": [{"path": str(home / "corpus ü.jsonl")}], "shard_tokens": 300},
        "tokenizer": {"train_vocab": 262},
        "context": {"length": 16},
        "model": {"fresh": {"model_type": "llama", "num_key_value_heads": 1, **sizes}},
        "reference": {
            "sources": [{"path": str(home / "clean text.jsonl")}],
            "epochs": 1,
            "trainer": {"per_device_train_batch_size": 4, "use_cpu": True},
        },
        "train": {"tokens": 1024, "trainer": {"per_device_train_batch_size": 4, "use_cpu": True}},
        "evaluation": {"targets": [{"path": str(home / "clean text.jsonl"), "name": "held-out"}]},
        "score": {"name": "näme"},
    }
    path = home / "my recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    for command in ("tokenize", "reference", "score", "score"):
        monkeypatch.setattr(sys, "argv", ["tokensieve", command, str(path)])
        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code, capsys.readouterr().err
    corpus = TokenStore(home / "out put" / "corpus")
    scores = ScoreStore(home / "out put" / "scores" / "näme", corpus)
    assert len(corpus.shards) > 3
    assert [*corpus.verify(), *scores.verify()] == []
    # A damaged shard is named with its path, and made again once it is removed.
    shard = scores.folder / "00001.loss.f16"
    before = shard.read_bytes()
    shard.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    assert [line.startswith(str(shard)) for line in scores.verify()] == [True]
    for part in scores.folder.glob("00001.*"):
        part.unlink()
    monkeypatch.setattr(sys, "argv", ["tokensieve", "score", str(path)])
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, capsys.readouterr().err
    assert shard.read_bytes() == before
