"""Scoring as a datatrove job: its executors start, place and restart workers on one machine, Slurm or Ray.

    LocalPipelineExecutor(pipeline=[ScoreCorpus("recipe.yaml")], tasks=8, workers=2, logging_dir="logs")

Each task is one worker on the run's folder, which all of them must see. Tasks may run in any number and order, fail
and be started again: a shard is done once, and the last worker finishes the store.
"""

from collections.abc import Sequence
from typing import Any

from datatrove.pipeline.base import PipelineStep

from tokensieve.recipe import load_recipe


class ScoreCorpus(PipelineStep):
    """A pipeline of one step: `tokensieve score`, one worker a task.

    Args:
        recipe: path of the recipe, as every task sees it.
        overrides: `key.sub=value` texts.
    """

    name = "tokensieve score"
    type = "scoring"

    def __init__(self, recipe: str, overrides: Sequence[str] = ()) -> None:
        super().__init__()
        self.recipe = recipe
        self.overrides = tuple(overrides)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Work until the store is finished.

        Raises:
            UserError: see `tokensieve score`.
        """
        from tokensieve.pipeline import score  # the executor pickles this step; torch is imported where it runs

        score(load_recipe(self.recipe, self.overrides), (rank, world_size))
        return data
