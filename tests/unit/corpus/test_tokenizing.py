"""Text to token store: round trips, shards, workers, interruption, other people's readers, mistakes."""

import errno
import json
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokensieve.corpus import tokenizing, units
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer, tokenizer_digest
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.corpus.units import UNIT_BYTES, Job, Unit, plan_units
from tokensieve.errors import UserError
from tokensieve.recipe import Source

Write = Callable[..., Path]


def run(
    sources: Sequence[Source], folder: Path, tokenizer: Path, shard_tokens: int = 1000, workers: int = 1
) -> TokenStore:
    return tokenize_sources(sources, folder, tokenizer, shard_tokens=shard_tokens, workers=workers, max_document_mb=1)


def documents(store: TokenStore) -> list[list[int]]:
    """All documents, in corpus order."""
    found = []
    for i in range(len(store.shards)):
        ends = store.document_ends(i).astype(int).tolist()
        tokens = store.shard_tokens(i)[:].tolist()
        found += [tokens[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "corpus.json"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=9), max_size=4),
    shard_tokens=st.integers(2, 80),
    unit_bytes=st.sampled_from([1, 200, UNIT_BYTES]),
)
def test_every_document_is_read_back_whole_and_in_order(
    bpe_folder: Path, texts: list[list[str]], shard_tokens: int, unit_bytes: int
) -> None:
    tokenizer = open_tokenizer(bpe_folder)
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", unit_bytes)
        folder = Path(temporary)
        for i, part in enumerate(texts):
            lines = [json.dumps({"text": text}) for text in part]
            (folder / f"{i}.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "z.jsonl").write_text('{"text": "never empty"}\n')
        store = run([Source(path=str(folder))], folder / "out", bpe_folder, shard_tokens)
        flat = [text for part in texts for text in part] + ["never empty"]
        assert [tokenizer.decode(ids[:-1]) for ids in documents(store)] == flat
        assert {ids[-1] for ids in documents(store)} == {store.eos_token_id}
        assert all(store.eos_token_id not in ids[:-1] for ids in documents(store))
        assert (store.documents, store.bytes) == (len(flat), sum(len(text.encode()) for text in flat))
        assert all(shard.tokens <= shard_tokens or shard.documents == 1 for shard in store.shards)
        # No shard is closed early: the next one's first document would not have fitted.
        for i, shard in enumerate(store.shards[1:]):
            assert store.shards[i].tokens + int(store.document_ends(i + 1)[0]) > shard_tokens
            assert shard.name == f"{i + 1:05d}"
        assert list(store.verify()) == []
        assert sorted(path.suffix for path in store.folder.iterdir()) == sorted(
            [".json", *[".ds", ".index", ".xxh3"] * len(store.shards)]
        )


def test_the_manifest_describes_the_store(write_jsonl: Write, bpe_folder: Path, tmp_path: Path) -> None:
    sources = [
        Source(path=str(write_jsonl("a.jsonl", ["one", "two two"])), weight=6),
        Source(path=str(write_jsonl("b.jsonl", ["three"])), weight=1, name="bee"),
    ]
    store = run(sources, tmp_path / "out", bpe_folder)
    assert [(s.name, s.weight, s.documents, s.bytes) for s in store.sources] == [
        ("a", 6.0, 2, 10),
        ("bee", 1.0, 1, 5),
    ]
    assert [(shard.source, shard.documents) for shard in store.shards] == [(0, 2), (1, 1)]
    assert (store.vocab_size, store.tokenizer) == (330, tokenizer_digest(open_tokenizer(bpe_folder)))
    assert store.regions is None
    assert not list(store.folder.glob("*.region.u8"))


@pytest.fixture
def many_files(write_jsonl: Write) -> Path:
    generator = np.random.default_rng(0)
    for i in range(7):
        texts = ["".join(chr(c) for c in generator.integers(97, 110, 200)) for _ in range(i + 1)]
        write_jsonl(f"in/{i}.jsonl", texts)
    return write_jsonl("in/7.jsonl", ["end"]).parent


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 1000)


@pytest.mark.usefixtures("small_units")
def test_workers_do_not_change_a_byte_and_their_mistakes_arrive(
    many_files: Path, bpe_folder: Path, tmp_path: Path
) -> None:
    source = Source(path=str(many_files))
    assert len(plan_units([source])) > 3
    one = run([source], tmp_path / "one", bpe_folder)
    two = run([source], tmp_path / "two", bpe_folder, workers=2)
    assert len(one.shards) > 2
    assert files(one.folder) == files(two.folder)
    assert one.shards == two.shards and one.sources == two.sources

    (many_files / "5.jsonl").write_text('{"text": 5}\n')
    with pytest.raises(UserError, match=r"5.jsonl: line 1: field 'text' is of type int"):
        run([source], tmp_path / "bad", bpe_folder, workers=2)
    assert not (tmp_path / "bad").exists()


