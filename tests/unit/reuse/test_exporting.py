"""Export: every value comes back as it is stored, and a share keeps the documents that plain code would keep."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensieve.errors import UserError
from tokensieve.reference.store import COLUMNS
from tokensieve.reuse import exporting, spans
from tokensieve.reuse.exporting import Selection, export_store
from tokensieve.reuse.opening import open_store
from tokensieve.reuse.spans import Piece, aggregate

STATISTICS = {"mean": np.mean, "median": np.median, "sum": np.sum}


def plain(run, documents) -> list[dict]:
    """What the rows must be, by plain loops over the files."""
    rows = []
    for (shard, number, tokens, columns), text in zip(documents(run), run.texts, strict=True):
        row = {
            "source": run.corpus.sources[run.corpus.shards[shard].source].name,
            "shard": run.corpus.shards[shard].name,
            "document": number,
            "text": text,
            "tokens": tokens.tolist(),
        }
        for name, values in columns.items():
            if name == "correct":
                row[name] = [None if value == 255 else bool(value) for value in values]
            else:
                row[name] = [None if np.isnan(value) else float(value) for value in values]
            scored = [float(value) for value in row[name] if value is not None]
            row["scored"] = len(scored)
            for statistic, function in STATISTICS.items():
                row[f"{statistic}_{name}"] = float(function(scored)) if scored else None
        rows.append(row)
    return rows


@pytest.fixture
def documents():
    from importlib import util

    # The plain reader stands beside the fixture `run`.
    found = util.spec_from_file_location("conftest_of_reference", Path(__file__).with_name("conftest.py"))
    module = util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.documents


def same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        for name, value in row.items():
            if name.startswith(("mean_", "sum_", "median_")) and value is not None:
                assert value == pytest.approx(wanted[name], rel=1e-12), name
            else:
                assert value == wanted[name], name


@pytest.mark.parametrize("piece", [spans.PIECE, 50])
def test_every_value_comes_back(run, documents, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "PIECE", piece)
    done = export_store(open_store(run.scores.folder), tmp_path / "a.parquet", text=True)
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert set(table.column_names) == {"source", "shard", "document", "text", "tokens", *COLUMNS, "scored"} | {
        f"{statistic}_{column}" for column in COLUMNS for statistic in ("mean", "sum")
    }
    same(table.to_pylist(), plain(run, documents))
    assert (done.rows, done.tokens) == (len(run.texts), run.corpus.tokens)
    assert (done.of_rows, done.of_tokens) == (done.rows, done.tokens)
    assert [path.name for path in tmp_path.glob("a.*")] == ["a.parquet"]
    made_of = json.loads(table.schema.metadata[b"tokensieve"])
    assert made_of["context"] == {"length": 16, "document_mask": True} and "corpus" not in made_of
    bits = np.array([value for row in table["loss"].to_pylist() for value in row if value is not None], dtype="<f2")
    stored = np.concatenate([array[:] for array in run.scores.column("loss")])
    assert bits.tobytes() == stored[~np.isnan(stored)].tobytes()


def test_a_token_store_has_tokens_only(run, tmp_path):
    export_store(open_store(run.corpus.folder), tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["source", "shard", "document", "tokens"]
    tokens = np.concatenate([run.corpus.shard_tokens(i)[:] for i in range(len(run.corpus.shards))])
    assert np.concatenate(table["tokens"].to_pylist()).tolist() == tokens.tolist()
    export_store(open_store(run.corpus.folder), tmp_path / "a.jsonl")
    assert [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == run.texts
    for options in ({"rows": "windows"}, {"selection": Selection(keep=0.5)}):
        with pytest.raises(UserError, match="token store has no windows|holds tokens only"):
            export_store(open_store(run.corpus.folder), tmp_path / "b.parquet", **options)


def test_windows_are_those_of_training(run, tmp_path):
    export_store(open_store(run.scores.folder), tmp_path / "a.parquet", rows="windows")
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    expected = [
        (shard.name, window, run.corpus.shard_tokens(i)[window * 16 : window * 16 + 16].tolist())
        for i, shard in enumerate(run.corpus.shards)
        for window in range(shard.tokens // 16)
    ]
    assert [(row["shard"], row["window"], row["tokens"]) for row in rows] == expected
    assert all(row["loss"][0] is None for row in rows)


@pytest.mark.parametrize("piece", [spans.PIECE, 50])
@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize(
    ("by", "highest", "unit", "keep"),
    [
        ("mean_loss", False, "tokens", 0.3),
        ("median_loss", True, "tokens", 0.5),
        ("sum_entropy", False, "documents", 0.25),
        ("mean_correct", True, "documents", 1.0),
        ("mean_loss", False, "tokens", None),
    ],
)
def test_a_share_keeps_the_best(run, documents, by, highest, unit, keep, ranked, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "PIECE", piece)
    monkeypatch.setattr(exporting, "PIECE", piece)
    selection = Selection(keep=keep, by=by, unit=unit, highest=highest, ranked=ranked)
    done = export_store(open_store(run.scores.folder), tmp_path / "a.parquet", selection=selection, text=True)
    found = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()

    rows = plain(run, documents)
    for number, row in enumerate(rows):
        row["number"] = number
    scored = [row for row in rows if row["scored"]]
    best = sorted(scored, key=lambda row: (-row[by] if highest else row[by], row["number"]))
    if keep is None:
        best += [row for row in rows if not row["scored"]]
    elif unit == "documents":
        best = best[: int(keep * len(rows) + 0.5)]
    else:
        budget, kept = int(keep * run.corpus.tokens + 0.5), []
        for row in best:
            budget -= len(row["tokens"])
            if budget < 0:
                break
            kept.append(row)
        best = kept
    same(found, best if ranked else sorted(best, key=lambda row: row["number"]))
    assert done.unscored == len(rows) - len(scored) > 0
    assert done.tokens == sum(len(row["tokens"]) for row in best)


def test_json_lines_hold_text_that_can_be_tokenized_again(run, documents, tmp_path):
    selection = Selection(keep=0.4, ranked=True)
    opened = open_store(run.scores.folder)
    export_store(opened, tmp_path / "a.jsonl", selection=selection)
    export_store(opened, tmp_path / "a.parquet", selection=selection, text=True)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [line["text"] for line in lines] == [row["text"] for row in rows]
    assert set(lines[0]) == set(rows[0]) - {"tokens", *COLUMNS}
    assert [line["mean_loss"] for line in lines] == sorted(line["mean_loss"] for line in lines)


def test_what_is_wrong_is_said_and_nothing_is_left(run, tmp_path):
    opened = open_store(run.scores.folder)
    (tmp_path / "there.parquet").write_text("mine")
    for out, options, message in [
        ("there.parquet", {}, "there.parquet: exists"),
        ("a.csv", {}, "end with .parquet or .jsonl"),
        ("none/a.parquet", {}, "cannot write"),
        ("a.parquet", {"selection": Selection(keep=0.0)}, "above 0 and up to 1"),
        ("a.parquet", {"selection": Selection(keep=0.3, by="mean_x")}, "cannot rank by mean_x; .* mean_loss, median"),
        ("a.parquet", {"selection": Selection(keep=1e-9)}, "keeps no document of 60"),
        ("a.parquet", {"text": True, "tokenizer": str(tmp_path / "no")}, "no tokenizer could be loaded"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            export_store(opened, tmp_path / out, **options)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "there.parquet").read_text() == "mine"
    path = run.scores.folder / "00001.loss.f16"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="00001.loss.f16: damaged"):
        export_store(opened, tmp_path / "a.parquet")
    assert not list(tmp_path.glob("a.*"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_aggregates_are_those_of_numpy(data):
    values = st.one_of(st.just(np.nan), st.floats(0, 60_000, width=16))
    rows = data.draw(st.lists(st.lists(values, min_size=1, max_size=12), min_size=1, max_size=8))
    flat = np.array([value for row in rows for value in row], dtype="<f2")
    flat.view("<u2")[np.isnan(flat)] = 0x7E00
    lengths = np.array([len(row) for row in rows])
    piece = Piece(0, 0, lengths, np.zeros(len(flat), "<u2"), {"loss": flat})
    for statistic, function in STATISTICS.items():
        for found, row in zip(aggregate(piece, f"{statistic}_loss"), rows, strict=True):
            scored = np.array([value for value in row if not np.isnan(value)], dtype=np.float64)
            if len(scored):
                assert found == pytest.approx(function(scored), rel=1e-12)
            else:
                assert np.isnan(found)
