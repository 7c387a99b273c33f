"""A view of a run: its corpus (or clean, target or held-out text) with the losses of its students and its reference."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokensieve.corpus.run_stores import open_tokens
from tokensieve.corpus.store import TokenStore
from tokensieve.dynamics.categories import UNKNOWN
from tokensieve.dynamics.opened import classified_windows
from tokensieve.dynamics.running import CATEGORIES_FILE
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, suggest
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reference.store import ScoreStore
from tokensieve.selection import SelectionPolicy
from tokensieve.stage import read_manifest
from tokensieve.training.arms import ARM_MANIFEST, open_scores, reference_autocast
from tokensieve.training.reference import REFERENCE_MANIFEST, load_reference
from tokensieve.training.setup import on_device, run_tokenizer
from tokensieve.viewer.choosing import Choice, Wish, choose
from tokensieve.viewer.collecting import Stored, collect, start_score
from tokensieve.viewer.measuring import ModelLike, Runnable, label_of, named, runnable
from tokensieve.viewer.passages import Model, View

CORPUS, DYNAMICS = "corpus", "dynamics"
_DEFAULT_ARM = "slm"


def view_run(
    recipe: Recipe,
    *,
    on: str = CORPUS,
    wish: Wish | None = None,
    students: Sequence[ModelLike] | None = None,
    references: Sequence[ModelLike] | None = None,
) -> View:
    """Collect a view of a run. See `choosing.choose` for which windows become passages.

    Args:
        recipe: the run.
        on: `corpus`, `clean`, `targets/NAME`, or `dynamics`: the held-out text of `tokensieve dynamics`, whose
            categories then come along.
        wish: how many passages, how long, which ones.
        students: names below OUT/models (`clm`, `slm/saved/300000`), model folders, Hub ids or models. Default: the
            selective arm if it is trained, else the first arm that is.
        references: folders in OUT (`reference`), `scores/NAME`, model folders, Hub ids or models. Default: the run's,
            from its score store where that holds the text, else its model is run.

    Raises:
        UserError: a stage is missing, a name is unknown, or anything that opening and measuring raises.
    """
    wish = wish or Wish()
    tokenizer = run_tokenizer(recipe)
    store, among = _text(recipe, on)
    found, told = run_models(recipe, students, references, stored=store.folder == recipe.corpus_folder)
    choice = choose(store, recipe.context.length, wish, tokenizer, len(found), among)
    categories, unknown = _categories(recipe, on, store, choice)
    passages = collect(store, recipe.context, choice, tokenizer, found, recipe.evaluation.batch_size, categories)
    models = tuple(item.shown for item in found)
    policy = recipe.train.selection
    score, other = start_score(policy.score, models, set(passages[0].entropies))
    notes = [_described(recipe, on, choice, wish), *told, *([other] if other else []), *policy_notes(policy), *unknown]
    return View(
        title=f"{recipe.folder.resolve().name}: {on}",
        models=models,
        sources=tuple(source.name for source in store.sources),
        passages=passages,
        regions=store.regions,
        ratio=policy.ratio,
        score=score,
        scope="global" if policy.scope == "microbatch" else policy.scope,
        colour="category" if on == DYNAMICS else None,
        notes=tuple(notes),
    )


def run_models(
    recipe: Recipe,
    students: Sequence[ModelLike] | None,
    references: Sequence[ModelLike] | None,
    *,
    stored: bool,
) -> tuple[list[Stored | Runnable], list[str]]:
    """The models of a run that a view shows, students first, and what must be said of them.

    Args:
        recipe: the run.
        students: as in `view_run`.
        references: as in `view_run`.
        stored: whether the text is the corpus, so that stored losses may be used.

    Raises:
        UserError: there is neither a student nor a reference, or a name is unknown.
    """
    notes = []
    if students is None:
        trained = [arm for arm in recipe.train.arms if _is_finished(recipe.folder / "models" / arm / ARM_MANIFEST)]
        students = [_DEFAULT_ARM] if _DEFAULT_ARM in trained else trained[:1]
        if not students:
            notes.append("No arm of the run is trained yet, so this shows the reference alone.")
    shown = named("student", [_student_label(recipe, student) for student in students])
    found: list[Stored | Runnable] = [
        _live(recipe, _below(recipe, recipe.folder / "models", student), model)
        for student, model in zip(students, shown, strict=True)
    ]
    if references is None:
        own, told = _own_reference(recipe, stored)
        found += own
        notes += told
    else:
        shown = named("reference", [label_of(reference) for reference in references])
        found += [
            _reference(recipe, reference, model, stored) for reference, model in zip(references, shown, strict=True)
        ]
    if not found:
        raise UserError(
            f"{recipe.folder}: holds neither a trained model nor a reference; run `tokensieve run` first, or name some"
        )
    return found, notes


def policy_notes(policy: SelectionPolicy) -> list[str]:
    """What a reader must know of the run's policy, because the page ranks plainly."""
    notes = []
    if policy.scope in ("global", "microbatch"):
        notes.append("All passages together stand for the batch; in training every batch is ranked by itself.")
    beyond = {
        "reference_loss_cap": policy.reference_loss_cap,
        "threshold": policy.threshold,
        "temperature": policy.temperature,
        "alpha": policy.alpha if policy.alpha != 1 else None,
        "warmup_steps": policy.warmup_steps or None,
        "ratio_schedule": policy.ratio_schedule or None,
    }
    told = [f"{name}={value}" for name, value in beyond.items() if value is not None]
    if told:
        notes.append(f"The run's policy also has {', '.join(told)}; this shows the ranking without it.")
    return notes


