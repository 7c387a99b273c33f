"""docs/formats.md is enough: stores are read by a reader that was written from the page alone.

Nothing of tokensieve reads here; it only writes what is read.
"""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.scoring import score_corpus

PAGE = Path(__file__).resolve().parents[3] / "docs" / "formats.md"


class Refused(Exception):
    """What the page tells a reader to refuse."""


def read_manifest(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    mark = b'"checksum": "'
    at = data.rfind(mark) + len(mark)
    if (
        at < len(mark)
        or xxhash.xxh3_128_hexdigest(data[:at] + b"0" * 32 + data[at + 32 :]).encode() != data[at : at + 32]
    ):
        raise Refused("checksum of the manifest")
    manifest: dict[str, Any] = json.loads(data)
    if manifest["format"] != 1:
        raise Refused(f"format {manifest['format']}, not 1")
    if not manifest["finished"]:
        raise Refused("unfinished")
    return manifest


def read_shard(folder: Path, name: str, digest: str) -> dict[str, bytes]:
    """The shard's files by suffix, every block checked."""
    sidecar = (folder / f"{name}.xxh3").read_bytes()
    if xxhash.xxh3_128_digest(sidecar[:-16]) != sidecar[-16:]:
        raise Refused("end")
    if sidecar[:7] != bytes.fromhex("74736965766500"):
        raise Refused("magic")
    version, block, count = struct.unpack_from("<BII", sidecar, 7)
    if (version, block) != (1, 16384):
        raise Refused("version")
    if sidecar[-16:].hex() != digest:
        raise Refused("digest")
    entries = [struct.unpack_from("<32sQ", sidecar, 16 + 40 * i) for i in range(count)]
    place = 16 + 40 * count
    files = {}
    for padded, size in entries:
        suffix = padded.rstrip(b"\0").decode("ascii")
        data = (folder / (name + suffix)).read_bytes()
        if len(data) != size:
            raise Refused("size")
        for begin in range(0, size, block):
            if struct.unpack_from("<Q", sidecar, place)[0] != xxhash.xxh3_64_intdigest(data[begin : begin + block]):
                raise Refused(f"{name}{suffix} block {begin // block}")
            place += 8
        files[suffix] = data
    if place != len(sidecar) - 16:
        raise Refused("length")
    return files


def read_tokens(folder: Path) -> tuple[list[list[list[int]]], list[list[str]] | None]:
    """Documents of each shard, and the region names of its tokens."""
    outputs = read_manifest(folder / "corpus.json")["outputs"]
    shards, regions = [], []
    for shard in outputs["shards"]:
        assert re.fullmatch("[0-9]{5,20}", shard["name"], re.ASCII)
        files = read_shard(folder, shard["name"], shard["digest"])
        tokens = np.frombuffer(files[".ds"], dtype=f"<u{outputs['token_size']}").tolist()
        ends = np.frombuffer(files[".ds.index"], dtype="<u8").tolist()
        assert len(tokens) == shard["tokens"] == ends[-1] and len(ends) == shard["documents"]
        assert all(token < outputs["vocab_size"] for token in tokens)
        documents = [tokens[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        assert all(document[-1] == outputs["eos_token_id"] for document in documents)
        shards.append(documents)
        if outputs["regions"] is not None:
            regions.append([outputs["regions"][i] for i in files[".region.u8"]])
    assert sum(shard["tokens"] for shard in outputs["shards"]) == outputs["tokens"]
    assert sum(shard["documents"] for shard in outputs["shards"]) == outputs["documents"]
    return shards, regions if outputs["regions"] is not None else None


DRAW = np.random.default_rng(0)
DOCUMENTS = [[[*DRAW.integers(1, 61, size).tolist(), 0] for size in DRAW.integers(0, 30, 40)] for _ in range(2)]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_token_store(make_store: Callable[..., TokenStore], tmp_path: Path, dtype: str) -> None:
    long = [[*range(1, 9000), 0], [0]]
    folder = make_store(tmp_path / "s", [*DOCUMENTS, long], dtype=dtype, regions=["other", "code", "prose"]).folder
    shards, regions = read_tokens(folder)
    assert shards == [*DOCUMENTS, long]
    names = ["other", "code", "prose"]
    assert regions == [[names[t % 3] for t in range(sum(map(len, shard)))] for shard in shards]


def test_a_score_store(
    make_store: Callable[..., TokenStore], tiny_model: Callable[[int], PreTrainedModel], tmp_path: Path
) -> None:
    store = make_store(tmp_path / "s", DOCUMENTS)
    context = ContextSection(length=16)
    section = ScoreSection(batch_size=4, entropy=True, correct=True)
    score_corpus(section, context, store, tiny_model(0), tmp_path / "scores")

    manifest = read_manifest(tmp_path / "scores" / "scores.json")
    corpus = read_manifest(tmp_path / "s" / "corpus.json")["outputs"]
    inputs, outputs = manifest["inputs"], manifest["outputs"]
    assert inputs["corpus"] == {
        "tokenizer": corpus["tokenizer"],
        "tokens": corpus["tokens"],
        "shards": [[shard["name"], shard["tokens"], shard["digest"]] for shard in corpus["shards"]],
    }
    assert inputs["context"] == {"length": 16, "document_mask": True}
    assert inputs["dtype"] == "float32" and len(inputs["reference"]) == 32
    assert inputs["columns"] == outputs["columns"] == ["loss", "entropy", "correct"]
    assert set(inputs) == {"corpus", "context", "reference", "dtype", "columns", "making"}
    assert set(inputs["making"]) == {"batch_size", "software"}
    assert set(outputs) == {"columns", "scored_tokens", "shards", "gate"}
    assert set(outputs["gate"]) == {"windows", "tokens", "largest_difference", "mean_difference", "tolerance"}
    total = 0
    for shard, documents in zip(outputs["shards"], DOCUMENTS, strict=True):
        assert set(shard) == {"name", "tokens", "scored", "digest"}
        files = read_shard(tmp_path / "scores", shard["name"], shard["digest"])
        assert set(files) == {".loss.f16", ".entropy.f16", ".correct.u8"}
        starts = set(np.cumsum([0, *map(len, documents)]).tolist())
        whole = shard["tokens"] // 16 * 16
        never = [t in starts or t % 16 == 0 or t >= whole for t in range(shard["tokens"])]
        for suffix in (".loss.f16", ".entropy.f16"):
            bits = np.frombuffer(files[suffix], dtype="<u2")
            assert ((bits == 0x7E00) == never).all()
            assert (bits[~np.array(never)] <= 0x7BFF).all()
        correct = np.frombuffer(files[".correct.u8"], dtype="u1")
        assert ((correct == 255) == never).all() and set(correct[~np.array(never)].tolist()) <= {0, 1}
        assert shard["scored"] == never.count(False)
        total += shard["scored"]
    assert outputs["scored_tokens"] == total
    # What is left in the folder is what the page lists.
    names = {f"{shard['name']}{suffix}" for shard in outputs["shards"] for suffix in (*files, ".xxh3")}
    assert {path.name for path in (tmp_path / "scores").iterdir()} == names | {"scores.json"}


def test_the_page_names_every_key_that_is_written(make_store: Callable[..., TokenStore], tmp_path: Path) -> None:
    page = PAGE.read_text()
    manifest = read_manifest(make_store(tmp_path / "s", DOCUMENTS).folder / "corpus.json")
    outputs = manifest["outputs"]
    for key in (*manifest, *outputs, *outputs["sources"][0], *outputs["shards"][0]):
        assert f"`{key}`" in page, key


def test_the_reader_of_the_page_refuses_what_the_page_says(
    make_store: Callable[..., TokenStore], tmp_path: Path
) -> None:
    folder = make_store(tmp_path / "s", DOCUMENTS).folder
    path = folder / "corpus.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"documents"', b'"documentz"', 1))
    with pytest.raises(Refused, match="checksum of the manifest"):
        read_tokens(folder)
    path.write_bytes(data)
    (folder / "00000.xxh3").rename(folder / "aside")
    (folder / "00001.xxh3").rename(folder / "00000.xxh3")
    with pytest.raises(Refused, match="digest"):
        read_tokens(folder)
