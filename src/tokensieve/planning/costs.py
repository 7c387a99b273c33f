"""The bill of a recipe: FLOPs, hours, memory and storage of every stage, from formulas stated with it.

A token costs 2 FLOPs a weight forward and 4 backward, plus attention: 4 · width · keys a layer forward and
twice that backward, where a causal window of T tokens attends to (T+1)/2 keys on average. The output layer
of V·D weights costs 6 V·D in ordinary training and (2 + 6k) V·D in the two-pass selective loss, which sees
all tokens once and the selected share k again (less where a micro-step fits into one chunk, see `head.py`);
scores that need no live loss skip the first pass.
"""

from collections.abc import Mapping
from typing import Any

from tokensieve.errors import UserError
from tokensieve.planning.hardware import HARDWARE, Hardware
from tokensieve.planning.memory import scoring_memory, training_memory
from tokensieve.planning.shape import ModelShape, model_shape
from tokensieve.planning.storage import storage
from tokensieve.recipe import ModelSection, Recipe, suggest
from tokensieve.selection import SelectionPolicy
from tokensieve.stage import read_json
from tokensieve.training.arms import arm_policy, needs_reference, needs_scores

UTILISATION = 0.29
"""Share of the peak that a run reaches. The paper's own bill implies 0.25 at 1.1B and 0.34 at 7B on H100s;
0.29 lies between them, so that the plan is within a sixth of either (docs/plan.md)."""


def plan(
    recipe: Recipe,
    *,
    hardware: str = "h100",
    devices: int = 32,
    utilisation: float | None = None,
    corpus_tokens: int | None = None,
    clean_tokens: int | None = None,
) -> dict[str, Any]:
    """Compute what a run of the recipe will cost.

    Args:
        recipe: the recipe; nothing in it is run, downloaded or tokenized.
        hardware: a name in `HARDWARE`.
        devices: how many of them.
        utilisation: share of the peak arithmetic that is reached, in (0, 1]; default `UTILISATION`.
        corpus_tokens: tokens of the noisy corpus; default: the finished token store's,
            then the recipe's `plan` section.
        clean_tokens: tokens of the clean text; likewise.

    Returns:
        Plain JSON data: `stages` (tokens, FLOPs, device-hours, hours, memory in GB), `total`, `storage` (GB),
        `models`, and `warnings` about what will not fit.

    Raises:
        UserError: unknown hardware, a size that nobody gave, or a model that cannot be counted.
    """
    if hardware not in HARDWARE:
        raise UserError(f"unknown hardware {hardware!r}{suggest(hardware, HARDWARE)}")
    utilisation = UTILISATION if utilisation is None else utilisation
    if devices < 1:
        raise UserError(f"devices must be at least 1, not {devices}")
    if not 0 < utilisation <= 1:
        raise UserError(f"utilisation must be in (0, 1], not {utilisation}")
    device = HARDWARE[hardware]
    student = model_shape(recipe.model, recipe)
    reference_section = recipe.reference.model or recipe.model
    if recipe.reference.existing is not None:
        reference_section = ModelSection(name=recipe.reference.existing)
    reference = student if reference_section == recipe.model else model_shape(reference_section, recipe)
    corpus = _size(recipe, "corpus", corpus_tokens, recipe.plan.corpus_tokens)
    clean = _size(recipe, "clean", clean_tokens, recipe.plan.clean_tokens) if recipe.reference.sources else 0

    ranks = devices if device.replicated else 1
    stages = []
    if needs_reference(recipe) and recipe.reference.sources:
        seen = recipe.reference.tokens or round((recipe.reference.epochs or 0) * clean)
        stages.append(_training(recipe, reference, recipe.reference.trainer, ranks, "reference", seen))
    if needs_scores(recipe):
        stages.append(_scoring(recipe, reference, corpus, ranks))
    stages += [
        _training(recipe, student, recipe.train.trainer, ranks, arm, recipe.train.tokens) for arm in recipe.train.arms
    ]
    if needs_reference(recipe) and recipe.score.online and "slm" in recipe.train.arms:
        _add_online_reference(recipe, reference, next(stage for stage in stages if stage["name"] == "slm"))
    for stage in stages:
        stage["device_hours"] = stage["flops"] / (device.teraflops * 1e12 * utilisation) / 3600
        if not device.replicated:
            stage["devices"] = devices
        stage["hours"] = stage["device_hours"] / stage["devices"]
    return {
        "out": recipe.out,
        "hardware": hardware,
        "device": device.label,
        "devices": devices,
        "utilisation": utilisation,
        "context": recipe.context.length,
        "corpus_tokens": corpus,
        "clean_tokens": clean,
        "models": {"student": _describe(student), "reference": _describe(reference)},
        "stages": stages,
        "total": {key: sum(stage[key] for stage in stages) for key in ("flops", "device_hours", "hours")},
        "storage": storage(recipe, student, reference, corpus, clean, stages[-1]["steps"]),
        "warnings": _warnings(recipe, student, reference, stages, device),
    }


