"""What a person sees while a model trains: a bar, and one line for each evaluation.

Replaces the Trainer's own bar, which prints every log as a raw dictionary. Where the output is no terminal
(a log file, CI) the bar stays silent and the lines remain.
"""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from tokensieve.report.words import count


class ProgressLines(TrainerCallback):
    """Bar and lines of one run; `name` says which."""

    def __init__(self, name: str) -> None:
        self.name = name
        console = Console()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start at the step that a resumed run continues from."""
        if state.is_world_process_zero:
            if state.global_step:
                self.progress.console.print(f"  {self.name}: resumed after step {state.global_step}")
            self.progress.start()
            self.task = self.progress.add_task(self.name, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance."""
        if state.is_world_process_zero:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One line for each log that carries an evaluation."""
        logs = kwargs["logs"]
        if state.is_world_process_zero and "target_loss" in logs:
            self.progress.console.print(
                f"  {self.name:<9} step {state.global_step:>5}/{state.max_steps} {count(logs['tokens_seen']):>7} tokens"
                f"  loss {logs.get('loss_all', logs['loss']):.3f}  target {logs['target_loss']:.4f}"
                f"  {logs['seconds']:.0f} s",
                highlight=False,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the bar."""
        self.progress.stop()
