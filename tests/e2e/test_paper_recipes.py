"""Every paper recipe, from text to report, with tiny models and tiny text in place of the real ones.

What the recipe says stays: fields and templates, mixing weights, selection, arms, precision of scoring, the
reference's epochs, schedules. Only size, place and hardware are overridden.
"""

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

import tokensieve.recipes
from tokensieve.pipeline import run
from tokensieve.recipe import Recipe, Source, load_recipe

PAPER = Path(tokensieve.recipes.__path__[0]) / "paper"
FRESH = (
    "{model_type: llama, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 1, intermediate_size: 32, max_position_embeddings: 64}"
)
LENGTH = 32
TOKENS = 8 * 4 * LENGTH
TRAINER = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "bf16": False,
    "fsdp": None,
    "use_cpu": True,
    "save_steps": 1000,
}


def write_text(source: Source, path: Path, documents: int) -> None:
    """A small JSONL file with the fields that the source reads."""
    fields = [source.field]
    if source.template is not None:
        fields = [name for _, name, _, _ in string.Formatter().parse(source.template) if name is not None]
    draw = random.Random(str(path))
    words = ["sum", "prove", "let", "angle", "def", "return", "mail", "menu", "home", "click", "7", "x", "="]
    rows = [{name: " ".join(draw.choices(words, k=30)) for name in fields} for _ in range(documents)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def local(place: str, sources: tuple[Source, ...], folder: Path, documents: int) -> list[str]:
    """Overrides that put small local files in the place of a section's data sets."""
    overrides = []
    for i, source in enumerate(sources):
        path = folder / f"{place}-{i}.jsonl"
        write_text(source, path, documents)
        for name, value in {"hub": "null", "config": "null", "data_files": "null", "path": path}.items():
            overrides.append(f"{place}.{i}.{name}={value}")
        overrides.append(f"{place}.{i}.name={source.label}")
    return overrides


def shrunk(path: Path, folder: Path) -> Recipe:
    real = load_recipe(path)
    overrides = [
        f"out={folder / 'run'}",
        "model.name=null",
        f"model.fresh={FRESH}",
        "tokenizer.train_vocab=300",
        f"context.length={LENGTH}",
        "corpus.workers=1",
        f"train.tokens={TOKENS}",
        "score.batch_size=4",
        "evaluation.count=1",
        *local("corpus.sources", real.corpus.sources, folder, 24),
        *local("reference.sources", real.reference.sources, folder, 8),
        *local("evaluation.targets", real.evaluation.targets, folder, 4),
    ]
    if real.reference.model is not None:
        overrides += ["reference.model.name=null", f"reference.model.fresh={FRESH.replace('32,', '24,', 1)}"]
    if real.reference.tokens is not None:
        overrides.append(f"reference.tokens={TOKENS}")
    # At the paper's rates a few steps leave the reference what the student is, which is refused.
    overrides.append("reference.trainer.learning_rate=1e-2")
    for section in ("train", "reference"):
        overrides += [f"{section}.trainer.{name}={json.dumps(value)}" for name, value in TRAINER.items()]
    return load_recipe(path, overrides)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_runs_from_text_to_report(path: Path, tmp_path: Path) -> None:
    recipe = shrunk(path, tmp_path)
    summary: dict[str, Any] = run(recipe)

    assert set(summary["arms"]) == {"clm", "random", "slm"}
    for arm in summary["arms"].values():
        assert arm["tokens_seen"] == TOKENS
        assert 0 < arm["target_loss"] < 10
    seen, ratio = summary["arms"]["clm"]["tokens_selected"], recipe.train.selection.ratio
    assert summary["ratio"] == ratio
    assert seen > 0.8 * TOKENS
    assert summary["arms"]["random"]["tokens_selected"] == pytest.approx(ratio * seen, rel=0.02)
    if recipe.train.selection.parts:
        # The divisor says what share is expected of an intersection; what is kept depends on the text.
        assert 0.4 * seen <= summary["arms"]["slm"]["tokens_selected"] <= 0.7 * seen + TOKENS / LENGTH
    else:
        assert summary["arms"]["slm"]["tokens_selected"] == pytest.approx(ratio * seen, rel=0.02)

    out = recipe.folder
    for arm in ("clm", "random", "slm"):
        assert (out / "models" / arm / "model.safetensors").is_file()
        assert (out / "models" / arm / "README.md").is_file()
    assert (out / "report.html").is_file()
    assert bool(list((out / "scores").rglob("*.entropy.f16"))) == recipe.score.entropy