def _text(recipe: Recipe, on: str) -> tuple[TokenStore, np.ndarray | None]:
    """The store, and the windows to choose from (None: all)."""
    if on == DYNAMICS:
        windows, _ = classified_windows(recipe)
        return windows.store, windows.order
    targets = [f"targets/{source.label}" for source in recipe.evaluation.targets + recipe.evaluation.general]
    known = [CORPUS, *(["clean"] if recipe.reference.sources else []), *targets, DYNAMICS]
    if on not in known:
        raise UserError(f"no text {on!r} in this run{suggest(on, known)}")
    return open_tokens(recipe, on), None


def _categories(recipe: Recipe, on: str, store: TokenStore, choice: Choice) -> tuple[np.ndarray | None, list[str]]:
    """Categories of the chosen windows, uint8 [P, T], 255 where nobody knows; and what to say of them."""
    if not (recipe.folder / recipe.dynamics.name / CATEGORIES_FILE).exists():
        return None, []
    try:
        windows, kinds = classified_windows(recipe)
    except UserError as error:
        if on == DYNAMICS:
            raise
        return None, [f"Kinds of training dynamics are not shown: {error}."]
    if windows.store.folder.resolve() != store.folder.resolve():
        return None, []
    found = np.full((len(choice.windows), windows.length), UNKNOWN, dtype=np.uint8)
    _, here, there = np.intersect1d(choice.windows, windows.order, return_indices=True)
    found[here] = kinds[there]
    if len(here) == 0:
        return None, ["Kinds of training dynamics are known of the held-out text only: look at `dynamics`."]
    return found, []


def _own_reference(recipe: Recipe, stored: bool) -> tuple[list[Stored | Runnable], list[str]]:
    (shown,) = named("reference", [recipe.reference.name])
    scores = recipe.folder / "scores" / recipe.score.name
    if stored and (_is_finished(scores / SCORES_MANIFEST) or recipe.storage is not None) and not recipe.score.online:
        # Whatever the run selects by, its scores are those of excess loss.
        opened = open_scores(replace(recipe, train=replace(recipe.train, selection=SelectionPolicy())))
        assert opened is not None
        return [Stored(shown, opened)], [f"Reference losses are those of the score store scores/{recipe.score.name}."]
    if recipe.score.carry_over:
        return [], ["The reference has a tokenizer of its own: its losses are known of the scored corpus only."]
    if not _is_finished(recipe.reference_folder / REFERENCE_MANIFEST):
        return [], ["The run has no reference yet, so there is no excess loss."]
    return [Runnable(shown, lambda: on_device(load_reference(recipe)), reference_autocast(recipe))], []


def _reference(recipe: Recipe, what: ModelLike, shown: Model, stored: bool) -> Stored | Runnable:
    """A reference by name: a score store, or a model."""
    if isinstance(what, str | Path):
        for folder in (recipe.folder / what, Path(what)):
            if (folder / SCORES_MANIFEST).exists():
                if not stored:
                    raise UserError(
                        f"{what}: holds the corpus's scores, and this is another text; name a model instead"
                    )
                return Stored(shown, ScoreStore(folder, open_tokens(recipe), recipe.context))
    found = _below(recipe, recipe.folder, what)
    return _live(recipe, found, shown, of_reference=True)


def _live(recipe: Recipe, what: ModelLike, shown: Model, of_reference: bool = False) -> Runnable:
    base = (recipe.reference.model or recipe.model) if of_reference else recipe.model
    return runnable(
        what,
        shown,
        run_tokenizer(recipe),
        recipe.context,
        dtype=base.dtype,
        trust_remote_code=base.trust_remote_code,
        autocast=reference_autocast(recipe) if of_reference else None,
    )


def _below(recipe: Recipe, folder: Path, what: ModelLike) -> ModelLike:
    """A model by its name below a folder of the run; what is no such name is a folder elsewhere or a Hub id."""
    if not isinstance(what, str | Path):
        return what
    if (folder / what / "config.json").is_file():
        return folder / what
    if Path(what).is_dir() or (str(what).count("/") == 1 and not (folder / Path(what).parts[0]).is_dir()):
        return what
    there = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/config.json"))
    saved = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/saved/*/config.json"))
    near = difflib.get_close_matches(str(what), [*there, *saved], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    more = f" and {len(saved)} saved ones, such as {saved[-1]}" if saved else ""
    raise UserError(f"{what}: no such model in {folder} ({', '.join(there) or 'none'}{more}), and no folder{hint}")


def _student_label(recipe: Recipe, what: ModelLike) -> str:
    if isinstance(what, str | Path) and (recipe.folder / "models" / what).is_dir():
        return f"models/{what}"
    return label_of(what)


def _is_finished(manifest: Path) -> bool:
    return manifest.exists() and bool(read_manifest(manifest)["finished"])


def _described(recipe: Recipe, on: str, choice: Choice, wish: Wish) -> str:
    """Where the passages come from, and how much of each is shown."""
    whole = recipe.context.length
    text = f"{len(choice.windows)} windows of {whole} tokens"
    if wish.find is not None:
        text += f" with the text {wish.find!r}"
    elif wish.source is None and wish.document is None:
        text += ", evenly spread over the text" if on != DYNAMICS else " of the text that training did not see"
    return text + (f"; of each, {choice.length} tokens are shown." if choice.length < whole else ".")
