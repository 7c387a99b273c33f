"""The policy's columns on their way through TRL's data preparation: cut, packed, padded like `input_ids`.

TRL's own preparation and collator know tokens and labels alone; a column that stayed behind would name losses of
other tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import pad

from tokensieve.errors import UserError
from tokensieve.head import IGNORE

LOSS_COLUMNS = ("reference_loss", "reference_entropy", "history_loss")
"""Columns that a model computed, in nats, each in a certain context."""
_COLUMN_TYPES = {"selection_mask": torch.bool, "token_index": torch.int64, "document_ids": torch.int64}


@dataclass
class SelectiveCollator(DataCollatorForLanguageModeling):
    """TRL's collator, which also pads (or lays in one row) the policy's columns, like `labels`.

    Loss columns travel as int16 holding the bits of float16, so that no engine rounds them to bfloat16. A token
    that was never scored (NaN or None) gets the label -100. `document_ids`, if the examples have none, are
    counted from `position_ids`; without them a row is one document. A column that no example of the batch
    has is left out: the model itself says if it misses it.
    """

    columns: tuple[str, ...] = ("reference_loss",)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate: what TRL's collator returns, and each column as [B, T] in the shape of `labels`."""
        batch = super().torch_call(examples)
        for name in self.columns:
            having = sum(name in example for example in examples)
            if 0 < having < len(examples):
                raise UserError(f"{len(examples) - having} of {len(examples)} examples of a batch have no {name}")
            if having:
                batch[name] = self._column(name, examples, batch["labels"])
            elif name == "document_ids":
                starts = batch["position_ids"] == 0 if "position_ids" in batch else batch["labels"] != batch["labels"]
                batch[name] = starts.cumsum(dim=1)
        return batch

    def _column(self, name: str, examples: list[dict[str, Any]], labels: Tensor) -> Tensor:
        """One column as [B, T]; unscored tokens lose their label, in place."""
        for example in examples:
            refuse_other_length(name, example[name], example["input_ids"], "an example")
        rows = [_numbers(name, example[name]) for example in examples]
        if self.padding_free:
            rows = [torch.cat(rows)]
        values = pad(rows, padding_value=0, padding_side="right", pad_to_multiple_of=self.pad_to_multiple_of)
        if name not in LOSS_COLUMNS:
            return values
        unscored = values.isnan()
        labels[unscored] = IGNORE
        halves = values.masked_fill(unscored, 0).half()
        if halves.isinf().any():
            raise UserError(f"{name} holds {values[halves.isinf()][0]:g}; a loss must be finite and below 65504")
        return halves.view(torch.int16)


def refuse_other_length(name: str, values: Any, input_ids: Any, place: str) -> None:
    """Raise UserError if a column is not aligned with input_ids."""
    if len(values) != len(input_ids):
        raise UserError(f"{place}: {name} has {len(values)} entries and input_ids {len(input_ids)}; they must be equal")


def align_row(
    example: dict[str, Any], index: int, columns: list[str], window: slice, dataset_name: str
) -> dict[str, list[Any]]:
    """One row of a data set, cut to `window`, for `Dataset.map`.

    Unscored tokens lose their label already here, so that rows without any label are found.

    Raises:
        UserError: a column is not as long as `input_ids`.
    """
    labels = list(example["labels"])
    for name in columns:
        refuse_other_length(name, example[name], example["input_ids"], f"{dataset_name} row {index}")
        if name in LOSS_COLUMNS:
            unscored = _numbers(name, example[name]).isnan().tolist()
            labels = [IGNORE if missing else label for label, missing in zip(labels, unscored, strict=True)]
    cut = {name: example[name][window] for name in ("input_ids", *columns)}
    return {**cut, "labels": labels[window]}


def has_label(example: dict[str, Any]) -> bool:
    """Whether a row trains anything."""
    return any(label != IGNORE for label in example["labels"])


def _numbers(name: str, values: Any) -> Tensor:
    """A column of one example as a tensor [T]; None in a loss column is NaN."""
    if name not in LOSS_COLUMNS:
        return torch.as_tensor(values, dtype=_COLUMN_TYPES[name])
    if isinstance(values, list):
        values = [float("nan") if value is None else value for value in values]
    return torch.as_tensor(values, dtype=torch.float32)