@pytest.mark.usefixtures("small_units")
def test_an_interrupted_run_resumes_with_the_units_it_has(
    many_files: Path, bpe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(path=str(many_files))
    whole = run([source], tmp_path / "whole", bpe_folder)
    real, ran = tokenizing.run_unit, []

    def interrupted(unit: Unit, job: Job, advance: Callable[[int], None]) -> None:
        if unit.number == 2:
            (job.folder / "00002.ds").write_bytes(b"half a un")
            raise KeyboardInterrupt
        real(unit, job, advance)

    def counted(unit: Unit, job: Job, advance: Callable[[int], None]) -> None:
        ran.append(unit.number)
        real(unit, job, advance)

    monkeypatch.setattr(tokenizing, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([source], tmp_path / "out", bpe_folder)
    with pytest.raises(UserError, match="not finished"):
        TokenStore(tmp_path / "out")
    monkeypatch.setattr(tokenizing, "run_unit", counted)
    resumed = run([source], tmp_path / "out", bpe_folder)
    assert ran == list(range(2, len(plan_units([source]))))
    assert files(resumed.folder) == files(whole.folder)
    run([source], tmp_path / "out", bpe_folder)
    assert len(ran) == len(plan_units([source])) - 2, "a finished store is not made again"


def test_an_interruption_while_joining_resumes(
    many_files: Path, bpe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(path=str(many_files))
    whole = run([source], tmp_path / "whole", bpe_folder)
    real, calls = os.replace, []

    def once(old: Any, new: Any) -> None:
        calls.append(new)
        if str(new).endswith("00001.ds"):
            raise KeyboardInterrupt
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", once)
        with pytest.raises(KeyboardInterrupt):
            run([source], tmp_path / "out", bpe_folder)
    assert (tmp_path / "out" / "00000.ds").exists()
    assert files(run([source], tmp_path / "out", bpe_folder).folder) == files(whole.folder)


def test_a_store_of_another_recipe_is_left_alone(write_jsonl: Write, bpe_folder: Path, tmp_path: Path) -> None:
    path = write_jsonl("a.jsonl", ["one", "two"])
    before = files(run([Source(path=str(path))], tmp_path / "out", bpe_folder).folder)
    with pytest.raises(UserError, match=r"belongs to another recipe \(shard_tokens is 1000 there, 999 here\)"):
        run([Source(path=str(path))], tmp_path / "out", bpe_folder, shard_tokens=999)
    path.write_text('{"text": "changed"}\n')
    with pytest.raises(UserError, match=r"belongs to another recipe \(sources"):
        run([Source(path=str(path))], tmp_path / "out", bpe_folder)
    assert files(tmp_path / "out") == before


def test_regions_get_one_list_of_names_over_all_units(
    write_jsonl: Write, bpe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    write_jsonl("in/a.jsonl", [{"text": "aaaa", "r": [[0, 4, "code"]]}, {"text": "xy", "r": []}])
    write_jsonl("in/b.jsonl", [{"text": "bbbb", "r": [[0, 4, "prose"]]}, {"text": "cc", "r": [[0, 2, "code"]]}])
    sources = [
        Source(path=str(write_jsonl("plain.jsonl", ["none here"]))),
        Source(path=str(tmp_path / "in"), regions_field="r"),
    ]
    store = run(sources, tmp_path / "out", bpe_folder)
    assert store.regions == ("other", "plain", "code", "prose")
    names = [[store.regions[i] for i in store.shard_regions(s)[:]] for s in range(len(store.shards))]
    tokenizer = open_tokenizer(bpe_folder)
    texts = [["none here"], ["aaaa", "xy", "bbbb", "cc"]]
    kinds = [["plain"], ["code", "other", "prose", "code"]]
    for got, part, kind in zip(names, texts, kinds, strict=True):
        expected = []
        for text, k in zip(part, kind, strict=True):
            expected += [k] * (len(tokenizer(text)["input_ids"]) + 1)  # EOS belongs to what it ends
        assert got == expected


@pytest.mark.parametrize("token_size", [2, 4])
def test_three_shards_are_read_back_by_datatrove(
    write_jsonl: Write, bpe_folder: Path, word_folder: Path, tmp_path: Path, token_size: int
) -> None:
    dataset = pytest.importorskip("datatrove.utils.dataset")
    folder = {2: bpe_folder, 4: word_folder}[token_size]
    generator = np.random.default_rng(1)
    texts = [" ".join(f"w{i}" for i in generator.integers(0, 70_000, 40)) for _ in range(20)]
    source = Source(path=str(write_jsonl("a.jsonl", texts)))
    total = run([source], tmp_path / "all", folder, shard_tokens=10**9).tokens
    store = run([source], tmp_path / "out", folder, shard_tokens=int(total / 2.6))
    assert len(store.shards) == 3 and store.token_dtype.itemsize == token_size
    if token_size == 4:
        assert max(int(store.shard_tokens(i)[:].max()) for i in range(3)) > 2**16
    for i, shard in enumerate(store.shards):
        path = str(store.folder / f"{shard.name}.ds")
        # Rows of one token each, so that no tail is dropped.
        rows = dataset.DatatroveFileDataset(path, seq_len=0, token_size=token_size)
        read = [int(rows[row]["input_ids"][0]) for row in range(len(rows))]
        assert read == store.shard_tokens(i)[:].tolist()
    together = dataset.DatatroveFolderDataset(str(store.folder), seq_len=0, token_size=token_size)
    everything = [int(together[row]["input_ids"][0]) for row in range(len(together))]
    assert everything == [token for ids in documents(store) for token in ids]
    # Positions come from the index file.
    first = dataset.DatatroveFileDataset(
        str(store.folder / "00000.ds"), seq_len=99, token_size=token_size, return_positions=True
    )[0]["positions"].tolist()
    starts = [0, *store.document_ends(0).astype(int).tolist()]
    assert first == [t - max(start for start in starts if start <= t) for t in range(100)]


def test_the_bytes_are_those_that_datatrove_writes(write_jsonl: Write, bpe_folder: Path, tmp_path: Path) -> None:
    tokens = pytest.importorskip("datatrove.pipeline.tokens")
    from datatrove.data import Document

    texts = ["The cat sat.", "日本語", "two\nlines", "the dog " * 50]
    store = run([Source(path=str(write_jsonl("a.jsonl", texts)))], tmp_path / "out", bpe_folder)
    step = tokens.DocumentTokenizer(
        str(tmp_path / "theirs"),
        tokenizer_name_or_path=str(bpe_folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        shuffle_documents=False,
        save_filename="x",
    )
    step.run(iter([Document(text=text, id=str(i)) for i, text in enumerate(texts)]))
    for suffix in (".ds", ".ds.index"):
        (theirs,) = [path for path in (tmp_path / "theirs").iterdir() if path.name.endswith(suffix)]
        assert (store.folder / f"00000{suffix}").read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a"}\nnot json\n', r"bad.jsonl: line 2: not valid JSON"),
        ("", r"bad.jsonl: holds no text; name a file with documents in it"),
        ('{"text": ""}\n', r"bad.jsonl: holds no text"),
        ('{"text": "' + "x" * 1_000_001 + '"}\n', r"bad.jsonl: line 1: larger than 1 MB"),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    write_jsonl: Write, bpe_folder: Path, tmp_path: Path, small_units: None, text: str, message: str
) -> None:
    good = write_jsonl("good.jsonl", ["x" * 2000])
    bad = write_jsonl("bad.jsonl", [])
    bad.write_text(text)
    with pytest.raises(UserError, match=message):
        run([Source(path=str(good)), Source(path=str(bad))], tmp_path / "out", bpe_folder)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [1, 4])
def test_a_full_disk_is_named_and_leaves_nothing_behind(
    write_jsonl: Write, bpe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = write_jsonl("a.jsonl", ["some text"])
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"out: cannot write \(No space left on device\); free space"):
        run([Source(path=str(path))], tmp_path / "out", bpe_folder)
    assert not (tmp_path / "out").exists()


def test_units_follow_sources_and_sizes(write_jsonl: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 100)
    for name, size in (("_", 150), ("a", 30), ("b", 30), ("c", 200), ("d", 10), ("e", 80)):
        write_jsonl(f"in/{name}.jsonl", []).write_bytes(b" " * size)
    other = write_jsonl("other.jsonl", ["x"])
    planned = plan_units([Source(path=str(other.parent / "in")), Source(path=str(other))])
    names = [[Path(item.path).stem for item in unit.inputs] for unit in planned]
    assert names == [["_"], ["a", "b"], ["c"], ["d", "e"], ["other"]]
    assert [unit.source for unit in planned] == [0, 0, 0, 0, 1]
    assert [unit.number for unit in planned] == [0, 1, 2, 3, 4]


def test_workers_are_started_without_ctrl_c(
    write_jsonl: Write, bpe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked: list[bool] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, context: Any, initializer: Any, initargs: tuple[Any, ...]) -> None:
            super().__init__(1, initializer=initializer, initargs=initargs)

        def submit(self, *args: Any) -> Future[Any]:  # type: ignore[override]
            # A process of the real pool starts here, with the signals held back that are held back now.
            blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            return super().submit(*args)

    monkeypatch.setattr(tokenizing, "ProcessPoolExecutor", Pool)
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    for i in range(3):
        write_jsonl(f"in/{i}.jsonl", ["text"])
    run([Source(path=str(tmp_path / "in"))], tmp_path / "out", bpe_folder, workers=2)
    assert blocked == [True, True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
