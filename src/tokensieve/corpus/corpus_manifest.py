"""What `corpus.json` says of sources and shards: nothing in it is believed before its type and range are checked.

Every function raises KeyError, TypeError or ValueError, which `TokenStore` turns into one line.
"""

import re
from dataclasses import dataclass
from typing import Any

MOST = 1 << 56
"""Tokens, documents or bytes that a manifest may speak of: more fit no file."""


@dataclass(frozen=True)
class StoredSource:
    """One source of the corpus and what it came to."""

    name: str
    weight: float | None
    """Share of the training windows; None: each window counts alike."""
    tokens: int
    documents: int
    bytes: int
    """UTF-8 bytes of the text."""


@dataclass(frozen=True)
class Shard:
    """One token file."""

    name: str
    source: int
    """Index into the store's `sources`."""
    tokens: int
    documents: int
    digest: str
    """The digest at the end of the shard's checksum sidecar: it stands for every byte of the shard."""
    start: int
    """Corpus position of the shard's first token."""


def whole(outputs: dict[str, Any], key: str, least: int, most: int) -> int:
    """A whole number of a mapping, from `least` to `most`."""
    found = outputs[key]
    if type(found) is not int or not least <= found <= most:
        raise ValueError(key)
    return found


def text(outputs: dict[str, Any], key: str) -> str:
    """A text of a mapping."""
    found = outputs[key]
    if not isinstance(found, str):
        raise TypeError(key)
    return found


def region_names(found: Any) -> tuple[str, ...] | None:
    """The names of the regions, or None."""
    if found is None:
        return None
    if not (isinstance(found, list) and 1 <= len(found) <= 256 and all(isinstance(name, str) for name in found)):
        raise TypeError("regions")
    return tuple(found)


def stored_source(described: dict[str, Any]) -> StoredSource:
    """One source as the manifest describes it."""
    weight = described["weight"]
    if weight is not None and not (type(weight) in (int, float) and 0 < weight < float("inf")):
        raise ValueError("weight")
    counts = {key: whole(described, key, 0, MOST) for key in ("tokens", "documents", "bytes")}
    return StoredSource(text(described, "name"), weight, **counts)


def stored_shard(described: dict[str, Any], start: int, sources: int) -> Shard:
    """One shard as the manifest describes it: what becomes a size or the name of a file is checked first."""
    shard = Shard(**described, start=start)
    sound = re.fullmatch(r"[0-9]{5,20}", shard.name) and is_digest(shard.digest)
    numbers = (shard.source, shard.tokens, shard.documents)
    if not sound or any(type(number) is not int for number in numbers):
        raise ValueError(f"shard {shard.name[:40]!r}")
    if not (0 <= shard.source < sources and 1 <= shard.documents <= shard.tokens):
        raise ValueError(f"shard {shard.name}")
    return shard


def is_digest(found: Any) -> bool:
    """Whether this is an xxh3-128 in hexadecimal digits."""
    return isinstance(found, str) and re.fullmatch(r"[0-9a-f]{32}", found) is not None