def forward_flops(shape: ModelShape, length: int) -> float:
    """FLOPs a token of a forward pass over windows of `length` tokens, the output layer included."""
    return 2.0 * shape.backbone + _attention_flops(shape, length) + 2.0 * shape.head


def training_flops(shape: ModelShape, length: int, head: float = 6.0, recompute: bool = False) -> float:
    """FLOPs a token of forward and backward.

    Args:
        shape: the model.
        length: window length T.
        head: cost of the output layer in units of V·D: 6 for ordinary training.
        recompute: whether activation checkpointing runs the backbone's forward pass twice.
    """
    forward = 2.0 * shape.backbone + _attention_flops(shape, length)
    return (4.0 if recompute else 3.0) * forward + head * shape.head


def head_units(policy: SelectionPolicy, kept: float = 0.0) -> float:
    """Cost of the output layer under a policy, in units of V·D a token.

    Args:
        policy: of one optimizer step; of one that follows steps, what holds when warm-up and schedule are over.
        kept: share of a micro-step's tokens whose logits the first pass leaves for the second: 1 if the micro-step
            fits into one chunk of `head.default_chunk_rows`. Selected rows there cost 4 more units instead of 6.

    Returns:
        6 where every token is trained on; else 2 for the first pass, if the score needs one, and 6 for each
        selected row. Policies whose ratio is a divisor only are taken by it.
    """
    if policy.selects_everything:
        return 6.0
    # A blend and soft weights give every token a gradient.
    share = 1.0 if policy.alpha < 1 or policy.temperature is not None else policy.ratio
    return 2.0 + (6.0 - 2.0 * kept) * share if policy.needs_live_loss else 6.0 * share


