"""The order in which training sees the windows: shuffled passes, mixed by the sources' weights.

A pure function of the store's manifest, the window length, the number of samples and the seed: any rank, any
resumed run and any arm computes the same array instead of storing or sending it.
"""

import numpy as np

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError

_ALL_SOURCES = 0
_INTERLEAVING = 1
_FIRST_SOURCE = 2


def sample_order(
    store: TokenStore, length: int, samples: int, *, seed: int, held_out: np.ndarray | None = None
) -> np.ndarray:
    """Which window each sample is.

    Without weights: passes over all windows, each with its own permutation. With weights: source s gets
    samples * w_s / sum(w) (largest remainder), cycles its own permuted passes, and the sources are
    interleaved in one shuffled order.

    Args:
        store: the corpus.
        length: T, in tokens.
        samples: windows to draw.
        seed: of all permutations.
        held_out: numbers of windows that are never drawn.

    Returns:
        int64 [samples], pass * n_windows + window: the `order` of `Windows`. A weighted source counts its own
        passes.

    Raises:
        UserError: a source does not fill a single window.
    """
    per_shard = store.windows_per_shard(length)
    n_windows = int(per_shard.sum())
    first = np.concatenate([[0], np.cumsum(per_shard)])[:-1]
    source_of_shard = np.array([shard.source for shard in store.shards])
    windows_of = [
        np.concatenate(
            [np.arange(first[i], first[i] + per_shard[i]) for i in np.flatnonzero(source_of_shard == source)]
            or [np.empty(0, dtype=np.int64)]
        )
        for source in range(len(store.sources))
    ]
    held_out = np.empty(0, dtype=np.int64) if held_out is None else held_out
    windows_of = [np.setdiff1d(windows, held_out, assume_unique=True) for windows in windows_of]
    for source, windows in zip(store.sources, windows_of, strict=True):
        if len(windows) == 0:
            raise UserError(
                f"{store.folder}: source {source.name!r} ({source.tokens} tokens) does not fill one window "
                f"of {length} tokens; give it more text, remove it, or lower context.length"
            )
    if store.sources[0].weight is None:
        drawn = np.setdiff1d(np.arange(n_windows), held_out, assume_unique=True)
        return _passes(drawn, samples, n_windows, seed, _ALL_SOURCES)

    shares = _shares([source.weight or 0.0 for source in store.sources], samples)
    turns = np.repeat(np.arange(len(shares)), shares)[_permutation(samples, seed, _INTERLEAVING, 0)]
    order = np.empty(samples, dtype=np.int64)
    for i, windows in enumerate(windows_of):
        order[turns == i] = _passes(windows, int(shares[i]), n_windows, seed, _FIRST_SOURCE + i)
    return order


def spread(store: TokenStore, length: int, windows: int, *, largest_share: float, least: int = 1) -> np.ndarray | None:
    """Numbers of windows that lie evenly spread over the corpus, each source by its share of the windows.

    Args:
        store: the corpus.
        length: T, in tokens.
        windows: how many, about: each source's number is rounded.
        largest_share: of a source's windows, at most.
        least: a source of fewer windows gives none.

    Returns:
        int64, increasing; None if no source gives any.
    """
    sources = np.repeat([shard.source for shard in store.shards], store.windows_per_shard(length))
    there = np.bincount(sources, minlength=len(store.sources))
    most = np.where(there >= least, (largest_share * there).astype(np.int64), 0)
    exact = np.minimum(min(windows / max(len(sources), 1), largest_share) * there, most)
    counts = np.floor(exact).astype(np.int64)
    # Largest remainders are rounded up (ties: the earlier source), so that many small sources do not all give none.
    order = np.argsort(-(exact - counts), kind="stable")
    order = order[counts[order] < most[order]]
    counts[order[: round(float(exact.sum())) - int(counts.sum())]] += 1
    chosen = [np.flatnonzero(sources == i)[middles(int(there[i]), int(counts[i]))] for i in np.flatnonzero(counts)]
    return np.sort(np.concatenate(chosen)) if chosen else None


def middles(n: int, count: int) -> np.ndarray:
    """The middle of each of `count` equal parts of 0 to n - 1, int64 [count]."""
    return ((np.arange(count) + 0.5) * n / count).astype(np.int64)


def _shares(weights: list[float], samples: int) -> np.ndarray:
    """Split `samples` by `weights`, the largest remainders rounded up (ties: the earlier source)."""
    exact = np.array(weights) * samples / sum(weights)
    shares = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - shares), kind="stable")[: samples - int(shares.sum())]
    shares[largest] += 1
    return shares


def _passes(windows: np.ndarray, samples: int, n_windows: int, seed: int, stream: int) -> np.ndarray:
    count = -(-samples // len(windows))
    parts = [p * n_windows + windows[_permutation(len(windows), seed, stream, p)] for p in range(count)]
    return np.concatenate(parts or [np.empty(0, dtype=np.int64)])[:samples]


def _permutation(n: int, seed: int, *stream: int) -> np.ndarray:
    # Raw bits are sorted because numpy promises the same bits in all versions, but not the same permutation.
    bits = np.random.PCG64(np.random.SeedSequence([seed, *stream])).random_raw(n)
    return np.argsort(bits, kind="stable")
