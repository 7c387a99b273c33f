"""FSDP2, in every layout of the head that is in use, trains as one process does on the joined batch.

`fully_shard` runs on gloo processes on the CPU; accelerate would train with DDP there without a word. The truth goes
through full logits in one process. One pair of processes runs every case.
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve import SelectionPolicy, make_selective
from tokensieve.selection import TokenColumns, apply_policy
from tokensieve.selective import SelectiveHandle

VOCABULARY, LENGTH, ROWS = 61, 12, 4
POLICIES = {
    "sequence": SelectionPolicy(ratio=0.6, scope="sequence"),
    "global": SelectionPolicy(ratio=0.6),
    "mask": SelectionPolicy("mask", 0.5),
}
LAYOUTS = ("norm with head", "root", "head alone")
PATCHED = ("before", "after")


def tiny(tied: bool = False, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
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
        tie_word_embeddings=tied,
    )
    return AutoModelForCausalLM.from_config(config, dtype=dtype).train()


def batch() -> dict[str, Tensor]:
    """Rank 0 holds the first two rows; unequal numbers of live labels. Losses are those that float16 can hold."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    live = torch.rand(ROWS, LENGTH, generator=generator) < torch.linspace(0.5, 1, ROWS)[:, None]
    return {
        "input_ids": ids,
        "labels": ids.masked_fill(~live, -100),
        "reference_loss": (6 * torch.rand(ROWS, LENGTH, generator=generator)).half().double(),
        "selection_mask": torch.rand(ROWS, LENGTH, generator=generator) < 0.5,
    }


def rows_of(inputs: dict[str, Tensor], first: int, count: int) -> dict[str, Tensor]:
    return {name: column[first : first + count] for name, column in inputs.items()}


def live_labels(inputs: dict[str, Tensor]) -> int:
    return int((inputs["labels"][:, 1:] != -100).sum())


def shard(model: PreTrainedModel, layout: str, tied: bool, **options: Any) -> None:
    """Layers and root, and the head as accelerate and transformers, nobody, and torchtitan group it."""
    backbone: Any = model.model
    # Tied weights may be seen by one group only; the embedding comes first, since it gathers them first.
    head = [backbone.embed_tokens, model.lm_head] if tied else [model.lm_head]
    for layer in backbone.layers:
        fully_shard(layer, **options)
    if layout == "norm with head":
        fully_shard([backbone.norm, *head], reshard_after_forward=False, **options)
    elif layout == "head alone":
        fully_shard(head, **options)
    fully_shard(model, **options)


def sharded(tied: bool, layout: str, patched: str, policy: SelectionPolicy, **options: Any) -> SelectiveHandle:
    model = tiny(tied)
    if patched == "before":
        handle = make_selective(model, policy)
        assert handle.checked
        shard(model, layout, tied, **options)
    else:
        shard(model, layout, tied, **options)
        handle = make_selective(model, policy)
        assert not handle.checked
    assert isinstance(model.lm_head.weight, DTensor)
    return handle


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        found[name] = grad.full_tensor() if isinstance(grad, DTensor) else grad
    return found


def parity(rank: int, handle: SelectiveHandle, micro_steps: int = 1) -> tuple[float, dict[str, Tensor], bool]:
    """Loss of this rank, whole gradients, and whether the head was checked, after one optimizer step's backward."""
    inputs, model, total = batch(), handle.model, 0.0
    rows = rows_of(inputs, 2 * rank, 2)
    for step in range(micro_steps):
        model.set_requires_gradient_sync(step == micro_steps - 1)
        part = rows_of(rows, step * 2 // micro_steps, 2 // micro_steps)
        loss = model(**part, num_items_in_batch=live_labels(inputs)).loss
        (2 * loss).backward()  # FSDP takes the mean over ranks
        total += loss.item()
    return total, gradients(model), handle.checked


def through_full_logits(tied: bool, policy: SelectionPolicy) -> tuple[float, dict[str, Tensor]]:
    """One process, all rows."""
    inputs, model = batch(), tiny(tied)
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), inputs["labels"][:, 1:], reduction="none")
    columns = {name: inputs[name][:, 1:] for name in ("reference_loss", "selection_mask")}
    valid = inputs["labels"][:, 1:] != -100
    selected = apply_policy(policy, TokenColumns(loss=losses.detach(), **columns), valid).selected
    loss = losses[selected].sum() / (policy.ratio * live_labels(inputs))
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def lying_head(rank: int, layout: str) -> str:
    """What the first forward says to a head that does more than its configuration tells."""
    model = tiny()
    shard(model, layout, tied=False)
    model.config.logit_scale = 2.0
    make_selective(model, POLICIES["sequence"])
    try:
        model(**rows_of(batch(), 2 * rank, 2))
    except ValueError as error:
        return str(error)
    return "no error"


