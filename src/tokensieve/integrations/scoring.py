"""Reference losses as a dataset column, for training loops that do not use our token store.

A row is scored by itself, from its first token on: train on it in the same context, that is, as one row or as
one document of a packed row whose attention ends at the document's borders.
"""

import numpy as np
import torch
from datasets import Dataset, List, Value
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel

from tokensieve.errors import UserError
from tokensieve.head import IGNORE
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import SelectiveHandle, make_selective


def score_dataset(
    dataset: Dataset,
    reference_model: PreTrainedModel,
    *,
    batch_size: int = 8,
    column: str = "reference_loss",
) -> Dataset:
    """Add the reference model's loss of every token.

    Args:
        dataset: rows with `input_ids`, cut to the length that training will use.
        reference_model: a causal LM over the same token ids; on its device, in its type. It runs in eval mode,
            without gradient, and is left as it was.
        batch_size: rows of one forward; rows of like length go together, padded on the right.
        column: name of the new column.

    Returns:
        The dataset with `column`: a list of float32 as long as `input_ids`; entry i is the loss, in nats, of
        predicting token i; entry 0 is NaN, because nothing comes before it.

    Raises:
        UserError: no `input_ids`, the column is there already, an id outside the model's vocabulary, or a loss
            that is not finite.
    """
    if "input_ids" not in dataset.column_names:
        raise UserError(f"score_dataset: the dataset has no input_ids, only {', '.join(dataset.column_names)}")
    if column in dataset.column_names:
        raise UserError(f"score_dataset: the dataset has a column {column!r} already; remove it, or name another")
    rows = dataset.with_format("numpy").select_columns(["input_ids"])
    lengths = np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)
    losses: list[np.ndarray] = [np.empty(0, dtype=np.float32)] * len(rows)
    order = np.argsort(-lengths, kind="stable")
    handle = make_selective(reference_model, SelectionPolicy(ratio=1))
    bar = TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn()
    try:
        with Progress(*bar) as progress:
            task = progress.add_task("", total=len(rows))
            for start in range(0, len(rows), batch_size):
                chosen = order[start : start + batch_size]
                ids = [np.asarray(rows[int(i)]["input_ids"], dtype=np.int64) for i in chosen]
                for index, found in zip(chosen, _losses(handle, ids), strict=True):
                    if not np.isfinite(found[1:]).all():
                        raise UserError(f"score_dataset: the reference's loss of row {index} is not finite")
                    losses[index] = found
                progress.advance(task, len(chosen))
    finally:
        handle.remove()
    return dataset.add_column(column, losses, feature=List(Value("float32")))


def _losses(handle: SelectiveHandle, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Losses of each row (ids, longest first), NaN in front."""
    shape = len(rows), max(len(rows[0]), 1)
    input_ids, labels = torch.zeros(shape, dtype=torch.int64), torch.full(shape, IGNORE)
    vocabulary = handle.model.get_input_embeddings().num_embeddings
    for i, ids in enumerate(rows):
        if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
            outside = ids.max() if ids.min() >= 0 else ids.min()
            raise UserError(f"score_dataset: token id {outside} is outside the reference's {vocabulary} ids")
        length = len(ids)
        input_ids[i, :length] = labels[i, :length] = torch.from_numpy(ids)
    labels[:, 0] = IGNORE
    device = handle.model.device
    # No attention mask: padding on the right is in no token's past.
    losses, _ = handle.token_losses(labels.to(device), input_ids=input_ids.to(device))
    # Rounding can bring a sure token just below zero; a loss cannot be.
    found_BT = losses.clamp(min=0).cpu().numpy()
    found_BT[:, 0] = np.nan
    return [found[: len(ids)] for found, ids in zip(found_BT, rows, strict=True)]
