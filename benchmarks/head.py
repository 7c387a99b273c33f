"""The output layer alone: loss of the selected tokens and its gradients, ours against others.

    python benchmarks/head.py                            # four models' heads, 1024 tokens, ratios 0.2, 0.6, 1
    python benchmarks/head.py --models smollm2-135m --tokens 8192
    python benchmarks/head.py --memory                   # peak memory instead, each variant in its own process

From hidden states to gradients of hidden states and weight; excess losses against a given reference are ranked
over all tokens. Variants take turns; medians of one run are compared.

In units of V*D a token, products cost: `logits + mask` 6 whatever the ratio k (and N x V memory);
`linear_cross_entropy` and TRL, which compute all losses with gradient and mask them, 8; ours 2 + 6k, or 2 + 4k where
the micro-step fits into one chunk, and 6 at k = 1.

On a GPU the same script runs in bfloat16 and takes Liger's kernel in, if it is installed.
"""

import argparse
import importlib.util
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

from tokensieve.head import default_chunk_rows, first_pass, summed_loss
from tokensieve.selection import select_tokens

# Width and vocabulary of the heads.
MODELS = {
    "smollm2-135m": (576, 49_152),
    "tinyllama-1.1b": (2048, 32_000),
    "llama-3.2-1b": (2048, 128_256),
    "qwen3-0.6b": (1024, 151_936),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def choose(losses: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """The selection that all variants share: [N] bool."""
    return select_tokens((losses.float() - reference)[None], torch.ones_like(losses, dtype=torch.bool)[None], ratio)[0]


def masked(losses: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """Sum of the selected losses by a mask."""
    return losses.sum() if ratio == 1 else (losses * choose(losses.detach(), reference, ratio)).sum()


def logits_and_mask(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """The ordinary head."""
    return masked(F.cross_entropy((hidden @ weight.T).float(), labels, reduction="none"), reference, ratio)


def torch_fused(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """torch.nn.functional.linear_cross_entropy; at ratio 1 its sum, which is faster."""
    options = LinearCrossEntropyOptions(batch_chunk_size=default_chunk_rows(len(weight)))
    if ratio == 1:
        return F.linear_cross_entropy(hidden, weight, labels, reduction="sum", options=options)
    return masked(F.linear_cross_entropy(hidden, weight, labels, reduction="none", options=options), reference, ratio)


def trl_chunked(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """TRL's chunked log-probabilities."""
    from trl.kernels import ChunkedLogProbFunction

    log_probabilities = ChunkedLogProbFunction.apply(hidden, weight, None, labels, 1.0, 8192, None, 1.0, ())[0]
    return masked(-log_probabilities, reference, ratio)


def liger(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """Liger's fused linear cross-entropy."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    reduction = "sum" if ratio == 1 else "none"
    losses = LigerFusedLinearCrossEntropyLoss(reduction=reduction)(weight, hidden, labels)
    return losses if ratio == 1 else masked(losses, reference, ratio)


def ours(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """Two passes, the last chunk kept."""
    if ratio == 1:
        return summed_loss(hidden, weight, labels)
    found = first_pass(hidden.detach(), weight, labels, keep=True)
    return summed_loss(hidden, weight, labels, choose(found.losses, reference, ratio), kept=found.kept)


def known_before(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor, ratio: float) -> Tensor:
    """Ours for scores that need no live loss: no first pass."""
    return summed_loss(hidden, weight, labels, choose(-reference, torch.zeros_like(reference), ratio))


VARIANTS: dict[str, Step] = {
    "logits + mask": logits_and_mask,
    "linear_cross_entropy": torch_fused,
    "TRL chunked": trl_chunked,
    "Liger": liger,
    "ours": ours,
    "ours, score known before": known_before,
}


def usable(name: str) -> bool:
    """Whether the variant can run here."""
    if name == "Liger":
        return DEVICE == "cuda" and importlib.util.find_spec("liger_kernel") is not None
    return name != "TRL chunked" or importlib.util.find_spec("trl") is not None


def inputs(model: str, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, labels, reference losses."""
    width, vocabulary = MODELS[model]
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    hidden = torch.randn(tokens, width, generator=generator).to(DEVICE, dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=generator) * 0.02).to(DEVICE, dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator).to(DEVICE)
    return hidden, weight, labels, (torch.rand(tokens, generator=generator) * 10).to(DEVICE)


def once(step: Step, tensors: tuple[Tensor, Tensor, Tensor, Tensor], ratio: float) -> float:
    """Seconds of one forward and backward."""
    tensors[0].grad = tensors[1].grad = None
    synchronize()
    started = time.perf_counter()
    step(*tensors, ratio).backward()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def time_model(model: str, tokens: int, ratios: list[float], repeats: int) -> None:
    """Print one table: seconds, and in brackets the ratio to the fastest of the others."""
    tensors = inputs(model, tokens)
    names = [name for name in VARIANTS if usable(name)]
    print(f"\n{model}: width {MODELS[model][0]}, vocabulary {MODELS[model][1]:,}, {tokens} tokens\n")
    print(f"| seconds (to the fastest other) | {' | '.join(f'ratio {ratio}' for ratio in ratios)} |")
    print(f"| --- |{' --- |' * len(ratios)}")
    medians: dict[tuple[str, float], float] = {}
    for ratio in ratios:
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for repeat in range(repeats + 1):
            for name in names:
                took = once(VARIANTS[name], tensors, ratio)
                if repeat:  # the first round warms up
                    seconds[name].append(took)
        medians |= {(name, ratio): statistics.median(values) for name, values in seconds.items()}
    for name in names:
        cells = []
        for ratio in ratios:
            fastest = min(medians[other, ratio] for other in names if not other.startswith("ours"))
            cells.append(f"{medians[name, ratio]:.3f} ({medians[name, ratio] / fastest:.2f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def peak_of_one(model: str, tokens: int, variant: str, ratio: float) -> float:
    """Bytes above what the inputs take, in this process."""
    tensors = inputs(model, tokens)
    if DEVICE == "cuda":
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        once(VARIANTS[variant], tensors, ratio)
        return torch.cuda.max_memory_allocated() - base
    # Linear algebra libraries allocate their own work space at the first product.
    tensors[0].detach()[:256] @ tensors[1].detach()[:4096].T
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    once(VARIANTS[variant], tensors, ratio)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base


def measure_memory(models: list[str], tokens: int, ratio: float) -> None:
    """Print peak memory of every variant, and ours against its bound."""
    names = [name for name in VARIANTS if usable(name)]
    print(f"\nPeak memory beside the inputs, GB, {tokens} tokens, ratio {ratio}\n")
    print(f"| model | {' | '.join(names)} | ours / (weight's gradient + chunk) |")
    print(f"| --- |{' --- |' * (len(names) + 1)}")
    for model in models:
        peaks = {}
        for name in names:
            command = [sys.executable, __file__, "--models", model, "--tokens", str(tokens), "--ratios", str(ratio)]
            done = subprocess.run([*command, "--variant", name], capture_output=True, text=True, check=True)
            peaks[name] = json.loads(done.stdout)
        width, vocabulary = MODELS[model]
        # A row of a chunk: float32 logits, and for half-precision weights their gradient in that type.
        chunk = min(tokens, default_chunk_rows(vocabulary)) * vocabulary * (6 if DEVICE == "cuda" else 4)
        bound = vocabulary * width * 4 + chunk
        cells = " | ".join(f"{peaks[name] / 1e9:.2f}" for name in names)
        print(f"| {model} | {cells} | {peaks['ours'] / bound:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.2, 0.6, 1.0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(peak_of_one(arguments.models[0], arguments.tokens, arguments.variant, arguments.ratios[0]))
        return
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or platform.machine()
    print(
        f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{'bfloat16' if DEVICE == 'cuda' else 'float32'}, median of {arguments.repeats}"
    )
    if arguments.memory:
        measure_memory(arguments.models, arguments.tokens, 0.6)
        return
    for model in arguments.models:
        time_model(model, arguments.tokens, arguments.ratios, arguments.repeats)


if __name__ == "__main__":
    main()
