"""Two DDP ranks train as one process does on the joined batch: the same loss, the same gradients.

The truth goes through full logits in one process. One pair of processes runs every case.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve import SelectionPolicy, make_selective
from tokensieve.selection import Part, TokenColumns, apply_policy

VOCABULARY, LENGTH = 61, 12
POLICIES = {
    "everything": SelectionPolicy(ratio=1),
    "sequence": SelectionPolicy(ratio=0.6, scope="sequence"),
    "mask": SelectionPolicy("mask", 0.5),
    "random": SelectionPolicy("random", 0.4, seed=5, scope="sequence"),
    "blend": SelectionPolicy(ratio=0.6, alpha=0.5, scope="sequence"),
    "threshold": SelectionPolicy(ratio=0.4, threshold=0.8),
    "global": SelectionPolicy(ratio=0.6),
    "global random": SelectionPolicy("random", 0.4, seed=5),
    "soft": SelectionPolicy(ratio=0.6, temperature=0.7),
    "document": SelectionPolicy(ratio=0.6, scope="document"),
    "union": SelectionPolicy("union", 0.5, parts=(Part("reference_loss", 0.3), Part("current_loss", 0.4))),
}
# Micro-steps of one optimizer step: the numbers of rows of rank 0 and rank 1.
LAYOUTS = {
    "two rows each": [(2, 2)],
    "accumulated twice": [(2, 2), (2, 2)],
    "accumulated, unequal rows": [(3, 1), (1, 3)],
    "no live label on rank 1": [(2, 2), (2, 2)],
}


def tiny() -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.3,  # losses of a few nats spread, so that the choice depends on them
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float64).train()


def batch(layout: str) -> dict[str, Tensor]:
    """Rows of all micro-steps, rank 0's before rank 1's in each; unequal numbers of live labels a row."""
    rows = sum(map(sum, LAYOUTS[layout]))
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCABULARY - 1, (rows, LENGTH), generator=generator)
    live = torch.rand(rows, LENGTH, generator=generator) < torch.linspace(0.3, 1, rows)[:, None]
    if layout == "no live label on rank 1":
        live[2:4] = False
    return {
        "input_ids": ids,
        "labels": ids.masked_fill(~live, -100),
        "reference_loss": 6 * torch.rand(rows, LENGTH, generator=generator, dtype=torch.float64),
        "selection_mask": torch.rand(rows, LENGTH, generator=generator) < 0.5,
        "token_index": torch.arange(rows * LENGTH).view(rows, LENGTH),
        "document_ids": torch.randint(0, 2, (rows, LENGTH), generator=generator),
    }


def live_labels(inputs: dict[str, Tensor]) -> int:
    return int((inputs["labels"][:, 1:] != -100).sum())


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def on_two_ranks(rank: int, policy: SelectionPolicy, layout: str) -> tuple[float, dict[str, Tensor]]:
    """This rank's part of the loss, and its gradients after DDP has averaged them."""
    inputs, model = batch(layout), tiny()
    items = live_labels(inputs)
    make_selective(model, policy)
    parallel = DistributedDataParallel(model)
    total, start = 0.0, 0
    for step, counts in enumerate(LAYOUTS[layout]):
        first = start + sum(counts[:rank])
        rows = {name: column[first : first + counts[rank]] for name, column in inputs.items()}
        start += sum(counts)
        last = step == len(LAYOUTS[layout]) - 1
        with contextlib.nullcontext() if last else parallel.no_sync():
            loss = parallel(**rows, num_items_in_batch=items).loss
            (2 * loss).backward()  # DDP takes the mean over ranks
        total += loss.item()
    return total, gradients(model)


def through_full_logits(policy: SelectionPolicy, layout: str) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one process on the joined rows of each micro-step."""
    inputs, model = batch(layout), tiny()
    total, start = 0.0, 0
    for counts in LAYOUTS[layout]:
        rows = {name: column[start : start + sum(counts)] for name, column in inputs.items()}
        start += sum(counts)
        logits = model(input_ids=rows["input_ids"], use_cache=False).logits[:, :-1]
        losses = F.cross_entropy(logits.transpose(1, 2), rows["labels"][:, 1:], reduction="none")
        names = ("reference_loss", "selection_mask", "token_index", "document_ids")
        columns = TokenColumns(loss=losses.detach(), **{name: rows[name][:, 1:] for name in names})
        found = apply_policy(policy, columns, rows["labels"][:, 1:] != -100)
        weights = found.selected if found.weights is None else found.weights
        loss = (losses * weights).sum() / (policy.ratio * live_labels(inputs))
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def failure(rank: int, policy: SelectionPolicy, broken: str) -> tuple[str, float]:
    """The error of a micro-step where rank 0 alone holds a NaN, and the seconds until it came."""
    inputs, model = batch("two rows each"), tiny()
    inputs["labels"][:, 3] = 7
    if broken == "reference":
        inputs["reference_loss"][0, 3] = torch.nan
    else:
        # The last id occurs in rank 0's rows alone.
        inputs["input_ids"][0, 3] = VOCABULARY - 1
        with torch.no_grad():
            model.model.embed_tokens.weight[VOCABULARY - 1] = torch.nan
    make_selective(model, policy)
    rows = {name: column[2 * rank : 2 * rank + 2] for name, column in inputs.items()}
    begin = time.monotonic()
    try:
        model(**rows, num_items_in_batch=20).loss.backward()
    except (ValueError, FloatingPointError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - begin
    return "no error", time.monotonic() - begin


def one_rank(rank: int, folder: Path) -> None:
    """What each process runs."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results: dict[str, Any] = {}
    for layout in LAYOUTS:
        for name, policy in POLICIES.items():
            results[f"{name}, {layout}"] = on_two_ranks(rank, policy, layout)
    for broken in ("reference", "live loss"):
        for name in ("global", "document"):
            results[f"{broken}, {name}"] = failure(rank, POLICIES[name], broken)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(two_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return two_ranks(__file__, tmp_path_factory.mktemp("ddp"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", POLICIES)
def test_two_ranks_train_as_one_process_on_the_joined_batch(results: list[Any], name: str, layout: str) -> None:
    expected, wanted = through_full_logits(POLICIES[name], layout)
    (loss, ours), (loss_1, ours_1) = (found[f"{name}, {layout}"] for found in results)
    assert loss + loss_1 == pytest.approx(expected, rel=1e-12)
    for key, gradient in wanted.items():
        torch.testing.assert_close(ours[key], gradient, rtol=1e-10, atol=1e-12, msg=f"{name}, {layout}: {key}")
        assert torch.equal(ours[key], ours_1[key])


def test_ranks_hold_different_numbers_of_live_labels() -> None:
    """Otherwise a mean of means would pass."""
    labels = batch("two rows each")["labels"]
    assert live_labels({"labels": labels[:2]}) < 0.7 * live_labels({"labels": labels[2:]})


@pytest.mark.parametrize("broken", ["reference", "live loss"])
@pytest.mark.parametrize("name", ["global", "document"])
def test_a_nan_on_one_rank_stops_both_within_seconds(results: list[Any], name: str, broken: str) -> None:
    for error, seconds in (found[f"{broken}, {name}"] for found in results):
        assert "NaN" in error
        assert seconds < 20


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), Path(sys.argv[2]))
