"""`trainer:` of a recipe -> transformers.TrainingArguments, with what the stage itself decides.

Everything not listed in `_OURS` is the user's and passes through untouched.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from tokensieve.errors import UserError
from tokensieve.recipe import suggest
from tokensieve.selective import refuse_trainer_arguments

_OURS = {
    "output_dir": "the recipe's `out`",
    "max_steps": "`tokens` (or `epochs` of the reference)",
    "num_train_epochs": "`tokens` (or `epochs` of the reference)",
    "seed": "the recipe's `seed`",
    "data_seed": "the recipe's `seed`",
    "remove_unused_columns": "tokensieve: the loss reads the extra columns",
    "train_sampling_strategy": "tokensieve: all arms see the same order",
    "resume_from_checkpoint": "tokensieve: run the command again",
    "save_only_model": "tokensieve: a run must be able to resume",
    "ignore_data_skip": "tokensieve: a resumed run continues with the tokens that come next",
    "eval_on_start": "`evaluation`",
    "load_best_model_at_end": "tokensieve: arms are compared at equal tokens",
    "push_to_hub": "nobody: upload the finished model folder yourself",
    "do_train": "the command",
    "do_eval": "`evaluation`",
    "eval_strategy": "`evaluation`",
    "eval_steps": "`evaluation`",
}
_SAVING = ("save_strategy", "save_steps", "save_total_limit")


def training_arguments(
    options: Mapping[str, Any], *, place: str, output: Path, steps: int, seed: int
) -> TrainingArguments:
    """Build and check the arguments of one run of `steps` optimizer steps.

    Raises:
        UserError: an unknown option, one that the recipe decides elsewhere, or a value that would break the loss.
    """
    known = {item.name for item in dataclasses.fields(TrainingArguments) if item.init}
    for name in options:
        if name in _OURS:
            raise UserError(f"{place}.{name}: decided by {_OURS[name]}; remove it")
        if name not in known:
            raise UserError(f"{place}: unknown option {name!r} of TrainingArguments{suggest(name, known)}")
    defaults: dict[str, Any] = {
        "logging_steps": max(1, steps // 50),
        "save_strategy": "steps",
        "save_steps": max(1, steps // 10),
        "save_total_limit": 2,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        # What trackers call the run and, where they know projects, its project.
        "run_name": output.name,
        "project": output.parent.parent.name or "tokensieve",
        "ddp_find_unused_parameters": False,
        "use_cpu": not torch.accelerator.is_available(),  # without it bf16 autocast refuses to run on a CPU
        "disable_tqdm": False,  # its default follows the verbosity of the library's log
    }
    try:
        args = TrainingArguments(
            **{**defaults, **options},
            output_dir=str(output),
            max_steps=steps,
            seed=seed,
            data_seed=seed,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
        )
        refuse_trainer_arguments(args)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{place}: {' '.join(str(error).split())}") from error
    return args


def tokens_per_step(options: Mapping[str, Any], length: int, place: str) -> int:
    """Tokens that one optimizer step sees: rows of a micro-step * accumulation * ranks * length."""
    args = training_arguments(options, place=place, output=Path("."), steps=1, seed=0)
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    if args.per_device_train_batch_size < 1 or args.gradient_accumulation_steps < 1:
        raise UserError(f"{place}: per_device_train_batch_size and gradient_accumulation_steps must be at least 1")
    return rows * length


def steps_for(tokens: float, per_step: int, place: str) -> int:
    """Whole optimizer steps in a token budget.

    Raises:
        UserError: the budget is below one step.
    """
    steps = int(tokens // per_step)
    if steps < 1:
        raise UserError(f"{place}: a budget of {tokens:,.0f} tokens is below one step of {per_step:,} tokens")
    return steps


def keeps_checkpoints(options: Mapping[str, Any]) -> bool:
    """Whether the user asked for checkpoints; those of our own, kept for resuming, go at the end."""
    return any(name in options for name in _SAVING)
