"""A user's mistake: one clear line that names file, place and cure, exit code 2, nothing half-written."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def fails(result: tuple[int, str, str], *words: str) -> None:
    code, _, error = result
    line = error.strip().splitlines()[-1]
    assert code == 2
    assert line.startswith("error: ") and "Traceback" not in error
    for word in words:
        assert word in line, line


def nothing_half_written(out: Path) -> None:
    """Every stage folder that exists is finished or can be resumed; nothing temporary stays."""
    if not out.exists():
        return
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp" or path.name.startswith("unit")]
    for folder in (
        path for path in out.iterdir() if path.is_dir() and path.name not in ("models", "targets", "scores")
    ):
        manifests = [json.loads(path.read_text()) for path in folder.glob("*.json") if path.name != "config.json"]
        whole = any(manifest.get("finished") for manifest in manifests)
        # ... or it can be resumed from a complete checkpoint
        assert whole or any(folder.glob("checkpoint-*/tokensieve.json")), list(folder.iterdir())
    for parent in ("models", "targets", "scores"):
        for folder in (out / parent).glob("*"):
            assert any(json.loads(path.read_text()).get("finished") for path in folder.glob("*.json"))


CORPUS_MISTAKES = {
    "missing file": (None, ["noisy.jsonl", "no such file"]),
    "invalid JSON": (b'{"text": "a"}\n{"text": \n', ["noisy.jsonl", "line 2", "JSON"]),
    "not an object": (b'{"text": "a"}\n[1]\n', ["noisy.jsonl", "line 2"]),
    "field absent": (b'{"text": "a"}\n{"txt": "b"}\n', ["noisy.jsonl", "line 2", "'text'", "txt"]),
    "field not a string": (b'{"text": 5}\n', ["noisy.jsonl", "line 1", "'text'", "not a string"]),
    "empty corpus": (b"", ["noisy.jsonl"]),
    "not UTF-8": (b'{"text": "caf\xe9"}\n', ["noisy.jsonl", "line 1", "UTF-8"]),
    "document too large": (json.dumps({"text": "x" * 1_200_000}).encode(), ["noisy.jsonl", "line 1", "1 MB"]),
}


@pytest.mark.parametrize("mistake", CORPUS_MISTAKES)
def test_a_corpus_that_cannot_be_read(recipe, tokensieve, tmp_path, mistake):
    data, words = CORPUS_MISTAKES[mistake]
    path = tmp_path / "noisy.jsonl"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    del recipe["corpus"]["sources"][0]["regions_field"]
    recipe["tokenizer"]["train_vocab"] = 257
    fails(tokensieve("run", recipe, "corpus.max_document_mb=1"), *words)
    nothing_half_written(Path(recipe["out"]))


def test_a_folder_that_is_no_file_and_a_torn_gzip(recipe, tokensieve, tmp_path):
    (tmp_path / "empty").mkdir()
    recipe["corpus"]["sources"] = [{"path": str(tmp_path / "empty")}]
    fails(tokensieve("tokenize", recipe), "empty", "no .jsonl")
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"text": "a b c"}\n' * 1000)[:-20])
    recipe["corpus"]["sources"] = [{"path": str(torn)}]
    fails(tokensieve("tokenize", recipe), "torn.jsonl.gz")
    nothing_half_written(Path(recipe["out"]))


@pytest.mark.parametrize(
    "override, words",
    [
        ("train.tokns=5", ["unknown key 'tokns'", "did you mean 'tokens'"]),
        ("train.selection.ratio=0", ["train: selection", "ratio must be in (0, 1]"]),
        ("train.selection.ratio=1.5", ["ratio must be in (0, 1]"]),
        ("train.selection.score=exces_loss", ["exces_loss", "excess_loss"]),
        ("train.selection.score=mask", ["mask", "make_selective"]),
        ("train.arms=[clm,slim]", ["unknown arm 'slim'"]),
        ("context.length=64", ["context.length 64", "32"]),
        ("train.trainer.learning_rat=1", ["train.trainer", "did you mean 'learning_rate'"]),
        ("train.tokens=10", ["train.tokens", "below one step of 128 tokens"]),
        ("corpus.sources.0.path=null", ["exactly one of path and hub"]),
        ("tokenizer.train_vocab=100000", ["train_vocab"]),
        ("model.fresh.model_type=lama", ["did you mean 'llama'"]),
    ],
)
def test_a_recipe_that_cannot_be(recipe, tokensieve, override, words):
    fails(tokensieve("run", recipe, override), *words)
    nothing_half_written(Path(recipe["out"]))


def test_a_recipe_file_that_is_missing_or_no_yaml(tokensieve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(tokensieve("run", None, "nowhere.yaml"), "nowhere.yaml", "cannot read the recipe")
    Path("bad.yaml").write_text("a: [1,")
    fails(tokensieve("run", None, "bad.yaml"), "bad.yaml", "not valid YAML")


def test_a_tokenizer_without_eos_or_larger_than_the_model(recipe, tokensieve, tmp_path):
    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), unk_token="a"
    )
    bare.save_pretrained(tmp_path / "bare")
    recipe["tokenizer"] = {"name": str(tmp_path / "bare")}
    fails(tokensieve("tokenize", recipe), "bare", "end")
    recipe["tokenizer"] = {"train_vocab": 300}
    recipe["model"]["fresh"]["vocab_size"] = 290
    fails(tokensieve("run", recipe), "vocab_size 290", "300")
    nothing_half_written(Path(recipe["out"]))


def test_an_output_folder_of_another_recipe(recipe, tokensieve):
    assert tokensieve("tokenize", recipe)[0] == 0
    out = Path(recipe["out"])
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    fails(tokensieve("tokenize", recipe, "tokenizer.train_vocab=320"), "belongs to another recipe", "300", "320")
    fails(tokensieve("tokenize", recipe, "corpus.shard_tokens=5000"), "corpus.json", "belongs to another recipe")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_model_folder_with_pickled_weights(recipe, tokensieve, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    torch.save({}, folder / "pytorch_model.bin")
    recipe["model"] = {"name": str(folder)}
    fails(tokensieve("run", recipe), "pickled weights", "pytorch_model.bin")
    nothing_half_written(Path(recipe["out"]))


def test_a_learning_rate_that_explodes_stops_with_step_and_documents(recipe, tokensieve):
    for stage in ("tokenize", "reference", "score"):
        assert tokensieve(stage, recipe)[0] == 0
    # Float32 overflows after a step of this size; the reference trained at a sane rate.
    result = tokensieve("train", recipe, "train.trainer.learning_rate=1e30", "train.arms=[slm]")
    fails(result, "NaN or infinite in step", "noisy shard 00000 document", "learning rate")
    nothing_half_written(Path(recipe["out"]))


@pytest.mark.parametrize("size", ["64k", "260k", "420k"])
def test_a_full_disk(recipe, tokensieve, tmp_path, size):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    try:
        recipe["out"] = str(small / "run")
        fails(tokensieve("run", recipe), str(small), "No space left on device")
        nothing_half_written(small / "run")
        for checkpoint in (small / "run").rglob("checkpoint-*"):
            assert (checkpoint / "tokensieve.json").exists()
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