def mean_ratio(selection: SelectionPolicy, steps: int) -> float:
    """Share of the candidates selected over a whole run, warm-up and schedule included (of 1000 steps at most)."""
    sampled = range(0, max(steps, 1), max(1, steps // 1000))
    return sum(selection.at(step).ratio for step in sampled) / len(sampled)


def _attention_flops(shape: ModelShape, length: int) -> float:
    return sum(4.0 * shape.attention_width * _mean_keys(length, window) for window in shape.windows)


def _mean_keys(length: int, window: int | None) -> float:
    if window is None or window >= length:
        return (length + 1) / 2
    return (window * (window + 1) / 2 + (length - window) * window) / length


def _training(
    recipe: Recipe, shape: ModelShape, trainer: Mapping[str, Any], ranks: int, name: str, tokens: int
) -> dict[str, Any]:
    rows = trainer.get("per_device_train_batch_size", 8)
    step = rows * trainer.get("gradient_accumulation_steps", 1) * ranks * recipe.context.length
    section = recipe.reference.model or recipe.model if name == "reference" else recipe.model
    memory = training_memory(shape, section.dtype, trainer, ranks, rows * recipe.context.length)
    ratio = mean_ratio(recipe.train.selection, tokens // step) if name in ("slm", "random") else 1.0
    # The reference is trained on every token of its text.
    units = 6.0 if name == "reference" else head_units(arm_policy(recipe, name))
    per_token = training_flops(shape, recipe.context.length, units, memory.recompute)
    return {
        "name": name,
        "devices": ranks,
        "tokens": tokens,
        "selected": round(tokens * ratio),
        "flops_per_token": per_token,
        "flops": per_token * tokens,
        "tokens_per_step": step,
        "steps": tokens // step,
        "memory_gb": memory.total / 1e9,
        "memory": memory.describe(),
    }


def _add_online_reference(recipe: Recipe, shape: ModelShape, stage: dict[str, Any]) -> None:
    """Score the batches of the selective arm as they come: a forward pass more, and a model more in memory."""
    rows = recipe.train.trainer.get("per_device_train_batch_size", 8)
    stage["flops_per_token"] += forward_flops(shape, recipe.context.length)
    stage["flops"] = stage["flops_per_token"] * stage["tokens"]
    memory = scoring_memory(shape, recipe.score.dtype, rows * recipe.context.length).total / 1e9
    stage["memory"] = {**stage["memory"], "online reference": memory}
    stage["memory_gb"] += memory


def _scoring(recipe: Recipe, shape: ModelShape, tokens: int, ranks: int) -> dict[str, Any]:
    per_token = forward_flops(shape, recipe.context.length)
    memory = scoring_memory(shape, recipe.score.dtype, recipe.score.batch_size * recipe.context.length)
    return {
        "name": "score",
        "devices": ranks,
        "tokens": tokens,
        "selected": None,
        "flops_per_token": per_token,
        "flops": per_token * tokens,
        "tokens_per_step": None,
        "steps": None,
        "memory_gb": memory.total / 1e9,
        "memory": memory.describe(),
    }


def _size(recipe: Recipe, store: str, given: int | None, planned: int | None) -> int:
    if given is not None:
        if given < 1:
            raise UserError(f"{store}_tokens must be at least 1, not {given}")
        return given
    folder = recipe.corpus_folder if store == "corpus" else recipe.folder / store
    manifest = folder / "corpus.json"
    if manifest.exists():
        found = read_json(manifest)
        if found["finished"]:
            return int(found["outputs"]["tokens"])
    if planned is not None:
        return planned
    raise UserError(
        f"{folder}: its size is unknown before tokenizing; "
        f"add plan.{store}_tokens=NUMBER to the command or run `tokensieve tokenize` first"
    )


def _warnings(
    recipe: Recipe, student: ModelShape, reference: ModelShape, stages: list[dict[str, Any]], device: Hardware
) -> list[str]:
    found = [
        f"{stage['name']}: about {stage['memory_gb']:.0f} GB a device, but {device.label} has "
        f"{device.memory_gb:g}: shard (trainer.fsdp: true), checkpoint activations, or take smaller batches"
        for stage in stages
        if stage["memory_gb"] > device.memory_gb
    ]
    for shape in dict.fromkeys((student, reference)):
        if recipe.context.length > shape.max_length:
            found.append(f"context.length {recipe.context.length} is above the {shape.max_length} of {shape.name}")
    for place, trainer in (("reference", recipe.reference.trainer), ("train", recipe.train.trainer)):
        if trainer.get("deepspeed"):
            found.append(f"{place}.trainer.deepspeed: not modelled; its memory is given as without sharding")
        if not str(trainer.get("optim", "adamw_torch")).startswith("adamw_torch"):
            found.append(f"{place}.trainer.optim {trainer['optim']}: memory and storage are given for AdamW")
    return found


def _describe(shape: ModelShape) -> dict[str, Any]:
    return {"name": shape.name, "parameters": shape.parameters, "layers": shape.layers, "width": shape.width}
