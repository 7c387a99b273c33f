"""Reference losses as a dataset column, against full logits of each row by itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from tokensieve.errors import UserError
from tokensieve.integrations.scoring import score_dataset


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_each_loss_is_that_of_its_row_alone(tiny, rows, batch_size):
    model = tiny(1)
    dataset = rows(7, 1, 12).remove_columns("reference_loss").add_column("kept", list(range(7)))
    scored = score_dataset(dataset, model, batch_size=batch_size)
    assert scored.remove_columns("reference_loss")[:] == dataset[:]
    for row in scored:
        ids, losses = torch.tensor([row["input_ids"]]), row["reference_loss"]
        with torch.no_grad():
            expected = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        assert math.isnan(losses[0])
        torch.testing.assert_close(torch.tensor(losses[1:]), expected, rtol=1e-5, atol=1e-5)


def test_the_reference_is_scored_in_eval_mode_and_left_as_it_was(tiny, rows):
    model = tiny(1, attention_dropout=0.5).train()
    dataset = rows().remove_columns("reference_loss")
    first, second = score_dataset(dataset, model), score_dataset(dataset, model)
    for one, other in zip(first["reference_loss"], second["reference_loss"], strict=True):
        assert one[1:] == other[1:]
    assert model.training and "forward" not in vars(model) and "forward" not in vars(model.lm_head)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_scored_is_refused_and_leaves_the_model_unpatched(tiny, rows):
    model = tiny(1)
    with pytest.raises(UserError, match="no input_ids, only text"):
        score_dataset(Dataset.from_dict({"text": ["a"]}), model)
    with pytest.raises(UserError, match="has a column 'reference_loss' already"):
        score_dataset(rows(), model)
    with pytest.raises(UserError, match="token id 61 is outside the reference's 61 ids"):
        score_dataset(Dataset.from_dict({"input_ids": [[1, 2], [3, 61]]}), model)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises((UserError, ValueError)):
        score_dataset(Dataset.from_dict({"input_ids": [[1, 5]]}), model)
    assert "forward" not in vars(model)
