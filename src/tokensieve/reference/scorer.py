"""One model's losses of one shard: forward passes back to back, reading and writing beside them.

The next rows are read, and the last results stored, in threads of their own while the model works. Nothing but
the backbone and the chunked products of the head is on the critical path (benchmarks/score.py).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tokensieve.causal_head import linear_head
from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.head import IGNORE, FirstPass, first_pass
from tokensieve.recipe import ContextSection
from tokensieve.reference.fragments import Rows, plan_groups
from tokensieve.reference.store import COLUMNS, unscored
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

Advance = Callable[[int], None]
"""Called with the number of the shard's tokens just done."""


class Scorer:
    """A reference model, ready to score shards.

    Args:
        model: the reference, on its device; it is put in eval mode.
        columns: of `store.COLUMNS`.
        context: window length and document mask.
        batch_size: windows' worth of tokens of one forward pass.
        dtype: `float32`, or `bfloat16` for autocast; losses are float32 either way.

    Raises:
        UserError: the model's loss is not one that our head can compute.
    """

    def __init__(
        self, model: PreTrainedModel, columns: Sequence[str], context: ContextSection, batch_size: int, dtype: str
    ) -> None:
        self.model = model.eval()
        self.columns = tuple(columns)
        self.context = context
        self.batch_size = batch_size
        self.dtype = dtype
        try:
            handle = make_selective(model, SelectionPolicy(ratio=1))  # compares the model's own loss with ours
        except (TypeError, ValueError) as error:
            raise UserError(f"{model.config.name_or_path}: cannot score with this model: {error}") from error
        self._transform = handle.transform
        handle.remove()
        self._head = linear_head(model)
        self._vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[assignment]

    def score_shard(self, store: TokenStore, i: int, advance: Advance = lambda count: None) -> dict[str, np.ndarray]:
        """Every column of shard `i`, [shard tokens] each.

        Raises:
            UserError: a loss that is not finite, an id outside the model's vocabulary, or a damaged store.
        """
        shard = store.shards[i]
        values = {column: unscored(column, shard.tokens) for column in self.columns}
        done = 0
        with (
            torch.inference_mode(),
            # One autocast for all passes: the weights are cast once.
            torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"),
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
        ):
            inputs = self._inputs(store, i)
            written: Future[None] | None = None
            following = reader.submit(next, inputs, None)
            while (item := following.result()) is not None:
                following = reader.submit(next, inputs, None)
                rows, ids, labels = item
                found = self._forward(ids, labels)
                if written is not None:
                    written.result()
                written = writer.submit(self._keep, found, rows, values, store, i)
                done += int(rows.lengths.sum())
                advance(int(rows.lengths.sum()))
            if written is not None:
                written.result()
        advance(shard.tokens - done)
        return values

    def _inputs(self, store: TokenStore, i: int) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Rows, their ids and labels, [rows, longest] int64 on the host."""
        shard, tokens, ends = store.shards[i], store.shard_tokens(i), store.document_ends(i)
        for group in plan_groups(ends, shard.tokens, self.context, self.batch_size):
            part = tokens[group.first : group.last]
            largest = int(part.max()) if len(part) else 0
            if largest >= self._vocabulary:
                raise UserError(
                    f"{store.folder}: shard {shard.name} holds id {largest}, and the reference's vocabulary has "
                    f"{self._vocabulary}; score with a reference of the corpus's own tokenizer"
                )
            for rows in group.passes:
                ids, inside = rows.read(part, group.first)
                labels = np.where(inside, ids, IGNORE)
                yield rows, self._pinned(ids), self._pinned(labels)

    def _pinned(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.model.device.type == "cuda" else tensor

    def _forward(self, ids: Tensor, labels: Tensor) -> FirstPass:
        """Losses of the rows' tokens, [labels] in the order of `Rows.positions`."""
        device = self.model.device
        ids, labels = ids.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        # Neither mask nor positions: padding lies behind, in no token's past, and rows begin at 0.
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        live = labels[:, 1:] != IGNORE
        return first_pass(
            hidden[live],
            self._head.weight,
            labels[:, 1:][live],
            bias=self._head.bias,
            transform=self._transform,
            entropy="entropy" in self.columns,
            correct="correct" in self.columns,
        )

    def _keep(self, found: FirstPass, rows: Rows, values: dict[str, np.ndarray], store: TokenStore, i: int) -> None:
        """Store what a pass found, in the columns' types."""
        positions = rows.positions
        results = {"loss": found.losses, "entropy": found.entropies, "correct": found.correct}
        for column in self.columns:
            result = results[column]
            assert result is not None
            # Rounding can bring a sure token just below zero; a loss and an entropy cannot be (nor minus zero).
            numbers = result.cpu().numpy() if column == "correct" else result.clamp(min=0).abs().cpu().numpy()
            with np.errstate(over="ignore"):
                stored = numbers.astype(COLUMNS[column].dtype)
            if column != "correct" and not np.isfinite(stored).all():
                first = int(positions[~np.isfinite(stored)].min())
                place = store.locate(store.shards[i].start + first)
                raise UserError(
                    f"{store.folder}: the reference's {column} is not finite at token {place.offset} of document "
                    f"{place.document} (shard {place.shard}, {place.source}); check the reference model"
                )
            values[column][positions] = stored
