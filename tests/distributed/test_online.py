"""A reference beside a student on two ranks: replicated under DDP, sharded under FSDP2, it scores as one process does.

The truth is one process on the joined batch whose reference losses come from full logits. One pair of processes runs
every case. `fully_shard` runs on gloo processes on the CPU.
"""

import contextlib
import os
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
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments
from transformers.distributed import DistributedConfig

from tokensieve import SelectionPolicy, make_selective
from tokensieve.integrations.trainer import attach
from tokensieve.online import attach_reference

VOCABULARY, LENGTH, ROWS, STEPS = 61, 12, 4, 3
GLOBAL = SelectionPolicy(ratio=0.6)
SEQUENCE = SelectionPolicy(ratio=0.6, scope="sequence")
# case -> (is the student patched before it is sharded, who shards the reference and when, micro-steps, tied weights)
SHARDED = {
    "follows the student": (True, "follows", 1, False),
    "follows, student patched after sharding": (False, "follows", 1, False),
    "follows, tied": (True, "follows", 1, True),
    "follows, accumulated": (True, "follows", 2, False),
    "follows, root alone": (True, "root alone", 1, False),
    "sharded before attaching": (True, "before", 1, False),
    "sharded after attaching": (True, "after", 1, False),
}


def tiny(seed: int = 0, tied: bool = False, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    torch.manual_seed(seed)
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


def batch(rows: int = ROWS) -> dict[str, Tensor]:
    """Rank 0 holds the first half; unequal numbers of live labels."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=generator)
    live = torch.rand(rows, LENGTH, generator=generator) < torch.linspace(0.5, 1, rows)[:, None]
    return {"input_ids": ids, "labels": ids.masked_fill(~live, -100)}


def live_labels(inputs: dict[str, Tensor]) -> int:
    return int((inputs["labels"][:, 1:] != -100).sum())


def shard(model: PreTrainedModel, **options: Any) -> None:
    for layer in model.model.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)


def rows_of(rank: int, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
    """A micro-step's rows of one rank."""
    return {name: column.chunk(2)[rank].chunk(parts)[part] for name, column in batch().items()}


def whole_gradients(model: nn.Module) -> dict[str, Tensor]:
    grads = {name.removeprefix("module."): weight.grad for name, weight in model.named_parameters()}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in grads.items()}


def sharded(rank: int, patched_before: bool, reference_sharded: str, parts: int, tied: bool) -> dict[str, Any]:
    """Loss, gradients, and how the reference lay after one optimizer step's backward."""
    policy = GLOBAL if parts == 1 else SEQUENCE
    student, reference = tiny(0, tied), tiny(1, tied)
    if reference_sharded == "before":
        shard(reference)
    if patched_before:
        handle = make_selective(student, policy)
        attach_reference(handle, reference)
    layers = () if reference_sharded == "root alone" else student.model.layers
    for module in (*layers, student):
        fully_shard(module)
    if not patched_before:
        handle = make_selective(student, policy)
        attach_reference(handle, reference)
    if reference_sharded == "after":
        shard(reference)
    if reference_sharded == "follows" and rank == 1:
        # As engines leave it that load weights on rank 0 alone.
        with torch.no_grad():
            for weight in reference.parameters():
                weight.fill_(7.0)
    loss = torch.zeros(())
    for part in range(parts):
        student.set_requires_gradient_sync(part == parts - 1)
        micro = student(**rows_of(rank, part, parts), num_items_in_batch=live_labels(batch())).loss
        (2 * micro).backward()  # FSDP takes the mean over ranks
        loss = loss + micro.detach()
    weights = list(reference.parameters())
    return {
        "loss": loss.item(),
        "gradients": whole_gradients(student),
        # Outside of its forward every weight is a shard: half of it lies here.
        "sharded": all(isinstance(weight, DTensor) for weight in weights),
        "elements": sum(weight.to_local().numel() if isinstance(weight, DTensor) else 10**9 for weight in weights),
        "keys": sorted(student.state_dict()),
        "reference gradients": any(weight.grad is not None or weight.requires_grad for weight in weights),
    }


def replicated(rank: int) -> dict[str, Any]:
    """DDP, two micro-steps, activation checkpointing."""
    handle = make_selective(tiny(), SEQUENCE)
    attach_reference(handle, tiny(1))
    handle.model.activation_checkpointing_enable()
    model = DistributedDataParallel(handle.model)
    loss = torch.zeros(())
    for part in (0, 1):
        with model.no_sync() if part == 0 else contextlib.nullcontext():
            micro = model(**rows_of(rank, part, 2), num_items_in_batch=live_labels(batch())).loss
            (2 * micro).backward()
        loss = loss + micro.detach()
    return {"loss": loss.item(), "gradients": whole_gradients(model)}


def low_precision(rank: int) -> tuple[Tensor, Tensor]:
    """The reference's losses beside a student under FSDP2's bfloat16, and those of the reference by itself."""
    student, reference = tiny(dtype=torch.float32), tiny(1, dtype=torch.float32)
    alone, _ = make_selective(tiny(1, dtype=torch.float32), SelectionPolicy(ratio=1)).token_losses(**rows_of(rank))
    handle = make_selective(student, GLOBAL)
    columns = attach_reference(handle, reference)
    shard(student, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))
    seen, original = [], columns.columns
    columns.columns = lambda *args: seen.append(original(*args)) or seen[-1]  # type: ignore[method-assign]
    student(**rows_of(rank)).loss.backward()
    return seen[0]["reference_loss"], alone


