"""What the output layer computes on a training micro-step: losses, the choice, the loss to differentiate.

The `run` of these objects is handed to the head's own call (`make_selective` patches its forward), so that it runs
where the sharding engine has gathered the head's weight. The bound method, not the object: FSDP2 looks into
dataclasses among the arguments, and would cast their tensors.

Shapes: B rows, T positions, S = T - 1 targets a row, N = B*S tokens, D width. Columns and labels come as
[B, T], entry i belonging to predicting token i; the shift happens here.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokensieve.head import IGNORE, HeadTransform, first_pass, summed_loss
from tokensieve.selection import SelectionPolicy, TokenColumns, apply_policy
from tokensieve.stats import SelectionStats

COLUMNS = (
    "reference_loss",
    "reference_entropy",
    "history_loss",
    "selection_mask",
    "token_index",
    "document_ids",
)
_FLOAT_COLUMNS = ("reference_loss", "reference_entropy", "history_loss")


class NonFiniteLossError(FloatingPointError):
    """A loss is NaN or infinite. `token_index` [n, S] holds the rows of the batch, if the batch had the column."""

    def __init__(self, token_index: Tensor | None) -> None:
        super().__init__("the loss is NaN or infinite")
        self.token_index = token_index


class OwnReferenceError(ValueError):
    """The reference losses are the model's own: every excess is 0, and the choice would be by index."""


class NonFiniteReferenceError(ValueError):
    """The loss or entropy of an attached reference is NaN or infinite."""


