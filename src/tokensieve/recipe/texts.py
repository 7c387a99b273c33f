"""The sections of a recipe that say which text: sources, the corpus, and the tokenizer that reads it."""

import math
import re
import typing
from dataclasses import dataclass
from pathlib import Path

from tokensieve.recipe.checks import require, require_folder_name


@dataclass(frozen=True)
class Source:
    """Where text comes from: a path (file, folder or glob) or a Hub dataset id."""

    path: str | None = None
    """File, folder or glob, also behind a URL that fsspec can reach (s3://, gs://, hf://). `{data_dir}` stands for the
    recipe's `data_dir`."""
    hub: str | None = None
    """A dataset id on the Hugging Face Hub (streamed), or a local folder `datasets` can load."""
    config: str | None = None
    """The Hub dataset's configuration name."""
    split: str = "train"
    """The Hub dataset's split."""
    data_files: str | None = None
    """A glob of files inside the Hub dataset, for data sets that hold several collections."""
    field: str = "text"
    """The record's field that holds the text."""
    template: str | None = None
    """Text built from several fields, for example "{question}\\n{answer}". Replaces `field`."""
    format: typing.Literal["auto", "jsonl", "parquet", "text"] = "auto"
    """`auto` decides by the file's name; one plain text file is one document."""
    name: str | None = None
    """What reports call it, also a folder's name; the default is made from the path or id."""
    weight: float | None = None
    """Share of the training windows (6, 3, 1, ...). Give it to all sources or to none."""
    every: int = 1
    """Take every n-th document of each file, the first included: a small proxy of a large corpus. Plain text is
    one document a file, so there it is every n-th file of the source."""
    regions_field: str | None = None
    """A field with [[start, end, "kind"], ...] in characters: lets the report say what was kept where. Also
    [start, end]: one span, named by the field. A source without regions is one region beside those with."""

    def __post_init__(self) -> None:
        require((self.path is None) != (self.hub is None), "give exactly one of path and hub")
        require(self.every >= 1, f"every must be at least 1, not {self.every}")
        require(
            self.weight is None or (self.weight > 0 and math.isfinite(self.weight)),
            f"weight must be above 0 and finite, not {self.weight}",
        )
        if self.name is not None:
            require_folder_name(self.name)

    @property
    def label(self) -> str:
        """The name reports use, also a file name for target sets."""
        name = Path(self.path or self.hub or "").name
        bare = re.sub(r"(\.(jsonl|ndjson|json|parquet|txt|text))?(\.(gz|zst))?$", "", name)
        return self.name or re.sub(r"\W+", "-", bare).strip("-") or "text"


@dataclass(frozen=True)
class TokenizerSection:
    """Which tokenizer: a given one, or a BPE trained on the corpus. Default: the model's."""

    name: str | None = None
    """Local folder or Hub id of anything transformers loads."""
    train_vocab: int | None = None
    """Train a byte-level BPE of this size on the corpus and the clean text."""
    train_bytes: int = 50_000_000
    """At most this much text is used to train the BPE."""
    trust_remote_code: bool = False
    """Runs Python code that comes with the tokenizer."""

    def __post_init__(self) -> None:
        require(self.name is None or self.train_vocab is None, "give name or train_vocab, not both")
        require(
            self.train_vocab is None or self.train_vocab >= 257,
            f"train_vocab must be at least 257 (256 bytes and the end-of-text token), not {self.train_vocab}",
        )


@dataclass(frozen=True)
class CorpusSection:
    """The noisy corpus: text, or a token store that is there."""

    sources: tuple[Source, ...] = ()
    """At least one, unless the corpus exists."""
    existing: str | None = None
    """A finished token store (a folder, as `tokensieve import` or another run made it); nothing is tokenized."""
    shard_tokens: int = 2**28
    """A shard holds at most this many tokens, or a single larger document: documents are never split."""
    workers: int = 1
    """Processes that tokenize; each uses its share of the cores."""
    max_document_mb: int = 16
    """A larger document is an error: tokenizers need about 130 times its size in memory."""

    def __post_init__(self) -> None:
        require(self.existing is None or not self.sources, "existing and sources exclude each other")
        require(self.existing is not None or len(self.sources) > 0, "sources is empty: name at least one")
        weighted = [source.weight is not None for source in self.sources]
        require(all(weighted) or not any(weighted), "give weight to every source or to none")
        require(self.shard_tokens >= 2, "shard_tokens must be at least 2")
        require(self.workers >= 1, "workers must be at least 1")
        require(self.max_document_mb >= 1, "max_document_mb must be at least 1")
