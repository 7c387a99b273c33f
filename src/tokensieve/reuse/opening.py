"""Opening a store by its folder alone: what it is, the corpus it belongs to, the tokenizer that reads it.

`verify`, `inspect` and `export` are given a folder and no recipe. In a run's folder the corpus and the tokenizer lie
where every stage puts them; elsewhere they are named.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.run_stores import store_mirror
from tokensieve.corpus.store import MANIFEST as CORPUS_MANIFEST
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import FOLDER as TOKENIZER
from tokensieve.corpus.tokenizers import open_tokenizer, tokenizer_digest
from tokensieve.errors import UserError
from tokensieve.recipe import load_recipe
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reference.store import ScoreStore
from tokensieve.storage.store_mirror import StoreMirror

CORPUS = "corpus"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class OpenedStore:
    """A token store, perhaps with scores of it."""

    corpus: TokenStore
    scores: ScoreStore | None

    @property
    def folder(self) -> Path:
        """The store that was asked for."""
        return self.corpus.folder if self.scores is None else self.scores.folder

    @property
    def elsewhere(self) -> list[str]:
        """Names of the store's shards of which something is not here, but in the run's `storage`."""
        return (self.scores or self.corpus).elsewhere()


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
        corpus: the token store that scores belong to; None: `../../corpus`, where a run has it, or the one that the
            run's recipe names.

    Raises:
        UserError: no store there, unfinished, damaged, or made for another corpus.
    """
    if not is_score_store(folder):
        return OpenedStore(TokenStore(folder, _mirror_of(folder, CORPUS_MANIFEST)), None)
    place = corpus or _corpus_of(folder.resolve().parent.parent)
    if not (place / CORPUS_MANIFEST).exists():
        raise UserError(f"{place / CORPUS_MANIFEST}: not there; name the corpus of {folder} with --corpus")
    tokens = TokenStore(place, _mirror_of(place, CORPUS_MANIFEST))
    return OpenedStore(tokens, ScoreStore(folder, tokens, mirror=_mirror_of(folder, SCORES_MANIFEST)))


def _corpus_of(run: Path) -> Path:
    """Where a run's corpus lies: in its folder, unless its recipe names one that was there already."""
    inside = run / CORPUS
    if (inside / CORPUS_MANIFEST).exists() or not (run / RECIPE).exists():
        return inside
    recipe = load_recipe(run / RECIPE)
    return inside if recipe.corpus.existing is None else recipe.corpus_folder


def _mirror_of(folder: Path, manifest: str) -> StoreMirror | None:
    """Where the rest of a store lies, if its run has a `storage`: then this machine may hold a part of it only."""
    place = folder.resolve()
    run = place.parent.parent if place.parent.name in ("scores", "targets") else place.parent
    path = run / RECIPE
    # A recipe without the field is of no concern here, whatever else is wrong with it.
    if not path.exists() or not re.search(rb"^storage:\s*(?!null)\S", path.read_bytes(), re.MULTILINE):
        return None
    return store_mirror(load_recipe(path), place.relative_to(run).as_posix(), manifest, place)


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
