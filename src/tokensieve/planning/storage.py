"""What a run leaves on disk: token stores, scores, models and checkpoints."""

from collections.abc import Mapping
from typing import Any

from tokensieve.planning.memory import DTYPE_BYTES
from tokensieve.planning.shape import ModelShape
from tokensieve.recipe import Recipe
from tokensieve.training.arguments import keeps_checkpoints
from tokensieve.training.arms import needs_reference, needs_scores


def storage(
    recipe: Recipe, student: ModelShape, reference: ModelShape, corpus: int, clean: int, steps: int
) -> dict[str, float]:
    """Sizes in GB by what they hold, and `total`.

    Args:
        recipe: the recipe.
        student: its model's shape.
        reference: the shape of its reference.
        corpus: tokens of the noisy corpus.
        clean: tokens of the clean text.
        steps: optimizer steps of one arm.
    """
    scored = needs_scores(recipe)
    trained = needs_reference(recipe) and bool(recipe.reference.sources)
    token_size = 2 if student.vocabulary <= 65536 else 4
    foreign_size = 2 if reference.vocabulary <= 65536 else 4
    size = DTYPE_BYTES[recipe.model.dtype]
    arms = len(recipe.train.arms)
    sizes = {
        "token store": token_size * corpus if recipe.corpus.existing is None else 0,
        "clean token store": token_size * clean,
        # 8 bytes of checksum for each 16 KiB.
        "score store": scored * (2 + 2 * recipe.score.entropy + recipe.score.correct) * corpus * (1 + 8 / 16384),
        # Until it is removed; about as many tokens as the corpus has.
        "carried-over store": scored * recipe.score.carry_over * (foreign_size + 2) * corpus,
        "reference model": DTYPE_BYTES["float32"] * reference.parameters if trained else 0,
        "models": size * student.parameters * arms * (1 + len(recipe.train.save_at)),
        # Weights and AdamW's two moments.
        "checkpoints": 3 * size * student.parameters * _checkpoints(recipe.train.trainer, steps, arms),
    }
    return {name: size / 1e9 for name, size in sizes.items()} | {"total": sum(sizes.values()) / 1e9}


def _checkpoints(trainer: Mapping[str, Any], steps: int, arms: int) -> int:
    """How many exist at once. Those that the recipe asks for stay, others go when their arm is finished."""
    limit = trainer.get("save_total_limit", 2)
    every = trainer.get("save_steps", max(1, steps // 10))
    kept = steps // every if limit is None else limit
    return kept * (arms if keeps_checkpoints(trainer) else 1)
