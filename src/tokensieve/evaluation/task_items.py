"""Local items: a JSONL file of multiple-choice or exact-answer questions, checked and made into an lm-eval task.

Everything that can be wrong with a record is found when it is read, and said with file, line, field and value:
lm-eval would meet it hours later, or score the item as wrong without a word.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import datasets
import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tokensieve.corpus.listing import list_inputs
from tokensieve.corpus.readers import read_jsonl
from tokensieve.errors import UserError
from tokensieve.recipe import Source, TaskSection
from tokensieve.recipe.reading import suggest

_MOST_MB = 16
_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?", re.ASCII)
_TEMPLATES = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def task_config(section: TaskSection) -> dict[str, Any]:
    """The lm-eval task configuration of a local file.

    Raises:
        UserError: a file is missing or malformed, or has too few items for the examples.
    """
    items = read_items(section, str(section.path))
    pool = items if section.fewshot_path is None else read_items(section, section.fewshot_path)
    shots = section.fewshot or 0
    # An item is never its own example.
    free = len(pool) - (section.fewshot_path is None)
    if shots > free:
        raise UserError(
            f"tasks: {section.label}: fewshot is {shots}, but {section.fewshot_path or section.path} has {free} items "
            f"to draw from; lower fewshot or give fewshot_path"
        )
    splits = {"test": items, "examples": pool} if section.fewshot_path else {"test": items}
    config: dict[str, Any] = {
        "task": section.label,
        "custom_dataset": lambda: {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()},
        "test_split": "test",
        # With the split of the items themselves, lm-eval leaves the item at hand out.
        "fewshot_split": "examples" if section.fewshot_path else "test",
        "num_fewshot": shots,
        "doc_to_text": "prompt",
        "target_delimiter": "" if section.prompt[-1].isspace() else " ",
    }
    if section.kind == "multiple_choice":
        metrics: tuple[str, ...] = ("acc", "acc_norm")
        config |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
    else:
        metrics = ("exact_match",)
        stop = list(section.stop) or ["\n" if section.pattern is None else "\n\n"]
        config |= {
            "output_type": "generate_until",
            "doc_to_target": "solution",
            "generation_kwargs": {"until": stop, "max_gen_toks": section.generated_tokens, "do_sample": False},
            "process_results": lambda item, texts: {
                "exact_match": float(same_answer(extract(section.pattern, texts[0]), item["gold"]))
            },
        }
    config["metric_list"] = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics]
    return config


def read_items(section: TaskSection, path: str) -> list[dict[str, Any]]:
    """The items of a file, in order.

    Multiple choice: `prompt`, `choices` and `gold` (the index of the right one). Exact: `prompt`, `solution` (the
    answer as examples show it) and `gold` (what must be generated).

    Raises:
        UserError: missing, empty or malformed, with file, line, field and value.
    """
    items = [_item(section, place, record) for place, record in _records(path)]
    if not items:
        raise UserError(f"{path}: holds no items; write one JSON object a line")
    return items


def extract(pattern: str | None, text: str | None) -> str | None:
    """The answer within a text; None without a match."""
    if pattern is None or text is None:
        return text
    found = list(re.finditer(pattern, text))
    return found[-1].group(found[-1].re.groups and 1) if found else None


def same_answer(given: str | None, gold: str) -> bool:
    """Whether an answer is right: the same text without white space around it, or the same number."""
    if given is None:
        return False
    given, gold = given.strip(), gold.strip()
    numbers = _number(given), _number(gold)
    return given == gold or (None not in numbers and numbers[0] == numbers[1])


def _number(text: str) -> Decimal | None:
    matched = _NUMBER.fullmatch(text) is not None and any(character.isdigit() for character in text)
    return Decimal(text.replace(",", "")) if matched else None


def _records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in list_inputs(Source(path=path, format="jsonl")):
        yield from read_jsonl(item, _MOST_MB, lambda _: None)


def _item(section: TaskSection, place: str, record: dict[str, Any]) -> dict[str, Any]:
    question = _text(section.question, "question", place, record)
    values = {**record, "question": question}
    if section.kind == "multiple_choice":
        choices = _choices(section, place, record)
        gold = _right_choice(section, place, record, choices)
        return {
            "prompt": _text(section.prompt, "prompt", place, {**values, "choices": choices}),
            "choices": choices,
            "gold": gold,
        }
    solution = _text(section.answer, "answer", place, record).strip()
    gold_text = extract(section.pattern, solution)
    if not (gold_text or "").strip():
        why = "is empty" if section.pattern is None else f"has no match of pattern {section.pattern!r}"
        raise UserError(f"{place}: the answer {_short(solution)} {why}")
    return {"prompt": _text(section.prompt, "prompt", place, values), "solution": solution, "gold": gold_text}


def _value(expression: str, option: str, place: str, record: Mapping[str, Any]) -> Any:
    """A field's value, or a template's text."""
    if "{{" not in expression and "{%" not in expression and option != "prompt":
        if expression not in record:
            raise UserError(f"{place}: no field {expression!r}{suggest(expression, record)}; set the task's `{option}`")
        return record[expression]
    try:
        return _TEMPLATES.from_string(expression).render(record)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise UserError(
            f"{place}: the task's `{option}` {expression!r} does not fit this record ({error}); "
            f"its fields: {', '.join(record)}"
        ) from error


def _text(expression: str, option: str, place: str, record: Mapping[str, Any]) -> str:
    value = _value(expression, option, place, record)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{place}: {expression} is {_short(value)}, not a text; set the task's `{option}`")
    if option != "answer" and not value.strip():
        raise UserError(f"{place}: the {option} is empty")
    return value


def _choices(section: TaskSection, place: str, record: dict[str, Any]) -> list[str]:
    value = _value(section.choices, "choices", place, record)
    if isinstance(value, str) and section.choices not in record:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(
                f"{place}: the task's `choices` {section.choices!r} gave {_short(value)}, not a JSON list; "
                f"end the template with `| tojson`"
            ) from error
    if not isinstance(value, list) or len(value) < 2:
        raise UserError(f"{place}: {section.choices} is {_short(value)}, not a list of two choices or more")
    choices = [str(choice) if isinstance(choice, (int, float)) else choice for choice in value]
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            raise UserError(f"{place}: {section.choices} holds the choice {_short(choice)}, which is no text")
    return choices


def _right_choice(section: TaskSection, place: str, record: dict[str, Any], choices: Sequence[str]) -> int:
    """The index of the right choice: given by text, by letter or by number from 0, in this order."""
    answer = _value(section.answer, "answer", place, record)
    index = None
    if isinstance(answer, str):
        answer = answer.strip()
        same = [i for i, choice in enumerate(choices) if choice.strip() == answer]
        if len(same) > 1:
            raise UserError(f"{place}: the answer {_short(answer)} is the text of several choices; give its number")
        if same:
            index = same[0]
        elif re.fullmatch("[A-Z]", answer):
            index = ord(answer) - ord("A")
        elif re.fullmatch("[0-9]{1,4}", answer):
            index = int(answer)
    elif isinstance(answer, int) and not isinstance(answer, bool):
        index = answer
    if index is None or not 0 <= index < len(choices):
        raise UserError(
            f"{place}: the answer {_short(answer)} is none of the {len(choices)} choices; give one's text, its letter "
            f"(A to {chr(ord('A') + len(choices) - 1)}) or its number (0 to {len(choices) - 1})"
        )
    return index


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
