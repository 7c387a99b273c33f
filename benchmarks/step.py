"""One training step of the stock Trainer: plain against selective, with and without activation checkpointing.

    python benchmarks/step.py                    # SmolLM2-135M's shape, 8 x 512 tokens, float32
    python benchmarks/step.py --layers 4 --rows 2 --repeats 5

Baseline: the unpatched model in the same Trainer (`plain`). Each measurement is a process of its own, so that
its peak memory is its own; variants take turns, the second step of each process counts, and medians are
compared. On a GPU the same script times there and reads the allocator's peak.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

VARIANTS = ("plain", "selective")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Two steps of one variant; seconds of the second and the process's peak memory in bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from tokensieve import SelectionPolicy, make_selective

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=arguments.layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=arguments.length,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config)
    if arguments.variant == "selective":
        make_selective(model, SelectionPolicy(ratio=arguments.ratio))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 49_152, (2 * arguments.rows, arguments.length), generator=generator)
    rows: list[dict[str, torch.Tensor]] = [{"input_ids": row, "labels": row} for row in ids]
    if arguments.variant == "selective":
        for row in rows:
            row["reference_loss"] = torch.rand(arguments.length, generator=generator) * 10

    class Timer(TrainerCallback):
        seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            synchronize()
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize()
            self.seconds.append(time.perf_counter() - self.started)

    def synchronize() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder,
            max_steps=2,
            per_device_train_batch_size=arguments.rows,
            gradient_checkpointing=arguments.checkpointing,
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=arguments.bf16,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
        )
        Trainer(model=model, args=options, train_dataset=rows, callbacks=[Timer()]).train()  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    return {"seconds": Timer.seconds[1], "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--ratio", type=float, default=0.6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    keys = [(variant, checkpointing) for checkpointing in (False, True) for variant in VARIANTS]
    results: dict[tuple[str, bool], list[dict[str, float]]] = {key: [] for key in keys}
    for _ in range(arguments.repeats):
        for variant, checkpointing in keys:
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
            command += ["--checkpointing"] if checkpointing else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[variant, checkpointing].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{platform.processor() or platform.machine()}, Llama {arguments.layers} layers x 576, vocabulary 49,152, "
        f"{arguments.rows} x {arguments.length} tokens, {'bf16 autocast' if arguments.bf16 else 'float32'}, "
        f"ratio {arguments.ratio}, median of {arguments.repeats}"
    )
    print("| activation checkpointing | step | seconds | to plain | peak GB | to plain |")
    print("| --- | --- | --- | --- | --- | --- |")
    for variant, checkpointing in keys:
        seconds, peak = (
            statistics.median(item[name] for item in results[variant, checkpointing]) for name in ("seconds", "peak")
        )
        base = [
            statistics.median(item[name] for item in results["plain", checkpointing]) for name in ("seconds", "peak")
        ]
        print(
            f"| {'on' if checkpointing else 'off'} | {variant} | {seconds:.2f} | {seconds / base[0]:.2f} | "
            f"{peak / 1e9:.2f} | {peak / base[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
