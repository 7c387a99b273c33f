"""`tokensieve.view(...)`: the viewer's page in a notebook, and as a file.

The page is a frame without the notebook's origin: its script runs, but a hostile document could reach nothing.
"""

import functools
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensieve.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tokensieve.recipe import Recipe
    from tokensieve.viewer.measuring import ModelLike
    from tokensieve.viewer.passages import View

# What a view needs is imported when one is asked for: `import tokensieve` must stay light.

HEIGHT = 720
"""Of the frame, in CSS pixels."""


class NotebookView:
    """A view that a notebook shows, or that is saved."""

    def __init__(self, view: "View", height: int = HEIGHT) -> None:
        self.view = view
        self.height = height

    @functools.cached_property
    def html(self) -> str:
        """The page: one file that asks the network for nothing."""
        from tokensieve.viewer.page import render

        return render(self.view)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        from tokensieve.viewer.page import write_page

        try:
            write_page(self.view, Path(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
        return Path(path)

    def _repr_html_(self) -> str:
        from tokensieve.report.words import printable

        title = html.escape(printable(self.view.title))
        frame = f'sandbox="allow-scripts" width="100%" height="{self.height}" style="border: 0"'
        return f'<iframe title="{title}" {frame} srcdoc="{html.escape(self.html)}"></iframe>'

    def __repr__(self) -> str:
        """Title and size."""
        tokens = sum(len(passage.ids) for passage in self.view.passages)
        return f"<tokensieve view {self.view.title!r}: {len(self.view.passages):,} passages, {tokens:,} tokens>"


def view(
    what: "Recipe | str | os.PathLike[str] | None" = None,
    *,
    text: str | Sequence[str] | None = None,
    student: "ModelLike | Sequence[ModelLike] | None" = None,
    reference: "ModelLike | Sequence[ModelLike] | None" = None,
    tokenizer: "str | PreTrainedTokenizerBase | None" = None,
    on: str = "corpus",
    passages: int = 200,
    length: int | None = None,
    find: str | None = None,
    source: str | None = None,
    document: int | None = None,
    ratio: float | None = None,
    trust_remote_code: bool = False,
) -> NotebookView:
    """Look at tokens: which are kept, and why.

    Either of a run or a store, `view("recipe.yaml")`, `view("run/scores/reference")`, or of a text with models,
    `view(text="...", student="my/model", reference="my/reference")`; with both, of a text with the models of a run.
    `what` is always a path (or a recipe), never text, and `text` is always text, never a path.

    Args:
        what: a recipe, a recipe file, a run's folder, a score store or a token store.
        text: one text or several.
        student: one or several: folders, Hub ids or models that are loaded. Of a run: also the names of its arms.
        reference: the same; default: the run's or the store's.
        tokenizer: of the text or the store, where it is not beside the models or the store.
        on: of a run: `corpus`, `clean`, `targets/NAME` or `dynamics`.
        passages: at most so many.
        length: tokens of a passage; with a text, of a window.
        find: only passages with this text.
        source: only passages of this source.
        document: only passages of this document, counted from 0.
        ratio: where the slider starts; default: the run's, else 0.6.
        trust_remote_code: run Python code that comes with models that are named here.

    Returns:
        What a notebook shows as the viewer's page; `.save("view.html")` writes it, `.view` are its numbers.

    Raises:
        UserError: nothing to look at, a path that is not there, or anything that opening and measuring raises.
    """
    from tokensieve.viewer.choosing import Wish
    from tokensieve.viewer.opening import open_view

    texts = None if text is None else [text] if isinstance(text, str) else list(text)
    found = open_view(
        what,
        texts=texts,
        students=_several(student),
        references=_several(reference),
        tokenizer=tokenizer,
        on=on,
        wish=Wish(passages, length, find, source, document),
        ratio=ratio,
        trust_remote_code=trust_remote_code,
    )
    return NotebookView(found)


def _several(given: Any) -> "list[ModelLike] | None":
    """One model, several or none, as a list; a text is one name, not letters."""
    if given is None:
        return None
    return list(given) if isinstance(given, list | tuple) else [given]
