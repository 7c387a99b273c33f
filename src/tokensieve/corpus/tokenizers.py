"""The tokenizer of a run: a given one, the model's own, or a byte-level BPE trained on the run's text.

Whichever it is, it is saved to `tokenizer/` in the run's folder, and every later stage opens that folder. Two
tokenizers are the same when their digests are: equal size is not equal ids.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import xxhash
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tokensieve.corpus.readers import MEGABYTE
from tokensieve.corpus.sources import list_inputs, read_input
from tokensieve.errors import UserError
from tokensieve.recipe import ModelSection, Source, TokenizerSection, dump
from tokensieve.stage import Stage

FOLDER = "tokenizer"
MANIFEST = "tokensieve.json"
END_OF_TEXT = "<|endoftext|>"

_READ_FACTOR = 20
"""A BPE's text is drawn from at most this many times as much: a terabyte is not read for a vocabulary."""


def load_tokenizer(
    section: TokenizerSection,
    model: ModelSection,
    out: Path,
    sources: Sequence[Source],
    max_document_mb: int,
) -> PreTrainedTokenizerBase:
    """Make the run's tokenizer and save it to `out/tokenizer`, or open it if it is there already.

    Args:
        section: names a tokenizer or asks for a BPE; if neither, the model's own is taken.
        model: the student.
        out: the run's folder.
        sources: corpus and clean text, which a BPE is trained on.
        max_document_mb: a larger document is an error.

    Raises:
        UserError: no such tokenizer, no EOS, too little text for the vocabulary, or a folder of another recipe.
    """
    inputs: dict[str, object] = {"tokenizer": dump(section)}
    if section.train_vocab is not None:
        inputs["sources"] = describe_sources(sources)
    elif section.name is None:
        inputs["model"] = {"name": model.name, "revision": model.revision}
    stage = Stage(out / FOLDER, MANIFEST, inputs)
    if not stage.finished:
        with stage.running():
            if section.train_vocab is not None:
                text = sample_text(sources, section.train_bytes, max_document_mb)
                tokenizer: PreTrainedTokenizerBase = train_bpe(text, section.train_vocab)
            elif section.name is not None:
                tokenizer = open_tokenizer(section.name, trust_remote_code=section.trust_remote_code)
            else:
                name, trusted = str(model.name), model.trust_remote_code or section.trust_remote_code
                tokenizer = open_tokenizer(name, revision=model.revision, trust_remote_code=trusted)
            tokenizer.save_pretrained(stage.folder)
            stage.finish(digest=tokenizer_digest(tokenizer), vocab_size=vocabulary_size(tokenizer))
    return open_tokenizer(stage.folder, trust_remote_code=section.trust_remote_code or model.trust_remote_code)


def open_tokenizer(
    name: Path | str, *, revision: str = "main", trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer and make sure that it can end a document.

    Args:
        name: local folder or Hub id.
        revision: the Hub revision.
        trust_remote_code: run Python code that comes with it.

    Raises:
        UserError: not found, not loadable, or without an end-of-sequence token.
    """
    _refuse_damaged_files(Path(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{name}: no tokenizer could be loaded ({what}); give a folder with a tokenizer.json or a Hub id"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{name}: the tokenizer has no end-of-sequence token, which must end each document; "
            f'add "eos_token" to its tokenizer_config.json or choose another tokenizer'
        )
    return tokenizer


def _refuse_damaged_files(folder: Path) -> None:
    """Name a file that is JSON but no object: transformers fails on it without a word about the file."""
    for name in ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "config.json"):
        path = folder / name
        # Anything longer is no `[]` or `null` by mistake, and transformers says what else is wrong with it.
        if path.is_file() and path.stat().st_size < MEGABYTE and not path.read_bytes().lstrip().startswith(b"{"):
            raise UserError(f"{path}: holds no JSON object ({{...}}); copy the tokenizer's files again")


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """128-bit xxh3 of the vocabulary, id by id: equal digests mean that every id is the same token."""
    digest = xxhash.xxh3_128()
    for token, i in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        data = token.encode("utf-8", "surrogatepass")
        digest.update(i.to_bytes(8, "little") + len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest id plus one: what an embedding needs, also where ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model_vocab_size: int, place: str) -> None:
    """Refuse a model that has no embedding for some of the tokenizer's ids (a larger one is fine).

    Raises:
        UserError: the model's vocabulary is smaller than the tokenizer's.
    """
    needed = vocabulary_size(tokenizer)
    if model_vocab_size < needed:
        raise UserError(
            f"{place}: the model's vocabulary has {model_vocab_size} ids but the tokenizer needs {needed}; "
            f"use the model's own tokenizer, or score.carry_over: true if it is the reference"
        )


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE, any text representable, whose only special token ends a document.

    Raises:
        UserError: the text does not hold enough different words for `vocab_size`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise UserError(
            f"tokenizer.train_vocab: the text yields only {tokenizer.get_vocab_size()} tokens, not "
            f"{vocab_size}; lower train_vocab or give more text"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def sample_text(sources: Sequence[Source], budget: int, max_document_mb: int) -> list[str]:
    """Documents of at most `budget` bytes in all, drawn evenly and deterministically.

    A document's rank is a hash of its source, input and number, and the lowest ranks are kept: one pass, no
    randomness, at most `budget` held. Large sources are read in part, input by input in the order of a hash.
    """
    kept: list[tuple[int, int, str, int]] = []
    total = 0
    order = itertools.count()
    for rank, text, size in _ranked(sources, budget * _READ_FACTOR // max(1, len(sources)), max_document_mb):
        heapq.heappush(kept, (-rank, next(order), text, size))
        total += size
        while total > budget:
            total -= heapq.heappop(kept)[3]
    return [text for _, _, text, _ in sorted(kept, key=lambda item: item[1])]


def describe_sources(sources: Sequence[Source]) -> list[dict[str, object]]:
    """What a manifest says about sources: their settings and the names and sizes of their files."""
    return [dump(source) | {"inputs": [[item.path, item.size] for item in list_inputs(source)]} for source in sources]


def _ranked(sources: Sequence[Source], limit: int, max_document_mb: int) -> Iterator[tuple[int, str, int]]:
    for s, source in enumerate(sources):
        done = 0
        inputs = list(enumerate(list_inputs(source)))
        for i, item in sorted(inputs, key=lambda numbered: _hash(s, numbered[0])):
            if done >= limit:
                break
            for d, document in enumerate(read_input(source, item, max_document_mb)):
                yield _hash(s, i, d), document.text, document.bytes
                done += document.bytes
                if done >= limit:
                    break


def _hash(*numbers: int) -> int:
    return xxhash.xxh3_64_intdigest(b"".join(number.to_bytes(8, "little") for number in numbers))
