"""Selection inside a stock transformers Trainer: `attach(trainer, handle)`, one line after the Trainer is made.

The patched model already computes the selective loss. What a loop has to add is around it: refuse settings that
would replace or rescale that loss, tell the handle which step is running, measure on logging steps, and put what
was selected into the logs. A callback does all of it; no Trainer is subclassed.
"""

from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from tokensieve.errors import UserError
from tokensieve.selective import SelectiveHandle, refuse_trainer_arguments
from tokensieve.stats import log_entries


def attach(trainer: Trainer, handle: SelectiveHandle) -> "SelectiveCallback":
    """Make a stock Trainer follow the handle of its patched model.

    The callback is put first: the log entries it adds are then seen by the trackers' callbacks too.

    Args:
        trainer: made with the patched model (or with a PEFT model around it).
        handle: what `make_selective` returned for that model.

    Raises:
        UserError: the Trainer holds another model, or computes another loss than the model's own.
        ValueError: an argument of the Trainer would replace or rescale the loss.
    """
    assert trainer.model is not None  # a Trainer makes its model when it is made
    if all(module is not handle.model for module in trainer.model.modules()):
        raise UserError("trainer.model is not the model of this handle; give Trainer the model that was patched")
    if any(cls.__module__.startswith("trl.") for cls in type(trainer).__mro__):
        raise UserError(
            f"{type(trainer).__name__} computes its own loss and would not select; for supervised fine-tuning use "
            "tokensieve.integrations.trl.SelectiveSFTTrainer, which attaches itself"
        )
    if trainer.compute_loss_func is not None:
        raise UserError("compute_loss_func replaces the model's loss, and with it the selection; leave it out")
    # If the class is not named ...ForCausalLM (GPT-2's), label 0 of each row would count, which nothing predicts.
    trainer._loss_shifts_labels = True
    parts = trainer.args.gradient_accumulation_steps * trainer.args.world_size
    if parts > 1 and not trainer.model_accepts_loss_kwargs:
        raise UserError(
            f"Trainer does not pass num_items_in_batch to {type(handle.model).__name__}, so each of the {parts} parts "
            "of a step would be divided by its own tokens; train with one process and gradient_accumulation_steps=1"
        )
    if any(isinstance(callback, SelectiveCallback) for callback in trainer.callback_handler.callbacks):
        raise UserError("this Trainer has a SelectiveCallback already: attach once")
    callback = SelectiveCallback(handle)
    callback.refuse(trainer.args)
    trainer.callback_handler.callbacks.insert(0, callback)
    return callback


class SelectiveCallback(TrainerCallback):
    """Sets `handle.step` and `handle.measure`, and adds what was selected to the training logs.

    Entries since the last log line, over all ranks: `ratio_kept` (selected / candidates), `loss_all`,
    `loss_selected`, `loss_unselected` (nats a token; scores that need no live loss measure them on the logged step
    alone). `tokens_selected` counts from the start of training; a resumed run goes on from the last log line
    before its checkpoint, so let `save_steps` be a multiple of `logging_steps`.

    Prefer `attach`. In `Trainer(callbacks=[...])` it works too, but the trackers run before it.

    Args:
        handle: what `make_selective` returned.
        columns_arrive: the Trainer hands extra columns on although `remove_unused_columns` is true.
    """

    def __init__(self, handle: SelectiveHandle, *, columns_arrive: bool = False) -> None:
        self.handle = handle
        self.columns_arrive = columns_arrive
        self.tokens_selected = 0

    def refuse(self, args: Any) -> None:
        """Refuse TrainingArguments under which the loss would not be the selective loss.

        Raises:
            UserError: `remove_unused_columns` would drop the policy's columns.
            ValueError: see `refuse_trainer_arguments`.
        """
        refuse_trainer_arguments(args)
        columns = self.handle.batch_columns
        if columns and args.remove_unused_columns and not self.columns_arrive:
            raise UserError(
                f"remove_unused_columns=True drops {', '.join(columns)}, which the selection reads; set it to False"
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse bad arguments; after a resume, go on counting."""
        self.refuse(args)
        if self.handle.removed:
            raise UserError("the handle was removed, so the model would train plainly; call make_selective again")
        if all(module is not self.handle.model for module in kwargs["model"].modules()):
            raise UserError(
                "the Trainer trains another model than the one that was patched (model_init makes a new one when "
                "training begins); give Trainer the patched model"
            )
        self.handle.stats.reset()
        logged = [line["tokens_selected"] for line in state.log_history if "tokens_selected" in line]
        self.tokens_selected = logged[-1] if state.global_step and logged else 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step for warm-up and schedule; whether it will be logged, for scores that need no live loss."""
        self.handle.step = state.global_step
        if args.logging_strategy == IntervalStrategy.STEPS:
            finished = state.global_step + 1
            first = args.logging_first_step and finished == 1
            self.handle.measure = first or finished % state.logging_steps == 0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the entries to `logs` in place, and to the Trainer's own history."""
        logs: dict[str, Any] = kwargs["logs"]
        if "loss" not in logs:
            return  # an evaluation, or the Trainer's closing summary
        sums = self.handle.stats.take(self.handle.model.device)
        self.tokens_selected += int(sums["selected"])
        # A few steps may have nothing to select (all labels masked); a run that goes on so trains nothing.
        if not self.tokens_selected and state.global_step >= 10:
            raise UserError(
                f"no token was selected up to step {state.global_step}, of {sums['valid']:.0f} candidates since the "
                "last log line; look at threshold, mask and ratio; if there were no candidates, at the labels and at "
                "whether the Trainer computes a loss of its own"
            )
        entries = {"tokens_selected": self.tokens_selected, **log_entries(sums)}
        logs.update(entries)
        # The history holds a copy that was made before this call.
        state.log_history[-1].update(entries)
