"""The divisor is ratio x the live labels of the optimizer step, by hand-made numbers and in a stock Trainer."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, default_data_collator

from tokensieve import SelectionPolicy
from tokensieve.head import PLAIN
from tokensieve.integrations.trainer import attach
from tokensieve.selective_loss import SelectionStats, SelectiveLoss


def loss_of(losses: list[float], policy: SelectionPolicy, items: int | None = None, **columns: Tensor) -> Tensor:
    """The selective loss of one row whose tokens have these losses: two ids, of which the first is the target."""
    head = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0], [0.0]]))
    # loss = log(1 + exp(-h))
    hidden = torch.tensor([-math.log(math.expm1(loss)) for loss in losses] + [0.0]).double()
    task = SelectiveLoss(
        labels=torch.zeros(1, len(losses) + 1, dtype=torch.long),
        columns={name: nn.functional.pad(column[None], (1, 0)) for name, column in columns.items()},
        items=items,
        policy=policy,
        transform=PLAIN,
        measure=False,
        stats=SelectionStats(),
        reference_checked=True,
    )
    return task.run(head, hidden[None, :, None].requires_grad_())


# 15
def test_a_hundred_tokens_at_4_nats_and_nine_hundred_at_2_have_a_mean_of_2_2_nats():
    """Not 3.0, the mean of the micro-batches' means."""
    plain = SelectionPolicy(ratio=1)
    total = loss_of([4.0] * 100, plain, items=1000) + loss_of([2.0] * 900, plain, items=1000)
    assert total.item() == pytest.approx(2.2, rel=1e-6)


# 15
def test_micro_batches_of_different_size_weigh_by_their_tokens():
    half = SelectionPolicy("mask", 0.5)
    keep = [torch.arange(n) % 2 == 0 for n in (100, 900)]
    total = sum(
        loss_of([x] * n, half, items=1000, selection_mask=mask)
        for x, n, mask in zip((4.0, 2.0), (100, 900), keep, strict=True)
    )
    assert total.item() == pytest.approx(2.2, rel=1e-6)


# 17
def test_the_divisor_is_the_selected_share_and_not_all_tokens():
    losses = [4.0, 3.0, 2.0, 1.0]
    reference = torch.zeros(4)
    assert loss_of(losses, SelectionPolicy(ratio=0.5), reference_loss=reference).item() == pytest.approx(3.5, rel=1e-6)
    assert loss_of(losses, SelectionPolicy(ratio=1)).item() == pytest.approx(2.5, rel=1e-6)


# 18
def test_numerator_and_divisor_count_the_same_tokens():
    """Tokens that all cost the same have that mean loss, whatever is selected of them."""
    reference = torch.arange(40.0)
    for ratio in (0.05, 0.25, 0.5, 0.75, 1.0):
        assert loss_of([3.0] * 40, SelectionPolicy(ratio=ratio), reference_loss=reference).item() == pytest.approx(3.0)
        static = SelectionPolicy("reference_loss", ratio, "sequence")
        assert loss_of([3.0] * 40, static, reference_loss=reference).item() == pytest.approx(3.0)


class Rows(Dataset[dict[str, Tensor]]):
    """Four rows with very different numbers of candidates."""

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        self.inputs = inputs
        for row, live in enumerate((11, 1, 6, 3)):
            inputs["labels"][row, : 12 - live] = -100

    def __len__(self) -> int:
        return len(self.inputs["labels"])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {name: value[i] for name, value in self.inputs.items()}


# 16
@pytest.mark.parametrize("policy", [SelectionPolicy(ratio=1), SelectionPolicy(ratio=0.6, scope="sequence")])
def test_accumulation_in_a_stock_trainer_takes_the_same_step(policy, tiny, batch, selective, tmp_path: Path):
    weights = []
    for size, accumulation in ((4, 1), (1, 4), (2, 2)):
        handle = selective(tiny(torch.float64), policy)
        args = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(handle.model, args, train_dataset=Rows(batch(4)), data_collator=default_data_collator)
        attach(trainer, handle)
        trainer.train()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in handle.model.parameters()]))
    moved = weights[0] - torch.cat([parameter.detach().flatten() for parameter in tiny(torch.float64).parameters()])
    assert moved.abs().max() > 0.01
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=1e-9)
