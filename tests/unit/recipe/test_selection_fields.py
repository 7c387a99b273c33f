"""Every field of `train.selection` can be written in YAML and in overrides, and is read back as it was."""

from pathlib import Path

import pytest
import yaml

from tokensieve.errors import UserError
from tokensieve.recipe import load_recipe, save_recipe
from tokensieve.selection import Part, SelectionPolicy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    data = {
        "out": "run",
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": "a.jsonl"}]},
        "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 1},
        "train": {"tokens": 1000},
    }
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "train.selection.ratio_schedule=[[0,1.0],[100,0.6]]",
            SelectionPolicy(ratio_schedule=((0, 1.0), (100, 0.6))),
        ),
        (
            "train.selection={ratio: 1, ratio_schedule: [[0, 1]]}",
            SelectionPolicy(ratio=1.0, ratio_schedule=((0, 1.0),)),
        ),
        ("train.selection.warmup_steps=1e3", SelectionPolicy(warmup_steps=1000)),
        ("train.selection.threshold=0", SelectionPolicy(threshold=0.0)),
        ("train.selection.temperature=2", SelectionPolicy(temperature=2.0)),
        ("train.selection.alpha=0.7", SelectionPolicy(alpha=0.7)),
        ("train.selection.reference_loss_cap=8", SelectionPolicy(reference_loss_cap=8.0)),
        ("train.selection.scope=document", SelectionPolicy(scope="document")),
        ("train.selection.threshold=", SelectionPolicy()),
        (
            "train.selection={score: union, parts: [{score: reference_loss, ratio: 1}, {score: random, ratio: 0.5}]}",
            SelectionPolicy("union", parts=(Part("reference_loss", 1.0), Part("random", 0.5))),
        ),
    ],
)
def test_a_field_is_read_and_comes_back_from_the_saved_recipe(
    file: Path, override: str, expected: SelectionPolicy
) -> None:
    recipe = load_recipe(file, [override])
    assert recipe.train.selection == expected
    assert all(isinstance(value, float) for _, value in recipe.train.selection.ratio_schedule)
    save_recipe(recipe, file)
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("ratio_schedule=[[0,1.0,2]]", "ratio_schedule.0: expected a list of 2 values, found [0, 1.0, 2]"),
        ("ratio_schedule=[[0]]", "ratio_schedule.0: expected a list of 2 values, found [0]"),
        ("ratio_schedule=[0, 0.6]", "ratio_schedule.0: expected a list, found 0"),
        ("ratio_schedule=[[0.5, 0.6]]", "ratio_schedule.0.0: expected int, found 0.5"),
        ("ratio_schedule=[[0, high]]", "ratio_schedule.0.1: expected float, found 'high'"),
        ("ratio_schedule=[[0, 0.5]]", "ratio_schedule ends at 0.5 and ratio is 0.6: make them equal"),
        ("temperature=0", "temperature must be above 0 and finite, not 0.0; leave it out to turn it off"),
        ("alpha=0", "alpha must be in (0, 1], not 0.0; 1 trains on the selected tokens alone"),
    ],
)
def test_mistakes_are_one_line_that_names_the_field(file: Path, override: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        load_recipe(file, [f"train.selection.{override}"])
    assert str(error.value) == f"{file}: train: selection: {expected}"
