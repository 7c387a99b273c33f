"""The bar of long work: on standard error, and only where a person looks."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def bar(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; yields what to call with the number of units just done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        # A description is markup: a searched text may hold brackets.
        row = progress.add_task(what.replace("[", "\\["), total=total)
        yield lambda count: progress.advance(row, count)
