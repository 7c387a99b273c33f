"""The commands about stores: what they print, at 80 columns, and how they end."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from tokensieve import cli_stores
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.scoring import score_corpus
from tokensieve.reuse import verifying
from tokensieve.reuse.opening import open_store

RECIPE = """\
out: out
model: {name: a}
corpus: {existing: corpus}
reference: {existing: b}
train: {tokens: 64}
"""

app = typer.Typer()
app.command()(cli_stores.verify)
app.command()(cli_stores.inspect)
app.command()(cli_stores.export)
app.command("import")(cli_stores.import_tokens)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(cli_stores.console, "_width", 80)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> str:
    result = call(*words)
    assert isinstance(result.exception, UserError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_sound_stores(run):
    result = call("verify", run.corpus.folder, run.scores.folder)
    assert result.exit_code == 0
    assert result.stdout == f"{run.corpus.folder}: sound\n{run.scores.folder}: sound\n"


def test_every_damage_is_a_line(run):
    scores, corpus = run.scores.folder, run.corpus.folder
    flip(scores / "00001.loss.f16", 7)
    flip(scores / "00002.entropy.f16", 0)
    flip(corpus / "00000.ds.index", 3)
    (scores / "stray.f16").write_text("")
    result = call("verify", corpus, scores)
    lines = result.stdout.splitlines()
    assert [Path(line.split(":")[0]).name for line in lines] == [
        "00000.ds.index",
        "00001.loss.f16",
        "00002.entropy.f16",
        "stray.f16",
    ]
    assert str(result.exception).startswith("4 problems found; of scores, remove the damaged shards' files (NNNNN.*)")


def test_all_damage_of_a_store_that_does_not_open(run):
    scores = run.scores.folder
    (scores / "00001.loss.f16").write_bytes((scores / "00001.loss.f16").read_bytes()[:-2])
    (scores / "00002.entropy.f16").unlink()
    (scores / "00003.xxh3").unlink()
    one, two = scores / "00000.loss.f16", scores / "00000.entropy.f16"
    swapped = one.read_bytes(), two.read_bytes()
    one.write_bytes(swapped[1])
    two.write_bytes(swapped[0])
    text = call("verify", scores).stdout
    for name in ("00001.loss.f16: has", "00002.entropy.f16: is missing", "00003.xxh3: is missing"):
        assert f"{scores}/{name}" in text
    assert text.count("00000.") == 2 and text.count("differ from their checksum") == 2


def test_a_damaged_manifest_and_no_store(run, tmp_path):
    flip(run.corpus.folder / "corpus.json", 40)
    result = call("verify", run.corpus.folder)
    assert "corpus.json: damaged" in result.stdout and isinstance(result.exception, UserError)
    assert "neither a token store" in refused("verify", tmp_path)


def test_a_sample_is_scored_again_with_the_recipes_reference(run, monkeypatch):
    class Model:
        def eval(self) -> "Model":
            return self

    seen = []

    def check_sample(losses, corpus, context, model, dtype, windows, seed):
        seen.append((len(losses), context.length, context.document_mask, type(model), dtype, windows, seed))
        return {"windows": windows, "mean_difference": 0.0001, "largest_difference": 0.002}

    monkeypatch.setattr("tokensieve.training.reference.load_reference", lambda recipe: Model())
    monkeypatch.setattr("tokensieve.recipe.load_recipe", lambda path: path)
    monkeypatch.setattr(verifying, "check_sample", check_sample)
    assert "no recipe here" in refused("verify", run.scores.folder, "--sample", 3)
    (run.out / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(verifying, "weights_digest", lambda model: "f" * 32)
    assert "scored by a reference of digest 0123" in refused("verify", run.scores.folder, "--sample", 3)
    monkeypatch.setattr(verifying, "weights_digest", lambda model: run.scores.inputs["reference"])
    result = call("verify", run.scores.folder, "--sample", 3, "--seed", 7)
    assert "3 windows scored again agree: mean difference 0.0001, largest 0.002 nats" in result.stdout
    assert seen == [(len(run.corpus.shards), 16, True, Model, "float32", 3, 7)]


def test_scores_agree_with_their_reference_and_with_no_other(store, tiny_model, tmp_path):
    section, context = ScoreSection(batch_size=3), ContextSection(length=16)
    scores = score_corpus(section, context, store, tiny_model(), tmp_path / "scores")
    opened = open_store(scores.folder, store.folder)
    found = verifying.score_again(opened, tiny_model().eval(), windows=5)
    assert found["windows"] == 5 and found["largest_difference"] < 2e-3
    with pytest.raises(UserError, match="scored by a reference of digest"):
        verifying.score_again(opened, tiny_model(1).eval(), windows=5)
    with pytest.raises(UserError, match="holds tokens, not scores"):
        verifying.score_again(open_store(store.folder), tiny_model().eval(), windows=5)
    opened.scores.inputs["context"] = None
    with pytest.raises(UserError, match="damaged .context None"):
        verifying.score_again(opened, tiny_model().eval(), windows=5)
    opened.scores.inputs["carried_over"] = {}
    with pytest.raises(UserError, match="carried over from another tokenizer; verify what was scored: .*foreign"):
        verifying.score_again(opened, tiny_model().eval(), windows=5)
    path = scores.folder / "00000.loss.f16"
    values = np.fromfile(path, dtype="<f2")
    (values + np.float16(0.5)).tofile(path)
    assert any("00000.loss.f16: damaged" in line for line in verifying.find_problems(scores.folder, store.folder))


def test_what_a_store_holds_fits_eighty_columns(run):
    for folder in (run.corpus.folder, run.scores.folder):
        result = call("inspect", folder)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert all(len(line) <= 80 for line in lines if str(folder) not in line)
        assert f"{run.corpus.tokens:,}" in result.stdout
    text = result.stdout
    assert "0123456789abcdef" * 2 in text and "context.length" in text and "gate.largest_difference" in text
    scored = run.scores.scored_tokens
    never = run.corpus.tokens - scored
    assert f"{scored:,} ({scored / run.corpus.tokens:.1%}), never: {never:,}" in text
    losses = np.concatenate([array[:] for array in run.scores.column("loss")])
    assert f"{np.nanmean(losses.astype(float)):.4g}" in text and f"{np.nanmax(losses.astype(float)):.4g}" in text
    assert "highest losses" in text and "lowest losses" in text and "web" in text
    assert "\\n" not in text.replace("⏎", "")


def test_json_for_programs(run):
    found = json.loads(call("inspect", run.scores.folder, "--json", "--examples", 2).stdout)
    assert found["scored"] == run.scores.scored_tokens and len(found["highest"]) == 2
    (run.out / "tokenizer").rename(run.out / "moved")
    assert call("inspect", run.scores.folder, "--json", "--examples", 0).exit_code == 0
    assert "give --tokenizer" in refused("inspect", run.scores.folder)


def test_export_says_what_it_kept(run, tmp_path):
    out = tmp_path / "kept.jsonl"
    result = call("export", run.scores.folder, out, "--keep", 0.3, "--by", "median_loss", "--rank")
    documents = len(out.read_text().splitlines())
    assert result.exit_code == 0 and f"{out}: {documents} of 60 documents, " in result.stdout
    assert "documents without a scored token were left out" in result.stdout
    assert "--by and --highest say" in refused("export", run.scores.folder, tmp_path / "b.jsonl", "--by", "sum_loss")


def test_import_of_what_another_run_tokenized(run, tmp_path):
    out = tmp_path / "new run"
    result = call("import", run.corpus.folder, "--tokenizer", run.out / "tokenizer", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{out / 'corpus'}: {run.corpus.tokens:,} tokens, 60 documents, ")
    assert call("verify", out / "corpus").stdout == f"{out / 'corpus'}: sound\n"
