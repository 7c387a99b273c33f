"""YAML as a recipe means it: no surprises of YAML 1.1.

`1e-4` is a number; `yes`, `no`, `on`, `off` and dates are text; a key stands once in a mapping; an alias is a
copy, so that changing one place never changes another.
"""

import re
from typing import Any

import yaml

_MOST_VALUES = 100_000
"""Aliases of aliases grow exponentially; no recipe is as large as this."""

_MERGE = "tag:yaml.org,2002:merge"


class TextError(ValueError):
    """What is wrong with the text, in one line without the file's name."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the rules of this module."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not when the mapping is made: merging `<<` puts the merged keys beside a mapping's own.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise TextError(f"line {line}: key {key.value!r} is there already in line {lines[name]}; keep one")
            lines[name] = line
        return node


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which `parse` would read as a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
for _kind in (_Loader, Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )


def parse(text: str) -> Any:
    """Read YAML into dicts, lists and plain values, none of them shared.

    Raises:
        TextError: invalid YAML, a repeated key, an alias inside itself.
    """
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise TextError(f"not valid YAML: {' '.join(str(error).split())}") from error
    return _Copy().of(data)


class _Copy:
    """Rebuilds every mapping and list."""

    def __init__(self) -> None:
        self._values = 0
        self._open: set[int] = set()

    def of(self, value: Any) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise TextError(f"its aliases unfold to more than {_MOST_VALUES:,} values; write them out")
        if not isinstance(value, (dict, list)):
            return value
        if id(value) in self._open:
            raise TextError("an alias (*name) stands inside the value that it names; write the value out")
        self._open.add(id(value))
        copy = (
            {key: self.of(item) for key, item in value.items()}
            if isinstance(value, dict)
            else [self.of(item) for item in value]
        )
        self._open.remove(id(value))
        return copy
