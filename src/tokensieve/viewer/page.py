"""The viewer's page: data, style and script in one HTML file that asks the network for nothing.

The script is written in small files under `templates/`, which become one closure here, in the order of `SCRIPTS`:
a user opens the file as it is, and nothing has to be built. The page's content security policy allows exactly this
script and this style, by their digests, so that text from a corpus could not run even if it became markup.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from tokensieve.report.rendering import environment, source, write_whole
from tokensieve.viewer.encoding import page_data
from tokensieve.viewer.passages import View

SCRIPTS = (
    "data.js",
    "selection.js",
    "state.js",
    "words.js",
    "why.js",
    "glyphs.js",
    "colours.js",
    "passage.js",
    "detail.js",
    "find.js",
    "list.js",
    "shares.js",
    "scatter.js",
    "points.js",
    "numbers.js",
    "compare.js",
    "keys.js",
    "whole.js",
    "overview.js",
    "main.js",
)
"""What the page's script is made of."""

_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def render(view: View) -> str:
    """The page as HTML text.

    Raises:
        ValueError: the view has no model or no passage, so there is nothing to show.
    """
    if not view.models or not view.passages:
        raise ValueError("a view without models or without passages cannot be shown: give at least one of each")
    templates = environment().overlay(loader=PackageLoader("tokensieve.viewer"))
    style, script = source(templates, "viewer.css"), _script(templates)
    return templates.get_template("viewer.html.j2").render(
        title=view.title,
        notes=view.notes,
        data=Markup(embedded(page_data(view))),
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def write_page(view: View, path: Path) -> int:
    """Write the page, whole or not at all.

    Args:
        view: what it shows.
        path: where the HTML goes; its folder exists.

    Returns:
        Its size in bytes.

    Raises:
        OSError: the file cannot be written.
        ValueError: as `render`.
    """
    html = render(view)
    write_whole(html, path)
    return len(html.encode("utf-8"))


def embedded(data: dict[str, Any]) -> str:
    """JSON that can stand inside a `script` element: nothing in it can end the element or open another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)
    # The name of a file may hold bytes that are no text.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _script(templates: Environment) -> str:
    parts = "\n".join(source(templates, name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def _digest(text: str) -> str:
    """A source expression of Content Security Policy 3 (section 2.3.1) that allows this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
