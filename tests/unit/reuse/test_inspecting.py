"""Inspect: exact counts, means and quantiles, and the true extremes, however the store is cut into pieces."""

import json

import numpy as np
import pytest

from tokensieve.errors import UserError
from tokensieve.reuse import inspecting
from tokensieve.reuse.inspecting import QUANTILES, inspect_store
from tokensieve.reuse.opening import open_store, tokenizer_of


@pytest.mark.parametrize("piece", [inspecting.PIECE, 37])
def test_distributions_are_exact(run, piece, monkeypatch):
    monkeypatch.setattr(inspecting, "PIECE", piece)
    found = inspect_store(open_store(run.scores.folder))
    for column in ("loss", "entropy", "correct"):
        arrays = [array[:].astype(np.float64) for array in run.scores.column(column)]
        if column == "correct":
            arrays = [np.where(array == 255, np.nan, array) for array in arrays]
        owners = [shard.source for shard in run.corpus.shards]
        rows = found["distribution"][column]
        assert [row["source"] for row in rows] == [None, "web", "books"]
        for source, row in zip((None, 0, 1), rows, strict=True):
            values = np.concatenate([a for a, own in zip(arrays, owners, strict=True) if source in (None, own)])
            scored = values[~np.isnan(values)]
            assert (row["scored"], row["never_scored"]) == (len(scored), len(values) - len(scored))
            assert row["mean"] == pytest.approx(scored.mean(), rel=1e-12)
            assert (row["min"], row["max"]) == (scored.min(), scored.max())
            expected = np.quantile(scored, QUANTILES, method="inverted_cdf")
            assert list(row["quantiles"].values()) == expected.tolist()
    assert found["scored"] == found["distribution"]["loss"][0]["scored"]


@pytest.mark.parametrize("piece", [inspecting.PIECE, 37])
def test_the_extremes_are_found_with_their_context(run, piece, monkeypatch):
    monkeypatch.setattr(inspecting, "PIECE", piece)
    tokenizer = tokenizer_of(run.corpus)
    found = inspect_store(open_store(run.scores.folder), examples=12, tokenizer=tokenizer)
    losses = np.concatenate([array[:] for array in run.scores.column("loss")])
    scored = np.sort(losses[~np.isnan(losses)].astype(np.float64))
    assert [example["loss"] for example in found["highest"]] == scored[::-1][:12].tolist()
    assert [example["loss"] for example in found["lowest"]] == scored[:12].tolist()
    tokens = np.concatenate([run.corpus.shard_tokens(i)[:] for i in range(len(run.corpus.shards))])
    first = np.cumsum([0, *(shard.documents for shard in run.corpus.shards)])
    names = [shard.name for shard in run.corpus.shards]
    for example in found["highest"] + found["lowest"]:
        assert losses[example["position"]] == example["loss"]
        assert tokens[example["position"]] == example["id"]
        text = run.texts[first[names.index(example["shard"])] + example["document"]]
        around = (example["before"] + example["token"] + example["after"]).removesuffix("<|endoftext|>")
        # A token may be a part of a character.
        assert all(part in text for part in around.split("\ufffd"))
        assert example["source"] == ("web" if run.texts.index(text) < 40 else "books")
    # Ties are spread over the corpus, not taken from its beginning.
    assert max(example["position"] for example in found["lowest"]) > len(losses) / 2
    assert len({example["position"] for example in found["lowest"]}) == 12


def test_pieces_do_not_matter(run, monkeypatch):
    whole = inspect_store(open_store(run.scores.folder))
    monkeypatch.setattr(inspecting, "PIECE", 11)
    assert inspect_store(open_store(run.scores.folder)) == whole
    assert json.loads(json.dumps(whole)) == whole


def test_counts_of_a_token_store(run):
    found = inspect_store(open_store(run.corpus.folder))
    lengths = np.concatenate([np.diff(run.corpus.document_ends(i), prepend=0) for i in range(len(run.corpus.shards))])
    assert found["document_tokens"] == {
        "min": lengths.min(),
        "median": np.median(lengths),
        "mean": lengths.mean(),
        "max": lengths.max(),
    }
    assert found["text_bytes"] == sum(len(text.encode()) for text in run.texts)
    assert [source["documents"] for source in found["sources"]] == [40, 20]
    assert found["disk_bytes"] == sum(path.stat().st_size for path in run.corpus.folder.iterdir())
    assert "distribution" not in found


def test_stores_are_found_by_their_folder(run, tmp_path):
    assert open_store(run.corpus.folder).scores is None
    with pytest.raises(UserError, match="neither a token store .* nor a score store"):
        open_store(tmp_path)
    moved = tmp_path / "moved"
    run.scores.folder.rename(moved)
    with pytest.raises(UserError, match="name the corpus of .*moved with --corpus"):
        open_store(moved)
    assert open_store(moved, run.corpus.folder).scores is not None
    (run.out / "tokenizer").rename(tmp_path / "other")
    with pytest.raises(UserError, match="give --tokenizer"):
        tokenizer_of(run.corpus)
    assert tokenizer_of(run.corpus, str(tmp_path / "other")).eos_token_id == 0


def test_another_tokenizer_is_refused(run, tmp_path):
    from tokensieve.corpus.tokenizers import train_bpe

    train_bpe(run.texts, 299).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="not the tokenizer of"):
        tokenizer_of(run.corpus, str(tmp_path / "other"))
