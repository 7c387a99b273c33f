"""Filtered backward (`make_selective(..., backward="filtered")`): what it saves in a step, and what it costs in loss.

    python benchmarks/filtered.py                # seconds of a step, SmolLM2-135M's shape, 4 x 512 tokens, float32
    python benchmarks/filtered.py --layers 2     # a quick look
    python benchmarks/filtered.py --quality      # target loss of the quickstart's model, 3 seeds
    python benchmarks/filtered.py --quality --seeds 1 --tokens 20000   # a quick look

Baseline of both: the exact backward at the same ratio; plain training (ratio 1) is shown beside it. Steps alternate
between the variants within one process and medians are compared. In `--quality` the arms of a seed share
initialisation, reference, scores, data order, steps and evaluation. On a GPU the same script runs there.
"""

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback, Trainer

from tokensieve import SelectionPolicy, make_selective
from tokensieve.corpus.embedded import write_embedded
from tokensieve.corpus.windows import identity
from tokensieve.evaluation.target_loss import pooled
from tokensieve.pipeline import reference, score, tokenize
from tokensieve.recipe import Recipe, load_recipe
from tokensieve.training.arguments import training_arguments
from tokensieve.training.arms import training_windows
from tokensieve.training.setup import arm_steps, load, on_device, open_targets

VOCABULARY = 49_152
PARTS = ("forward", "backward", "optimizer", "step")
QUICKSTART = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.yaml"
Backward = Literal["exact", "filtered"]
Variant = tuple[Backward, float]
"""(backward, ratio); ratio 1 is plain training."""


def variants(ratios: list[float]) -> list[Variant]:
    both: tuple[Backward, ...] = ("exact", "filtered")
    return [("exact", 1.0), *((backward, ratio) for ratio in ratios for backward in both)]


def name(variant: Variant) -> str:
    return "plain" if variant[1] == 1 else f"{variant[0]}, ratio {variant[1]}"


def make_model(layers: int, length: int) -> Any:
    """A Llama of SmolLM2-135M's shape, but for the number of layers."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    return on_device(AutoModelForCausalLM.from_config(config)).train()


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def one_step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], bf16: bool) -> list[float]:
    """Seconds of `PARTS`."""
    optimizer.zero_grad(set_to_none=True)
    times = [now()]
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    times.append(now())
    loss.backward()
    times.append(now())
    optimizer.step()
    times.append(now())
    return [after - before for before, after in zip(times[:-1], times[1:], strict=True)] + [times[-1] - times[0]]


def measure_time(arguments: argparse.Namespace) -> None:
    """Print the table of seconds; every second column is the ratio to the exact backward at the same ratio."""
    model = make_model(arguments.layers, arguments.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (arguments.rows, arguments.length), generator=generator)
    batch = {"input_ids": ids, "labels": ids, "reference_loss": torch.rand(ids.shape, generator=generator) * 10}
    batch = {key: value.to(model.device) for key, value in batch.items()}
    todo = variants(arguments.ratios)
    seconds: dict[Variant, list[list[float]]] = {variant: [] for variant in todo}
    # The first step of all makes the optimizer's state and is not counted.
    for i, variant in enumerate([todo[0], *todo * arguments.repeats]):
        handle = make_selective(model, SelectionPolicy(ratio=variant[1]), backward=variant[0])
        taken = one_step(model, optimizer, batch, arguments.bf16)
        handle.remove()
        if i > 0:
            seconds[variant].append(taken)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(
        f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, Llama {arguments.layers} layers "
        f"x 576, vocabulary {VOCABULARY:,}, {arguments.rows} x {arguments.length} tokens, "
        f"{'bf16 autocast' if arguments.bf16 else 'float32'}, median of {arguments.repeats}\n"
    )
    print(f"| seconds (to the exact backward) | {' | '.join(PARTS)} |")
    print(f"| --- |{' --- |' * len(PARTS)}")
    medians = {variant: [statistics.median(part) for part in zip(*seconds[variant], strict=True)] for variant in todo}
    for variant in todo:
        base = medians["exact", variant[1]]
        cells = [f"{taken:.3f} ({taken / exact:.2f})" for taken, exact in zip(medians[variant], base, strict=True)]
        print(f"| {name(variant)} | {' | '.join(cells)} |")


def train_and_evaluate(recipe: Recipe, variant: Variant, folder: Path) -> tuple[float, float]:
    """Train one arm; its loss on the target text in nats a token, and seconds of training."""
    steps, _ = arm_steps(recipe)
    model = load(recipe, recipe.model)
    policy = replace(recipe.train.selection, ratio=variant[1], seed=recipe.seed)
    handle = make_selective(model, policy, backward=variant[0])
    options = {**recipe.train.trainer, "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
    args = training_arguments(options, place="train.trainer", output=folder, steps=steps, seed=recipe.seed)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=training_windows(recipe),
        data_collator=identity,  # type: ignore[arg-type]
    )
    trainer.remove_callback(PrinterCallback)
    started = now()
    trainer.train()
    seconds = now() - started
    targets = open_targets(recipe)
    assert targets is not None
    return pooled(targets.evaluate(handle)).loss, seconds


def measure_quality(arguments: argparse.Namespace) -> None:
    """Print target losses of all seeds, and how much worse the filtered backward is than the exact one."""
    losses: dict[Variant, list[float]] = {variant: [] for variant in variants(arguments.ratios)}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        write_embedded(data)
        for seed in range(arguments.seeds):
            out = Path(temporary) / str(seed)
            overrides = [f"out={out}", f"data_dir={data}", f"seed={seed}"]
            if arguments.tokens:
                overrides += [f"train.tokens={arguments.tokens}", f"reference.tokens={arguments.tokens}"]
            recipe = load_recipe(QUICKSTART, overrides)
            tokenize(recipe)
            reference(recipe)
            score(recipe)
            for variant in losses:
                loss, seconds = train_and_evaluate(recipe, variant, out / "arm")
                losses[variant].append(loss)
                print(f"seed {seed}, {name(variant)}: {loss:.4f} nats a token, {seconds:.0f} s", flush=True)
    print(f"\nQuickstart's model and text, {recipe.train.tokens:,.0f} tokens an arm, {arguments.seeds} seeds\n")
    print("| | target loss, nats a token | minus plain, seed by seed | minus exact, seed by seed |")
    print("| --- | --- | --- | --- |")
    for variant, values in losses.items():
        against = [
            "-" if base == variant else paired(values, losses[base]) for base in (("exact", 1.0), ("exact", variant[1]))
        ]
        print(f"| {name(variant)} | {statistics.mean(values):.4f} | {' | '.join(against)} |")


def paired(values: list[float], base: list[float]) -> str:
    """Mean difference and its standard error over seeds."""
    differences = [value - other for value, other in zip(values, base, strict=True)]
    if len(differences) == 1:
        return f"{differences[0]:+.4f}"
    return f"{statistics.mean(differences):+.4f} ± {statistics.stdev(differences) / len(differences) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5, 0.6])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--quality", action="store_true", help="measure the target loss instead of the time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, help="of each training run; default: the quickstart's")
    arguments = parser.parse_args()
    if arguments.quality:
        measure_quality(arguments)
    else:
        measure_time(arguments)


if __name__ == "__main__":
    main()
