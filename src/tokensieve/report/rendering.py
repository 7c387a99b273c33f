"""What the pages share: their templates, the files inlined into them, and writing a page whole or not at all."""

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tokensieve.report import words


def environment() -> Environment:
    """The templates of the pages: everything is escaped, and a name that is missing is an error."""
    found = Environment(
        loader=PackageLoader("tokensieve.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "count": words.count,
        "duration": words.duration,
        "fixed": words.fixed,
        "percent": words.percent,
        "printable": words.printable,
    }
    return found


def source(environment: Environment, name: str) -> str:
    """The text of a file beside the templates, such as a style sheet."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def write_whole(html: str, path: Path) -> None:
    """Write a page in UTF-8, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
