"""The embedded text: regions exact to the character, prose free of code, target text seen nowhere else."""

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensieve.corpus import embedded
from tokensieve.corpus.embedded import repeated_in, write_embedded
from tokensieve.corpus.python_text import prose_of, regions_of
from tokensieve.errors import UserError


def spans(source: str, kind: str) -> list[str]:
    return [source[start:end] for start, end, found in regions_of(source) if found == kind]


# Regions


def test_docstrings_and_comments_are_prose() -> None:
    source = '''# héading ∑
"""Module ∂ocstring."""
import os  # why ünder


@decorate("not prose")  # reason
class A:
    """Class dôc.

    >>> A()
    """

    def outer(self):
        'É one-liner'; x = "é"  # ä
        async def inner():
            r"""Inner \\d é"""
            return """not
            prose"""
        return inner
'''
    assert spans(source, "prose") == [
        "# héading ∑",
        '"""Module ∂ocstring."""',
        "# why ünder",
        "# reason",
        '"""Class dôc.\n\n    >>> A()\n    """',
        "'É one-liner'",
        "# ä",
        'r"""Inner \\d é"""',
    ]


def test_strings_elsewhere_are_code() -> None:
    source = 'x = """# no\ncomment"""\n"""no docstring"""\ndef f():\n    x = 1\n    """late"""\n'
    assert regions_of(source) == [(0, len(source), "code")]


def test_docstrings_after_wide_characters_on_one_line() -> None:
    source = 'if "𝔸é": f = "ü"\nclass É: "𝔸 doc"; x = "é"  # 𝔸\n'
    assert spans(source, "prose") == ['"𝔸 doc"', "# 𝔸"]


def test_docstring_in_every_kind_of_block() -> None:
    blocks = [
        "if x:\n",
        "while x:\n",
        "for x in y:\n",
        "with x:\n",
        "match x:\n  case 1:\n ",
        "try:\n  pass\nexcept E:\n",
        "try:\n  pass\nfinally:\n",
        "if x:\n  pass\nelse:\n",
    ]
    for block in blocks:
        source = block + "  def f():\n      'doc'\n"
        assert spans(source, "prose") == ["'doc'"], block


def test_comment_inside_a_joined_docstring_overlaps_once() -> None:
    source = 'def f():\n    ("a"  # note\n     "b")\n'
    assert spans(source, "prose") == ['"a"  # note\n     "b"']


def test_dump_is_a_long_run_of_number_lines() -> None:
    rows = "\n".join(f"    [{i}, {i * 7919}, -{i * 104729}]," for i in range(20))
    source = f"table = [\n{rows}\n]\nname = other(table)\n"
    assert spans(source, "dump") == [rows + "\n]"]
    assert spans(source, "code") == ["table = [\n", "\nname = other(table)\n"]


def test_short_matrices_and_wordy_lines_are_code() -> None:
    assert spans("m = [\n    [1, 2],\n    [3, 4],\n]\n", "dump") == []
    calls = "".join(f"assert factor({i}{i * 10**6}) == {i}\n" for i in range(10, 60))
    assert spans(calls, "dump") == []


def test_comment_ends_a_dump() -> None:
    rows = "    " + "12345, " * 30
    assert spans(f"t = [\n{rows}\n    1, 2,  # last\n]\n", "dump") == [rows]
    assert spans(f"# {rows}\n", "dump") == []


LINE = st.sampled_from(
    [
        ("x = 'é # no'\n", None),
        ("ÿ = [1, 2]  # 𝔸 ü\n", "# 𝔸 ü"),
        ("#∑ alone\n", "#∑ alone"),
        ("def f(á='ß'): '''dôc\n  𝔸'''\n", "'''dôc\n  𝔸'''"),
        ("class C: 'é'; y = 'é'\n", "'é'"),
        ("\n", None),
        ("s = '''\n# no\n'''\n", None),
        ("\x0cv = 1  # feed\n", "# feed"),
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINE, max_size=12))
def test_regions_partition_the_text_and_find_all_prose(lines: list[tuple[str, str | None]]) -> None:
    source = "x = 1\n" + "".join(text for text, _ in lines)
    regions = regions_of(source)
    assert regions[0][0] == 0 and regions[-1][1] == len(source)
    for (_, end, kind), (start, _, following) in zip(regions, regions[1:], strict=False):
        assert end == start and kind != following
    assert spans(source, "prose") == [prose for _, prose in lines if prose is not None]


