"""Every field of `compare` can be written in YAML and is read back as it was; a slip is answered in words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tokensieve.errors import UserError
from tokensieve.recipe import COMPARE_ARMS, CompareSection, dump, load_recipe, save_recipe


def write(path: Path, compare: Any, **more: Any) -> Path:
    data = {
        "out": "run",
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": "a.jsonl"}]},
        "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 1},
        "train": {"tokens": 1000},
        "compare": compare,
        **more,
    }
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, CompareSection()),
        (None, CompareSection()),
        ({"arms": list(COMPARE_ARMS)}, CompareSection(arms=COMPARE_ARMS)),
        (
            {"arms": ["clm", "slm"], "seeds": [7, 0, 2**32 - 1], "ratios": [0.1, 0.999]},
            CompareSection(arms=("clm", "slm"), seeds=(7, 0, 2**32 - 1), ratios=(0.1, 0.999)),
        ),
        (
            {"scores": ["excess_loss", "reference_entropy", "current_loss"], "reference_per_seed": True},
            CompareSection(scores=("excess_loss", "reference_entropy", "current_loss"), reference_per_seed=True),
        ),
        (
            {"mixed_share": 0.25, "weak_tokens": 1e6, "probe_windows": 8, "processes": 2},
            CompareSection(mixed_share=0.25, weak_tokens=1_000_000, probe_windows=8, processes=2),
        ),
        ({"ratios": None, "scores": None, "processes": None}, CompareSection()),
    ],
)
def test_fields_are_read_and_written_back(tmp_path: Path, fields: Any, expected: CompareSection) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", fields))
    assert recipe.compare == expected
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml").compare == expected
    assert CompareSection(**{key: _tuple(value) for key, value in dump(expected).items()}) == expected


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def test_overrides_reach_the_section(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", {"seeds": [1]})
    recipe = load_recipe(path, ["compare.seeds=[3,4,5]", "compare.ratios=[0.4]", "compare.processes=1"])
    assert (recipe.compare.seeds, recipe.compare.ratios, recipe.compare.processes) == ((3, 4, 5), (0.4,), 1)
    assert load_recipe(path, ["compare.seeds.0=9"]).compare.seeds == (9,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": []}, "arms is empty: name at least one"),
        ({"arms": ["slm"]}, "arms names slm alone: there is nothing to compare it with"),
        ({"arms": ["slm", "slm"]}, "arms names one twice: slm, slm"),
        ({"arms": ["slm", "plain"]}, "unknown arm 'plain'; the arms are clm, random, slm"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [0, 1, 0]}, "seeds names one twice: 0, 1, 0"),
        ({"seeds": [-1]}, "a seed must be from 0 to 2**32 - 1, not -1"),
        ({"seeds": [2**32]}, "a seed must be from 0 to 2**32 - 1, not 4294967296"),
        ({"seeds": [0.5]}, "seeds.0: expected int, found 0.5"),
        ({"seeds": 3}, "seeds: expected a list, found 3"),
        ({"ratios": []}, "ratios is empty"),
        ({"ratios": [0.4, 1]}, "a ratio must be above 0 and below 1, not 1: 1 is the arm clm"),
        ({"ratios": [0.0]}, "a ratio must be above 0 and below 1, not 0"),
        ({"ratios": [-0.2]}, "not -0.2"),
        ({"ratios": [float("nan")]}, "not nan"),
        ({"ratios": [0.4, 0.4]}, "ratios names one twice"),
        ({"scores": []}, "scores is empty"),
        ({"scores": ["excess_loss", "excess_loss"]}, "scores names one twice"),
        ({"scores": ["excess"]}, "unknown score 'excess'; the scores are excess_loss, reference_loss"),
        ({"scores": ["random"]}, "unknown score 'random'"),
        ({"scores": ["mask"]}, "unknown score 'mask'"),
        ({"scores": ["history_loss"]}, "unknown score 'history_loss'"),
        ({"scores": ["union"]}, "unknown score 'union'"),
        ({"mixed_share": 0}, "mixed_share must be in (0, 1), not 0"),
        ({"mixed_share": 1.0}, "mixed_share must be in (0, 1), not 1.0"),
        ({"weak_tokens": 0}, "tokens must be"),
        ({"probe_windows": 0}, "probe_windows must be at least 1, not 0"),
        ({"processes": 0}, "processes must be at least 1, not 0"),
        ({"reference_per_seed": "yes"}, "reference_per_seed: expected bool, found 'yes'"),
        ({"seed": [1]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"ratio": 0.4}, "unknown key 'ratio'; did you mean 'ratios'?"),
        (["clm"], "expected a mapping, found ['clm']"),
    ],
)
def test_a_slip_is_one_line_with_its_place(tmp_path: Path, fields: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path / "recipe.yaml", fields))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'recipe.yaml'}: compare: ") and message in text and "\n" not in text


def test_general_text_needs_targets_and_names_of_its_own(tmp_path: Path) -> None:
    general = [{"path": "g.jsonl", "name": "same"}]
    with pytest.raises(UserError, match="general text is measured beside targets"):
        load_recipe(write(tmp_path / "recipe.yaml", {}, evaluation={"general": general}))
    both = {"general": general, "targets": [{"path": "t.jsonl", "name": "same"}]}
    with pytest.raises(UserError, match="two targets share a name"):
        load_recipe(write(tmp_path / "recipe.yaml", {}, evaluation=both))
