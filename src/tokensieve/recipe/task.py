"""The `tasks` section of a recipe: accuracies that `tokensieve compare` measures for each arm."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

from tokensieve.recipe.checks import require, require_folder_name

_FILE_ONLY = {
    "kind": None,
    "question": "question",
    "choices": "choices",
    "answer": "answer",
    "prompt": "Question: {{question}}\nAnswer:",
    "fewshot_path": None,
    "pattern": None,
    "stop": (),
}
"""Fields that say how a file's items are asked, with their defaults; lm-eval's tasks say that themselves."""
_EXACT_ONLY = ("max_new_tokens", "pattern", "stop")
_METRICS = {"multiple_choice": ("acc", "acc_norm"), "exact": ("exact_match",)}
_TAKEN = ("target", "general")
"""What comparisons call the losses that stand beside the tasks."""


@dataclass(frozen=True)
class TaskSection:
    """One task: a task of lm-eval by its name, or a local file of items."""

    task: str | None = None
    """A task, group or tag of lm-eval (`arc_easy`, `gsm8k`, `mmlu`), with its own prompts and metrics. A group counts
    item by item."""
    include_path: str | None = None
    """A folder of lm-eval task files (YAML), for example ones that read local copies: `task` is then one of these.
    Python functions that they name are run."""
    path: str | None = None
    """Instead of `task`: a local JSONL file (also .gz, .zst, a folder or a glob), one item a line."""
    kind: Literal["multiple_choice", "exact"] | None = None
    """Of `path`. `multiple_choice`: the likeliest choice counts. `exact`: text is generated, greedily, and must equal
    the answer, white space around it aside; numbers are compared as numbers (1,000 = 1000.0)."""
    name: str | None = None
    """What reports call it; the default is made from the task or path."""
    question: str = "question"
    """The record's field that holds the question, or a Jinja template of its fields: "{{a}} or {{b}}?"."""
    choices: str = "choices"
    """The field that holds the list of choices, or a template that gives one as JSON: "{{options | tojson}}"."""
    answer: str = "answer"
    """The field that holds the answer, or a template. Of choices: one's text, its letter (A is the first) or its number
    from 0."""
    prompt: str = "Question: {{question}}\nAnswer:"
    """Jinja template of what the model continues, of `question`, `choices` and the record's fields. A space follows,
    unless it ends in white space."""
    fewshot: int | None = None
    """Solved examples before each item, the same for all arms. Default: what the lm-eval task says; 0 for `path`."""
    fewshot_path: str | None = None
    """Where the examples of `path` are drawn from. Default: the other items of `path`."""
    limit: int | None = None
    """The first so many items, of each task of a group. Default: all."""
    max_new_tokens: int | None = None
    """Most tokens generated for an item. Default: what the lm-eval task says; 64 for `path`, 256 with `pattern`."""
    pattern: str | None = None
    """A regular expression, for `exact`: the answer is its last match (its first group, if it has one), in what was
    generated and in the answer field alike. "#### (.*)" reads GSM8K's."""
    stop: tuple[str, ...] = ()
    """Texts that end a generated answer. Default: the end of the line; an empty line with `pattern`."""
    metric: str | None = None
    """Which metric, as lm-eval writes it: `acc_norm`, `exact_match,flexible-extract`. Default: the task's first that is
    an average over items."""

    def __post_init__(self) -> None:
        require((self.task is None) != (self.path is None), "give exactly one of task and path")
        require(self.fewshot is None or self.fewshot >= 0, f"fewshot must be at least 0, not {self.fewshot}")
        require(self.limit is None or self.limit >= 1, f"limit must be at least 1, not {self.limit}")
        require(
            self.max_new_tokens is None or self.max_new_tokens >= 1,
            f"max_new_tokens must be at least 1, not {self.max_new_tokens}",
        )
        if self.name is not None:
            require_folder_name(self.name)
        require(self.label not in _TAKEN, f"the name {self.label!r} is that of a loss: give another name")
        if self.path is None:
            for field, default in _FILE_ONLY.items():
                require(getattr(self, field) == default, f"{field} belongs to path; lm-eval's tasks bring their own")
        else:
            self._check_file()

    def _check_file(self) -> None:
        require(self.include_path is None, "include_path belongs to task, not to path")
        require(self.kind is not None, "path needs kind: multiple_choice or exact")
        known = _METRICS[str(self.kind)]
        require(
            self.metric is None or self.metric in known,
            f"metric {self.metric!r} is not one of {self.kind}: {', '.join(known)}",
        )
        if self.kind == "exact":
            require(self.choices == _FILE_ONLY["choices"], "choices belongs to kind multiple_choice")
        else:
            for field in _EXACT_ONLY:
                require(not getattr(self, field), f"{field} belongs to kind exact, where text is generated")
        require(self.fewshot_path is None or bool(self.fewshot), "fewshot_path without fewshot: give their number")
        require(all(self.stop), "stop holds an empty text, which would end every answer at once")
        for field in ("question", "choices", "answer", "prompt"):
            text = getattr(self, field)
            require(text.strip() != "", f"{field} is empty")
            try:
                jinja2.Environment().parse(text)
            except jinja2.TemplateSyntaxError as error:
                raise ValueError(f"{field} is no Jinja template ({error.message}): {text!r}") from error
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression ({error})") from error

    @property
    def label(self) -> str:
        """The name results use."""
        if self.name is not None:
            return self.name
        bare = re.sub(r"(\.(jsonl|ndjson|json))?(\.(gz|zst))?$", "", Path(self.path or "").name)
        return re.sub(r"[^\w.-]+", "-", self.task or bare).strip("-.") or "task"

    @property
    def generated_tokens(self) -> int:
        """Most tokens generated for an item of `path`."""
        return self.max_new_tokens or (64 if self.pattern is None else 256)
