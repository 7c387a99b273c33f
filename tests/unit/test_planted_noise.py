"""experiments/planted_noise.py: text stays whole, every character is accounted for, and no set leaks into another."""

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.corpus import embedded
from tokensieve.corpus.embedded import repeated_in
from tokensieve.errors import UserError
from tokensieve.recipe import load_recipe

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
import planted_noise  # noqa: E402

SETS = ("noisy", "clean", "target")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of four of sympy's packages: seconds, not tens of them."""
    folder = tmp_path_factory.mktemp("planted") / "data"
    with pytest.MonkeyPatch.context() as patch:
        small_text(patch)
        planted_noise.write_corpus(folder)
    return folder


def small_text(patch: pytest.MonkeyPatch) -> None:
    for name, packages in (("NOISY", ("parsing",)), ("CLEAN", ("stats", "crypto")), ("TARGET", ("calculus",))):
        patch.setattr(embedded, name, packages)


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def of_kind(record: dict[str, Any], *, text: bool) -> str:
    spans = [span for span in record["regions"] if (span[2] == "text") == text]
    return "".join(record["text"][start:end] for start, end, _ in spans)


def test_regions_cover_every_character_and_name_the_noise(corpus: Path) -> None:
    kinds: Counter[str] = Counter()
    for record in records(corpus, "noisy"):
        at = 0
        for start, end, kind in record["regions"]:
            assert start == at < end
            kinds[kind] += end - start
            at = end
        assert at == len(record["text"])
        assert all(one[2] != other[2] for one, other in zip(record["regions"], record["regions"][1:], strict=False))
    assert set(kinds) == {
        "text", "timestamp", "user name", "tracking number", "navigation", "boilerplate", "blob",
    }  # fmt: skip
    total = kinds.total()
    assert 1 - kinds["text"] / total == pytest.approx(0.35, abs=0.01)
    assert min(kinds.values()) > 0.02 * total
    assert json.loads((corpus / "planted.json").read_text())["outputs"]["regions"] == dict(kinds)


def test_noise_stands_between_sentences_and_inside_them(corpus: Path) -> None:
    inside = after = 0
    for record in records(corpus, "noisy"):
        for start, _, kind in record["regions"]:
            if start and kind not in ("text", "navigation", "boilerplate"):
                after += record["text"][start - 1] in ".!?:"
                inside += record["text"][start - 1].isalpha()
                assert record["text"][start] == " "
    assert inside > 50 and after > 50


def test_the_sets_share_no_file_and_no_paragraph(corpus: Path) -> None:
    found = {name: records(corpus, name) for name in SETS}
    files = {name: {record["source"] for record in own} for name, own in found.items()}
    assert all(len(names) > 3 for names in files.values())
    assert not (files["noisy"] & files["clean"] | files["noisy"] & files["target"] | files["clean"] & files["target"])
    texts = {name: [record["text"] for record in own] for name, own in found.items()}
    texts["noisy"] = [of_kind(record, text=True) for record in found["noisy"]]
    assert repeated_in(texts["target"], texts["noisy"] + texts["clean"]) == set()
    assert not repeated_in(texts["clean"], texts["noisy"]) & set(range(len(texts["clean"])))


def test_the_seed_decides_every_byte(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_text(monkeypatch)
    planted_noise.write_corpus(tmp_path / "again")
    planted_noise.write_corpus(tmp_path / "other", seed=1)
    for name in SETS:
        first, again, other = (
            (folder / f"{name}.jsonl").read_bytes() for folder in (corpus, tmp_path / "again", tmp_path / "other")
        )
        assert first == again
        assert (first == other) == (name == "target")


def test_what_lies_in_the_folder_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Path
) -> None:
    small_text(monkeypatch)
    (tmp_path / "clean.jsonl").write_text("mine")
    with pytest.raises(UserError, match="holds files but no planted.json"):
        planted_noise.write_corpus(tmp_path)
    assert (tmp_path / "clean.jsonl").read_text() == "mine"
    with pytest.raises(UserError, match="noise is 0.35 there, 0.3 here"):
        planted_noise.write_corpus(corpus, noise=0.3)
    with pytest.raises(UserError, match="--noise must be at least 0 and below 1, not 1"):
        planted_noise.write_corpus(tmp_path / "new", noise=1)
    assert not (tmp_path / "new").exists()


@given(
    text=st.text(alphabet="ab. \n:é", max_size=80),
    budget=st.floats(-5, 300),
    seed=st.integers(0, 5),
)
def test_planting_leaves_the_text_whole(text: str, budget: float, seed: int) -> None:
    noisy, regions, spent = planted_noise.plant(text, budget, random.Random(seed))
    record = {"text": noisy, "regions": regions}
    assert of_kind(record, text=True) == text
    noise = of_kind(record, text=False)
    assert len(noise) == spent and "".join(sorted(noise + text)) == "".join(sorted(noisy))
    assert spent == 0 if budget <= 0 or not text.strip() else spent >= budget


def test_a_document_that_got_too_much_is_made_up_for(corpus: Path) -> None:
    # Short documents cannot hold a blob's share of noise; over all the share is right, and most have some.
    found = records(corpus, "noisy")
    assert sum(len(record["regions"]) > 1 for record in found) > 0.7 * len(found)


def test_the_recipe_compares_what_it_says() -> None:
    recipe = load_recipe(EXPERIMENTS / "planted-noise.yaml", ["data_dir=somewhere"])
    assert recipe.compare.ratios == (0.4, 0.6, 0.8) and len(recipe.compare.seeds) == 3
    assert recipe.corpus.sources[0].regions_field == "regions"
    assert {Path(str(source.path)).name for source in (*recipe.corpus.sources, *recipe.reference.sources)} == {
        "noisy.jsonl",
        "clean.jsonl",
    }
    changes = ["compare.ratios=[0.6]", "compare.scores=[excess_loss, reference_loss, current_loss]"]
    by_score = load_recipe(EXPERIMENTS / "planted-noise.yaml", ["data_dir=somewhere", *changes])
    assert by_score.compare.scores == ("excess_loss", "reference_loss", "current_loss")


def test_the_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["planted_noise.py", str(tmp_path), "--noise", "2"])
    with pytest.raises(SystemExit, match="^error: --noise must be at least 0 and below 1, not 2$"):
        planted_noise.main()
