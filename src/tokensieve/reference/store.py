"""The score store: the reference's loss of every corpus token, float16, beside the tokens it belongs to.

`scores/NAME/NNNNN.loss.f16` (and `NNNNN.entropy.f16`) hold one little-endian float16 for each token of corpus
shard NNNNN, nats; entry i belongs to predicting token i. Scored values are finite and not negative;
NaN (0x7E00) means never scored: a window's first token, a document's first token, the tail of a shard.
float16 and not bfloat16, because it keeps 99.9 % of the selections. `scores.json` binds the store to
the corpus, the tokenizer, the reference and the context that the losses were computed under.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.stage import read_json

MANIFEST = "scores.json"
DTYPE = np.dtype("<f2")
NEVER_SCORED = np.uint16(0x7E00)


class ScoreStore:
    """A finished score store, opened for reading.

    Args:
        folder: where scores.json lies.
        corpus: the token store that will be read along with it.
        context: the context of the training that will read it.

    Raises:
        UserError: missing, unfinished, damaged, or made for another corpus, tokenizer or context.
    """

    def __init__(self, folder: Path, corpus: TokenStore, context: ContextSection) -> None:
        self.folder = folder
        self.corpus = corpus
        path = folder / MANIFEST
        if not path.exists():
            raise UserError(f"{path}: no scores here; run `tokensieve score` first")
        manifest = read_json(path)
        if not manifest["finished"]:
            raise UserError(f"{path}: scoring is not finished; run `tokensieve score` again")
        self.outputs: dict[str, Any] = manifest["outputs"]
        inputs: dict[str, Any] = manifest["inputs"]
        self.inputs = inputs
        if inputs["corpus"] != corpus_identity(corpus):
            raise UserError(f"{path}: made for another corpus than {corpus.folder}; score it again under another name")
        here = {"length": context.length, "document_mask": context.document_mask}
        if inputs["context"] != here:
            raise UserError(
                f"{path}: scored under the context {inputs['context']}, training uses {here}; a loss holds for its "
                f"context only: score again under another score.name"
            )
        for i, shard in enumerate(corpus.shards):
            for column in self.outputs["columns"]:
                file = self._file(i, column)
                size = file.stat().st_size if file.exists() else -1
                if size != shard.tokens * DTYPE.itemsize:
                    raise UserError(f"{file}: has {size} bytes, not {shard.tokens * DTYPE.itemsize}; score again")

    def column(self, name: str) -> list[np.ndarray]:
        """`loss` or `entropy` as one float16 map a shard.

        Raises:
            UserError: the store has no such column.
        """
        if name not in self.outputs["columns"]:
            raise UserError(f"{self.folder}: has no {name}; set score.{name}: true and score under another score.name")
        return [np.memmap(self._file(i, name), dtype=DTYPE, mode="r") for i in range(len(self.corpus.shards))]

    def _file(self, i: int, column: str) -> Path:
        return self.folder / f"{self.corpus.shards[i].name}.{column}.f16"


def corpus_identity(corpus: TokenStore) -> dict[str, Any]:
    """What a score store remembers of its corpus."""
    return {
        "tokenizer": corpus.tokenizer,
        "tokens": corpus.tokens,
        "shards": [[shard.name, shard.tokens, shard.digest] for shard in corpus.shards],
    }
