"""A view of a score or token store by its folder alone: stored losses bit for bit, and models if they are named."""

from collections.abc import Sequence
from pathlib import Path

from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, load_recipe
from tokensieve.reuse.opening import RECIPE, OpenedStore, open_store, tokenizer_of
from tokensieve.viewer.choosing import Wish, choose
from tokensieve.viewer.collecting import Stored, collect, start_score
from tokensieve.viewer.measuring import ModelLike, Runnable, label_of, named, runnable
from tokensieve.viewer.passages import View


def view_store(
    folder: Path,
    *,
    wish: Wish | None = None,
    students: Sequence[ModelLike] = (),
    references: Sequence[ModelLike] = (),
    tokenizer: str | None = None,
    corpus: Path | None = None,
    context: ContextSection | None = None,
    ratio: float = 0.6,
    batch_size: int = 8,
    trust_remote_code: bool = False,
) -> View:
    """Collect a view of a store. See `choosing.choose` for which windows become passages.

    Args:
        folder: a score store (OUT/scores/NAME) or a token store (OUT/corpus).
        wish: how many passages, how long, which ones.
        students: model folders, Hub ids or models; a score store needs none.
        references: more of them, beside the stored one.
        tokenizer: folder or Hub id; default: the one in a folder above the store's.
        corpus: the token store that scores belong to; default: as for every command about stores.
        context: of a token store; default: the one of the run that it lies in, else 1024 tokens. Scores have theirs.
        ratio: where the slider starts.
        batch_size: windows per forward pass.
        trust_remote_code: run Python code that comes with models.

    Raises:
        UserError: no store there, damaged, another tokenizer, or nothing that has a loss.
    """
    opened = open_store(folder, corpus)
    store, wish = opened.corpus, wish or Wish()
    reader = tokenizer_of(store, tokenizer)
    context = _context(opened, context)
    shown_students = named("student", [label_of(student) for student in students])
    stored_label = [] if opened.scores is None else [f"scores/{opened.scores.folder.resolve().name}"]
    shown = named("reference", [*stored_label, *(label_of(reference) for reference in references)])
    found: list[Stored | Runnable] = [
        runnable(what, model, reader, context, trust_remote_code=trust_remote_code)
        for what, model in zip((*students, *references), (*shown_students, *shown[len(stored_label) :]), strict=True)
    ]
    if opened.scores is not None:
        found.insert(len(students), Stored(shown[0], opened.scores))
    if not found:
        raise UserError(f"{folder}: a token store has no losses: name models with --student or --reference")
    choice = choose(store, context.length, wish, reader, len(found))
    passages = collect(store, context, choice, reader, found, batch_size)
    models = tuple(item.shown for item in found)
    score, _ = start_score("excess_loss", models, set(passages[0].entropies))
    note = f"{len(choice.windows)} windows of {context.length} tokens"
    if wish.find is None and wish.source is None and wish.document is None:
        note += ", evenly spread over the store"
    if choice.length < context.length:
        note += f"; of each, {choice.length} tokens are shown"
    return View(
        title=str(folder),
        models=models,
        sources=tuple(source.name for source in store.sources),
        passages=passages,
        regions=store.regions,
        ratio=ratio,
        score=score,
        notes=(note + ".", "All passages together stand for the batch."),
    )


def _context(opened: OpenedStore, given: ContextSection | None) -> ContextSection:
    """The context that losses hold for."""
    if opened.scores is None:
        if given is not None:
            return given
        recipes = [path / RECIPE for path in opened.corpus.folder.resolve().parents[:2] if (path / RECIPE).exists()]
        return load_recipe(recipes[0]).context if recipes else ContextSection()
    described = opened.scores.inputs["context"]
    found = ContextSection(described["length"], described["document_mask"])
    if given is not None and given != found:
        raise UserError(f"{opened.folder}: was scored under {found}, not {given}: a loss holds for its context only")
    return found
