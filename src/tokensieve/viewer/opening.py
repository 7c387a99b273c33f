"""What `tokensieve view` is given, and what it is: a recipe, a run, a store, or texts with models."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tokensieve.corpus.store import MANIFEST as CORPUS_MANIFEST
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, load_recipe
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reuse.opening import RECIPE
from tokensieve.training.setup import run_tokenizer
from tokensieve.viewer.choosing import Wish
from tokensieve.viewer.from_run import CORPUS, policy_notes, run_models, view_run
from tokensieve.viewer.from_store import view_store
from tokensieve.viewer.from_text import view_text, view_texts
from tokensieve.viewer.measuring import ModelLike, Runnable
from tokensieve.viewer.passages import View

STANDARD_INPUT = "-"
_RATIO = 0.6
_RECIPES = (".yaml", ".yml")


def open_view(
    what: Recipe | str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    *,
    texts: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    students: Sequence[ModelLike] | None = None,
    references: Sequence[ModelLike] | None = None,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    on: str = CORPUS,
    wish: Wish | None = None,
    ratio: float | None = None,
    trust_remote_code: bool = False,
) -> View:
    """Collect a view of whatever is given.

    Args:
        what: a recipe or its file, a run's folder, a score store or a token store; None: `texts` alone.
        overrides: `key.sub=value` of a recipe.
        texts: look at these, with the models of `what` or those that are named.
        names: what the page calls the texts.
        students: as in `view_run`, `view_store` or `view_text`; None: the run's.
        references: the same.
        tokenizer: of a store or of texts; a run has its own.
        on: which text of a run.
        wish: how many passages, how long, which ones; of texts the length alone.
        ratio: where the slider starts; None: the run's, else 0.6.
        trust_remote_code: run Python code that comes with models; a recipe says it for itself.

    Where several students (or references) are named, the page starts with the first two side by side.

    Raises:
        UserError: `what` is none of these, options that do not go with it, or anything that opening raises.
    """
    found = _open(
        what, overrides, texts, names, students, references, tokenizer, on, wish or Wish(), ratio, trust_remote_code
    )
    return replace(found, compare=max(len(students or ()), len(references or ())) > 1)


def _open(
    what: Recipe | str | os.PathLike[str] | None,
    overrides: Sequence[str],
    texts: Sequence[str] | None,
    names: Sequence[str] | None,
    students: Sequence[ModelLike] | None,
    references: Sequence[ModelLike] | None,
    tokenizer: str | PreTrainedTokenizerBase | None,
    on: str,
    wish: Wish,
    ratio: float | None,
    trust_remote_code: bool,
) -> View:
    if ratio is not None and not 0 < ratio <= 1:
        raise UserError(f"ratio must be above 0 and at most 1, not {ratio}")
    run = what if isinstance(what, Recipe) else None if what is None else _run(Path(what), overrides)
    if texts is not None:
        if on != CORPUS or wish.find is not None or wish.source is not None or wish.document is not None:
            raise UserError("a text is shown whole: leave on, find, source and document out, or leave the text out")
        if run is None and what is not None:
            raise UserError(f"{what}: a store has no models for a text; name a recipe or a run, or models alone")
        if run is None:
            return view_text(
                texts,
                students or [],
                references or [],
                names=names,
                tokenizer=tokenizer,
                length=wish.length,
                passages=wish.passages,
                ratio=_RATIO if ratio is None else ratio,
                trust_remote_code=trust_remote_code,
            )
    if run is not None:
        if tokenizer is not None:
            raise UserError("a run has its own tokenizer: leave tokenizer out")
        found = (
            view_run(run, on=on, wish=wish, students=students, references=references)
            if texts is None
            else _text_of_run(run, texts, names, students, references, wish)
        )
        return found if ratio is None else replace(found, ratio=ratio)
    if what is None:
        raise UserError("nothing to look at: name a recipe, a run's folder or a store, or give a text with models")
    if overrides or on != CORPUS:
        wrong = overrides[0] if overrides else f"on={on}"
        raise UserError(f"{wrong}: {what} is a store, not a recipe; leave it out, or name the recipe")
    if tokenizer is not None and not isinstance(tokenizer, str):
        raise UserError("a store is read with a tokenizer that is named: give its folder or Hub id")
    return view_store(
        Path(what),  # type: ignore[arg-type]
        wish=wish,
        students=students or (),
        references=references or (),
        tokenizer=tokenizer,
        ratio=_RATIO if ratio is None else ratio,
        trust_remote_code=trust_remote_code,
    )


def read_texts(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts of files, as they are, and what to call them; `-` is the standard input.

    Raises:
        UserError: a file cannot be read, is not UTF-8, or is empty.
    """
    texts, shown = [], []
    for name in names:
        try:
            data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
            texts.append(data.decode("utf-8"))
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({error.strerror}); give the path of a text file") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: is not UTF-8 (byte {error.start}); convert it first") from error
        shown.append("standard input" if name == STANDARD_INPUT else Path(name).name)
        if not texts[-1]:
            raise UserError(f"{name}: is empty; give some text")
    return texts, shown


def _text_of_run(
    recipe: Recipe,
    texts: Sequence[str],
    names: Sequence[str] | None,
    students: Sequence[ModelLike] | None,
    references: Sequence[ModelLike] | None,
    wish: Wish,
) -> View:
    """Texts under the models of a run, in its context."""
    found, notes = run_models(recipe, students, references, stored=False)
    models = [model for model in found if isinstance(model, Runnable)]
    policy, length = recipe.train.selection, recipe.context.length
    if wish.length is not None and wish.length > length:
        raise UserError(f"length {wish.length} is above the run's context of {length} tokens; lower it")
    view = view_texts(
        texts,
        models,
        run_tokenizer(recipe),
        wish.length or length,
        names=names,
        passages=wish.passages,
        ratio=policy.ratio,
        score=policy.score,
        batch_size=recipe.evaluation.batch_size,
        notes=[*notes, *policy_notes(policy)],
    )
    return replace(view, scope="global" if policy.scope == "microbatch" else policy.scope)


def _run(path: Path, overrides: Sequence[str]) -> Recipe | None:
    """The recipe of a recipe file or a run's folder; None: it is a store.

    Raises:
        UserError: it is nothing of that kind.
    """
    if path.suffix in _RECIPES and not path.is_dir():
        return load_recipe(path, overrides)
    if (path / RECIPE).is_file():
        # It may have been moved since it was made.
        return replace(load_recipe(path / RECIPE, overrides), out=str(path))
    if (path / SCORES_MANIFEST).is_file() or (path / CORPUS_MANIFEST).is_file():
        return None
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; to look at a text itself, give it with --text and models")
    if (path / "config.json").is_file():
        raise UserError(f"{path}: is a model; name it as a student, with a text, a run or a store to look at")
    kind = "folder" if path.is_dir() else "file"
    raise UserError(
        f"{path}: this {kind} is no recipe (.yaml), no run ({RECIPE}) and no store ({CORPUS_MANIFEST} or "
        f"{SCORES_MANIFEST}); name one of those"
    )