def train(student: PreTrainedModel, reference: PreTrainedModel, folder: Path, rows_a_rank: int) -> list[Any]:
    """(loss, gradient norm) of each step of the stock Trainer; accumulation 2."""
    handle = make_selective(student, SEQUENCE)
    attach_reference(handle, reference)
    inputs = batch(8 * STEPS)
    arguments = TrainingArguments(
        str(folder / "out"),
        per_device_train_batch_size=rows_a_rank,
        gradient_accumulation_steps=2,
        max_steps=STEPS,
        logging_steps=1,
        learning_rate=0.01,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    rows = [{name: column[i] for name, column in inputs.items()} for i in range(8 * STEPS)]
    trainer = Trainer(student, arguments, train_dataset=rows)
    attach(trainer, handle)
    trainer.train()
    return [(line["loss"], float(line["grad_norm"])) for line in trainer.state.log_history if "grad_norm" in line]


def one_rank(rank: int, folder: Path) -> None:
    """What each process runs; the group is made beforehand, so that no port is needed."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results: dict[str, Any] = {name: sharded(rank, *case) for name, case in SHARDED.items()}
    results["DDP"] = replicated(rank)
    results["low precision"] = low_precision(rank)
    student, reference = (AutoModelForCausalLM.from_pretrained(folder / name) for name in ("student", "reference"))
    results["Trainer, DDP"] = train(student, reference, folder, 2)
    config = DistributedConfig(fsdp_size=2)
    student = AutoModelForCausalLM.from_pretrained(folder / "student", distributed_config=config)
    reference = AutoModelForCausalLM.from_pretrained(folder / "reference")
    results["Trainer, FSDP2"] = train(student, reference, folder, 2)
    results["Trainer sharded both"] = all(
        isinstance(weight, DTensor) for model in (student, reference) for weight in model.parameters()
    )
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(two_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("online")
    for name, seed in (("student", 0), ("reference", 1)):
        tiny(seed, dtype=torch.float32).save_pretrained(folder / name)
    found = two_ranks(__file__, folder)
    models = (AutoModelForCausalLM.from_pretrained(folder / name) for name in ("student", "reference"))
    found[0]["one process"] = train(*models, folder, 4)
    return found


def in_one_process(policy: SelectionPolicy, tied: bool) -> tuple[float, dict[str, Tensor]]:
    """All rows; the reference's losses come from its full logits."""
    inputs, handle = batch(), make_selective(tiny(0, tied), policy)
    with torch.no_grad():
        logits = tiny(1, tied).eval()(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), inputs["labels"][:, 1:], reduction="none")
    loss = handle.model(**inputs, reference_loss=F.pad(losses, (1, 0))).loss
    loss.backward()
    return loss.item(), whole_gradients(handle.model)


def assert_as_one_process(found: list[Any], policy: SelectionPolicy, tied: bool = False) -> None:
    expected, wanted = in_one_process(policy, tied)
    assert sum(rank["loss"] for rank in found) == pytest.approx(expected, rel=1e-10)
    for rank in found:
        assert rank["gradients"].keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(rank["gradients"][name], gradient, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("case", SHARDED)
def test_a_sharded_reference_gives_the_loss_and_gradients_of_one_process(results: list[Any], case: str) -> None:
    _, _, parts, tied = SHARDED[case]
    assert_as_one_process([rank[case] for rank in results], GLOBAL if parts == 1 else SEQUENCE, tied)


@pytest.mark.parametrize("case", SHARDED)
def test_each_rank_holds_half_of_the_reference_and_the_student_none_of_it(results: list[Any], case: str) -> None:
    tied = SHARDED[case][3]
    plain = tiny(1, tied)
    for rank in results:
        assert not rank[case]["reference gradients"]
        assert rank[case]["keys"] == sorted(plain.state_dict())
        if case != "sharded before attaching" and case != "sharded after attaching":  # the user's own layout keeps more
            assert rank[case]["sharded"]
    if all(rank[case]["sharded"] for rank in results):
        assert sum(rank[case]["elements"] for rank in results) == sum(weight.numel() for weight in plain.parameters())


def test_a_replicated_reference_under_ddp_gives_the_loss_and_gradients_of_one_process(results: list[Any]) -> None:
    assert_as_one_process([rank["DDP"] for rank in results], SEQUENCE)


def test_the_students_mixed_precision_does_not_reach_the_reference(results: list[Any]) -> None:
    for rank in results:
        torch.testing.assert_close(*rank["low precision"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ["DDP", "FSDP2"])
def test_the_stock_trainer_logs_the_losses_of_one_process(results: list[Any], engine: str) -> None:
    wanted = results[0]["one process"]
    assert len(wanted) == STEPS
    for ours, expected in zip(results[0][f"Trainer, {engine}"], wanted, strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)


def test_the_trainer_sharded_both_models(results: list[Any]) -> None:
    assert results[0]["Trainer sharded both"]


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), Path(sys.argv[2]))
