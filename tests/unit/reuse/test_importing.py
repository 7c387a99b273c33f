"""Import: tokens of others become a sound store, bit for bit, or one clear error and nothing on disk."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer, tokenizer_digest, train_bpe
from tokensieve.errors import UserError
from tokensieve.reuse import import_shards
from tokensieve.reuse.importing import added_eos, import_corpus
from tokensieve.reuse.token_files import find_tokens, read_tokens

TEXTS = ["The cat sat on the mat.", "naïve café 日本語 🙂", "x", "the dog " * 40, "  two  spaces\n\n"]
Documents = Sequence[Sequence[int]]


@pytest.fixture(scope="module")
def encoded(bpe_folder: Path) -> list[list[int]]:
    """TEXTS as ids, EOS after each."""
    tokenizer = open_tokenizer(bpe_folder)
    return [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in TEXTS]


def write_ds(path: Path, documents: Documents, dtype: str = "<u2", metadata: str | None = None) -> Path:
    np.array([token for document in documents for token in document], dtype=dtype).tofile(path)
    ends = np.cumsum([len(document) for document in documents])
    ends.astype("<u8").tofile(path.with_name(path.name + ".index"))
    if metadata is not None:
        path.with_name(path.name + ".metadata").write_text(metadata)
    return path


def write_megatron(path: Path, documents: Documents, code: int = 8, dtype: str = "<u2", split: int = 0) -> Path:
    """`split` > 0: each document is several sequences of that many tokens."""
    np.array([token for document in documents for token in document], dtype=dtype).tofile(path)
    lengths: list[int] = []
    marks = [0]
    for document in documents:
        step = split or max(1, len(document))
        lengths += [len(document[begin : begin + step]) for begin in range(0, len(document), step)]
        marks.append(len(lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]) * np.dtype(dtype).itemsize
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, len(lengths), len(marks))
    body = np.array(lengths, "<i4").tobytes() + offsets.astype("<i8").tobytes() + np.array(marks, "<i8").tobytes()
    path.with_suffix(".idx").write_bytes(header + body)
    return path


def write_parquet(path: Path, documents: Documents, kind: pa.DataType | None = None) -> Path:
    column = pa.array([list(document) for document in documents], type=kind or pa.list_(pa.int32()))
    pa.parquet.write_table(pa.table({"id": list(range(len(documents))), "input_ids": column}), path, row_group_size=2)
    return path


def write_lines(path: Path, documents: Documents) -> Path:
    path.write_text("".join(json.dumps({"input_ids": list(document)}) + "\n" for document in documents))
    return path


def write_saved(path: Path, documents: Documents) -> Path:
    import datasets

    datasets.Dataset.from_dict({"input_ids": [list(document) for document in documents]}).save_to_disk(path)
    return path


def documents_of(store: TokenStore) -> list[list[int]]:
    found = []
    for i in range(len(store.shards)):
        begin = 0
        for end in store.document_ends(i).tolist():
            found.append(store.shard_tokens(i)[begin:end].tolist())
            begin = end
    return found


WRITERS: dict[str, Callable[[Path, Documents], Path]] = {
    "a.ds": write_ds,
    "wide.ds": lambda path, documents: write_ds(
        path, documents, "<u4", f"some/name|4\n{sum(map(len, documents))}\n1 T"
    ),
    "a.bin": write_megatron,
    "int32.bin": lambda path, documents: write_megatron(path, documents, 4, "<i4", split=3),
    "int64.bin": lambda path, documents: write_megatron(path, documents, 5, "<i8"),
    "a.parquet": write_parquet,
    "large.parquet": lambda path, documents: write_parquet(path, documents, pa.large_list(pa.uint16())),
    "a.jsonl": write_lines,
    "saved": write_saved,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(
    name: str, tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]
) -> None:
    source = WRITERS[name](tmp_path / name, encoded)
    store = import_corpus(str(source), str(bpe_folder), tmp_path / "out", shard_tokens=60)
    assert documents_of(store) == encoded
    assert store.bytes == sum(len(text.encode()) for text in TEXTS)
    assert store.tokenizer == tokenizer_digest(open_tokenizer(tmp_path / "out" / "tokenizer"))
    assert len(store.shards) > 1 and list(store.verify()) == []
    assert (store.sources[0].tokens, store.sources[0].documents) == (sum(map(len, encoded)), len(TEXTS))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["corpus", "tokenizer"]


def test_files_that_datatrove_wrote(tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]) -> None:
    pytest.importorskip("datatrove")
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronTokenizedFile
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    for size in (2, 4):
        folder = tmp_path / f"{size}"
        plain = TokenizedFile(
            str(folder), "a.ds", token_size=size, tokenizer_name_or_path="x", save_final_metadata=True
        )
        megatron = MegatronTokenizedFile(str(folder), "b", token_size=size)
        for document in encoded:
            plain.write(document, None)
            megatron.write(document)
        plain.close()
        megatron.close()
        assert (folder / "a.ds.metadata").exists()
        for name in ("a.ds", "b.bin", "b.idx"):
            store = import_corpus(str(folder / name), str(bpe_folder), tmp_path / f"out-{size}-{name}")
            assert documents_of(store) == encoded


def test_shards_are_cut_as_tokenizing_cuts_them(tmp_path: Path, bpe_folder: Path, write_jsonl: Callable) -> None:
    from tokensieve.corpus.tokenizing import tokenize_sources
    from tokensieve.recipe import Source

    text = write_jsonl("text.jsonl", TEXTS * 3)
    made = tokenize_sources(
        [Source(path=str(text))], tmp_path / "made", bpe_folder, shard_tokens=150, workers=1, max_document_mb=1
    )
    store = import_corpus(str(made.folder), str(bpe_folder), tmp_path / "out", shard_tokens=150)
    again = import_corpus(str(made.folder / "*.ds"), str(bpe_folder), tmp_path / "other", shard_tokens=150)
    for other in (store, again):
        assert other.bytes == made.bytes
        for path in made.folder.glob("0*"):
            assert (other.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_document_longer_than_memory_is_copied_in_pieces(
    tmp_path: Path, bpe_folder: Path, encoded: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_shards, "PIECE", 7)
    bare = [document[:-1] for document in encoded]
    for name, documents, add in (("with.ds", encoded, False), ("bare.ds", bare, True)):
        source = write_ds(tmp_path / name, documents)
        store = import_corpus(str(source), str(bpe_folder), tmp_path / name[:4], shard_tokens=60, add_eos=add)
        assert documents_of(store) == encoded
        assert store.bytes == sum(len(text.encode()) for text in TEXTS)
        assert added_eos(store) == (len(TEXTS) if add else 0)


def test_eos_is_added_only_where_it_lacks_and_only_if_asked(
    tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]
) -> None:
    mixed = [encoded[0], encoded[1][:-1], [], encoded[3]]
    source = str(write_megatron(tmp_path / "a.bin", mixed))
    with pytest.raises(UserError, match=r"a.bin: document 1 \(from 0\) does not end with the EOS .*--add-eos"):
        import_corpus(source, str(bpe_folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store = import_corpus(source, str(bpe_folder), tmp_path / "out", add_eos=True)
    assert documents_of(store) == [encoded[0], encoded[1], [encoded[0][-1]], encoded[3]]
    assert added_eos(store) == 2


def test_four_byte_ids_and_other_tokenizers(tmp_path: Path, word_folder: Path) -> None:
    documents = [[5, 69_000, 7, 1], [70_001, 1]]
    source = write_parquet(tmp_path / "a.parquet", documents, pa.list_(pa.uint32()))
    store = import_corpus(str(source), str(word_folder), tmp_path / "out")
    assert store.token_dtype == np.dtype("<u4") and documents_of(store) == documents
    assert store.bytes == len("w3 w68998 w5") + len("w69999")


def test_again_does_nothing_and_another_source_is_refused(
    tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]
) -> None:
    source, out = str(write_ds(tmp_path / "a.ds", encoded)), tmp_path / "out"
    import_corpus(source, str(bpe_folder), out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    import_corpus(source, str(bpe_folder), out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    other = str(write_ds(tmp_path / "b.ds", encoded[:2]))
    with pytest.raises(UserError, match="belongs to another recipe"):
        import_corpus(other, str(bpe_folder), out)


def test_a_tokenizer_that_changed_since_is_refused(tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]) -> None:
    source, tokenizer, out = str(write_ds(tmp_path / "a.ds", encoded)), tmp_path / "tokenizer", tmp_path / "out"
    shutil.copytree(bpe_folder, tokenizer)
    import_corpus(source, str(tokenizer), out)
    train_bpe(["zebra quagga zebra quagga " * 9, *TEXTS] * 3, 310).save_pretrained(tokenizer)
    with pytest.raises(UserError, match=r"belongs to another recipe \(tokenizer"):
        import_corpus(source, str(tokenizer), out)
    (out / "corpus").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="holds another vocabulary than .*choose another --out"):
        import_corpus(source, str(tokenizer), out)
    assert [path.name for path in out.iterdir()] == ["tokenizer"]


def test_a_failure_leaves_a_tokenizer_of_before(tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]) -> None:
    out = tmp_path / "out"
    import_corpus(str(write_ds(tmp_path / "a.ds", encoded)), str(bpe_folder), out)
    (out / "corpus").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="id 999"):
        import_corpus(str(write_ds(tmp_path / "b.ds", [[999, 0]])), str(bpe_folder), out)
    assert [path.name for path in out.iterdir()] == ["tokenizer"]


def test_two_imports_at_once(tmp_path: Path, bpe_folder: Path, encoded: list[list[int]]) -> None:
    import fcntl

    out = tmp_path / "out"
    (out / ".import").mkdir(parents=True)
    handle = os.open(out / ".import", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # the weakest lock there is must keep a second import out
    source = str(write_ds(tmp_path / "a.ds", encoded))
    with pytest.raises(UserError, match="another import writes here"):
        import_corpus(source, str(bpe_folder), out)
    os.close(handle)
    (out / ".import" / "corpus").mkdir()
    (out / ".import" / "corpus" / "left-by-a-kill").write_text("")
    assert documents_of(import_corpus(source, str(bpe_folder), out)) == encoded


def _lines(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "a.jsonl").write_text(text)
        return folder / "a.jsonl"

    return write


def _ds(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = write_ds(folder / "a.ds", [[5, 6, 0], [7, 0]])
        change(path)
        return path

    return write


def _idx(offset: int, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = write_megatron(folder / "a.bin", [[5, 6, 0], [7, 0]])
        index = path.with_suffix(".idx")
        old = index.read_bytes()
        index.write_bytes(old[:offset] + data + old[offset + len(data) :])
        return path

    return write


def _index(path: Path) -> Path:
    return path.with_name("a.ds.index")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "nowhere.ds", "nowhere.ds: no such file"),
        (lambda folder: folder, "holds no tokens"),
        (_ds(lambda path: _index(path).unlink()), "a.ds.index: cannot read"),
        (_ds(lambda path: _index(path).write_bytes(b"\1" * 9)), "has 9 bytes, not 8 for each"),
        (_ds(lambda path: _index(path).write_bytes(b"")), "names no token, but a.ds has 10 bytes"),
        (_ds(lambda path: path.write_bytes(path.read_bytes()[:-2])), "ends at token 5, but a.ds has 8 bytes"),
        (_ds(lambda path: path.write_bytes(path.read_bytes() + b"\0\0")), "ends at token 5, but a.ds has 12 bytes"),
        (_ds(lambda path: np.array([6, 5], "<u8").tofile(_index(path))), "document 1 ends before it begins"),
        (_ds(lambda path: np.array([2**64 - 1, 5], "<u8").tofile(_index(path))), "document 1 ends before it begins"),
        (_ds(lambda path: (path.parent / "a.ds.metadata").write_text("x|4\n5\n")), "not that many tokens of 4 bytes"),
        (_ds(lambda path: (path.parent / "a.ds.metadata").write_text("x|2\n6\n")), "does not say 'TOKENIZER|2'"),
        (_ds(lambda path: np.array([5, 330, 0, 7, 0], "<u2").tofile(path)), r"token 1 of document 0 .* is id 330"),
        (_ds(lambda path: np.array([5, 6, 7, 7, 0], "<u2").tofile(path)), "document 0 .* does not end with the EOS"),
        (_ds(lambda path: write_lines(path.parent / "b.jsonl", [[1]])), "several kinds"),
        (_idx(0, b"X"), "not a Megatron index"),
        (_idx(9, b"\2"), "version 2 of the Megatron index"),
        (_idx(17, b"\6"), "type code 6"),
        (_idx(18, b"\xff" * 8), "not the .* of 18446744073709551615 sequences"),
        (_idx(26, b"\0" * 8), "not the"),
        (_idx(34, b"\xff" * 4), "sequence 0 has -1 tokens"),
        (_idx(34, b"\x04"), "sequence 1 begins at byte 6 of a.bin, not at 8"),
        (_idx(38, b"\x03"), "6 tokens of 2 bytes, but a.bin has 10 bytes"),
        (_idx(58, b"\x01"), "document marks"),
        (_idx(66, b"\x09"), "document marks"),
        (_idx(74, b"\x01"), "document marks"),
        (_idx(82, b"\0\0"), "modes"),
        (_lines('{"ids": [1]}\n'), "no field 'input_ids' .*--field"),
        (_lines('{"input_ids": [1, 0]}\n{"input_ids": [1.5, 0]}\n'), "line 2: 'input_ids' is not a list of whole"),
        (_lines('{"input_ids": [true, 0]}\n'), "line 1: 'input_ids' is not a list of whole numbers"),
        (_lines('{"input_ids": null}\n'), "line 1: 'input_ids' is not a list of whole numbers"),
        (_lines('{"input_ids": [99999999999999999999, 0]}\n'), "which is no token id"),
        (_lines('{"input_ids": [-1, 0]}\n'), "token 0 of row 0 .* is id -1"),
        (_lines(""), "holds no tokens of text"),
        (_lines('{"input_ids": [0]}\n'), "holds no tokens of text"),
        (lambda folder: write_parquet(folder / "a.parquet", [[0.5]], pa.list_(pa.float32())), "not lists of whole"),
        (lambda folder: write_parquet(folder / "a.parquet", [[1, None, 0]]), "row 0 .* an id is null"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    write: Callable[[Path], Path], message: str, tmp_path: Path, bpe_folder: Path
) -> None:
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in")
    if (tmp_path / "in" / "b.jsonl").exists():
        source = tmp_path / "in"
    with pytest.raises(UserError, match=message) as caught:
        import_corpus(str(source), str(bpe_folder), tmp_path / "out")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_files_never_crash_and_never_allocate_beyond_themselves(tmp_path: Path, data: st.DataObject) -> None:
    """Any change of an index or its file: the runs of a sound one, or a UserError, in memory like the files."""
    kind = data.draw(st.sampled_from(["ds", "bin"]))
    path = tmp_path / f"a.{kind}"
    (write_ds if kind == "ds" else write_megatron)(path, [[5, 6, 0], [7, 0], [8, 9, 9, 0]])
    index = path.with_suffix(".idx") if kind == "bin" else path.with_name("a.ds.index")
    target = data.draw(st.sampled_from([path, index, index]))
    content = bytearray(target.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    target.write_bytes(bytes(content[:cut]) + data.draw(st.binary(max_size=12)))
    sizes = path.stat().st_size + index.stat().st_size
    try:
        for run in read_tokens(find_tokens(str(path))):
            assert run.lengths.nbytes <= sizes and (run.lengths >= 0).all()
            total = int(run.lengths.sum())
            assert run.read(0, total).nbytes <= sizes
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), valid=st.booleans())
def test_any_bytes_as_an_index_or_a_table(tmp_path: Path, content: bytes, valid: bool) -> None:
    (tmp_path / "a.ds").write_bytes(b"\1\0" * 8)
    (tmp_path / "a.ds.index").write_bytes(content)
    (tmp_path / "b.bin").write_bytes(b"\1\0" * 8)
    (tmp_path / "b.idx").write_bytes((b"MMIDIDX\0\0" + struct.pack("<Q", 1) if valid else b"") + content)
    (tmp_path / "c.parquet").write_bytes(b"PAR1" * valid + content + b"PAR1" * valid)
    (tmp_path / "d.jsonl").write_bytes(content)
    for name in ("a.ds", "b.bin", "c.parquet", "d.jsonl"):
        try:
            for run in read_tokens(find_tokens(str(tmp_path / name))):
                run.read(0, int(run.lengths.sum()))
        except UserError as error:
            assert "\n" not in str(error)
