"""The models to measure: every checkpoint of a run's arms, or folders that the user names."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash
from transformers import PreTrainedModel

from tokensieve.dynamics.trajectories import Checkpoint
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe
from tokensieve.stage import read_manifest
from tokensieve.training.arms import ARM_MANIFEST
from tokensieve.training.metrics import CHECKPOINT_STATE
from tokensieve.training.saving import saved_models
from tokensieve.training.setup import arm_steps, load

GIVEN = "checkpoints"
"""Name of the run that the user's folders stand for."""
LEAST = 2
"""A line needs two points."""


@dataclass(frozen=True)
class Found:
    """A checkpoint and where it lies."""

    checkpoint: Checkpoint
    model: str
    """Folder or Hub id."""

    @property
    def digest(self) -> str:
        """xxh3-128 of its weights' files; of a Hub id the id itself."""
        if not Path(self.model).is_dir():
            return self.model
        digest = xxhash.xxh3_128()
        for path in sorted([*Path(self.model).glob("*.safetensors"), Path(self.model) / "config.json"]):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, xxhash.xxh3_128).digest())
        return digest.hexdigest()

    def open(self, recipe: Recipe) -> PreTrainedModel:
        """The model, checked against the recipe's tokenizer and context."""
        return load(recipe, replace(recipe.model, name=self.model, fresh=None, revision="main"))


def find_checkpoints(recipe: Recipe) -> tuple[dict[str, list[Found]], list[str]]:
    """Every run's checkpoints, in the order of training.

    Returns:
        Arm -> its checkpoints; the first arm decides the categories. And what a reader must know of arms left out.

    Raises:
        UserError: an arm is not trained, or there are fewer than two checkpoints.
    """
    section = recipe.dynamics
    if section.checkpoints:
        return {GIVEN: [Found(Checkpoint(name, None), name) for name in section.checkpoints]}, []
    arms = section.arms or tuple(sorted(recipe.train.arms, key=lambda arm: arm != "clm"))
    found: dict[str, list[Found]] = {}
    warnings = []
    for arm in arms:
        checkpoints = _of_arm(recipe, arm)
        if len(checkpoints) >= LEAST:
            found[arm] = checkpoints
            continue
        there = f"{recipe.folder / 'models' / arm}: {len(checkpoints)} checkpoint, a line needs {LEAST}"
        if section.arms:
            raise UserError(f"{there}; name token counts under train.save_at, and train it in another `out`")
        warnings.append(f"{there}: the arm is left out")
    if not found:
        raise UserError(
            f"{recipe.folder / 'models'}: no arm has {LEAST} checkpoints; name token counts under train.save_at before "
            f"training (in another `out`), or model folders under dynamics.checkpoints"
        )
    return found, warnings


def _of_arm(recipe: Recipe, arm: str) -> list[Found]:
    """Models saved at token counts, else the Trainer's checkpoints if they were kept; then the finished model."""
    folder = recipe.folder / "models" / arm
    manifest = folder / ARM_MANIFEST
    made = read_manifest(manifest) if manifest.exists() else None
    if made is None or not made["finished"]:
        raise UserError(f"{manifest}: arm {arm} is not trained yet; run `tokensieve train` first")
    there, here = made["inputs"].get("held_out"), recipe.dynamics.tokens if recipe.dynamics.hold_out else None
    if there != here and not recipe.dynamics.sources:
        raise UserError(
            f"{manifest}: trained with held_out {there}, and dynamics would measure text held out with {here}: it may "
            f"have been trained on; set dynamics.hold_out and dynamics.tokens as they were, or train in another `out`"
        )
    steps, per_step = arm_steps(recipe)
    found = saved_models(folder)
    if not found:
        kept = [path.parent for path in folder.glob(f"checkpoint-*/{CHECKPOINT_STATE}")]
        found = sorted((int(path.name.split("-")[1]) * per_step, path) for path in kept)
    names: Mapping[int, Path] = {**dict(found), steps * per_step: folder} if found else {}
    return [Found(Checkpoint(path.name, tokens), str(path)) for tokens, path in sorted(names.items())]
