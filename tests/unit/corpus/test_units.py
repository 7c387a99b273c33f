"""Units: two processes at one unit, and a unit's file that is shorter than its index says."""

from pathlib import Path

import pytest

from tokensieve.corpus.encoding import Encoder
from tokensieve.corpus.shards import write_shards
from tokensieve.corpus.sources import Document, Input
from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.corpus.units import Unit, UnitResult, _UnitFiles
from tokensieve.errors import UserError

TEXTS = ["one two three " * 4000, "four " * 9000, "five six " * 5000]
"""More than a file holds back before it writes."""


def document(text: str) -> Document:
    return Document(text, None, "here", len(text))


@pytest.fixture
def encoder(bpe_folder: Path) -> Encoder:
    return Encoder(open_tokenizer(bpe_folder), "tokenizer")


def test_a_worker_that_outlived_its_run_does_not_spoil_the_next_ones_unit(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(process: int) -> _UnitFiles:
        monkeypatch.setattr("os.getpid", lambda: process)
        return _UnitFiles(tmp_path / "00000", encoder)

    def write(files: _UnitFiles, text: str) -> None:
        files.write([document(text)], encoder.encode([document(text)]))

    def finish(files: _UnitFiles, process: int) -> None:
        monkeypatch.setattr("os.getpid", lambda: process)
        files.finish()

    with opened(2) as new:
        for text in TEXTS:
            write(new, text)
        finish(new, 2)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(whole) == {"00000.ds", "00000.ds.index"}
    with opened(1) as old:
        for text in TEXTS:
            write(old, text)
            assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
        finish(old, 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_a_unit_that_ends_early_is_an_error_and_not_an_endless_loop(encoder: Encoder, tmp_path: Path) -> None:
    units, out = tmp_path / "units", tmp_path / "out"
    units.mkdir()
    out.mkdir()
    with _UnitFiles(units / "00000", encoder) as files:
        for text in TEXTS:
            files.write([document(text)], encoder.encode([document(text)]))
        files.finish()
    path = units / "00000.ds"
    path.write_bytes(path.read_bytes()[:-2])
    unit = Unit(0, 0, (Input("a.jsonl", 1, "jsonl"),))
    result = UnitResult(files.tokens, files.documents, files.bytes, ("other",))
    with pytest.raises(UserError, match="00000.ds: ends early; remove .* and tokenize again"):
        write_shards(out, units, [unit], [result], labels=["a"], shard_tokens=10**6, token_size=2)
    assert not (out / "00000.ds").exists()
