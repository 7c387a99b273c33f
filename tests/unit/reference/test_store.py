"""The score store: read as it was written, bound to its corpus, and every damage found."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import COLUMNS, MANIFEST, ScoreStore, unscored
from tokensieve.stage import read_manifest, write_manifest
from tokensieve.storage.checksums import seal_shard

CONTEXT = ContextSection(length=16)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves a copy of the scores: `store` is the same in each test."""
    return tmp_path_factory.mktemp("scored") / "scores"


@pytest.fixture
def scores(store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], tmp_path: Path, scored: Path) -> ScoreStore:
    if not scored.exists():
        section = ScoreSection(entropy=True, correct=True)
        score_corpus(section, CONTEXT, store, tiny_model(0), scored)
    shutil.copytree(scored, tmp_path / "scores")
    return ScoreStore(tmp_path / "scores", store, CONTEXT)


def rewrite(scores: ScoreStore, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest, with a right checksum."""
    path = scores.folder / MANIFEST
    manifest = read_manifest(path)
    change(manifest)
    write_manifest(path, manifest)


def open_and_verify(scores: ScoreStore) -> list[str]:
    """What a fresh reader finds: one line for each damage."""
    try:
        return list(ScoreStore(scores.folder, scores.corpus, CONTEXT).verify())
    except UserError as error:
        return [str(error)]


def test_columns_lie_as_the_format_says(scores: ScoreStore) -> None:
    assert scores.columns == ("loss", "entropy", "correct")
    for i, shard in enumerate(scores.corpus.shards):
        for name, kind, dtype in (
            ("loss", ".loss.f16", "<f2"),
            ("entropy", ".entropy.f16", "<f2"),
            ("correct", ".correct.u8", "u1"),
        ):
            plain = np.fromfile(scores.folder / (shard.name + kind), dtype=dtype)
            assert scores.column(name)[i].shape == plain.shape == (shard.tokens,)
            assert scores.column(name)[i][:].tobytes() == plain.tobytes()
            never = plain == 255 if name == "correct" else np.isnan(plain)
            assert (plain.view("u1" if name == "correct" else "<u2")[never] == (255 if dtype == "u1" else 0x7E00)).all()
    live = sum(int(np.isfinite(array[:]).sum()) for array in scores.column("loss"))
    assert scores.scored_tokens == live == sum(shard["scored"] for shard in scores.outputs["shards"])
    assert list(scores.verify()) == []


def test_a_store_is_pickled_without_its_data(scores: ScoreStore) -> None:
    scores.column("loss")[0][:]
    data = pickle.dumps(scores)
    assert len(data) < 10_000
    assert pickle.loads(data).column("loss")[1][:].tobytes() == scores.column("loss")[1][:].tobytes()


def test_a_column_that_was_not_scored_says_how_to_get_it(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], tmp_path: Path
) -> None:
    plain = score_corpus(ScoreSection(), CONTEXT, store, tiny_model(0), tmp_path / "plain")
    assert plain.columns == ("loss",)
    assert sorted(path.suffix for path in plain.folder.glob("00000*")) == [".f16", ".xxh3"]
    with pytest.raises(UserError, match="has no entropy; set score.entropy: true and score under another score.name"):
        plain.column("entropy")


def test_a_missing_or_unfinished_store_says_what_to_run(scores: ScoreStore) -> None:
    with pytest.raises(UserError, match="scores.json: no scores here; run `tokensieve score` first"):
        ScoreStore(scores.folder / "nothing", scores.corpus)
    rewrite(scores, lambda manifest: manifest.update(finished=False))
    with pytest.raises(UserError, match="scoring is not finished; run `tokensieve score` again"):
        ScoreStore(scores.folder, scores.corpus)


def test_another_context_is_refused_with_both(scores: ScoreStore) -> None:
    ScoreStore(scores.folder, scores.corpus, None)
    for other in (ContextSection(length=8), ContextSection(length=16, document_mask=False)):
        with pytest.raises(UserError, match=r"scored under the context \{'length': 16, .* training uses \{") as caught:
            ScoreStore(scores.folder, scores.corpus, other)
        assert "score.name=ANOTHER" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda corpus: corpus.update(tokenizer="another"), "tokenizer is 'another' there, 'hand-made' here"),
        (lambda corpus: corpus.update(tokens=7), r"tokens is 7 there, \d+ here"),
        (lambda corpus: corpus["shards"][1].__setitem__(2, "0" * 32), "shards.1.2 is '0{32}' there"),
        (lambda corpus: corpus["shards"][0].__setitem__(1, 9), "shards.0.1 is 9 there"),
    ],
)
def test_another_corpus_is_refused_with_both_values(
    scores: ScoreStore, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    rewrite(scores, lambda manifest: change(manifest["inputs"]["corpus"]))
    with pytest.raises(UserError, match=rf"made for another corpus than .*{message}.*score.name=ANOTHER"):
        ScoreStore(scores.folder, scores.corpus)


def test_a_corpus_with_other_shards_is_refused(scores: ScoreStore) -> None:
    rewrite(scores, lambda manifest: manifest["outputs"]["shards"].pop())
    with pytest.raises(UserError, match="holds 1 shards, the corpus .* has 2"):
        ScoreStore(scores.folder, scores.corpus)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["outputs"].pop("columns"),
        lambda m: m["outputs"].update(columns=[]),
        lambda m: m["outputs"].update(columns=["loss", "../x"]),
        lambda m: m["outputs"].update(columns=5),
        lambda m: m["outputs"].update(shards=None),
        lambda m: m["outputs"]["shards"][0].pop("digest"),
        lambda m: m["outputs"]["shards"][0].update(scored="many"),
        lambda m: m["outputs"]["shards"].__setitem__(0, 5),
        lambda m: m["inputs"].pop("corpus"),
        lambda m: m["inputs"].pop("context"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_one_line(scores: ScoreStore, change: Callable[[Any], Any]) -> None:
    rewrite(scores, change)
    with pytest.raises(UserError, match=re.escape(str(scores.folder / MANIFEST))) as caught:
        ScoreStore(scores.folder, scores.corpus, CONTEXT)
    assert "\n" not in str(caught.value)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, longer, emptied, removed])
@pytest.mark.parametrize("suffix", [".loss.f16", ".entropy.f16", ".correct.u8"])
def test_a_file_of_another_size_is_refused_on_opening_and_the_cure_works(
    scores: ScoreStore,
    tiny_model: Callable[[int], PreTrainedModel],
    suffix: str,
    damage: Callable[[Path], None],
) -> None:
    path = scores.folder / f"00001{suffix}"
    before = path.read_bytes()
    damage(path)
    with pytest.raises(UserError, match=rf"00001{suffix}: .*; remove 00001.\* in {scores.folder}, and score again"):
        ScoreStore(scores.folder, scores.corpus)
    for other in scores.folder.glob("00001.*"):
        other.unlink()
    section = ScoreSection(entropy=True, correct=True)
    mended = score_corpus(section, CONTEXT, scores.corpus, tiny_model(0), scores.folder)
    assert path.read_bytes() == before and list(mended.verify()) == []


@pytest.mark.parametrize("damage", [truncated, longer, emptied, removed])
def test_a_damaged_sidecar_is_found_by_verify_and_by_the_first_read(
    scores: ScoreStore, damage: Callable[[Path], None]
) -> None:
    damage(scores.folder / "00001.xxh3")
    found = open_and_verify(scores)
    assert len(found) == 3 and all("00001.xxh3" in line for line in found)
    fresh = ScoreStore(scores.folder, scores.corpus, CONTEXT)
    fresh.column("loss")[0][:]
    with pytest.raises(UserError, match="00001.xxh3"):
        fresh.column("loss")[1][0:1]


@pytest.mark.parametrize("sidecars", [True, False])
def test_swapped_shards_are_found(
    tmp_path: Path,
    tiny_model: Callable[[int], PreTrainedModel],
    make_equal_shards: Callable[[Path], TokenStore],
    sidecars: bool,
) -> None:
    store = make_equal_shards(tmp_path / "corpus")
    scores = score_corpus(ScoreSection(), CONTEXT, store, tiny_model(0), tmp_path / "swapped")
    for suffix in (".loss.f16", ".xxh3") if sidecars else (".loss.f16",):
        one, two = (scores.folder / f"0000{i}{suffix}" for i in (0, 1))
        one.rename(tmp_path / "kept")
        two.rename(one)
        (tmp_path / "kept").rename(two)
    assert len(open_and_verify(scores)) == 2
    for i in (0, 1):
        with pytest.raises(UserError, match="belongs to another shard" if sidecars else "damaged"):
            ScoreStore(scores.folder, store).column("loss")[i][0:1]


@pytest.fixture
def make_equal_shards(store: TokenStore) -> Callable[[Path], TokenStore]:
    """A corpus of two shards of one size, so that only their content tells them apart."""

    def make(folder: Path) -> TokenStore:
        shutil.copytree(store.folder, folder)
        manifest = read_manifest(folder / "corpus.json")
        size = min(shard.tokens for shard in store.shards)
        for described in manifest["outputs"]["shards"]:
            path = folder / described["name"]
            ids = np.fromfile(f"{path}.ds", dtype="<u2")[:size]
            ids.tofile(f"{path}.ds")
            np.array([size // 2, size], dtype="<u8").tofile(f"{path}.ds.index")
            digest = seal_shard(folder, described["name"], [".ds", ".ds.index"])
            described.update(tokens=size, documents=2, digest=digest)
        for described in (manifest["outputs"], manifest["outputs"]["sources"][0]):
            described.update(tokens=2 * size, documents=4)
        write_manifest(folder / "corpus.json", manifest)
        return TokenStore(folder)

    return make


def test_columns_cannot_be_swapped_either(scores: ScoreStore) -> None:
    one, two = scores.folder / "00000.loss.f16", scores.folder / "00000.entropy.f16"
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    assert len(open_and_verify(scores)) == 2


@pytest.mark.parametrize("name", ["00002.loss.f16", "00000.loss.f32", "00000.loss.f16.bak", "notes.txt"])
def test_an_extra_file_is_found(scores: ScoreStore, name: str) -> None:
    (scores.folder / name).write_bytes(b"")
    assert open_and_verify(scores) == [f"{scores.folder / name}: does not belong to this store; remove it"]


@pytest.mark.parametrize("place", [0, 1, 100, -1])
@pytest.mark.parametrize("suffix", [".loss.f16", ".entropy.f16", ".correct.u8"])
def test_a_flipped_bit_is_found_by_verify_and_by_reading_it(scores: ScoreStore, suffix: str, place: int) -> None:
    path = scores.folder / f"00001{suffix}"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert open_and_verify(scores) == [f"{path}: damaged (bytes 0 to 16383 differ from their checksum)"]
    name = next(name for name, kind in COLUMNS.items() if kind.suffix == suffix)
    with pytest.raises(UserError, match=f"00001{suffix}: damaged"):
        ScoreStore(scores.folder, scores.corpus).column(name)[1][20:21]


@pytest.mark.parametrize(
    "suffix, bits, message",
    [
        (".loss.f16", 0x8001, "value -5.960464477539063e-08 at token 9 is negative or not finite"),
        (".loss.f16", 0x7C00, "value inf at token 9"),
        (".loss.f16", 0x7E01, "value nan at token 9"),
        (".entropy.f16", 0xFE00, "value nan at token 9"),
        (".correct.u8", 2, "value 2 at token 9"),
    ],
)
def test_verify_looks_at_values_also_where_checksums_are_right(
    scores: ScoreStore, suffix: str, bits: int, message: str
) -> None:
    """What another program wrote."""
    path = scores.folder / f"00000{suffix}"
    values = np.fromfile(path, dtype="u1" if suffix.endswith("u8") else "<u2")
    assert values[9] not in (255, 0x7E00)
    values[9] = bits
    values.tofile(path)
    digest = seal_shard(scores.folder, "00000", [kind.suffix for kind in COLUMNS.values()])
    rewrite(scores, lambda manifest: manifest["outputs"]["shards"][0].update(digest=digest))
    (line,) = open_and_verify(scores)
    assert line.startswith(f"{path}: {message}")


def test_verify_counts_what_was_scored(scores: ScoreStore) -> None:
    rewrite(scores, lambda manifest: manifest["outputs"]["shards"][1].update(scored=3))
    found = open_and_verify(scores)
    assert len(found) == 3 and all(re.search(r"shard 00001 has \d+ scored \w+, not 3", line) for line in found)


def test_verify_tells_how_far_it_is(scores: ScoreStore) -> None:
    told: list[int] = []
    list(scores.verify(told.append))
    assert told == [shard.tokens for shard in scores.corpus.shards]


def test_unscored_values_are_the_bits_that_say_so() -> None:
    assert unscored("loss", 3).tobytes() == b"\x00\x7e" * 3 and unscored("loss", 3).dtype == np.float16
    assert unscored("correct", 2).tolist() == [255, 255]
