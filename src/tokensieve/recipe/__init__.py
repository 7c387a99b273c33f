"""A recipe: one YAML file, read into frozen dataclasses. It says what a run is made of; nothing else does."""

from tokensieve.recipe.comparison import COMPARE_ARMS, CompareSection
from tokensieve.recipe.dynamics import DynamicsSection
from tokensieve.recipe.reading import build, dump, load_recipe, save_recipe, suggest
from tokensieve.recipe.sections import (
    ARMS,
    EMBEDDED,
    EMBEDDED_FOLDER,
    ContextSection,
    EvaluationSection,
    ModelSection,
    PlanSection,
    Recipe,
    ReferenceSection,
    ScoreSection,
    TrainSection,
)
from tokensieve.recipe.task import TaskSection
from tokensieve.recipe.texts import CorpusSection, Source, TokenizerSection

__all__ = [
    "ARMS",
    "COMPARE_ARMS",
    "EMBEDDED",
    "EMBEDDED_FOLDER",
    "CompareSection",
    "ContextSection",
    "CorpusSection",
    "DynamicsSection",
    "EvaluationSection",
    "ModelSection",
    "PlanSection",
    "Recipe",
    "ReferenceSection",
    "ScoreSection",
    "Source",
    "TokenizerSection",
    "TaskSection",
    "TrainSection",
    "build",
    "dump",
    "load_recipe",
    "save_recipe",
    "suggest",
]
