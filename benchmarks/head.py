"""The output layer alone: forward and backward of loss from hidden states, ours against others.

    python benchmarks/head.py            # SmolLM2-135M's head: 4096 rows, width 576, vocabulary 49,152, float32

Baseline: full logits, cross-entropy, mask (`logits + mask`). Variants take turns; medians are compared.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tokensieve.head import summed_loss, token_losses
from tokensieve.selection import select_tokens


def variants(hidden: Tensor, weight: Tensor, labels: Tensor, reference: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Name -> a function that returns a loss to call backward on."""
    rows = len(labels)

    def choose(losses: Tensor, ratio: float) -> Tensor:
        return select_tokens((losses - reference)[None], torch.ones(1, rows, dtype=torch.bool), ratio)[0]

    def full_logits(ratio: float) -> Tensor:
        losses = F.cross_entropy(hidden @ weight.T, labels, reduction="none")
        return losses[choose(losses.detach(), ratio)].sum()

    def ours(ratio: float) -> Tensor:
        if ratio == 1:
            return summed_loss(hidden, weight, labels)
        chosen = choose(token_losses(hidden.detach(), weight.detach(), labels), ratio)
        return summed_loss(hidden[chosen], weight, labels[chosen])

    found = {f"{name}, ratio {ratio}": (lambda make=make, ratio=ratio: make(ratio)) for ratio in (0.6, 1.0)
             for name, make in (("logits + mask", full_logits), ("two passes", ours))}  # fmt: skip
    if hasattr(F, "linear_cross_entropy"):
        from torch.nn import LinearCrossEntropyOptions

        options = LinearCrossEntropyOptions(batch_chunk_size=4096)

        def native(ratio: float) -> Tensor:
            if ratio == 1:
                return F.linear_cross_entropy(hidden, weight, labels, reduction="sum", options=options)
            chosen = choose(token_losses(hidden.detach(), weight.detach(), labels), ratio)
            return F.linear_cross_entropy(hidden[chosen], weight, labels[chosen], reduction="sum", options=options)

        for ratio in (0.6, 1.0):
            found[f"linear_cross_entropy, ratio {ratio}"] = lambda ratio=ratio: native(ratio)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    hidden = torch.randn(arguments.rows, arguments.width, requires_grad=True)
    weight = (torch.randn(arguments.vocabulary, arguments.width) * 0.02).requires_grad_()
    labels = torch.randint(0, arguments.vocabulary, (arguments.rows,))
    makers = variants(hidden, weight, labels, torch.rand(arguments.rows) * 10)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for repeat in range(arguments.repeats + 1):
        for name, make in makers.items():
            hidden.grad = weight.grad = None
            started = time.perf_counter()
            make().backward()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["logits + mask, ratio 1.0"])
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {arguments.rows} rows, "
        f"width {arguments.width}, vocabulary {arguments.vocabulary:,}, float32, median of {arguments.repeats}"
    )
    for name, values in seconds.items():
        print(f"{name:<38} {statistics.median(values):6.2f} s   {statistics.median(values) / base:.2f} of full logits")


if __name__ == "__main__":
    main()
