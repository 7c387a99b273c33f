"""experiments/planetmath.py: what it reads, what it holds out, and that nothing held out is trained on."""

import bz2
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tokensieve.errors import UserError
from tokensieve.recipe import load_recipe

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
import planetmath  # noqa: E402

WORDS = ("seven", "apples", "cost", "nine", "coins", "how", "many", "does", "Ann", "need", "to", "buy", "them", "all")


def story(i: int) -> str:
    """A sentence of fourteen words, another for each number."""
    return " ".join(
        word + "abcdefghij"[(i // 10**place) % 10] for place, word in zip((0, 1, 2) * 5, WORDS, strict=False)
    )


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(planetmath, "VOCABULARY", 300)
    folder = tmp_path / "data"
    entries = [{"text": f"\\title {story(i)}", "body": [7, 12]} for i in range(40)]
    write(folder / "corpora" / "planetmath_tex.jsonl.gz", entries)
    # The second one kept stands, word for word, in MATH's test split.
    posts = [{"text": f"Q: {story(100 + i)}\n\n{story(920)}" if i == 3 else story(100 + i)} for i in range(6)]
    write(folder / "corpora" / "stackmathqa.jsonl.gz", posts)
    write(folder / "clean" / "gsm8k_train.jsonl.gz", [{"question": story(200 + i), "answer": "7"} for i in range(5)])
    write(folder / "clean" / "math_train.jsonl.gz", [{"problem": story(300 + i), "solution": "8"} for i in range(5)])
    # The second question kept is one of the training split, with another answer.
    asked = {8: story(204)}
    write(
        folder / "eval" / "gsm8k.jsonl.gz",
        [{"question": asked.get(i, story(500 + i)), "answer": "9"} for i in range(24)],
    )
    tested = [{"problem": story(900 + i // 2), "solution": f"{i} {story(600 + i)}"} for i in range(81)]
    write(folder / "eval" / "math.jsonl.gz", tested)
    general = folder / "eval" / "general"
    passages = [{"query": f"Passage: {story(700 + i)}\nQuestion: is it?"} for i in range(30)]
    write(general / "boolq.jsonl.gz", passages + passages[:3])
    spoken = [{"language": "english", "context": story(760)}, {"language": "finnish", "context": story(761)}]
    write(general / "tydiqa_goldp.jsonl.gz", spoken)
    lines = [
        "A man is on",
        "2",
        "fire.",
        "ice.",
        "a roof of tin.",
        "it.",
        "A cat sat",
        "0",
        "down there.",
        "b",
        "c",
        "d",
    ]
    with bz2.open(general / "hellaswag_val_full.txt.bz2", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return folder


def texts(folder: Path, name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_sets_are_samples_and_held_out_text_is_not_trained_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    counts = planetmath.write_experiment(data, out)
    assert texts(out, "planetmath") == [f"\\title {story(i)}" for i in (0, 16, 32)]
    first = json.loads((out / "planetmath.jsonl").read_text().splitlines()[0])
    assert first["regions"] == [[7, 12, "body"]]
    assert len(texts(out, "stackmathqa")) == 2
    assert texts(out, "gsm8k-train")[4] == f"{story(204)}\n7"
    # Of three questions kept one is a training question, of three problems one stands in a forum post.
    assert texts(out, "gsm8k") == [f"{story(500)}\n9", f"{story(516)}\n9"]
    assert texts(out, "math") == [f"{story(900)}\n0 {story(600)}", f"{story(940)}\n80 {story(680)}"]
    assert [counts[name]["dropped"] for name in ("gsm8k", "math", "general-held-out")] == [1, 1, 0]
    assert counts["gsm8k"]["documents"] == 2
    english, held_out = texts(out, "general"), texts(out, "general-held-out")
    assert len(english) + len(held_out) == 33 and not set(english) & set(held_out)
    assert held_out == [story(700), story(725)]
    assert "A man is on a roof of tin." in english and "A cat sat down there." in english
    assert story(760) in english and story(761) not in english
    assert (out / "tokenizer" / "tokenizer.json").exists()
    written = (out / "planetmath.jsonl").stat().st_mtime_ns
    assert planetmath.write_experiment(data, out) == counts
    assert (out / "planetmath.jsonl").stat().st_mtime_ns == written


def test_a_folder_of_something_else_stays_as_it_was(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "tokenizer").mkdir(parents=True)
    with pytest.raises(UserError, match="holds files but no planetmath.json"):
        planetmath.write_experiment(data, tmp_path / "run")
    assert list((tmp_path / "run" / "tokenizer").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["corpora/planetmath_tex.jsonl.gz", "eval/gsm8k.jsonl.gz", "eval/general/hellaswag_val_full.txt.bz2"]
)
def test_a_damaged_file_is_named_and_nothing_is_left(name: str, data: Path, tmp_path: Path) -> None:
    whole = (data / name).read_bytes()
    (data / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{name}: cannot read"):
        planetmath.write_experiment(data, tmp_path / "out")
    (data / name).unlink()
    with pytest.raises(UserError, match=f"{name}: cannot read"):
        planetmath.write_experiment(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_recipes_differ_in_their_start_alone() -> None:
    general, continual, scratch = (
        load_recipe(EXPERIMENTS / f"planetmath-{name}.yaml", ["data_dir=folder"])
        for name in ("general", "continual", "scratch")
    )
    assert general.model == scratch.model and general.tokenizer == scratch.tokenizer
    assert continual.model.name == f"{general.out}/models/clm"
    assert general.train.arms == ("clm",) and general.train.selection.selects_everything
    for name in ("corpus", "context", "evaluation"):
        assert getattr(continual, name) == getattr(scratch, name)
    assert continual.train.tokens == scratch.train.tokens
    assert continual.train.selection == scratch.train.selection
    assert {source.label for source in continual.evaluation.targets} == {"gsm8k", "math"}
    assert continual.evaluation.general and "self" in continual.compare.arms
    sources = [*continual.corpus.sources, *continual.reference.sources, *general.corpus.sources]
    trained_on = {source.path for source in sources}
    assert not trained_on & {s.path for s in continual.evaluation.targets + continual.evaluation.general}


@pytest.mark.slow
def test_real_data_are_disjoint_and_as_large_as_the_recipes_say(tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    if not (folder / "corpora").is_dir():
        pytest.skip("needs ../shared/data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planetmath, "train_bpe", lambda texts, size: planetmath_tokenizer())
        counts = planetmath.write_experiment(folder, tmp_path / "out")
    assert (counts["planetmath"]["documents"], counts["stackmathqa"]["documents"]) == (547, 329)
    assert counts["math"]["dropped"] == 5 and counts["gsm8k"]["dropped"] == 0


def planetmath_tokenizer() -> Any:
    """Stands for a tokenizer whose training takes most of the time."""

    class Saved:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir(parents=True)

    return Saved()