def test_invalid_source_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"polys/bad\.py: line 2: .*constraints"):
        regions_of("x = 1\ndef (:\n", "polys/bad.py")


# Prose


def test_doctests_and_their_output_go() -> None:
    docstring = """Return it.

    Text before:

    >>> f(1)
    >>> for i in x:
    ...     print(i)
    42
    <BLANKLINE>
    43

    Text after.
    """
    assert prose_of(docstring) == "Return it.\n\nText before:\n\nText after."


def test_literal_blocks_and_code_directives_go_and_notes_stay() -> None:
    docstring = """Use it so::

        f(1)

        g(2)

    .. plot::
        :format: doctest

        plot(x)

    .. note::
        Mind the gap.
    .. math:: a = b

    End::
    """
    assert prose_of(docstring) == "Use it so:\n\n.. note::\n    Mind the gap.\n.. math:: a = b\n\nEnd:"


def test_emptied_sections_go() -> None:
    docstring = """Sum.

    Notes
    =====

    A note.

    Examples
    ========

    >>> f()

    See Also
    --------
    other

    References
    ==========
    """
    assert prose_of(docstring) == "Sum.\n\nNotes\n=====\n\nA note.\n\nSee Also\n--------\nother"


# Repetition

LONG = "the quick brown fox jumps over the lazy dog"


def test_repeated_paragraphs_are_found_in_raw_source() -> None:
    source = 'def f():\n    r"""The quick $\\\\alpha$ fox\n    jumps over the lazy dog."""\n'
    assert repeated_in(["Own words first.\n\nThe quick $\\alpha$ fox jumps\nover the lazy dog."], [source]) == {0}
    assert repeated_in([LONG], [f"# {LONG[:25]}\n    # {LONG[26:]}\n"]) == {0}


def test_short_paragraphs_and_near_misses_do_not_count() -> None:
    assert repeated_in(["See also the other one"], ["See also the other one"]) == set()
    assert repeated_in([LONG], [LONG.replace("lazy", "idle")]) == set()


def test_texts_that_share_a_paragraph_keep_the_first() -> None:
    assert repeated_in([LONG, f"Other.\n\n{LONG}", "new " + LONG[4:]], []) == {1}


