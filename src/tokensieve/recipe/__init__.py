"""A recipe: one YAML file, read into frozen dataclasses. It says what a run is made of; nothing else does."""

from tokensieve.recipe.reading import build, dump, load_recipe, save_recipe, suggest
from tokensieve.recipe.sections import (
    ARMS,
    ContextSection,
    CorpusSection,
    EvaluationSection,
    ModelSection,
    PlanSection,
    Recipe,
    ReferenceSection,
    ScoreSection,
    Source,
    TokenizerSection,
    TrainSection,
)

__all__ = [
    "ARMS",
    "ContextSection",
    "CorpusSection",
    "EvaluationSection",
    "ModelSection",
    "PlanSection",
    "Recipe",
    "ReferenceSection",
    "ScoreSection",
    "Source",
    "TokenizerSection",
    "TrainSection",
    "build",
    "dump",
    "load_recipe",
    "save_recipe",
    "suggest",
]
