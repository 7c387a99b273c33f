"""Fields of a recipe that exclude each other: online, carried-over and existing stores."""

from typing import Any

import pytest

from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, build, dump


def recipe(**sections: Any) -> dict[str, Any]:
    return {
        "out": "run",
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": "a.jsonl"}]},
        "reference": {"existing": "another/model"},
        "train": {"tokens": 1000},
        **sections,
    }


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"score": {"online": True, "carry_over": True}}, "score: online and carry_over exclude each other"),
        ({"score": {"carry_over": True, "entropy": True}}, "score: carry_over carries losses only"),
        ({"score": {"carry_over": True, "correct": True}}, "score: carry_over carries losses only"),
        ({"corpus": {"existing": "a", "sources": [{"path": "b"}]}}, "existing and sources exclude each other"),
        ({"corpus": {}}, "sources is empty: name at least one"),
        ({"corpus": {"existing": "a"}, "tokenizer": {"train_vocab": 300}}, "corpus.existing has its tokenizer"),
        ({"score": {"carry_ovr": True}}, "did you mean 'carry_over'"),
        ({"score": {"online": "yes please"}}, "expected bool"),
        (
            {"train": {"tokens": 1000, "selection": {"score": "reference_entropy"}}, "score": {"carry_over": True}},
            "reads reference_entropy",
        ),
    ],
)
def test_what_excludes_each_other_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(Recipe, recipe(**sections), "recipe.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sections",
    [
        {"score": {"online": True, "dtype": "bfloat16"}},
        {"score": {"carry_over": True}},
        {"corpus": {"existing": "tokens"}, "tokenizer": {"name": "t"}, "storage": "s3://bucket/run"},
    ],
)
def test_what_goes_together_is_read_and_written_back(sections: dict[str, Any]) -> None:
    made = build(Recipe, recipe(**sections), "recipe.yaml")
    assert build(Recipe, dump(made), "again") == made
