"""Windows: fixed-length rows cut from a token store, with labels, positions and aligned columns.

This is what training, scoring and evaluation read, so that all three see the same tokens under the same
context. Which tokens count is decided here and nowhere else: a window's first token, a document's first
token and a token without a score have label -100. A whole batch is made at once from memory maps; reading
must never show in a training step (benchmarks/windows.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.storage.checksums import CheckedArray

__all__ = ["IGNORED", "Windows", "identity", "sample_order"]

IGNORED = -100
"""The label of a token that is no candidate (the default `ignore_index` of torch)."""

Column = np.ndarray | CheckedArray
"""Values aligned with the tokens of one shard."""

_FLOAT16_INFINITY = 0x7C00


class Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A map-style data set of windows of `length` tokens.

    Window w of a shard covers its tokens [w*T, (w+1)*T); the tail shorter than T is dropped. Windows never
    cross a shard. Give it to a DataLoader with `collate_fn=identity`: `__getitems__` makes finished batches.

    Args:
        store: the tokens.
        length: T, in tokens.
        document_mask: positions restart at 0 at each document, which keeps attention inside a document.
        columns: name -> one float16 array a shard, aligned with its tokens; NaN means the token has no score.
        order: int64 [samples]; sample i is window `order[i] % n_windows` in pass `order[i] // n_windows`.
            Default: each window once, in order.
        document_ids: also emit `document_ids`, for selection that keeps or drops whole documents.

    Raises:
        UserError: the store has no window of this length.
        ValueError: a column does not fit the store.
    """

    n_windows: int
    dropped_tokens: int

    def __init__(
        self,
        store: TokenStore,
        length: int,
        *,
        document_mask: bool = True,
        columns: Mapping[str, Sequence[Column]] | None = None,
        order: np.ndarray | None = None,
        document_ids: bool = False,
    ) -> None:
        self.store = store
        self.length = length
        self.document_mask = document_mask
        self.document_ids = document_ids
        self.columns = {name: list(arrays) for name, arrays in (columns or {}).items()}
        _check_columns(store, self.columns)
        per_shard = store.windows_per_shard(length)
        self._first_window = np.concatenate([[0], np.cumsum(per_shard)])
        self._shard_start = np.array([shard.start for shard in store.shards], dtype=np.int64)
        self._first_document = np.cumsum([0, *(shard.documents for shard in store.shards)])
        self.n_windows = int(self._first_window[-1])
        self.dropped_tokens = store.tokens - self.n_windows * length
        self.order = np.arange(self.n_windows, dtype=np.int64) if order is None else np.asarray(order, dtype=np.int64)
        if self.n_windows == 0:
            raise UserError(
                f"{store.folder}: no shard holds a window of {length} tokens ({store.tokens} tokens in all); "
                f"give more text or lower context.length"
            )
        self._arange = np.arange(length, dtype=np.int64)
        self._open: dict[int, tuple[Column, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        """Sample `i`: the batch of `__getitems__` for one window, as [T] tensors."""
        return {name: value[0] for name, value in self.__getitems__([i]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A finished batch of B windows.

        Returns:
            `input_ids`, `labels`, `position_ids`, `token_index` (pass * corpus tokens + corpus position) as
            int64 [B, T]; each column as int16 [B, T], the bits of its float16 values. Entry i of `labels`
            and of a column belongs to predicting token i. If asked for, `document_ids`: the number of the token's
            document in the corpus, from 0, int64 [B, T].
        """
        B, T = len(indices), self.length
        passes, windows = np.divmod(self.order[np.asarray(indices, dtype=np.int64)], self.n_windows)
        shards = np.searchsorted(self._first_window, windows, side="right") - 1
        begins = (windows - self._first_window[shards]) * T

        input_ids = np.empty((B, T), dtype=np.int64)
        columns = {name: np.empty((B, T), dtype=np.int16) for name in self.columns}
        starts: list[np.ndarray] = []
        documents: list[np.ndarray] = []
        for row, (shard, begin) in enumerate(zip(shards.tolist(), begins.tolist(), strict=True)):
            tokens, ends = self._shard(shard)
            input_ids[row] = tokens[begin : begin + T]
            for name, values in columns.items():
                values[row] = self.columns[name][shard][begin : begin + T].view(np.int16)
            first, last = np.searchsorted(ends, (begin + 1, begin + T))
            starts.append(np.array([row * T], dtype=np.int64))
            starts.append(ends[first:last] + (row * T - begin))
            if self.document_ids:
                documents.append(np.arange(first, last + 1) + self._first_document[shard])
        # Every start, of a window or of a document in it, as an index into the flattened batch.
        flat_starts = np.concatenate(starts)

        labels = input_ids.copy()
        labels.reshape(-1)[flat_starts] = IGNORED
        for values in columns.values():
            labels[(values & 0x7FFF) > _FLOAT16_INFINITY] = IGNORED
        lengths = np.diff(flat_starts, append=B * T)
        if self.document_mask:
            positions = (np.arange(B * T) - np.repeat(flat_starts, lengths)).reshape(B, T)
        else:
            positions = np.tile(self._arange, (B, 1))
        offsets = passes * self.store.tokens + self._shard_start[shards] + begins
        batch = {
            "input_ids": input_ids,
            "labels": labels,
            "position_ids": positions,
            "token_index": offsets[:, None] + self._arange,
            **columns,
        }
        if self.document_ids:
            batch["document_ids"] = np.repeat(np.concatenate(documents), lengths).reshape(B, T)
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def _shard(self, i: int) -> tuple[Column, np.ndarray]:
        if i not in self._open:
            self._open[i] = self.store.shard_tokens(i), self.store.document_ends(i)
        return self._open[i]

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files out: a DataLoader worker opens them itself."""
        return self.__dict__ | {"_open": {}}


def identity(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `collate_fn` for batches that are finished already; named, so that workers can unpickle it."""
    return batch


def _check_columns(store: TokenStore, columns: Mapping[str, Sequence[Column]]) -> None:
    for name, arrays in columns.items():
        if len(arrays) != len(store.shards):
            raise ValueError(f"column {name} has {len(arrays)} arrays for {len(store.shards)} shards")
        for shard, array in zip(store.shards, arrays, strict=True):
            if array.dtype != np.float16 or array.shape != (shard.tokens,):
                raise ValueError(
                    f"column {name}, shard {shard.name}: expected float16 [{shard.tokens}], "
                    f"found {array.dtype} {list(array.shape)}"
                )
