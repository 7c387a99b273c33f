"""A comparison without training: a recipe, its stores and scores, and runs whose numbers are written by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.faults.world import make_corpus

from tokensieve.compare.arms import Arm, comparison_arms
from tokensieve.compare.runs import ArmRuns, Run
from tokensieve.compare.statistics import DocumentSums
from tokensieve.corpus.store import TokenStore
from tokensieve.evaluation.reference_gate import unknown_gate
from tokensieve.recipe import Recipe, build, dump
from tokensieve.reference.store import corpus_identity, describe_context
from tokensieve.stage import write_json, write_manifest
from tokensieve.storage.checksums import seal_shard

LENGTH = 8
ROWS = 4
STEPS = 4
PER_STEP = ROWS * LENGTH
AT = (0, 2, 4)
"""Steps after which the runs were evaluated."""


def recipe(out: Path | str = "run", changes: Mapping[str, Any] | None = None) -> Recipe:
    """A small recipe, with changes by dotted key; a key with None is left out."""
    trainer = {"per_device_train_batch_size": ROWS, "learning_rate": 1e-2, "use_cpu": True}
    data: dict[str, Any] = {
        "out": str(out),
        "seed": 5,
        "corpus": {"sources": [{"path": "noisy.jsonl"}]},
        "tokenizer": {"train_vocab": 257},
        "context": {"length": LENGTH},
        "model": {
            "fresh": {
                "model_type": "llama",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
            }
        },
        "reference": {"sources": [{"path": "clean.jsonl"}], "tokens": 640, "trainer": dict(trainer)},
        "train": {"tokens": STEPS * PER_STEP, "trainer": dict(trainer), "selection": {"ratio": 0.5}},
        "evaluation": {"targets": [{"path": "target.jsonl", "name": "held-out"}], "count": 2},
        "compare": {},
    }
    for key, value in (changes or {}).items():
        node = data
        *parents, last = key.split(".")
        for name in parents:
            node = node.setdefault(name, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return build(Recipe, data, "recipe")


def arms_of(made: Recipe) -> dict[str, Arm]:
    """The recipe's arms by key."""
    return {arm.key: arm for arm in comparison_arms(made)}


def make_stores(folder: Path, shards: int = 3) -> TokenStore:
    """Corpus, clean text and target of a run; returns the corpus."""
    make_corpus(folder / "clean", shards=1, seed=1)
    make_corpus(folder / "targets" / "held-out", shards=1, documents=5, seed=2)
    return make_corpus(folder / "corpus", shards=shards)


def make_scores(run: Recipe, corpus: TokenStore, losses: Sequence[np.ndarray], seconds: float = 3.0) -> None:
    """The reference's manifest, and its losses of each shard's tokens; NaN was never scored."""
    name = run.reference.name
    write_manifest(
        _made(run.reference_folder) / "reference.json",
        {
            "inputs": {"gate": 1},
            "finished": True,
            "seconds": 2.0,
            "outputs": {
                "name": name,
                "digest": f"weights of {name}",
                "tokens": 640,
                "gate": unknown_gate("made by hand"),
                "targets": {"held-out": {"loss": 2.5, "bits_per_byte": 1.0, "tokens": 9}},
                "target_loss": 2.5,
                "target_bits_per_byte": 1.0,
            },
        },
    )
    folder = _made(run.folder / "scores" / run.score.name)
    shards = []
    for shard, values in zip(corpus.shards, losses, strict=True):
        stored = np.where(np.isnan(values), np.float16(np.nan), values).astype("<f2")
        bits = np.where(np.isnan(stored), 0x7E00, stored.view("<u2")).astype("<u2")
        bits.tofile(folder / f"{shard.name}.loss.f16")
        digest = seal_shard(folder, shard.name, [".loss.f16"])
        shards.append({"name": shard.name, "digest": digest, "scored": int((~np.isnan(values)).sum())})
    inputs = {
        "corpus": corpus_identity(corpus),
        "context": describe_context(run.context),
        "reference": f"weights of {name}",
        "dtype": run.score.dtype,
        "columns": ["loss"],
    }
    outputs = {"columns": ["loss"], "shards": shards}
    write_manifest(folder / "scores.json", {"inputs": inputs, "finished": True, "seconds": seconds, "outputs": outputs})