@dataclass
class TokenLosses:
    """Loss (and entropy) of every token, aligned with labels: [B, T], 0 where there is no label."""

    labels: Tensor
    transform: HeadTransform
    entropy: bool

    @torch.no_grad()
    def run(self, head: nn.Linear, hidden_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shift, compute, shift back."""
        labels_BS = self.labels[:, 1:].to(hidden_BTD.device)
        found = first_pass(
            hidden_BTD[:, :-1].flatten(0, 1),
            head.weight,
            labels_BS.flatten(),
            bias=head.bias,
            transform=self.transform,
            entropy=self.entropy,
        )
        losses, entropies = (
            None if column is None else F.pad(column.view_as(labels_BS), (1, 0))
            for column in (found.losses, found.entropies)
        )
        assert losses is not None
        return losses, entropies


@dataclass
class SelectiveLoss:
    """sum(weight * loss) over the tokens / (ratio * items) (Rho-1, eq. 5), of one micro-step."""

    labels: Tensor
    """[B, T]."""
    columns: dict[str, Tensor]
    """Name -> [B, T]."""
    items: Tensor | int | None
    """Live labels of the whole optimizer step, on all ranks; None: those of this micro-step."""
    policy: SelectionPolicy
    """With its schedule resolved."""
    transform: HeadTransform
    measure: bool
    stats: SelectionStats
    reference_checked: bool
    """Whether an earlier micro-step has shown that the reference is not the model itself."""
    online: bool = False
    """Whether a reference beside the model made its columns just now."""
    outcome: tuple[Tensor | None, Tensor, Tensor] | None = field(default=None, init=False)
    """(token_index, valid, selected), each [B, S], after `run`."""

    def run(self, head: nn.Linear, hidden_BTD: Tensor) -> Tensor:
        """The loss, nats; hidden_BTD is [B, T, D]."""
        labels_BS = self.labels[:, 1:].to(hidden_BTD.device)
        columns = self._shifted_columns(hidden_BTD.device)
        token_index = columns.get("token_index")
        valid = labels_BS != IGNORE
        hidden_ND, labels_N = hidden_BTD[:, :-1].flatten(0, 1), labels_BS.flatten()
        options: dict[str, Any] = {"bias": head.bias, "transform": self.transform}

        # When everything is selected the second pass alone yields all losses.
        everything = self.policy.selects_everything
        found = losses_BS = entropies_BS = None
        finite_B = valid.new_ones(len(valid))
        if self.policy.needs_live_loss or (self.measure and not everything):
            entropy = "current_entropy" in self.policy.scores
            found = first_pass(hidden_ND.detach(), head.weight, labels_N, entropy=entropy, keep=True, **options)
            losses_BS = found.losses.view_as(valid)
            entropies_BS = None if found.entropies is None else found.entropies.view_as(valid)
            # As NaN a loss goes into the ranking, where all ranks meet it; a rank that left before would be waited for.
            losses_BS.masked_fill_(~torch.isfinite(losses_BS), torch.nan)
            finite_B = ~torch.isnan(losses_BS).any(dim=1)
        try:
            selection = apply_policy(self.policy, TokenColumns(loss=losses_BS, entropy=entropies_BS, **columns), valid)
        except ValueError as error:
            self._refuse_nan(columns, valid, error)
            if finite_B.all():
                raise
            raise NonFiniteLossError(None if token_index is None else token_index[~finite_B]) from error
        if not finite_B.all():
            raise NonFiniteLossError(None if token_index is None else token_index[~finite_B])
        if losses_BS is not None and not self.reference_checked and "excess_loss" in self.policy.scores:
            self.reference_checked = _is_another_model(losses_BS[valid], columns["reference_loss"][valid])
        weights = selection.selected if selection.weights is None else selection.weights
        kept = None if found is None else found.kept
        total = summed_loss(hidden_ND, head.weight, labels_N, weights.flatten(), kept=kept, **options)
        if not torch.isfinite(total.detach()):
            raise NonFiniteLossError(token_index)
        self.outcome = token_index, valid, selection.selected
        self._record(valid, selection.selected, losses_BS, total)
        # A step whose every label is masked has nothing to train on: its loss is 0, not 0 / 0.
        items = self.items if self.items is not None else valid.sum()
        # In the loss's own type: a whole number times a Python float would be float32.
        count = torch.as_tensor(items, device=total.device).to(total.dtype)
        # Only there: a count of 0 where labels are live is a mistake, which shall show.
        return total / (self.policy.ratio * torch.where(valid.any(), count, count.clamp(min=1)))

    def _refuse_nan(self, columns: dict[str, Tensor], valid: Tensor, error: ValueError) -> None:
        """Say where a column has no number under a live label."""
        for name in _FLOAT_COLUMNS:
            if name in columns:
                places = (torch.isnan(columns[name]) & valid).nonzero()
                if len(places):
                    row, place = places[0].tolist()
                    where = f"{name} is NaN under {len(places)} live labels, first in row {row}, position {place + 1}"
                    if self.online and name.startswith("reference_"):
                        raise NonFiniteReferenceError(
                            f"{where}: the attached reference gives no finite number there; check its weights and "
                            f"its type"
                        ) from error
                    raise ValueError(f"{where}: set their labels to -100, or score these tokens") from error

    def _shifted_columns(self, device: torch.device) -> dict[str, Tensor]:
        for name, column in self.columns.items():
            if not isinstance(column, Tensor):
                raise TypeError(f"{name} is a {type(column).__name__}: give a torch tensor (with_format('torch'))")
            if column.shape != self.labels.shape:
                raise ValueError(
                    f"{name} has shape {tuple(column.shape)}; it must be that of labels, {tuple(self.labels.shape)}"
                )
        return {name: decode_column(name, column)[:, 1:].to(device) for name, column in self.columns.items()}

    def _record(self, valid: Tensor, selected: Tensor, losses: Tensor | None, total: Tensor) -> None:
        valid_count, selected_count, zero = valid.sum(), selected.sum(), total.new_zeros(())
        if losses is not None:
            sums = losses.sum(dtype=torch.float64), losses[selected].sum(dtype=torch.float64)
            self.stats.add(valid_count, selected_count, valid_count, selected_count, *sums)
        elif self.policy.selects_everything:
            self.stats.add(valid_count, selected_count, valid_count, selected_count, total, total)
        else:
            self.stats.add(valid_count, selected_count, zero, zero, zero, zero)


def decode_column(name: str, column: Tensor) -> Tensor:
    """A loss column as float32; int16 holds the bits of float16 (FSDP2 casts floats to bfloat16 on the way in).

    Raises:
        TypeError: another type, bfloat16 above all: it changes 1 % of the choices.
    """
    if name in ("token_index", "document_ids") and (column.is_floating_point() or column.dtype == torch.bool):
        raise TypeError(
            f"{name} is {column.dtype}: use int64; floating point rounds large numbers, and ids become equal"
        )
    if name not in _FLOAT_COLUMNS or column.dtype == torch.float64:
        return column
    if column.dtype == torch.int16:
        return column.view(torch.float16).float()
    if column.dtype in (torch.float32, torch.float16):
        return column.float()
    raise TypeError(f"{name} is {column.dtype}: use float32, float16, or int16 holding the bits of float16")


def _is_another_model(losses: Tensor, reference: Tensor) -> bool:
    """True if shown, False if there are too few tokens to tell; [n] each.

    Raises:
        OwnReferenceError: they are equal to the precision of float16.
    """
    if (reference < -1e-3).any() or torch.isinf(reference).any():
        worst = reference.min() if (reference < -1e-3).any() else reference.max()
        raise ValueError(
            f"reference_loss holds {worst:.3g}: a loss is finite and not negative; give minus the log-probabilities, "
            f"in nats"
        )
    if len(losses) < 32:
        return False
    # float16 keeps a loss to one part in 2048; another model agrees that well on a token or two, not on thirty.
    if ((losses - reference).abs() <= 1e-4 + losses / 1024).all():
        raise OwnReferenceError(
            "reference_loss equals the model's own losses (to the precision of float16), so every excess is 0: the "
            "reference must be another model than the one being trained, and trained enough to differ from it"
        )
    return True
