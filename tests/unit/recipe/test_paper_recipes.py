"""The paper's recipes hold the paper's numbers and are accepted by every part that reads them."""

from pathlib import Path

import pytest

import tokensieve.recipes
from tokensieve.recipe import dump, load_recipe, save_recipe
from tokensieve.training.arguments import training_arguments

PAPER = Path(tokensieve.recipes.__path__[0]) / "paper"
RECIPES = sorted(PAPER.glob("*.yaml"))
# name: tokens seen, ratio, highest learning rate, sequence length, the reference's highest learning rate
STATED = {
    "math-1b": (15e9, 0.6, 8e-5, 2048, 5e-5),
    "math-7b": (15e9, 0.7, 2e-5, 4096, 1e-5),
    "general-1b": (80e9, 0.6, 1e-4, 2048, 5e-5),
    "self-reference": (15e9, 0.6, 8e-5, 2048, 8e-5),
    "weak-to-strong": (15e9, 0.7, 2e-5, 2048, 5e-5),
}


def test_all_five_runs_are_there() -> None:
    assert {path.stem for path in RECIPES} == set(STATED)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_numbers_are_the_papers(path: Path) -> None:
    recipe = load_recipe(path)
    tokens, ratio, rate, length, reference_rate = STATED[path.stem]
    assert recipe.train.tokens == tokens
    assert recipe.train.selection.ratio == ratio
    assert recipe.train.trainer["learning_rate"] == rate
    assert recipe.context.length == length
    assert recipe.reference.trainer["learning_rate"] == reference_rate
    assert recipe.reference.trainer["lr_scheduler_type"] == "cosine"
    trainer = recipe.train.trainer
    batch = trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"] * 32 * length
    assert batch == 2**20
    if path.stem != "self-reference":
        assert recipe.reference.epochs == 3
        assert recipe.train.selection.score == "excess_loss"


def test_general_text_is_mixed_six_to_three_to_one() -> None:
    sources = load_recipe(PAPER / "general-1b.yaml").corpus.sources
    weights = {
        name: 0.0 for name in ("cerebras/SlimPajama-627B", "bigcode/starcoderdata", "open-web-math/open-web-math")
    }
    for source in sources:
        assert source.hub is not None and source.weight is not None
        weights[source.hub] += source.weight
    assert list(weights.values()) == [6, 3, 1]
    assert len({source.label for source in sources}) == len(sources)


def test_self_reference_intersects_two_static_scores() -> None:
    selection = load_recipe(PAPER / "self-reference.yaml").train.selection
    assert selection.score == "intersection"
    assert {part.score: part.ratio for part in selection.parts} == {
        "reference_entropy": 0.7,
        "reference_loss": 0.7,
    }
    assert not selection.needs_live_loss


def test_weak_to_strong_has_a_small_reference() -> None:
    recipe = load_recipe(PAPER / "weak-to-strong.yaml")
    assert recipe.model.name == "meta-llama/Llama-2-7b-hf"
    assert recipe.reference.model is not None and "TinyLlama" in (recipe.reference.model.name or "")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_trainer_options_are_accepted(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    for place, options in (("train", recipe.train.trainer), ("reference", recipe.reference.trainer)):
        # One process without an accelerator: FSDP refuses to start there.
        usable = {name: value for name, value in options.items() if name != "fsdp"} | {"use_cpu": True}
        args = training_arguments(usable, place=f"{place}.trainer", output=tmp_path, steps=100, seed=0)
        assert args.bf16 and args.learning_rate == options["learning_rate"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_saved_recipe_is_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert dump(load_recipe(tmp_path / "recipe.yaml")) == dump(recipe)
