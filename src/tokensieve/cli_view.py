"""`tokensieve view`: the command that shows tokens, as a page or in the terminal."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tokensieve.errors import UserError

_IN_TERMINAL = 3
_ON_PAGE = 200
_RANKED = 50
"""Passages that a terminal's few are ranked among."""

console = Console(highlight=False)


def view(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]", help="A recipe, a run's folder, scores/NAME or a token store.", show_default=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Changes to the recipe.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Look at this text; - is the standard input. Repeatable.", show_default=False
        ),
    ] = None,
    student: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Folder, Hub id, or an arm of the run. Repeatable.", show_default=False),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Folder or Hub id; default: the run's. Repeatable.", show_default=False),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a text or store, where none is beside it.", show_default=False),
    ] = None,
    on: Annotated[str, typer.Option(help="Of a run: corpus, clean, targets/NAME, or dynamics.")] = "corpus",
    passages: Annotated[
        int | None,
        typer.Option(min=1, help="Show at most so many.", show_default=f"{_ON_PAGE}; {_IN_TERMINAL} in a terminal"),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of each passage.", show_default="the context's")
    ] = None,
    find: Annotated[str | None, typer.Option(help="Only passages with this text.", show_default=False)] = None,
    source: Annotated[str | None, typer.Option(help="Only passages of this source.", show_default=False)] = None,
    document: Annotated[
        int | None, typer.Option(min=0, help="Only passages of this document, from 0.", show_default=False)
    ] = None,
    ratio: Annotated[float | None, typer.Option(help="Where the slider starts.", show_default="the run's")] = None,
    score: Annotated[
        str | None, typer.Option(help="excess_loss, reference_loss, current_loss, ...", show_default="the run's")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("view.html"),
    terminal: Annotated[bool, typer.Option("--terminal", help="Show it here instead of writing a page.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with models named here.")
    ] = False,
) -> None:
    """Look at tokens: their losses, and which are kept and why. Writes one HTML page that needs no network."""
    from transformers.utils import logging

    from tokensieve.viewer.choosing import Wish
    from tokensieve.viewer.collecting import NEEDS
    from tokensieve.viewer.opening import open_view, read_texts
    from tokensieve.viewer.page import write_page
    from tokensieve.viewer.terminal import select, terminal_view

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # one bar of ours, not one for every file of weights
    if what is not None and "=" in what and not Path(what).exists():
        # `view --text FILE train.seed=1`: an override cannot stand in the place of what is looked at.
        raise UserError(f"{what}: name a recipe, a run's folder or a store before its changes")
    if not terminal and (out.is_dir() or not out.resolve().parent.is_dir()):
        what_is_wrong = "is a folder; name a file in it" if out.is_dir() else f"no such folder as {out.parent}; make it"
        raise UserError(f"{out}: {what_is_wrong}, or choose another --out")
    if score is not None and score not in NEEDS:
        raise UserError(f"--score {score}: the viewer knows {', '.join(NEEDS)}")
    for override in overrides or []:
        if "=" not in override:
            raise UserError(f"{override}: one thing at a time is looked at; for several models repeat --student")
    shown = passages or (_IN_TERMINAL if terminal else _ON_PAGE)
    texts, names = (None, None) if not text else read_texts(text)
    found = open_view(
        what,
        overrides or [],
        texts=texts,
        names=names,
        students=student or None,
        references=reference or None,
        tokenizer=tokenizer,
        on=on,
        wish=Wish(max(shown, _RANKED) if terminal else shown, length, find, source, document),
        ratio=ratio,
        trust_remote_code=trust_remote_code,
    )
    if score is not None:
        select(found, found.ratio, score)  # refuses a score that there are no numbers for
        found = replace(found, score=score)
    if terminal:
        terminal_view(found, Console(highlight=False), passages=shown)
        return
    try:
        size = write_page(found, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    tokens = sum(len(passage.ids) for passage in found.passages)
    passages_shown = f"{len(found.passages):,} passage{'s' if len(found.passages) != 1 else ''}"
    told = f"{out}: {passages_shown}, {tokens:,} tokens, {size / 1e6:.1f} MB; open it in a browser"
    console.print(told, markup=False, soft_wrap=True)
