"""Score manifests with a right checksum and wrong content: one clear line, whatever stands in them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.reference.store import MANIFEST, ScoreStore, corpus_identity, unscored
from tokensieve.reference.workers import commit_shard
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import SIDECAR_SUFFIX, sidecar_digest

CONTEXT = ContextSection(length=4)
PLACES = [
    *("inputs.corpus", "inputs.context", "outputs.columns", "outputs.columns.0", "outputs.shards", "outputs.shards.0"),
    *(f"outputs.shards.1.{key}" for key in ("name", "tokens", "scored", "digest")),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True)
    | st.sampled_from(["", "loss", "entropy", "../../x", "00000", "f" * 32, "0" * 31]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "length", "digest"]), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, make_store: Any) -> tuple[Path, TokenStore, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fuzz")
    store = make_store(folder / "corpus", [[[1, 2, 3, 0], [4, 5, 0]], [[6, 7, 8, 9, 0]]])
    scores = folder / "scores"
    scores.mkdir()
    shards = []
    for shard in store.shards:
        values = unscored("loss", shard.tokens)
        values[1:4] = np.float16(1.5)
        commit_shard(scores, shard.name, {".loss.f16": values})
        digest = sidecar_digest(scores / (shard.name + SIDECAR_SUFFIX))
        shards.append({"name": shard.name, "tokens": shard.tokens, "scored": 3, "digest": digest})
    manifest = {
        "inputs": {"corpus": corpus_identity(store), "context": {"length": 4, "document_mask": True}},
        "finished": True,
        "outputs": {"columns": ["loss"], "shards": shards},
    }
    return scores, store, manifest


def use(folder: Path, store: TokenStore) -> None:
    scores = ScoreStore(folder, store, CONTEXT)
    for array in scores.column("loss"):
        array[:]
    assert list(scores.verify()) == []


def test_the_sound_store_is_read(sound: Any) -> None:
    folder, store, manifest = sound
    write_manifest(folder / MANIFEST, manifest)
    use(folder, store)


@given(place=st.sampled_from(PLACES), new=VALUES)
@settings(max_examples=150, deadline=None)
def test_other_content_is_one_clear_line(sound: Any, place: str, new: Any) -> None:
    folder, store, manifest = sound
    changed = copy.deepcopy(manifest)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner: Any = changed
    for key in path:
        inner = inner[key]
    before = inner[last]
    inner[last] = new
    write_manifest(folder / MANIFEST, changed)
    read_manifest(folder / MANIFEST)
    # What a reader does not look at may be anything: the tokens of a shard stand in the corpus's own manifest.
    if place.endswith("tokens") or new == before and type(new) is type(before):
        return
    if place.endswith("scored") and type(new) is int and 0 <= new <= 5:
        found = list(ScoreStore(folder, store, CONTEXT).verify())
        assert found and "scored loss" in found[0]
        return
    with pytest.raises(UserError) as caught:
        use(folder, store)
    assert "\n" not in str(caught.value)
