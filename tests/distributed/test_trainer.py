"""The stock Trainer on two ranks, under DDP and under FSDP2, logs what it logs on one.

Scope `sequence`: the choice does not depend on how rows are spread, so losses and gradient norms must agree. On the CPU
`TrainingArguments(fsdp=...)` trains with DDP without a word; transformers' own sharding (`DistributedConfig`) does not.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments
from transformers.distributed import DistributedConfig

from tokensieve import SelectionPolicy, make_selective

VOCABULARY, LENGTH, STEPS = 61, 12, 4
POLICY = SelectionPolicy(ratio=0.6, scope="sequence")


def saved_model(folder: Path) -> Path:
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
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    return folder / "model"


def rows() -> list[dict[str, torch.Tensor]]:
    """Live labels differ from row to row, and so between ranks."""
    generator = torch.Generator().manual_seed(4)
    count = 8 * STEPS
    ids = torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator)
    live = torch.rand(count, LENGTH, generator=generator) < torch.rand(count, 1, generator=generator)
    reference = 6 * torch.rand(count, LENGTH, generator=generator)
    columns = {"input_ids": ids, "labels": ids.masked_fill(~live, -100), "reference_loss": reference}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def train(model: PreTrainedModel, folder: Path, rows_a_rank: int, policy: SelectionPolicy = POLICY) -> list[Any]:
    """(loss, gradient norm) of each step; accumulation 2, and 8 rows a step on all ranks together."""
    make_selective(model, policy)
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
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
    )
    trainer = Trainer(model, arguments, train_dataset=rows())
    trainer.train()
    return [(line["loss"], float(line["grad_norm"])) for line in trainer.state.log_history if "grad_norm" in line]


def one_rank(rank: int, folder: Path) -> None:
    """What each process runs; the group is made beforehand, so that no port is needed."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results: dict[str, Any] = {"DDP": train(AutoModelForCausalLM.from_pretrained(folder / "model"), folder, 2)}
    sharded = AutoModelForCausalLM.from_pretrained(folder / "model", distributed_config=DistributedConfig(fsdp_size=2))
    results["sharded"] = all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    results["FSDP2"] = train(sharded, folder, 2)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(two_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trainer")
    model = saved_model(folder)
    found = {"one process": train(AutoModelForCausalLM.from_pretrained(model), folder, 4)}
    return found | two_ranks(__file__, folder)[0]


@pytest.mark.parametrize("engine", ["DDP", "FSDP2"])
def test_two_ranks_log_the_losses_and_gradient_norms_of_one(results: dict[str, Any], engine: str) -> None:
    assert len(results["one process"]) == STEPS
    for ours, wanted in zip(results[engine], results["one process"], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-5)


def test_the_model_was_sharded(results: dict[str, Any]) -> None:
    assert results["sharded"]


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), Path(sys.argv[2]))
