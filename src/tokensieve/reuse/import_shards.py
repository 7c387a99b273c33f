"""Imported documents into shards: ids checked, EOS looked for, text bytes counted, in bounded memory.

Shards are cut as tokenizing cuts them: documents go in order into the current shard, and one that would not fit
begins the next.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.encoding import token_dtype
from tokensieve.corpus.store import INDEX_SUFFIX, TOKENS_SUFFIX
from tokensieve.corpus.tokenizers import vocabulary_size
from tokensieve.errors import UserError
from tokensieve.reuse.token_rows import TokenRun
from tokensieve.storage.checksums import seal_shard

PIECE = 1 << 22
"""Tokens that are held together; a longer document is copied in pieces."""


class ImportedShards:
    """The shards of an import while they are written.

    Args:
        folder: receives them; a caller who fails removes it.
        tokenizer: what the ids belong to.
        name: what errors call it.
        shard_tokens: a shard holds at most this many tokens, or a single larger document.
        add_eos: give documents that do not end with EOS one; otherwise they are an error.
    """

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, name: str, *, shard_tokens: int, add_eos: bool
    ) -> None:
        self.shards: list[dict[str, int | str]] = []
        self.tokens = self.documents = self.bytes = self.added_eos = 0
        self._folder = folder
        self._name = name
        self._vocab_size = vocabulary_size(tokenizer)
        self._eos = int(tokenizer.eos_token_id)
        self._dtype = token_dtype(self._vocab_size)
        self._shard_tokens = shard_tokens
        self._add_eos = add_eos
        self._count_bytes = byte_counter(tokenizer)
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        self._begin_counts()

    def add(self, run: TokenRun, advance: Callable[[int], None]) -> None:
        """Write the documents of a run.

        Args:
            run: where they are.
            advance: called with the tokens just written.

        Raises:
            UserError: an id outside the vocabulary, or a document without EOS that is not to get one.
            OSError: the shards cannot be written.
        """
        starts = np.concatenate([[0], np.cumsum(run.lengths)])
        first = 0
        while first < len(run.lengths):
            last = max(int(np.searchsorted(starts, starts[first] + PIECE, side="right")) - 1, first + 1)
            begin, end = int(starts[first]), int(starts[last])
            if end - begin > PIECE:
                self._add_long(run, first, starts, advance)
            else:
                tokens = self._read(run, begin, end, starts)
                self._add_whole(run, first, tokens, run.lengths[first:last])
                advance(end - begin)
            first = last

    def close(self) -> None:
        """Finish the last shard; always call it."""
        if self._files is not None:
            self._finish_shard()

    def abandon(self) -> None:
        """Let go of the open files after a failure."""
        for file in self._files or ():
            file.close()
        self._files = None

    def _add_whole(self, run: TokenRun, first: int, tokens: np.ndarray, lengths: np.ndarray) -> None:
        ends = np.cumsum(lengths)
        lacking = lengths == 0
        lacking[~lacking] = tokens[ends[~lacking] - 1] != self._eos
        if lacking.any():
            self._require_adding(run, first + int(lacking.argmax()))
            tokens = np.insert(tokens, ends[lacking], self._eos)
            lengths = lengths + lacking
            ends = np.cumsum(lengths)
            self.added_eos += int(lacking.sum())
        self.bytes += self._count_bytes(tokens, ends)
        done = begin = 0
        while done < len(ends):
            last = int(np.searchsorted(ends, begin + self._shard_tokens - self._used, side="right"))
            if last <= done:
                if self._used:
                    self._finish_shard()
                    continue
                last = done + 1
            end = int(ends[last - 1])
            used = self._used
            self._write(tokens[begin:end])
            self._mark(ends[done:last] - begin + used)
            done, begin = last, end

    def _add_long(self, run: TokenRun, document: int, starts: np.ndarray, advance: Callable[[int], None]) -> None:
        begin, end = int(starts[document]), int(starts[document + 1])
        lacking = int(self._read(run, end - 1, end, starts)[0]) != self._eos
        if lacking:
            self._require_adding(run, document)
            self.added_eos += 1
        if self._used and self._used + end - begin + lacking > self._shard_tokens:
            self._finish_shard()
        for at in range(begin, end, PIECE):
            tokens = self._read(run, at, min(at + PIECE, end), starts)
            if lacking and at + PIECE >= end:
                tokens = np.append(tokens, tokens.dtype.type(self._eos))
            self.bytes += self._count_bytes(tokens, np.array([len(tokens)]))
            self._write(tokens)
            advance(min(PIECE, end - at))
        self._mark(np.array([self._used]))

    def _read(self, run: TokenRun, begin: int, end: int, starts: np.ndarray) -> np.ndarray:
        """Tokens of the run as the store keeps them, every id in the vocabulary."""
        tokens = run.read(begin, end)
        wrong = tokens >= self._vocab_size
        if tokens.dtype.kind == "i":
            wrong |= tokens < 0
        if wrong.any():
            at = int(wrong.argmax())
            document = int(np.searchsorted(starts, begin + at, side="right")) - 1
            raise UserError(
                f"{run.place}: token {begin + at - int(starts[document])} of {run.unit} {run.first + document} "
                f"(from 0) is id {tokens[at]}, but {self._name} has {self._vocab_size} ids; give the tokenizer "
                f"that made the tokens"
            )
        return tokens.astype(self._dtype, copy=False)

    def _require_adding(self, run: TokenRun, document: int) -> None:
        if not self._add_eos:
            raise UserError(
                f"{run.place}: {run.unit} {run.first + document} (from 0) does not end with the EOS of {self._name} "
                f"(id {self._eos}); if the documents were written without it, give --add-eos, else the tokenizer that "
                f"made them"
            )

    def _begin_counts(self) -> None:
        self._used = self._marks = 0

    def _write(self, tokens: np.ndarray) -> None:
        if self._files is None:
            path = self._folder / f"{len(self.shards):05d}"
            self._files = (
                path.with_name(path.name + TOKENS_SUFFIX).open("wb"),
                path.with_name(path.name + INDEX_SUFFIX).open("wb"),
            )
        self._files[0].write(np.ascontiguousarray(tokens).data)
        self._used += len(tokens)

    def _mark(self, ends: np.ndarray) -> None:
        assert self._files is not None
        self._files[1].write(ends.astype("<u8").data)
        self._marks += len(ends)

    def _finish_shard(self) -> None:
        assert self._files is not None
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        name = f"{len(self.shards):05d}"
        digest = seal_shard(self._folder, name, (TOKENS_SUFFIX, INDEX_SUFFIX))
        self.shards.append(
            {"name": name, "source": 0, "tokens": self._used, "documents": self._marks, "digest": digest}
        )
        self.tokens += self._used
        self.documents += self._marks
        self._files = None
        self._begin_counts()


def byte_counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[np.ndarray, np.ndarray], int]:
    """A function of (tokens, ends of documents in them) that gives the UTF-8 bytes of their text, EOS left out.

    Each token of a byte-level BPE is a known number of bytes; other tokenizers decode the documents.
    """
    eos = int(tokenizer.eos_token_id)
    sizes = _byte_level_sizes(tokenizer)
    if sizes is not None:
        sizes[eos] = 0
        table = sizes
        return lambda tokens, ends: int(table[tokens].sum())

    def decode_and_count(tokens: np.ndarray, ends: np.ndarray) -> int:
        rows = (part[part != eos].tolist() for part in _split(tokens, ends))
        if tokenizer.is_fast:
            texts = tokenizer.backend_tokenizer.decode_batch(list(rows), skip_special_tokens=False)
        else:
            texts = [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in rows]
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)

    return decode_and_count


def _split(tokens: np.ndarray, ends: np.ndarray) -> Iterator[np.ndarray]:
    begin = 0
    for end in ends.tolist():
        yield tokens[begin:end]
        begin = end


def _byte_level_sizes(tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """Bytes of each id, [vocabulary] int64, if each character of a token stands for a byte; else None."""
    if not tokenizer.is_fast:
        return None
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    if (described["decoder"] or {}).get("type") != "ByteLevel" or described["model"]["type"] != "BPE":
        return None
    sizes = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    for token, i in tokenizer.get_vocab().items():
        sizes[i] = len(token)
    for added in described["added_tokens"]:
        sizes[added["id"]] = len(added["content"].encode("utf-8"))
    return sizes
