"""What sections of a recipe check in the same way: a wrong value raises ValueError, `reading.py` adds the place."""

import re
from collections.abc import Mapping
from typing import Any

_MOST_TOKENS = 10**15
"""A hundred times the largest corpus there is: more is a slip of the keyboard, and would not fit in memory."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_folder_name(name: str) -> None:
    """Refuse a name that is no plain folder name."""
    require(
        re.fullmatch(r"\w[\w.-]*", name) is not None,
        f"name {name!r} is not a folder name: use letters, digits, _ . and -, beginning with a letter, digit or _",
    )


def require_booleans(options: Mapping[str, Any]) -> None:
    """Refuse a text where YAML 1.1 would have read a boolean."""
    # Handed on as they are, such a text would be true, whatever it says; only strategies know a "no".
    for name, value in options.items():
        word = isinstance(value, str) and value.lower() in ("yes", "no", "on", "off")
        require(not word or str(name).endswith("_strategy"), f"{name} is the text {value!r}; write true or false")


def require_tokens(tokens: int) -> None:
    """Refuse a budget of tokens that cannot be meant."""
    require(1 <= tokens <= _MOST_TOKENS, f"tokens must be from 1 to {_MOST_TOKENS:.0e}, not {tokens}")
