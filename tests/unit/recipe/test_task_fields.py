"""Every field of `tasks` can be written in YAML, is read back as it was, and a slip is answered in words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tokensieve.errors import UserError
from tokensieve.recipe import TaskSection, load_recipe, save_recipe

FILE = {"path": "quiz.jsonl", "kind": "exact"}


def write(path: Path, tasks: Any) -> Path:
    data = {
        "out": "run",
        "data_dir": "/data",
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": "a.jsonl"}]},
        "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 1},
        "train": {"tokens": 1000},
        "tasks": tasks,
    }
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"task": "gsm8k", "fewshot": 5, "limit": 1e2}, TaskSection(task="gsm8k", fewshot=5, limit=100)),
        (
            {
                "task": "mmlu",
                "name": "facts",
                "metric": "acc_norm",
                "max_new_tokens": 9,
                "include_path": "{data_dir}/t",
            },
            TaskSection(task="mmlu", name="facts", metric="acc_norm", max_new_tokens=9, include_path="/data/t"),
        ),
        (
            {"path": "{data_dir}/a.jsonl.gz", "kind": "multiple_choice", "choices": "{{o | tojson}}", "metric": "acc"},
            TaskSection(path="/data/a.jsonl.gz", kind="multiple_choice", choices="{{o | tojson}}", metric="acc"),
        ),
        (
            {
                **FILE,
                "question": "{{a}} + {{b}}",
                "answer": "key",
                "prompt": "Q: {{question}}\nA: ",
                "fewshot": 2,
                "fewshot_path": "{data_dir}/train.jsonl",
                "pattern": "#### (.*)",
                "stop": ["\n", "Q:"],
                "max_new_tokens": 100,
            },
            TaskSection(
                path="quiz.jsonl",
                kind="exact",
                question="{{a}} + {{b}}",
                answer="key",
                prompt="Q: {{question}}\nA: ",
                fewshot=2,
                fewshot_path="/data/train.jsonl",
                pattern="#### (.*)",
                stop=("\n", "Q:"),
                max_new_tokens=100,
            ),
        ),
    ],
)
def test_a_task_is_read_and_comes_back_from_the_saved_recipe(
    tmp_path: Path, fields: dict[str, Any], expected: TaskSection
) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", [fields]))
    assert recipe.tasks == (expected,)
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of task and path"),
        ({"task": "a", "path": "b"}, "exactly one of task and path"),
        ({"task": "a", "kind": "exact"}, "kind belongs to path"),
        ({"task": "a", "prompt": "{{question}}"}, "prompt belongs to path"),
        ({"task": "a", "stop": ["x"]}, "stop belongs to path"),
        ({"task": "a", "fewshot": -1}, "fewshot must be at least 0, not -1"),
        ({"task": "a", "limit": 0}, "limit must be at least 1, not 0"),
        ({"task": "a", "max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"task": "a", "name": "a b"}, "'a b' is not a folder name"),
        ({"task": "target"}, "'target' is that of a loss"),
        ({"task": "a", "shots": 1}, "unknown key 'shots'"),
        ({"path": "a"}, "path needs kind"),
        ({"path": "a", "kind": "choice"}, "'choice' is not one of multiple_choice, exact"),
        ({**FILE, "include_path": "x"}, "include_path belongs to task"),
        ({**FILE, "choices": "x"}, "choices belongs to kind multiple_choice"),
        ({**FILE, "metric": "acc"}, "'acc' is not one of exact: exact_match"),
        ({**FILE, "fewshot_path": "x"}, "fewshot_path without fewshot"),
        ({**FILE, "prompt": "{{question"}, "prompt is no Jinja template"),
        ({**FILE, "answer": " "}, "answer is empty"),
        ({**FILE, "pattern": "("}, "is no regular expression"),
        ({**FILE, "stop": [""]}, "stop holds an empty text"),
        ({"path": "a", "kind": "multiple_choice", "pattern": "x"}, "pattern belongs to kind exact"),
        ({"path": "a", "kind": "multiple_choice", "max_new_tokens": 4}, "max_new_tokens belongs to kind exact"),
    ],
)
def test_a_slip_is_answered_with_its_place(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"recipe.yaml: tasks.0.*{message}"):
        load_recipe(write(tmp_path / "recipe.yaml", [fields]))


@pytest.mark.parametrize(
    ("section", "label"),
    [
        (TaskSection(task="arc_easy"), "arc_easy"),
        (TaskSection(task="a/b c"), "a-b-c"),
        (TaskSection(task="a", name="b"), "b"),
        (TaskSection(path="x/gsm8k.jsonl.gz", kind="exact"), "gsm8k"),
        (TaskSection(path="x/quiz.v2.json", kind="exact"), "quiz.v2"),
        (TaskSection(path="x/*.jsonl", kind="exact"), "task"),
    ],
)
def test_a_task_has_a_name(section: TaskSection, label: str) -> None:
    assert section.label == label


def test_generation_is_longer_where_a_solution_precedes_the_answer() -> None:
    lengths = [TaskSection(**FILE), TaskSection(**FILE, pattern="x"), TaskSection(**FILE, max_new_tokens=7)]
    assert [section.generated_tokens for section in lengths] == [64, 256, 7]
