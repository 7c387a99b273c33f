"""The English in Python source: docstrings, comments, and the prose of a docstring.

`ast` and `tokenize` say exactly which characters of a file are docstrings and comments, so a report can
show how much of each kind of text a selection kept.
"""

import ast
import inspect
import io
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence

from tokensieve.errors import UserError

Region = tuple[int, int, str]
_DUMP_CHARACTERS = 120  # a dump is at least this long: a small matrix in a test is still code
_UNDERLINE = re.compile(r"([=\-~^*])\1{2,}")
_CODE_DIRECTIVE = re.compile(r"\.\. (plot|code|code-block|sourcecode|parsed-literal|testsetup|testcode)::")
_DIGIT = re.compile(r"\d")
_SPACE = re.compile(r"\s")
_LETTER = re.compile(r"[^\W\d_]")


def regions_of(source: str, name: str = "<source>") -> list[Region]:
    """Partition Python source into `prose` (docstrings, comments), `dump` (runs of numbers) and `code`.

    Args:
        source: the text, its lines ended by line feeds alone.
        name: what an error calls it.

    Returns:
        Ascending (start, end, kind) in characters, covering `source` without gap; neighbours differ in kind.

    Raises:
        UserError: `source` is not valid Python for this interpreter.
    """
    lines = source.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    prose: list[tuple[int, int]] = []
    for node in docstrings_of(parse_source(source, name)):
        # ast counts columns in UTF-8 bytes, tokenize in characters.
        first, last = lines[node.lineno - 1], lines[(node.end_lineno or node.lineno) - 1]
        start = len(first.encode()[: node.col_offset].decode())
        end = len(last.encode()[: node.end_col_offset].decode())
        prose.append((starts[node.lineno - 1] + start, starts[(node.end_lineno or node.lineno) - 1] + end))
    if "#" in source:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                start = starts[token.start[0] - 1] + token.start[1]
                prose.append((start, start + len(token.string)))
    prose.sort()
    named = [(start, end, "prose") for start, end in prose]
    named += [(start, end, "dump") for start, end in _dumps(lines, starts, prose)]
    return _cover(sorted(named), len(source))


def prose_of(docstring: str) -> str:
    """Return the English of a docstring, without doctests, output, literal blocks and emptied sections."""
    kept: list[str] = []
    in_doctest = False
    literal_indent: int | None = None
    for line in inspect.cleandoc(docstring).split("\n"):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if not stripped:
            in_doctest = False
            kept.append("")
            continue
        if literal_indent is not None and indent > literal_indent:
            continue
        literal_indent = None
        in_doctest = in_doctest or stripped.startswith(">>>")
        if in_doctest:
            continue
        directive = stripped.startswith(".. ")
        if _CODE_DIRECTIVE.match(stripped) or (stripped.endswith("::") and not directive):
            literal_indent = indent
            stripped = "" if directive else stripped[:-1]
        if stripped.strip(":"):
            kept.append(" " * indent + stripped)
    return _drop_empty_sections("\n".join(kept))


def parse_source(source: str, name: str) -> ast.Module:
    """Parse a file of sympy.

    Raises:
        UserError: this Python cannot parse it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
        try:
            return ast.parse(source)
        except SyntaxError as error:
            raise UserError(
                f"sympy/{name}: line {error.lineno}: cannot parse it ({error.msg}); install the sympy of constraints"
            ) from error


def docstrings_of(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the docstring nodes in source order, looking into statements only: ast.walk is slow."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str()) as docstring), *_]:
                    yield docstring
        inner = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case)
        ]
        pending.extend(reversed(inner))


def _dumps(lines: Sequence[str], starts: Sequence[int], prose: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield runs of lines without prose, each at most a fifth letters and at least a quarter digits."""
    ahead = 0
    run_start: int | None = None
    run_characters = 0
    for i, line in enumerate([*lines, "end"]):
        start = starts[i]
        while ahead < len(prose) and prose[ahead][1] <= start:
            ahead += 1
        has_prose = ahead < len(prose) and prose[ahead][0] < start + len(line)
        characters = len(_SPACE.sub("", line))
        letters = len(_LETTER.findall(line))
        digits = len(_DIGIT.findall(line))
        # A line of brackets alone continues a dump and starts none.
        brackets = run_start is not None and characters > 0 and letters + digits == 0
        numbers = digits > 0 and 4 * digits >= characters and 5 * letters <= characters
        if (numbers or brackets) and not has_prose:
            run_start = start if run_start is None else run_start
            run_characters += characters
            continue
        if run_start is not None and run_characters >= _DUMP_CHARACTERS:
            yield run_start, start - 1
        run_start, run_characters = None, 0


def _cover(named: Iterable[Region], length: int) -> list[Region]:
    """Fill gaps between `named` with code, join equal neighbours, give overlaps to the earlier span."""
    covered: list[Region] = []

    def add(start: int, end: int, kind: str) -> None:
        if start >= end:
            return
        if covered and covered[-1][2] == kind:
            start = covered.pop()[0]
        covered.append((start, end, kind))

    at = 0
    for start, end, kind in named:
        add(at, start, "code")
        add(max(at, start), end, kind)
        at = max(at, end)
    add(at, length, "code")
    return covered


def _drop_empty_sections(text: str) -> str:
    paragraphs = [part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip()]
    kept: list[str] = []
    # From the end: a heading goes when the next thing that stays is a heading too, or nothing.
    next_is_heading = True
    for paragraph in reversed(paragraphs):
        rows = paragraph.strip().split("\n")
        heading = len(rows) > 1 and _UNDERLINE.fullmatch(rows[1].strip()) is not None
        if heading and len(rows) == 2 and next_is_heading:
            continue
        kept.append(paragraph)
        next_is_heading = heading
    return "\n\n".join(reversed(kept)).strip()
