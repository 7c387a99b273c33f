"""Models along the way: plain model folders at token counts that the recipe names, for analysis afterwards.

They are no checkpoints to resume from (no optimizer state), so they are small, and they stay.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback

from tokensieve.errors import UserError
from tokensieve.stage import is_main_process

SAVED = "saved"
"""Folder of a run that holds one model folder for each, named after the tokens seen."""


def save_steps(save_at: Sequence[int], per_step: int, steps: int) -> dict[int, int]:
    """Optimizer step -> tokens seen then: the step nearest to each token count.

    Raises:
        UserError: two counts fall on one step.
    """
    found: dict[int, int] = {}
    for tokens in save_at:
        step = min(round(tokens / per_step), steps)
        if step in found:
            raise UserError(
                f"train.save_at: {tokens:,} tokens fall on the same step (of {per_step:,} tokens) as another; "
                f"leave one out"
            )
        found[step] = step * per_step
    return found


def saved_models(folder: Path) -> list[tuple[int, Path]]:
    """(tokens seen, model folder) of a run, in order."""
    names = [path for path in (folder / SAVED).glob("*") if path.name.isdecimal()]
    return sorted((int(path.name), path) for path in names)


class SaveModels(TrainerCallback):
    """Saves the model after given steps, each whole or not at all.

    Args:
        trainer: gathers the weights from wherever they are.
        tokenizer: saved beside them.
        folder: the run's.
        at: optimizer step -> tokens seen then; 0 is before the first step.
    """

    def __init__(
        self, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, folder: Path, at: Mapping[int, int]
    ) -> None:
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.folder = folder / SAVED
        self.at = at

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A fresh run saves its start, if that was asked for."""
        if state.global_step == 0:
            self._save(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each optimizer step."""
        self._save(state.global_step)

    def _save(self, step: int) -> None:
        if step not in self.at:
            return
        target = self.folder / str(self.at[step])
        temporary = target.with_name(f".{target.name}.tmp")
        config: Any = self.trainer.model.config  # type: ignore[union-attr]
        use_cache, config.use_cache = config.use_cache, True  # the Trainer turns it off; generation wants it
        try:
            self.trainer.save_model(str(temporary))  # every rank takes part; the first one writes
        finally:
            config.use_cache = use_cache
        if not is_main_process():
            return
        (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle, and of no use outside this run
        self.tokenizer.save_pretrained(temporary)
        with contextlib.suppress(FileNotFoundError):  # of a run that was interrupted after it
            shutil.rmtree(target)
        os.replace(temporary, target)
