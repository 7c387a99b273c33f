"""What training saw and what it kept, by source, region, place in the window and class of token, all at once.

The question behind every chart of a selection is "of what?". So each micro-step's choice is counted under what is
known of the *predicted* token: its id, its region, the source of its window and its place there. The counts are one
array of whole numbers: saved in a checkpoint, summed over ranks, added up over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tokensieve.corpus.store import TokenStore

_PARTS = 8
"""Equal parts of a window that are told apart."""


class KeepRates:
    """Candidates seen and kept, by several groupings.

    Made here: "source", "region" if the store has regions, and "position" (8 equal parts of the window, named "1-32"
    and so on, counted from 1; a window's first token is never a candidate).

    Args:
        store: the training corpus.
        length: T, of its windows.
        classes: further groupings of token ids: grouping -> (names, class of each id, [V] whole numbers).

    Raises:
        ValueError: a grouping has a name that is made here, fewer ids than the store, or a class without a name.
    """

    counts: np.ndarray
    """All groups of all groupings, one after the other: seen and kept, [G, 2] int64."""

    def __init__(self, store: TokenStore, length: int, classes: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> None:
        self.store = store
        self.length = length
        self._bounds = np.unique(np.arange(_PARTS + 1) * length // _PARTS)
        made = {"source": tuple(source.name for source in store.sources)}
        if store.regions is not None:
            made["region"] = store.regions
        parts = zip(self._bounds, self._bounds[1:], strict=False)
        made["position"] = tuple(f"{a + 1}-{b}" if b > a + 1 else str(b) for a, b in parts)
        for name, (names, of_id) in classes.items():
            if name in made:
                raise ValueError(f"{name!r} is counted already; give the grouping another name")
            if len(of_id) < store.vocab_size:
                raise ValueError(f"{name!r} has classes for {len(of_id)} ids, the store has {store.vocab_size}")
            if int(of_id.max()) >= len(names):
                raise ValueError(f"{name!r} has class {int(of_id.max())} and {len(names)} names")
        self.names: dict[str, tuple[str, ...]] = made | {name: tuple(names) for name, (names, _) in classes.items()}
        """The groups of each grouping, in the order of `counts`."""
        self._classes = {name: of_id for name, (_, of_id) in classes.items()}
        sizes = [len(names) for names in self.names.values()]
        ends = np.cumsum(sizes).tolist()
        self._rows = {name: slice(end - size, end) for name, size, end in zip(self.names, sizes, ends, strict=True)}
        self.counts = np.zeros((ends[-1], 2), dtype=np.int64)
        self._starts = np.array([shard.start for shard in store.shards])
        self._sources = np.array([shard.source for shard in store.shards])
        self._tokens = [store.shard_tokens(i) for i in range(len(store.shards))]
        self._regions = None if store.regions is None else [store.shard_regions(i) for i in range(len(store.shards))]

    def add(self, token_index: torch.Tensor | None, valid: torch.Tensor, selected: torch.Tensor) -> None:
        """Count one micro-step, as `SelectiveHandle.last_selection` has it; [B, T-1] each.

        Args:
            token_index: pass * corpus tokens + position of each *predicted* token: a window's second to last.
            valid: the candidates.
            selected: what was kept of them.

        Raises:
            ValueError: not the choice on whole windows of this corpus.
            UserError: the corpus is damaged there.
        """
        if token_index is None:
            raise ValueError("the batches have no token_index: it tells which tokens were kept")
        position = token_index.cpu().numpy() % self.store.tokens
        seen, kept = valid.cpu().numpy(), (selected & valid).cpu().numpy()
        if position.shape[1:] != (self.length - 1,) or (np.diff(position) != 1).any():
            raise ValueError(f"the choice is not about windows of {self.length} tokens of {self.store.folder}")
        # A window lies in one shard.
        shards = np.searchsorted(self._starts, position[:, 0], side="right") - 1
        begins = (position[:, 0] - self._starts[shards]).tolist()
        places = list(zip(shards.tolist(), begins, strict=True))

        rows = np.stack([seen.sum(axis=1), kept.sum(axis=1)], axis=1)
        np.add.at(self.counts[self._rows["source"]], self._sources[shards], rows)
        # The first token of a window is predicted from nothing and has no column.
        columns = np.pad(np.stack([seen.sum(axis=0), kept.sum(axis=0)], axis=1), ((1, 0), (0, 0)))
        self.counts[self._rows["position"]] += np.add.reduceat(columns, self._bounds[:-1])

        kept_N = kept[seen]
        if self._regions is not None:
            regions = np.stack([self._regions[i][begin : begin + self.length - 1] for i, begin in places])
            self._count("region", regions[seen], kept_N)
        if self._classes:
            ids = np.stack([self._tokens[i][begin : begin + self.length - 1] for i, begin in places])[seen]
            for name, of_id in self._classes.items():
                self._count(name, of_id[ids], kept_N)

    def plain(self, counts: Sequence[Sequence[int]] | np.ndarray) -> dict[str, list[dict[str, Any]]]:
        """For JSON: {grouping: [{"name", "tokens" (candidates seen), "kept"}]}; groups without a token are left out.

        Args:
            counts: `self.counts`, or a sum of such arrays of the same store and groupings, [G, 2].

        Raises:
            ValueError: `counts` has another shape.
        """
        array = np.asarray(counts)
        if array.shape != self.counts.shape:
            raise ValueError(f"counts are {list(array.shape)}, these groupings have {list(self.counts.shape)}")
        return {
            name: [
                {"name": group, "tokens": tokens, "kept": kept}
                for group, (tokens, kept) in zip(names, array[self._rows[name]].tolist(), strict=True)
                if tokens
            ]
            for name, names in self.names.items()
        }

    def _count(self, grouping: str, group_N: np.ndarray, kept_N: np.ndarray) -> None:
        """Groups and choices of the candidates."""
        rows = self._rows[grouping]
        pairs = np.bincount(group_N.astype(np.intp) * 2 + kept_N, minlength=2 * (rows.stop - rows.start))
        self.counts[rows] += np.stack([pairs[0::2] + pairs[1::2], pairs[1::2]], axis=1)
