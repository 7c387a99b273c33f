"""YAML without surprises: aliases are copies, keys stand once, only true and false are booleans."""

from typing import Any

import pytest

from tokensieve.recipe.yaml_text import TextError, parse


def test_an_alias_is_a_copy() -> None:
    data = parse("a: &x {n: 1, l: [1]}\nb: *x\nc: {<<: *x, m: 2}")
    data["a"]["n"] = 5
    data["a"]["l"].append(2)
    assert data["b"] == {"n": 1, "l": [1]}
    assert data["c"] == {"n": 1, "l": [1], "m": 2}


@pytest.mark.parametrize("text", ["a: &x {b: *x}", "a: &x [*x]", "&x {a: {b: [*x]}}", "a: &x {b: {<<: *x}}"])
def test_an_alias_inside_itself_is_an_error(text: str) -> None:
    with pytest.raises(TextError, match="stands inside the value that it names"):
        parse(text)


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 12)]
    with pytest.raises(TextError, match="unfold to more than 100,000 values"):
        parse("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "line", "before"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1),
        ("s:\n  a: 1\n  'a': 2", 3, 2),
        ("l:\n- {a: 1,\n   a: 1}", 3, 2),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  b: 1\n  b: 2", 5, 4),
    ],
)
def test_a_repeated_key_is_an_error_with_its_line(text: str, line: int, before: int) -> None:
    with pytest.raises(TextError, match=rf"^line {line}: key '[ab]' is there already in line {before}; keep one$"):
        parse(text)


def test_merges_work_and_own_keys_win() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {<<: *x, b: 2}\nz: {<<: [*y, *x], c: 3}\n"
    assert parse(text) == {"x": {"a": 1, "b": 1}, "y": {"a": 1, "b": 2}, "z": {"a": 1, "b": 2, "c": 3}}
    deep = "o:\n  i: &i {<<: &b {k: 1}, k: 2}\nm: {<<: *i}"
    assert parse(deep) == {"o": {"i": {"k": 2}}, "m": {"k": 2}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "Yes", "NO", "Off", "y", "n", "truth", "2024-13-45")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        ("null", None),
        ("2e-3", 0.002),
        ("1_000", 1000),
    ],
)
def test_words_are_words(text: str, value: Any) -> None:
    assert parse(f"save_strategy: {text}") == {"save_strategy": value}