# The files


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text of the sympy that is installed."""
    folder = tmp_path_factory.mktemp("embedded")
    write_embedded(folder)
    return folder


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / f"{name}.jsonl").read_text("utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def test_sizes_and_shares(written: Path) -> None:
    counts = json.loads((written / "embedded.json").read_text("utf-8"))
    for name, low, high in [("noisy", 3e6, 8e6), ("clean", 1e6, 3e6), ("target", 1e5, 2e5)]:
        records = read(written, name)
        assert counts[name]["documents"] == len(records)
        assert counts[name]["bytes"] == sum(len(record["text"].encode()) for record in records)
        assert low <= counts[name]["bytes"] <= high, name
    regions = counts["noisy"]["regions"]
    assert sum(regions.values()) == sum(len(record["text"]) for record in read(written, "noisy"))
    assert 0.10 <= regions["prose"] / sum(regions.values()) <= 0.25
    assert 0.05 <= regions["dump"] / sum(regions.values()) <= 0.25


def test_noisy_documents_are_the_files(written: Path) -> None:
    root = Path(str(importlib.util.find_spec("sympy").origin)).parent  # type: ignore[union-attr]
    for record in read(written, "noisy"):
        assert record["text"] == (root / record["source"]).read_text("utf-8")
        ends = [0, *(end for _, end, _ in record["regions"])]
        assert ends[:-1] == [start for start, _, _ in record["regions"]] and ends[-1] == len(record["text"])


def test_prose_holds_no_doctests(written: Path) -> None:
    for name in ("clean", "target"):
        assert not any(re.search(r"^\s*>>> ", record["text"], re.M) for record in read(written, name))


def test_target_stands_nowhere_else(written: Path) -> None:
    def plain(text: str) -> str:
        return re.sub(r"[\s#\\]+", " ", text)

    known = "\0".join(plain(record["text"]) for name in ("noisy", "clean") for record in read(written, name))
    target = read(written, "target")
    paragraphs = [plain(part).strip() for record in target for part in record["text"].split("\n\n")]
    long = [part for part in paragraphs if len(part) >= 80]
    assert len(long) > 200
    assert len(set(long)) == len(long)
    assert [part for part in long if part in known] == []


def test_sets_share_no_file(written: Path) -> None:
    sources = [{record["source"] for record in read(written, name)} for name in ("noisy", "clean", "target")]
    assert len(set.union(*sources)) == sum(map(len, sources))


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from tokensieve.corpus import embedded; embedded.NOISY = ('parsing',); "
        "embedded.CLEAN = ('crypto',); embedded.write_embedded(pathlib.Path(sys.argv[1]))"
    )
    for seed in ("1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / seed)], check=True, env=environment)
    for path in (tmp_path / "1").iterdir():
        assert (tmp_path / "12345" / path.name).read_bytes() == path.read_bytes(), path.name


# A made-up sympy: fast, and with faults


@pytest.fixture
def fake_sympy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "sympy"
    for package in (*embedded.NOISY, *embedded.CLEAN, *embedded.TARGET):
        folder = root / package / "tests"
        folder.mkdir(parents=True)
        words = " ".join(f"{package}{i}" for i in range(20))
        (root / package / "a.py").write_text(f'"""{words}"""\n')
        (folder / "test_a.py").write_text(f'"""tests {words}"""\n')
    (root / "release.py").write_text('__version__ = "9.9"\n')
    found = SimpleNamespace(origin=str(root / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    return root


def test_another_version_is_noted(fake_sympy: Path, tmp_path: Path) -> None:
    counts = write_embedded(tmp_path / "out")
    assert counts == json.loads((tmp_path / "out" / "embedded.json").read_text())
    assert counts["sympy"] == "9.9" and "sympy 9.9 gives another corpus" in counts["note"]
    (fake_sympy / "release.py").write_text(f'__version__ = "{embedded.PINNED}"\n')
    assert write_embedded(tmp_path / "out")["note"] is None


def test_tests_belong_to_the_noisy_text_only(fake_sympy: Path, tmp_path: Path) -> None:
    write_embedded(tmp_path / "out")
    for name, packages in [("noisy", embedded.NOISY), ("clean", embedded.CLEAN), ("target", embedded.TARGET)]:
        files = ["a.py", "tests/test_a.py"] if name == "noisy" else ["a.py"]
        expected = [f"{package}/{file}" for package in packages for file in files]
        assert [record["source"] for record in read(tmp_path / "out", name)] == expected


def test_repeated_target_is_dropped(fake_sympy: Path, tmp_path: Path) -> None:
    borrowed = (fake_sympy / embedded.NOISY[0] / "a.py").read_text()
    (fake_sympy / embedded.TARGET[0] / "a.py").write_text(borrowed)
    counts = write_embedded(tmp_path / "out")
    assert counts["target"]["dropped"] == 1
    assert counts["target"]["documents"] == len(embedded.TARGET) - 1


def test_missing_sympy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sympy is missing.*pip install sympy==1\.14\.0"):
        write_embedded(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_incomplete_sympy(fake_sympy: Path, tmp_path: Path) -> None:
    (fake_sympy / "release.py").unlink()
    with pytest.raises(UserError, match="no version in release.py"):
        write_embedded(tmp_path / "out")


def test_full_disk_leaves_the_folder_as_it_was(
    fake_sympy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_embedded(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (fake_sympy / embedded.NOISY[0] / "a.py").write_text("x = 1\n")
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_embedded(out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_folder_that_is_a_file(fake_sympy: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out: cannot write"):
        write_embedded(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