def make_run(
    arm: Arm,
    seed: int,
    losses: Sequence[float],
    *,
    selected: Sequence[int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    general: Sequence[float] | None = None,
    kept: Mapping[str, Any] | None = None,
    seconds: Sequence[float] = (0.0, 4.0, 8.0),
    more: Mapping[str, Any] | None = None,
) -> None:
    """The folder of a finished run: target loss after each step of `AT`, two documents of 6 and 4 tokens."""
    folder = _made(arm.folder(seed))
    selected = selected or [round(arm.policy.ratio * step * (PER_STEP - ROWS)) for step in AT]
    lines = []
    for i, step in enumerate(AT):
        line: dict[str, Any] = {"step": step, "tokens_seen": step * PER_STEP, "tokens_selected": selected[i]}
        if step:
            line |= {"seconds": seconds[i], "loss_all": 7.0, "loss_selected": 8.0, "loss_unselected": 6.0}
        line |= {"target_loss/held-out": losses[i], "target_loss": losses[i]}
        if general is not None:
            line |= {"general_loss/other": general[i], "general_loss": general[i]}
        lines += [line, {"step": step + 1, "tokens_seen": (step + 1) * PER_STEP, "loss_all": 9.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    documents = {"held-out": {"nats": [6 * losses[-1], 4 * losses[-1]], "tokens": [6, 4]}}
    numbers: dict[str, Any] = {
        "tokens_seen": AT[-1] * PER_STEP,
        "tokens_selected": selected[-1],
        "ratio_kept": arm.policy.ratio,
        "seconds": seconds[-1],
        "target_loss": losses[-1],
        "target_bits_per_byte": losses[-1] / 2,
        "targets": {"held-out": {"loss": losses[-1], "bits_per_byte": losses[-1] / 2}},
        "model": {"parameters": 1000, "description": "made by hand"},
        "peak_memory": None,
        "keep_rates": dict(kept) if kept is not None else None,
        **(more or {}),
    }
    if general is not None:
        documents["other"] = {"nats": [10 * general[-1]], "tokens": [10]}
        numbers |= {"general": {"other": {"loss": general[-1]}}, "general_loss": general[-1]}
    write_json(folder / "documents.json", documents)
    made_from = {"policy": dump(arm.policy), "scores": None, "corpus": "corpus", "seed": seed, "tokens": 128}
    write_manifest(
        folder / "run.json",
        {"inputs": {**made_from, **(inputs or {})}, "finished": True, "seconds": seconds[-1], "outputs": numbers},
    )


def hand_runs(
    arm: Arm,
    curves: Sequence[Sequence[float]],
    *,
    selected: Sequence[Sequence[int]] | None = None,
    flops: Sequence[float] = (0, 100, 200, 300, 400),
    before: tuple[float, float] = (0.0, 0.0),
    shared_seconds: float = 0.0,
    seeds: Sequence[int] = (0, 1),
    documents: Sequence[Mapping[str, Sequence[float]]] | None = None,
    tasks: Sequence[Mapping[str, Sequence[float]]] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> ArmRuns:
    """An arm's runs as if they had been read, one curve of target losses each."""
    runs = []
    for i, (seed, losses) in enumerate(zip(seeds, curves, strict=True)):
        mine = [0, 50, 100] if selected is None else selected[i]
        lines = [
            {"step": step, "tokens_seen": step * 32, "tokens_selected": mine[j], "target_loss": losses[j], "seconds": j}
            for j, step in enumerate(AT)
        ]
        found = {"held-out": [6 * losses[-1], 4 * losses[-1]]} if documents is None else documents[i]
        names = {"targets": {name: {} for name in found if name != "other"}}
        if "other" in found:
            names["general"] = {"other": {}}
        runs.append(
            Run(
                seed=seed,
                inputs={"seed": seed},
                numbers={"target_loss": losses[-1], "ratio_kept": arm.policy.ratio, **names, **(numbers or {})},
                evaluations=lines,
                flops=np.array(flops, dtype=np.float64),
                documents={
                    name: DocumentSums(np.array(nats, dtype=np.float64), np.array([6, 4, 5][: len(nats)]))
                    for name, nats in found.items()
                },
                tasks={
                    name: DocumentSums(np.array(items, dtype=np.float64), np.ones(len(items), dtype=np.int64))
                    for name, items in (tasks[i] if tasks else {}).items()
                },
                asked={name: f"digest of {name}" for name in (tasks[i] if tasks else {})},
            )
        )
    return ArmRuns(arm, runs, *before, shared_seconds)


def tampered(arm: Arm, **sections: Any) -> Arm:
    """The arm with another recipe: `train={"tokens": 9}` changes a section, `seed=1` a value."""
    changed = {
        name: replace(getattr(arm.recipe, name), **value) if isinstance(value, dict) else value
        for name, value in sections.items()
    }
    return replace(arm, recipe=replace(arm.recipe, **changed))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
