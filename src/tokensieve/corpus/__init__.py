"""From text to windows: sources, tokenizers, the token store and what training reads from it."""

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import Location, Shard, StoredSource, TokenStore
from tokensieve.corpus.windows import Windows, identity

__all__ = [
    "Location",
    "Shard",
    "StoredSource",
    "TokenStore",
    "Windows",
    "identity",
    "sample_order",
]
