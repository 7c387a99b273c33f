"""The token store: what is written is read back, and damage is found on opening."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokensieve.corpus.store import Location, TokenStore
from tokensieve.errors import UserError
from tokensieve.stage import read_manifest, write_manifest

SHARDS = [[[5, 6, 0], [7, 0]], [[8, 0], [9, 10, 11, 0], [0]]]


def rewrite(folder: Path, **changed: Any) -> None:
    """Change parts of the manifest and give it a right checksum again."""
    path = folder / "corpus.json"
    write_manifest(path, read_manifest(path) | changed)


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_shards_and_documents_are_read_back(make_store: Callable[..., TokenStore], tmp_path: Path, dtype: str) -> None:
    store = make_store(tmp_path / "s", SHARDS, dtype=dtype)
    assert (store.tokens, store.documents, store.token_dtype.str) == (12, 5, dtype)
    assert [shard.start for shard in store.shards] == [0, 5]
    assert store.shard_tokens(1)[:].tolist() == [8, 0, 9, 10, 11, 0, 0]
    assert store.document_ends(1).tolist() == [2, 6, 7]
    assert store.windows_per_shard(3).tolist() == [1, 2]
    assert pickle.loads(pickle.dumps(store)).shard_tokens(0)[:].tolist() == [5, 6, 0, 7, 0]


def test_a_position_is_located_in_its_document(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", SHARDS, sources=[0, 1], weights=[None, None])
    found = [store.locate(position) for position in range(store.tokens)]
    expected = [
        Location(f"{i:05d}", f"s{i}", d, t)
        for i, shard in enumerate(SHARDS)
        for d, document in enumerate(shard)
        for t in range(len(document))
    ]
    assert found == expected
    with pytest.raises(IndexError, match="outside"):
        store.locate(store.tokens)


def test_a_missing_or_unfinished_store_says_what_to_run(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.json: no token store.*tokensieve tokenize"):
        TokenStore(tmp_path)
    store = make_store(tmp_path / "s", SHARDS)
    rewrite(store.folder, finished=False)
    with pytest.raises(UserError, match="not finished; run `tokensieve tokenize` again"):
        TokenStore(store.folder)


def _truncate(folder: Path) -> None:
    path = folder / "00001.ds"
    path.write_bytes(path.read_bytes()[:-2])


def _lose_index(folder: Path) -> None:
    (folder / "00000.ds.index").unlink()


def _spoil_json(folder: Path) -> None:
    path = folder / "corpus.json"
    path.write_text(path.read_text()[:-20])


def _old_manifest(folder: Path) -> None:
    """As versions without checksums wrote it."""
    manifest = json.loads((folder / "corpus.json").read_text())
    del manifest["format"], manifest["checksum"]
    (folder / "corpus.json").write_text(json.dumps(manifest))


def _newer_manifest(folder: Path) -> None:
    rewrite(folder, format=2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"00001.ds has 12 bytes, not 14"),
        (_lose_index, r"00000.ds.index: No such file"),
        (_spoil_json, r"damaged"),
        (_old_manifest, r"written by another version of tokensieve \(it has no checksum\)"),
        (_newer_manifest, r"format 2, this version of tokensieve reads format 1; use the version that wrote it"),
    ],
)
def test_damage_is_found_on_opening(
    make_store: Callable[..., TokenStore], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = make_store(tmp_path / "s", SHARDS).folder
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        TokenStore(folder)
    assert "\n" not in str(caught.value)
    assert "corpus.json" in str(caught.value)


WRONG: list[tuple[str, Any, str]] = [
    ("token_size", 8, "token_size is 8, not 2 or 4"),
    ("token_size", 2.0, "damaged"),
    ("tokens", 13, "do not add up"),
    ("tokens", 12.0, "tokens"),
    ("tokens", "12", "tokens"),
    ("tokens", True, "tokens"),
    ("tokens", 10**30, "tokens"),
    ("documents", 4, "do not add up"),
    ("documents", 0, "documents"),
    ("bytes", -1, "bytes"),
    ("vocab_size", 0, "vocab_size"),
    ("vocab_size", 65_537, "vocab_size"),
    ("eos_token_id", 60_000, "eos_token_id"),
    ("eos_token_id", -1, "eos_token_id"),
    ("eos_token_id", None, "eos_token_id"),
    ("tokenizer", None, "tokenizer"),
    ("regions", "abc", "regions"),
    ("regions", [1], "regions"),
    ("regions", [], "regions"),
    ("regions", [str(i) for i in range(257)], "regions"),
    ("sources", 5, "damaged"),
    ("sources.0.weight", "1", "weight"),
    ("sources.0.weight", float("nan"), "weight"),
    ("sources.0.weight", 0, "weight"),
    ("sources.0.weight", float("inf"), "weight"),
    ("sources.0.name", 5, "name"),
    ("sources.0.tokens", -5, "tokens"),
    ("shards", None, "damaged"),
    ("shards", [], "do not add up"),
    ("shards.0", 5, "damaged"),
    ("shards.0.start", 0, "start"),
    ("shards.0.name", "../../x", "shard '../../x'"),
    ("shards.0.name", "/etc/passwd", "shard '/etc/passwd'"),
    ("shards.0.name", "00000\n", "shard '00000"),
    ("shards.0.name", "0000", "shard '0000'"),
    ("shards.0.name", "٠٠٠٠٠", "shard '"),
    ("shards.0.name", "0" * 10_000, "shard '0000"),
    ("shards.0.name", "00001", "two shards have one name"),
    ("shards.0.name", 0, "damaged"),
    ("shards.0.digest", "", "shard '00000'"),
    ("shards.0.digest", "g" * 32, "shard '00000'"),
    ("shards.0.source", 1, "shard 00000"),
    ("shards.0.source", -1, "shard 00000"),
    ("shards.0.source", True, "shard '00000'"),
    ("shards.0.tokens", 5.0, "shard '00000'"),
    ("shards.0.documents", 6, "shard 00000"),
    ("shards.0.documents", 0, "shard 00000"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_manifest_with_a_right_checksum_and_a_wrong_value_is_refused(
    make_store: Callable[..., TokenStore], tmp_path: Path, place: str, value: Any, message: str
) -> None:
    folder = make_store(tmp_path / "s", SHARDS).folder
    outputs = read_manifest(folder / "corpus.json")["outputs"]
    target: Any = outputs
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    for key in path:
        target = target[key]
    target[last] = value
    rewrite(folder, outputs=outputs)
    with pytest.raises(UserError) as caught:
        TokenStore(folder)
    assert "corpus.json: damaged" in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("key", ["eos_token_id", "sources", "shards", "regions", "tokenizer"])
def test_a_manifest_without_a_value_is_refused(make_store: Callable[..., TokenStore], tmp_path: Path, key: str) -> None:
    folder = make_store(tmp_path / "s", SHARDS).folder
    outputs = read_manifest(folder / "corpus.json")["outputs"]
    del outputs[key]
    rewrite(folder, outputs=outputs)
    with pytest.raises(UserError, match=f"damaged .'{key}' is missing or wrong"):
        TokenStore(folder)
