"""Opening a store by its folder alone: what it is, the corpus it belongs to, the tokenizer that reads it.

`verify`, `inspect` and `export` are given a folder and no recipe. In a run's folder the corpus and the tokenizer lie
where every stage puts them; elsewhere they are named.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.store import MANIFEST as CORPUS_MANIFEST
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import FOLDER as TOKENIZER
from tokensieve.corpus.tokenizers import open_tokenizer, tokenizer_digest
from tokensieve.errors import UserError
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reference.store import ScoreStore

CORPUS = "corpus"


@dataclass(frozen=True)
class OpenedStore:
    """A token store, perhaps with scores of it."""

    corpus: TokenStore
    scores: ScoreStore | None

    @property
    def folder(self) -> Path:
        """The store that was asked for."""
        return self.corpus.folder if self.scores is None else self.scores.folder


def is_score_store(folder: Path) -> bool:
    """Whether a folder holds scores; otherwise it holds tokens.

    Raises:
        UserError: it holds neither.
    """
    if (folder / SCORES_MANIFEST).exists():
        return True
    if (folder / CORPUS_MANIFEST).exists():
        return False
    raise UserError(
        f"{folder}: neither a token store ({CORPUS_MANIFEST}) nor a score store ({SCORES_MANIFEST}); name a folder "
        f"like OUT/corpus or OUT/scores/NAME"
    )


def open_store(folder: Path, corpus: Path | None = None) -> OpenedStore:
    """Open a token store or a score store.

    Args:
        folder: the store's.
        corpus: the token store that scores belong to; None: `../../corpus`, where a run has it.

    Raises:
        UserError: no store there, unfinished, damaged, or made for another corpus.
    """
    if not is_score_store(folder):
        return OpenedStore(TokenStore(folder), None)
    place = corpus or folder.resolve().parent.parent / CORPUS
    if not (place / CORPUS_MANIFEST).exists():
        raise UserError(f"{place / CORPUS_MANIFEST}: not there; name the corpus of {folder} with --corpus")
    tokens = TokenStore(place)
    return OpenedStore(tokens, ScoreStore(folder, tokens))


def tokenizer_of(corpus: TokenStore, given: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that made a token store.

    Args:
        corpus: the store.
        given: folder or Hub id; None: the run's, in a folder above the store's.

    Raises:
        UserError: not there, or not the one, id by id.
    """
    if given is None:
        above = corpus.folder.resolve().parents[:3]
        folders = [folder / TOKENIZER for folder in above if (folder / TOKENIZER).is_dir()]
        if not folders:
            raise UserError(f"{corpus.folder}: no {TOKENIZER} folder in the folders above; give --tokenizer")
        given = str(folders[0])
    tokenizer = open_tokenizer(given)
    digest = tokenizer_digest(tokenizer)
    if digest != corpus.tokenizer:
        raise UserError(
            f"{given}: not the tokenizer of {corpus.folder} (digest {digest}, the store's is {corpus.tokenizer}); give "
            f"the one that made it with --tokenizer"
        )
    return tokenizer