def low_precision(rank: int, layout: str, patched: str) -> tuple[Tensor, str]:
    """The choice with references as the bits of float16, and what is said to a float reference."""
    options = {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)}
    handle = sharded(False, layout, patched, POLICIES["sequence"], **options)
    handle.keep_selection = True
    rows = rows_of(batch(), 2 * rank, 2)
    bits = rows["reference_loss"].half().view(torch.int16)
    handle.model(**{**rows, "reference_loss": bits}).loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(handle.model).values())
    assert handle.last_selection is not None
    try:
        handle.model(**{**rows, "reference_loss": rows["reference_loss"].float()})
    except TypeError as error:
        return handle.last_selection[2], str(error)
    return handle.last_selection[2], "no error"


def one_rank(rank: int, folder: Path) -> None:
    """What each process runs."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results: dict[str, Any] = {}
    for layout in LAYOUTS:
        for patched in PATCHED:
            for tied in (False, True):
                handle = sharded(tied, layout, patched, POLICIES["sequence"])
                results[f"sequence, {layout}, {patched}, {tied}"] = parity(rank, handle)
            results[f"low precision, {layout}, {patched}"] = low_precision(rank, layout, patched)
        for name in ("global", "mask"):
            results[f"{name}, {layout}"] = parity(rank, sharded(False, layout, "after", POLICIES[name]))
        handle = sharded(False, layout, "after", POLICIES["sequence"])
        results[f"accumulated, {layout}"] = parity(rank, handle, micro_steps=2)
        handle = sharded(False, layout, "after", POLICIES["sequence"])
        handle.model.gradient_checkpointing_enable({"use_reentrant": False})
        results[f"checkpointed, {layout}"] = parity(rank, handle)
        handle = sharded(True, layout, "after", POLICIES["sequence"])
        rows = rows_of(batch(), 2 * rank, 2)
        results[f"token losses, {layout}"] = handle.token_losses(rows["labels"], input_ids=rows["input_ids"])[0]
        results[f"lying head, {layout}"] = lying_head(rank, layout)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(two_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return two_ranks(__file__, tmp_path_factory.mktemp("fsdp"))


def assert_as_one_process(results: list[Any], case: str, name: str, tied: bool = False) -> None:
    expected, wanted = through_full_logits(tied, POLICIES[name])
    (loss, ours, checked), (loss_1, ours_1, checked_1) = (found[case] for found in results)
    assert checked and checked_1
    assert loss + loss_1 == pytest.approx(expected, rel=1e-10)
    assert ours.keys() == ours_1.keys() == wanted.keys()
    for key, gradient in wanted.items():
        for gathered in (ours[key], ours_1[key]):
            torch.testing.assert_close(gathered, gradient, rtol=1e-9, atol=1e-11, msg=f"{case}: {key}")


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("patched", PATCHED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sharded_training_is_that_of_one_process(results: list[Any], layout: str, patched: str, tied: bool) -> None:
    """Patched after sharding, the head is checked in the first forward: `parity` returns that it was."""
    assert_as_one_process(results, f"sequence, {layout}, {patched}, {tied}", "sequence", tied)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["global", "mask"])
def test_other_policies_sharded(results: list[Any], name: str, layout: str) -> None:
    assert_as_one_process(results, f"{name}, {layout}", name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accumulation_without_synchronising_gradients(results: list[Any], layout: str) -> None:
    assert_as_one_process(results, f"accumulated, {layout}", "sequence")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_activation_checkpointing_under_sharding(results: list[Any], layout: str) -> None:
    assert_as_one_process(results, f"checkpointed, {layout}", "sequence")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_losses_under_sharding(results: list[Any], layout: str) -> None:
    inputs, model = batch(), tiny(tied=True)
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1].detach()
    expected = F.cross_entropy(logits.transpose(1, 2), inputs["labels"][:, 1:], reduction="none")
    ours = torch.cat([found[f"token losses, {layout}"] for found in results])
    torch.testing.assert_close(ours[:, 1:], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_that_does_more_is_refused_on_every_rank_at_the_first_forward(results: list[Any], layout: str) -> None:
    for found in results:
        assert "token losses differ by" in found[f"lying head, {layout}"]


@pytest.mark.parametrize("patched", PATCHED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mixed_precision_takes_references_as_bits_and_refuses_floats(
    results: list[Any], layout: str, patched: str
) -> None:
    """The choice is that of exact references; the bfloat16 that FSDP2 makes of a float column is refused."""
    model = tiny()
    for parameter in model.parameters():  # not the buffers: rotary angles stay exact, here as under FSDP2
        parameter.data = parameter.data.bfloat16()
    handle = make_selective(model, POLICIES["sequence"])
    handle.keep_selection = True
    wanted = []
    for rank in (0, 1):
        rows = rows_of(batch(), 2 * rank, 2)
        model(**rows)
        wanted.append(handle.last_selection[2])
    found = [found[f"low precision, {layout}, {patched}"] for found in results]
    assert torch.equal(torch.cat([choice for choice, _ in found]), torch.cat(wanted))
    for _, error in found:
        assert "reference_loss is torch.bfloat16" in error


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), Path(sys.argv[2]))
