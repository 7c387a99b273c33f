"""`data_dir: embedded` stands for text below `out`; `recipes/NAME.yaml` is the shipped one where there is no other."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokensieve.recipe
from tokensieve import pipeline
from tokensieve.errors import UserError
from tokensieve.recipe import EMBEDDED, EMBEDDED_FOLDER, load_recipe, save_recipe

SHIPPED = Path(tokensieve.recipe.__file__).parents[1] / "recipes"


def write(path: Path, out: Path | str, **more: Any) -> Path:
    data = {
        "out": str(out),
        "data_dir": EMBEDDED,
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": "{data_dir}/noisy.jsonl"}]},
        "reference": {"sources": [{"path": "{data_dir}/clean.jsonl"}], "epochs": 1},
        "train": {"tokens": 1000},
        "evaluation": {"targets": [{"path": "{data_dir}/target.jsonl"}]},
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data))
    return path


def paths(recipe: Any) -> list[str | None]:
    return [recipe.corpus.sources[0].path, recipe.reference.sources[0].path, recipe.evaluation.targets[0].path]


def test_embedded_text_lies_below_out_wherever_that_is(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", tmp_path / "run")
    recipe = load_recipe(path)
    folder = tmp_path / "run" / EMBEDDED_FOLDER
    assert paths(recipe) == [str(folder / f"{name}.jsonl") for name in ("noisy", "clean", "target")]
    moved = load_recipe(path, [f"out={tmp_path / 'elsewhere'}"])
    assert paths(moved)[0] == str(tmp_path / "elsewhere" / EMBEDDED_FOLDER / "noisy.jsonl")
    # The saved recipe says where the text came from, and is read back as it was.
    assert recipe.data_dir == EMBEDDED
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


def test_any_other_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", tmp_path / "run")
    assert paths(load_recipe(path, ["data_dir=/texts"]))[0] == "/texts/noisy.jsonl"
    assert paths(load_recipe(path, ["data_dir=./embedded"]))[0] == "./embedded/noisy.jsonl"
    with pytest.raises(UserError, match="needs data_dir; add data_dir=FOLDER"):
        load_recipe(path, ["data_dir=null"])


@pytest.mark.parametrize("embedded", [True, False])
def test_only_embedded_text_is_written_and_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    written: list[Path] = []

    def write_embedded(folder: Path) -> dict[str, Any]:
        written.append(folder)
        folder.mkdir(parents=True)
        for name in ("noisy", "clean", "target"):
            (folder / f"{name}.jsonl").write_text('{"text": "some words"}\n')
        counts = {name: {"documents": 1, "bytes": 10} for name in ("noisy", "clean", "target")}
        return {"sympy": "0.0", "note": None, **counts}

    class Reached(Exception):
        pass

    def reached(*arguments: Any) -> None:
        assert (tmp_path / "run" / EMBEDDED_FOLDER / "noisy.jsonl").exists() == embedded
        raise Reached

    monkeypatch.setattr(pipeline, "write_embedded", write_embedded)
    monkeypatch.setattr(pipeline, "load_tokenizer", reached)
    path = write(tmp_path / "recipe.yaml", tmp_path / "run")
    with pytest.raises(Reached):
        pipeline.tokenize(load_recipe(path, [] if embedded else [f"data_dir={tmp_path}"]))
    assert written == ([tmp_path / "run" / EMBEDDED_FOLDER] if embedded else [])


def test_a_shipped_recipe_is_found_from_anywhere_and_a_local_file_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load_recipe("recipes/quickstart.yaml", ["out=here"])
    assert shipped == load_recipe(SHIPPED / "quickstart.yaml", ["out=here"])
    write(tmp_path / "recipes" / "quickstart.yaml", "mine")
    assert load_recipe("recipes/quickstart.yaml").out == "mine"
    # The others are still the shipped ones, also those in a folder below.
    assert load_recipe("recipes/compare-quick.yaml").compare.seeds == (0, 1, 2)
    below = next((SHIPPED / "paper").glob("*.yaml"))
    assert load_recipe(f"recipes/paper/{below.name}", ["data_dir=/d"]) == load_recipe(below, ["data_dir=/d"])


@pytest.mark.parametrize(
    "name",
    [
        "recipes/nothing.yaml",
        "quickstart.yaml",
        "other/quickstart.yaml",
        "compare/comparison.schema.json",  # lies in the package
        "./recipes/nothing.yaml",
    ],
)
def test_any_other_missing_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_recipe(name)
    assert "cannot read the recipe" in str(caught.value) and "\n" not in str(caught.value)
    assert str(SHIPPED) not in str(caught.value)


def test_shipped_recipes_on_embedded_text_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in sorted(SHIPPED.glob("*.yaml")):
        shutil.copy(path, tmp_path / path.name)
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if data.get("data_dir") == EMBEDDED:
            recipe = load_recipe(tmp_path / path.name)
            assert {str(Path(name or "").parent) for name in paths(recipe)} == {f"{recipe.out}/{EMBEDDED_FOLDER}"}
