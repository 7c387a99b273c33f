"""The models to measure: every checkpoint of a run's arms, or folders that the user names."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash
from transformers import PreTrainedModel

from tokensieve.corpus.run_stores import open_tokens
from tokensieve.dynamics.trajectories import Checkpoint
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe
from tokensieve.stage import first_difference, read_manifest
from tokensieve.training.arms import ARM_MANIFEST, arm_policy, own_inputs
from tokensieve.training.loop import read_metrics
from tokensieve.training.metrics import CHECKPOINT_STATE
from tokensieve.training.models import check_folder
from tokensieve.training.saving import saved_models
from tokensieve.training.setup import load

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
        """xxh3-128 of its weights' files; of a Hub id the id itself.

        Raises:
            UserError: a folder that holds no model.
        """
        check_folder(self.model)
        folder = Path(self.model)
        if not folder.is_dir():
            return self.model
        digest = xxhash.xxh3_128()
        for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, xxhash.xxh3_128).digest())
            except FileNotFoundError as error:
                raise UserError(f"{path}: no such file; {folder} is no complete model folder") from error
        return digest.hexdigest()

    def open(self, recipe: Recipe) -> PreTrainedModel:
        """The model, checked against the recipe's tokenizer and context."""
        return load(recipe, replace(recipe.model, name=self.model, fresh=None, revision="main"))


@dataclass(frozen=True)
class Runs:
    """Every run's checkpoints, in the order of training."""

    arms: Mapping[str, list[Found]]
    """The first arm decides the categories."""
    tokens_seen: int
    """The most that any of the arms was trained on; 0 for the user's folders, of which nobody knows."""
    warnings: list[str]
    """What a reader must know of arms left out."""


def find_checkpoints(recipe: Recipe) -> Runs:
    """Find them.

    Raises:
        UserError: an arm is not trained, was trained with another recipe, or there are fewer than two checkpoints.
    """
    section = recipe.dynamics
    if section.checkpoints:
        return Runs({GIVEN: [Found(Checkpoint(name, None), name) for name in section.checkpoints]}, 0, [])
    arms = section.arms or tuple(sorted(recipe.train.arms, key=lambda arm: arm != "clm"))
    found: dict[str, list[Found]] = {}
    warnings, seen = [], 0
    for arm in arms:
        folder = recipe.folder / "models" / arm
        tokens_seen = _trained_on(recipe, arm, folder)
        checkpoints = _of_run(folder, tokens_seen)
        if len(checkpoints) >= LEAST:
            found[arm] = checkpoints
            seen = max(seen, tokens_seen)
            continue
        there = f"{folder}: {len(checkpoints)} checkpoint, a line needs {LEAST}"
        if section.arms:
            raise UserError(f"{there}; name token counts under train.save_at, and train it in another `out`")
        warnings.append(f"{there}: the arm is left out")
    if not found:
        raise UserError(
            f"{recipe.folder / 'models'}: no arm has {LEAST} checkpoints; name token counts under train.save_at before "
            f"training (in another `out`), or model folders under dynamics.checkpoints"
        )
    return Runs(found, seen, warnings)


def _trained_on(recipe: Recipe, arm: str, folder: Path) -> int:
    """Tokens that a finished arm has seen, as its run.json says.

    Raises:
        UserError: not finished, or trained with other settings: then what it was trained on, and what it selected,
            are not what this recipe says.
    """
    manifest = folder / ARM_MANIFEST
    made = read_manifest(manifest) if manifest.exists() else None
    if made is None or not made["finished"]:
        raise UserError(f"{manifest}: arm {arm} is not trained yet; run `tokensieve train` first")
    here = json.loads(json.dumps(own_inputs(recipe, arm_policy(recipe, arm), open_tokens(recipe))))
    names = [*here, "held_out", "save_at"]
    if recipe.dynamics.sources:
        names = [name for name in names if name != "held_out"]
    there_and_here = [{name: inputs.get(name) for name in names} for inputs in (made["inputs"], here)]
    different = first_difference(there_and_here[0], there_and_here[1])
    if different is not None:
        key, there, wanted = different
        raise UserError(
            f"{manifest}: arm {arm} was trained with another recipe ({key} is {there!r:.60} there, {wanted!r:.60} "
            f"here): what it has seen and selected would be mistaken; set {key} as it was, or train in another `out`"
        )
    return int(made["outputs"]["tokens_seen"])


def _of_run(folder: Path, tokens_seen: int) -> list[Found]:
    """Models saved at token counts, else the Trainer's checkpoints if they were kept; then the finished model."""
    found = saved_models(folder)
    if not found:
        kept = [path.parent for path in folder.glob(f"checkpoint-*/{CHECKPOINT_STATE}")]
        # As many tokens a step as it was trained with, on however many devices.
        per_step = tokens_seen / read_metrics(folder)[-1]["step"] if kept else 0.0
        found = [(round(int(path.name.split("-")[1]) * per_step), path) for path in kept]
    names: Mapping[int, Path] = {**dict(found), tokens_seen: folder} if found else {}
    return [Found(Checkpoint(path.name, tokens), str(path)) for tokens, path in sorted(names.items())]
