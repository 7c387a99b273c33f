"""The embedded default text: a noisy corpus, clean text and target text made from the installed sympy.

torch depends on sympy, so its sources (BSD-3) are real text that every machine of ours already holds. They
show what selection is for: a little English in a lot of text that teaches no English.

- `target` is the English part of docstrings (doctests, their output and other literal blocks removed) of five
  small mathematical subpackages: about 110 kB, quick to evaluate, and close in topic to the other two sets.
- `clean` is the same kind of text from the subpackages that document themselves at length. With 1.7 MB it is
  half of all English in sympy's docstrings, because the reference has to be good. Tests are left out: they
  hold hardly any English.
- `noisy` is every file of `polys` and `parsing`, tests and benchmarks included, raw: 4.7 MB, of which 23 %
  are docstrings and comments, 15 % long dumps of numbers (polynomial systems, lookup tables, parser tables)
  and the rest code. Only this set has regions, so that a report can say how much of each was kept.

The sets share no file. A target docstring is dropped when it, or any of its paragraphs of eight words or
more, also stands in the noisy or the clean text: otherwise the evaluation would measure memory.
The same sympy gives the same bytes; another version gives another corpus, which `embedded.json` notes.
"""

import ast
import contextlib
import gc
import importlib.util
import inspect
import io
import json
import os
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokensieve.errors import UserError

PINNED = "1.14.0"
NOISY = ("parsing", "polys")
CLEAN = (
    "codegen",
    "combinatorics",
    "core",
    "crypto",
    "functions",
    "geometry",
    "ntheory",
    "physics",
    "plotting",
    "simplify",
    "stats",
    "tensor",
    "utilities",
)
TARGET = ("calculus", "concrete", "series", "sets", "vector")

Region = tuple[int, int, str]

_DOCUMENT_WORDS = 16  # shorter docstrings are a name spelled out: nothing to predict from
_PARAGRAPH_WORDS = 8  # shorter paragraphs are headings and stock phrases, which any two modules share
_DUMP_CHARACTERS = 120  # a dump is at least this long: a small matrix in a test is still code
_UNDERLINE = re.compile(r"([=\-~^*])\1{2,}")
_CODE_DIRECTIVE = re.compile(r"\.\. (plot|code|code-block|sourcecode|parsed-literal|testsetup|testcode)::")
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_SPACE = re.compile(r"\s")


def write_embedded(folder: Path) -> dict[str, Any]:
    """Write `noisy.jsonl`, `clean.jsonl`, `target.jsonl` and `embedded.json` into `folder`.

    A line is one JSON object: `text`, `source` (the file relative to sympy) and, in the noisy corpus,
    `regions` ([[start, end, "prose" | "code" | "dump"], ...] in characters, covering the whole text). A noisy
    document is a file; a clean or target document is a docstring.

    Returns:
        What `embedded.json` holds: `sympy` (version), `note` (a sentence if that is not the pinned version,
        else null) and, for each set, `documents`, `bytes` (UTF-8, text only) and `files`; for `noisy` also
        `regions` (characters of each kind), for `target` also `dropped` (documents found in the other sets).

    Raises:
        UserError: sympy is missing or holds a file that this Python cannot parse; `folder` cannot be written.
    """
    root, version = _find_sympy()
    with _collector_paused():
        noisy = [
            {"text": text, "source": name, "regions": regions_of(text, name)}
            for name, text in _read_sources(root, NOISY, tests=True)
        ]
        clean = list(_prose_records(_read_sources(root, CLEAN, tests=False)))
        offered = list(_prose_records(_read_sources(root, TARGET, tests=False)))
    known = [record["text"] for record in (*noisy, *clean)]
    repeated = repeated_in([record["text"] for record in offered], known)
    target = [record for i, record in enumerate(offered) if i not in repeated]

    note = None
    if version != PINNED:
        note = f"sympy {version} gives another corpus than {PINNED}: figures differ from the published ones"
    sets = {"noisy": noisy, "clean": clean, "target": target}
    counts: dict[str, Any] = {"sympy": version, "note": note}
    counts |= {name: _count(records) for name, records in sets.items()}
    counts["noisy"]["regions"] = _count_regions(noisy)
    counts["target"]["dropped"] = len(repeated)
    _write_all(folder, sets, counts)
    return counts


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
    for node in _docstrings(_parse(source, name)):
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


