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

import contextlib
import gc
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokensieve.corpus.python_text import docstrings_of, parse_source, prose_of, regions_of
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


_DOCUMENT_WORDS = 16  # shorter docstrings are a name spelled out: nothing to predict from
_PARAGRAPH_WORDS = 8  # shorter paragraphs are headings and stock phrases, which any two modules share


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
        for node in docstrings_of(parse_source(text, name)):
            prose = prose_of(str(node.value))
            # Subclasses often carry their parent's docstring unchanged.
            if len(prose.split()) >= _DOCUMENT_WORDS and prose not in seen:
                seen.add(prose)
                yield {"text": prose, "source": name}


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
