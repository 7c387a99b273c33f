"""`tokensieve compare`: does token selection help on this data? Arms x seeds, comparison.json and comparison.html."""

import os
from pathlib import Path
from typing import Any

from tokensieve.compare.arms import comparison_arms
from tokensieve.compare.cells import all_cells, measure_untrained
from tokensieve.compare.gathering import gather
from tokensieve.compare.running import alone, train_cells
from tokensieve.compare.stages import (
    check_request,
    make_shared,
    overlap,
    overlap_warnings_of,
    probe_numbers,
    reference_recipes,
)
from tokensieve.errors import UserError
from tokensieve.pipeline import warn
from tokensieve.recipe import Recipe
from tokensieve.report.comparison import write_comparison
from tokensieve.stage import write_json

COMPARISON = "comparison.json"
PAGE = "comparison.html"


def compare(recipe: Recipe) -> dict[str, Any]:
    """Train and measure every arm with every seed, and write what came out; what is finished is left alone.

    Args:
        recipe: with held-out target text, and a `compare` section if the defaults do not do.

    Returns:
        What comparison.json holds (docs/compare.md).

    Raises:
        UserError: a request that cannot be answered, or anything a stage raises.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("tokensieve compare starts its own processes, one for each device: start it without torchrun")
    arms = comparison_arms(recipe)
    warnings = check_request(recipe, arms)
    with alone(recipe):
        warn(warnings)
        make_shared(recipe, arms)
        warn(overlap_warnings_of(recipe, overlap(recipe)))
        held_out = probe_numbers(recipe)
        train_cells(recipe, all_cells(recipe, arms, held_out))
        with_reference = any(arm.scored for arm in arms)
        measure_untrained(next(reference_recipes(recipe, arms), recipe), reference=with_reference)
        comparison = gather(recipe, arms, held_out, warnings)
        write_json(recipe.folder / COMPARISON, comparison)
        write_comparison(comparison, recipe.folder / PAGE)
    return comparison


def written(recipe: Recipe) -> tuple[Path, Path]:
    """Where the two files lie."""
    return recipe.folder / COMPARISON, recipe.folder / PAGE