def repeated_in(texts: Sequence[str], known: Iterable[str]) -> set[int]:
    """Return the indices of `texts` that stand in `known` or in each other, whole or by a paragraph.

    Only paragraphs of eight words or more count. White space, comment signs and backslashes are not compared,
    so that a docstring is found in raw source whatever its indentation and escapes. Of texts that repeat each
    other the first one stays.
    """
    wanted: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    first_owner: dict[str, int] = {}
    repeated: set[int] = set()
    for i, text in enumerate(texts):
        for paragraph in (text, *text.split("\n\n")):
            words = _words(paragraph)
            if len(words) < _PARAGRAPH_WORDS:
                continue
            needle = " ".join(words)
            if first_owner.setdefault(needle, i) != i:
                repeated.add(i)
            # The first word is no part of the key: in raw source the opening quotes stick to it.
            wanted.setdefault(tuple(words[1:4]), []).append((i, needle))
    for text in known:
        words = _words(text)
        keys = wanted.keys() & set(zip(words[1:], words[2:], words[3:], strict=False))
        if keys:
            haystack = " ".join(words)
            repeated |= {i for key in keys for i, needle in wanted[key] if needle in haystack}
    return repeated


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Hold the garbage collector: syntax trees have no cycles, and it would double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _find_sympy() -> tuple[Path, str]:
    cure = f"install it with: pip install sympy=={PINNED}"
    spec = importlib.util.find_spec("sympy")  # finds a top-level package without importing it
    if spec is None or spec.origin is None:
        raise UserError(f"sympy is missing, and the embedded default text is made from its sources; {cure}")
    root = Path(spec.origin).parent
    release = root / "release.py"
    found = re.search(r'__version__ = "([^"]+)"', release.read_text("utf-8")) if release.is_file() else None
    missing = [name for name in (*NOISY, *CLEAN, *TARGET) if not (root / name).is_dir()]
    if found is None or missing:
        what = "no version in release.py" if found is None else f"no folder {missing[0]}"
        raise UserError(f"{root}: not the sources of sympy ({what}); {cure}")
    return root, found[1]


def _read_sources(root: Path, packages: Sequence[str], *, tests: bool) -> Iterator[tuple[str, str]]:
    for package in packages:
        for name in sorted(path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")):
            if not tests and re.search("/(tests|benchmarks)/", name):
                continue
            try:
                text = (root / name).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{root / name}: cannot read ({error}); reinstall sympy=={PINNED}") from error
            if text.strip():
                yield name, text


def _prose_records(sources: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for name, text in sources:
        for node in _docstrings(_parse(text, name)):
            prose = prose_of(str(node.value))
            # Subclasses often carry their parent's docstring unchanged.
            if len(prose.split()) >= _DOCUMENT_WORDS and prose not in seen:
                seen.add(prose)
                yield {"text": prose, "source": name}


def _parse(source: str, name: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
        try:
            return ast.parse(source)
        except SyntaxError as error:
            raise UserError(
                f"sympy/{name}: line {error.lineno}: this Python cannot parse it ({error.msg}); install sympy=={PINNED}"
            ) from error


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
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


def _words(text: str) -> list[str]:
    return [word for word in text.replace("\\", "").split() if word != "#"]


def _count(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    size = sum(len(record["text"].encode()) for record in records)
    return {"documents": len(records), "bytes": size, "files": len({record["source"] for record in records})}


def _count_regions(records: Iterable[dict[str, Any]]) -> dict[str, int]:
    characters = {"prose": 0, "code": 0, "dump": 0}
    for record in records:
        for start, end, kind in record["regions"]:
            characters[kind] += end - start
    return characters


def _write_all(folder: Path, sets: dict[str, list[dict[str, Any]]], counts: dict[str, Any]) -> None:
    """Write every file under a temporary name, then rename all: a failure leaves the folder as it was."""
    files = {
        folder / f"{name}.jsonl": "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        for name, records in sets.items()
    }
    files[folder / "embedded.json"] = json.dumps(counts, indent=2, ensure_ascii=False) + "\n"
    temporaries = {path: path.with_name(path.name + ".tmp") for path in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with temporaries[path].open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise UserError(
            f"{folder}: cannot write the embedded text ({error.strerror}); free space or use another folder"
        ) from error
