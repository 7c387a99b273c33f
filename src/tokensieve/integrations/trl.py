"""Selection in supervised fine-tuning with TRL (written against 1.16): `SelectiveSFTTrainer(..., policy=...)`.

TRL's SFTTrainer replaces the model's loss by one of its own and drops every dataset column but the tokens. The
subclass takes both back: the loss is that of `make_selective`, computed by a forward of the whole (wrapped)
model, and the policy's columns stay aligned with `input_ids` through masks, truncation and packing.

Not logged, because they need logits that are never computed: TRL's `entropy` and `mean_token_accuracy`; nor
`num_tokens` (`include_num_input_tokens_seen` counts them). Evaluation is the model's own loss, with full logits.
"""

import copy
from typing import Any, Literal

from datasets import Dataset
from torch import Tensor, nn
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl.data_utils import get_dataset_column_names
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import global_then_local_main_first

from tokensieve.causal_head import without_adapter
from tokensieve.errors import UserError
from tokensieve.integrations.trainer import SelectiveCallback
from tokensieve.integrations.trl_data import LOSS_COLUMNS, SelectiveCollator, align_row, has_label
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective, refuse_trainer_arguments

__all__ = ["SelectiveCollator", "SelectiveSFTTrainer"]


class SelectiveSFTTrainer(SFTTrainer):
    """TRL's SFTTrainer with the selective loss (Rho-1, eq. 5) in the place of its own.

    Give it the plain model: it patches the model itself, after TRL has added adapters. `trainer.handle` is what
    `make_selective` returns. All other arguments are SFTTrainer's.

    A policy that reads reference losses needs them as a dataset column, a list as long as `input_ids`
    (`scoring.score_dataset` adds it), so its data must be tokenized already. `completion_mask`,
    `assistant_masks` and `labels` work as in TRL; masked tokens are no candidates.

    Args:
        model: as for SFTTrainer; not patched before.
        args: SFTConfig.
        policy: what to select.
        backward: see `make_selective`.
        options: SFTTrainer's other arguments.

    Raises:
        UserError: an argument, data set or model with which the loss would not be what the policy says.
        ValueError, TypeError: see `make_selective` and `refuse_trainer_arguments`.
    """

    def __init__(
        self,
        model: Any,
        args: SFTConfig | None = None,
        *,
        policy: SelectionPolicy,
        backward: Literal["exact", "filtered"] = "exact",
        **options: Any,
    ) -> None:
        refuse_options(model, options)
        if args is not None:
            refuse_arguments(args, policy)
        self.policy = policy
        self._refuse_missing_columns(options.get("train_dataset"))
        super().__init__(model, args, **options)
        if self._is_vlm:
            raise UserError(
                "the model's processor is that of a vision model; selection works on text: give a tokenizer"
            )
        if self.accelerator.parallelism_config is not None and (
            self.accelerator.parallelism_config.cp_enabled or self.accelerator.parallelism_config.sp_enabled
        ):
            raise UserError("context and sequence parallelism cut rows, which selection ranks; switch them off")
        if not isinstance(self.data_collator, SelectiveCollator):
            plain = self.data_collator
            assert isinstance(plain, DataCollatorForLanguageModeling)
            self.data_collator = SelectiveCollator(
                plain.pad_token_id,
                padding_free=plain.padding_free,
                pad_to_multiple_of=plain.pad_to_multiple_of,
                columns=policy.columns,
            )
        self._base = without_adapter(self.model)
        if "_hf_hook" in vars(self._base):
            raise UserError("the model is spread over devices by device_map, which hooks its forward; use one device")
        # SFTTrainer's own loss sits on the instance; without it the class's forward, the model's own, is back.
        del self._base.forward
        self.handle = make_selective(self._base, policy, backward=backward)
        # The patched forward takes num_items_in_batch, whatever the class's own does.
        self.model_accepts_loss_kwargs = True
        callback = SelectiveCallback(self.handle, columns_arrive=True)
        callback.refuse(self.args)
        # First, so that the trackers' callbacks find the numbers in the logs.
        self.callback_handler.callbacks.insert(0, callback)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's loss by a forward of the whole model, as transformers' Trainer does it."""
        # Past SFTTrainer's compute_loss, to that of transformers: it scales for ranks and accumulation.
        loss, outputs = super(SFTTrainer, self).compute_loss(
            model, {**inputs, "use_cache": False}, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if self.aux_loss_enabled and self._base.training:
            # A mean of each micro-batch, unlike the token losses: average it over micro-steps and ranks.
            summed = num_items_in_batch is not None
            ranks = self.accelerator.num_processes // self.get_tp_size() if summed else 1
            steps = self.current_gradient_accumulation_steps if summed else 1
            share = self.router_aux_loss_coef / steps - self._base.router_aux_loss_coef * ranks
            loss = loss + share * outputs.aux_loss.to(loss.device)
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known: list[str] = self._signature_columns or []
        added = [name for name in self.policy.columns if name not in known]
        self._signature_columns = [*known, *added]  # type: ignore[assignment]

    def _refuse_missing_columns(self, dataset: Any) -> None:
        if dataset is None:
            return  # SFTTrainer says so
        names = get_dataset_column_names(dataset)
        if {"image", "images"} & set(names):
            raise UserError("train_dataset has images; selection works on text alone")
        needed = [name for name in self.policy.columns if name != "document_ids"]
        for name in needed:
            if name not in names:
                hint = "; tokensieve.integrations.scoring.score_dataset adds it" if name == "reference_loss" else ""
                raise UserError(f"train_dataset has no column {name!r}, which score {self.policy.score!r} reads{hint}")
        if needed and "input_ids" not in names:
            raise UserError(
                f"train_dataset has {needed[0]} but no input_ids to align it with; tokenize first and keep both"
            )

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Any:
        """SFTTrainer's preparation, with the policy's columns cut and packed like `input_ids`."""
        prepare = super()._prepare_dataset
        columns = [name for name in self.policy.columns if name in get_dataset_column_names(dataset)]
        if not columns:
            return prepare(dataset, processing_class, args, packing, formatting_func, dataset_name)
        # Labels as SFTTrainer builds them; cutting, packing and shuffling it would do without the columns.
        labels_only = copy.copy(args)
        labels_only.max_length, labels_only.shuffle_dataset = None, False
        dataset = prepare(dataset, processing_class, labels_only, False, None, dataset_name)
        map_kwargs: dict[str, Any] = {"num_proc": args.dataset_num_proc} if isinstance(dataset, Dataset) else {}
        window = slice(None)
        if args.max_length is not None and not packing:
            keep_end = args.truncation_mode == "keep_end"
            window = slice(-args.max_length, None) if keep_end else slice(None, args.max_length)
        with global_then_local_main_first():
            align = {"columns": columns, "window": window, "dataset_name": dataset_name}
            dataset = dataset.map(align_row, with_indices=True, fn_kwargs=align, **map_kwargs)
            if not packing:
                dataset = dataset.filter(has_label, **map_kwargs)
            else:
                if args.max_length is None:
                    raise UserError("packing=True needs max_length")
                dataset = dataset.select_columns(["input_ids", "labels", *columns])
                if args.shuffle_dataset:
                    dataset = dataset.shuffle(seed=args.seed)
                dataset = pack_dataset(dataset, args.max_length, args.packing_strategy, map_kwargs)
        return dataset.shuffle(seed=args.seed) if args.shuffle_dataset else dataset


def refuse_options(model: Any, options: dict[str, Any]) -> None:
    """Refuse arguments of SFTTrainer, and models, that leave no place for the selective loss.

    Raises:
        UserError: names the argument and the cure.
    """
    if not isinstance(model, str) and "forward" in vars(without_adapter(model)):
        raise UserError("the model's forward is patched already; give the plain model: the trainer patches it itself")
    if options.get("compute_loss_func") is not None:
        raise UserError("compute_loss_func replaces the model's loss, and with it the selection; leave it out")
    if isinstance(options.get("processing_class"), ProcessorMixin):
        raise UserError("processing_class is that of a vision model; selection works on text: give a tokenizer")
    collator = options.get("data_collator")
    if collator is not None and not isinstance(collator, SelectiveCollator):
        raise UserError("data_collator would drop the selection's columns; leave it out, or give a SelectiveCollator")


def refuse_arguments(args: Any, policy: SelectionPolicy) -> None:
    """Refuse an SFTConfig under which the loss would not be what the policy says.

    Raises:
        UserError: names the argument and the cure.
        ValueError: see `refuse_trainer_arguments`.
    """
    refuse_trainer_arguments(args)
    if not isinstance(args, SFTConfig):
        return  # SFTTrainer fills in its defaults, and none of them is refused
    if args.loss_type != "nll":
        raise UserError(f"loss_type={args.loss_type!r} is another loss; selection needs 'nll'")
    whole_documents = args.packing and args.packing_strategy != "wrapped"
    if policy.scope == "sequence" and (args.padding_free or whole_documents):
        option = "packing=True" if args.packing else "padding_free=True"
        raise UserError(
            f"scope='sequence' ranks the tokens of one row, and {option} lays a whole micro-batch in one row: use "
            "scope 'microbatch', 'global' or 'document'"
        )
    context = [name for name in policy.columns if name in LOSS_COLUMNS]
    if not context:
        return
    if args.packing and args.packing_strategy != "bfd":
        raise UserError(
            f"packing_strategy={args.packing_strategy!r} gives tokens another context than the one their {context[0]} "
            "was measured in: use 'bfd', on rows no longer than max_length"
        )
    if not args.packing and args.max_length is not None and args.truncation_mode == "keep_end":
        raise UserError(
            f"truncation_mode='keep_end' gives tokens another context than the one their {context[0]} was measured in: "
            "cut the rows before scoring them, or use 'keep_start'"
        )
