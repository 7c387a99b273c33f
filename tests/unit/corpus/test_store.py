"""The token store: what is written is read back, and damage is found on opening."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tokensieve.corpus.store import Location, TokenStore
from tokensieve.errors import UserError

SHARDS = [[[5, 6, 0], [7, 0]], [[8, 0], [9, 10, 11, 0], [0]]]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_shards_and_documents_are_read_back(make_store: Callable[..., TokenStore], tmp_path: Path, dtype: str) -> None:
    store = make_store(tmp_path / "s", SHARDS, dtype=dtype)
    assert (store.tokens, store.documents, store.token_dtype.str) == (12, 5, dtype)
    assert [shard.start for shard in store.shards] == [0, 5]
    assert store.shard_tokens(1).tolist() == [8, 0, 9, 10, 11, 0, 0]
    assert store.document_ends(1).tolist() == [2, 6, 7]
    assert store.windows_per_shard(3).tolist() == [1, 2]
    assert pickle.loads(pickle.dumps(store)).shard_tokens(0).tolist() == [5, 6, 0, 7, 0]


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
    manifest = json.loads((store.folder / "corpus.json").read_text())
    (store.folder / "corpus.json").write_text(json.dumps(manifest | {"finished": False}))
    with pytest.raises(UserError, match="not finished; run `tokensieve tokenize` again"):
        TokenStore(store.folder)


def _truncate(folder: Path) -> None:
    path = folder / "00001.ds"
    path.write_bytes(path.read_bytes()[:-2])


def _lose_index(folder: Path) -> None:
    (folder / "00000.ds.index").unlink()


def _spoil_index(folder: Path) -> None:
    path = folder / "00000.ds.index"
    path.write_bytes(b"\x01" * path.stat().st_size)


def _spoil_manifest(folder: Path) -> None:
    data = json.loads((folder / "corpus.json").read_text())
    del data["outputs"]["eos_token_id"]
    (folder / "corpus.json").write_text(json.dumps(data))


def _spoil_counts(folder: Path) -> None:
    data = json.loads((folder / "corpus.json").read_text())
    data["outputs"]["tokens"] += 1
    (folder / "corpus.json").write_text(json.dumps(data))


def _spoil_json(folder: Path) -> None:
    path = folder / "corpus.json"
    path.write_text(path.read_text()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"00001.ds has 12 bytes, not 14"),
        (_lose_index, r"00000.ds.index: No such file"),
        (_spoil_index, r"00000.ds.index does not end with the shard's last token"),
        (_spoil_manifest, r"eos_token_id"),
        (_spoil_counts, r"do not add up"),
        (_spoil_json, r"damaged"),
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
