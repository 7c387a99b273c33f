"""lm-eval as we use it: its tasks loaded, and their requests answered by a model in memory.

This module imports lm-eval, an optional dependency: `tasks.py` imports and calls it late, and within `undisturbed`.
"""

import copy
import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval.evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from rich.progress import Progress, TaskID
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tokensieve.errors import UserError
from tokensieve.evaluation.task_items import task_config
from tokensieve.evaluation.undisturbed import SEED
from tokensieve.recipe import TaskSection


def load_tasks(section: TaskSection) -> dict[str, Task]:
    """The tasks that a section stands for, by name: one, or the members of a group or tag.

    Raises:
        UserError: a local file is malformed, the name is unknown, or the task cannot be run as asked.
        Other errors come from the task itself: its data, its code, its packages.
    """
    if section.path is not None:
        return {section.label: _seeded(ConfigurableTask(config=task_config(section)))}
    manager = _manager(section.include_path)
    if section.task not in manager.task_index:
        raise UserError(f"tasks: {_unknown(str(section.task), section.include_path, manager.all_tasks)}")
    if (manager.task_index[section.task].cfg or {}).get("unsafe_code"):
        raise _runs_code(f"tasks: {section.task}")  # before its modules are loaded, which may fetch more code
    tasks = manager.load([section.task])["tasks"]
    for name, task in tasks.items():
        _adapt(section, name, task)
    return {name: _seeded(task) for name, task in tasks.items()}


def run(tasks: Mapping[str, Task], lm: LM, limit: int | None) -> dict[str, list[dict[str, Any]]]:
    """Ask every item: lm-eval's samples of each task, one for each filter and item, items in document order."""
    results = lm_eval.evaluator.evaluate(lm, {"tasks": dict(tasks)}, limit=limit, bootstrap_iters=0)
    return results["samples"]


class NoModel(LM):
    """Answers everything with nothing: shows before any training whether a task's items can be asked and graded.

    Args:
        context: most tokens the model can attend to, if that is known.
    """

    def __init__(self, context: int | None) -> None:
        super().__init__()
        self._context = context

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """The same for each."""
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """The same for each."""
        return [-1.0] * len(requests)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Nothing for each."""
        if self._context is not None:
            for request in requests:
                _check_room(request, self._context)
        return [""] * len(requests)


class LoadedModel(HFLM):
    """A model in memory and its tokenizer.

    Args:
        model: as it is, on its device. Its logits are compared in float32.
        tokenizer: copied, because lm-eval gives it a padding token.
        batch_size: requests per forward pass.
        bar: shows the requests that are done.
        row: the bar's row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        bar: Progress,
        row: TaskID,
    ) -> None:
        super().__init__(
            model,
            tokenizer=copy.deepcopy(tokenizer),
            backend="causal",
            batch_size=batch_size,
            softmax_dtype="float32",
        )
        self.shortened: set[str] = set()
        """Prompts that were longer than the model's context and lost their beginning."""
        self._bar, self._row, self._total = bar, row, 0
        self.set_cache_hook(_Advance(bar, row))

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        for texts, context, continuation in requests:
            if texts is None:
                continue  # a piece of a long text, which lm-eval has cut to fit
            if not 1 <= len(continuation) <= self.max_length:
                raise UserError(
                    f"tasks: the answer {texts[1][:60]!r} has {len(continuation)} tokens, which the model with its "
                    f"context of {self.max_length} cannot score; remove the item"
                )
            if len(context) + len(continuation) > self.max_length + 1:
                self.shortened.add(texts[0])
        self._expect(len(requests))
        return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def generate_until(self, requests: list[Instance], *args: Any, **kwargs: Any) -> list[str]:
        """Text for each prompt."""
        for request in requests:
            room = self.max_length - _check_room(request, self.max_length)
            if len(self.tok_encode(request.args[0])) > room:
                self.shortened.add(request.args[0])
        self._expect(len(requests))
        return super().generate_until(requests, *args, **kwargs)

    def _expect(self, count: int) -> None:
        self._total += count
        self._bar.update(self._row, total=self._total)


class _Advance(CacheHook):
    """lm-eval tells its cache of each answer as it comes: that moves the bar."""

    def __init__(self, bar: Progress, row: TaskID) -> None:
        super().__init__(None)
        self._bar, self._row = bar, row

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        """One answer."""
        self._bar.advance(self._row)


@functools.cache
def _manager(include_path: str | None) -> TaskManager:
    """The index of lm-eval's tasks (seconds: it reads thousands of files), or of a folder's alone."""
    if include_path is None:
        return TaskManager()
    folder = Path(include_path).expanduser()
    if not folder.is_dir():
        raise UserError(f"tasks: include_path {include_path}: no such folder")
    return TaskManager(include_path=folder, include_defaults=False)


def _unknown(name: str, include_path: str | None, known: Sequence[str]) -> str:
    if include_path is not None and len(known) < 10:
        near = f"its tasks: {', '.join(known)}" if known else "it holds no readable lm-eval task file (YAML)"
        return f"{include_path} has no task {name!r}; {near}"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else "; `lm-eval ls tasks` lists all"
    return f"{include_path or 'lm-eval'} has no task {name!r}{hint}"


def _adapt(section: TaskSection, name: str, task: Task) -> None:
    """Put the section's settings into a task of lm-eval, or refuse what would be ignored."""
    place = f"tasks: {section.task}" + ("" if name == section.task else f": {name}")
    if getattr(task, "UNSAFE_CODE", False):
        raise _runs_code(place)
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"{place}: shows pictures or sound, which the model cannot take; remove the task")
    given = task.get_config("num_fewshot")
    if section.fewshot is None:
        task.set_config("num_fewshot", given or 0)
    elif given == 0 and section.fewshot > 0:
        # lm-eval itself keeps 0 without a word: the examples may stand in the prompt.
        raise UserError(f"{place}: is defined with 0 examples (they may stand in its prompt); remove fewshot")
    else:
        task.set_config("num_fewshot", section.fewshot)
    if section.max_new_tokens is not None:
        if task.OUTPUT_TYPE != "generate_until":
            raise UserError(f"{place}: generates no text; remove max_new_tokens")
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        kept = {key: value for key, value in task.get_config("generation_kwargs").items() if key not in names}
        task.set_config("generation_kwargs", {**kept, "max_gen_toks": section.max_new_tokens})


def _runs_code(place: str) -> UserError:
    return UserError(f"{place}: runs code that the model writes, which tokensieve does not do; remove the task")


def _seeded(task: Task) -> Task:
    task.set_fewshot_seed(SEED)
    return task


def _check_room(request: Instance, context: int) -> int:
    """Tokens that a request wants generated; an error unless they leave room for a prompt."""
    wanted: int = normalize_gen_kwargs(request.args[1])["max_gen_toks"]
    if wanted >= context:
        raise UserError(
            f"tasks: {request.task_name}: generating {wanted} tokens leaves no room for a prompt in the model's "
            f"context of {context}; set max_new_tokens"
        )
    return wanted
