"""The reference gate: is the reference worth following? Both models on held-out target text, before anyone trains.

Selection keeps the tokens that the reference predicts better than the student. A reference that is no better than
the student on the text one wants makes that ranking noise, which no later number shows. So both are measured here
on the same tokens of the same windows.

The models run one after the other, and the first one's losses wait on the host in float32, 4 bytes a target token
(40 MB for ten million): a device that holds the larger model is enough, it need not hold both. Statistics are merged
batch by batch in float64.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import PreTrainedModel

from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.errors import UserError
from tokensieve.evaluation.target_loss import Targets
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.stage import is_main_process

NO_TARGETS = "the recipe names no target text"
OTHER_TOKENIZER = "the reference has a tokenizer of its own"

_FLAT = 1e-7
"""Losses that vary by less than this share of their mean vary by the rounding of float32: no correlation is defined."""


@dataclass(frozen=True)
class PairedLosses:
    """Two models' losses of the same tokens: what is needed to report on them and to merge with more tokens."""

    tokens: int = 0
    reference_mean: float = 0.0
    """Nats a token."""
    student_mean: float = 0.0
    reference_squares: float = 0.0
    """Sum of squared deviations from the mean."""
    student_squares: float = 0.0
    products: float = 0.0
    """Sum of products of both deviations."""
    student_ahead: int = 0
    """Tokens of negative excess loss: the student's loss is below the reference's."""
    different: int = 0
    """Tokens whose two losses differ at all."""

    @classmethod
    def of(cls, reference_N: Tensor, student_N: Tensor) -> "PairedLosses":
        """The statistics of one batch of losses, [N] each, in float64."""
        if len(reference_N) == 0:
            return cls()
        reference, student = reference_N.double(), student_N.double()
        means = reference.mean(), student.mean()
        of_reference, of_student = reference - means[0], student - means[1]
        return cls(
            tokens=len(reference),
            reference_mean=means[0].item(),
            student_mean=means[1].item(),
            reference_squares=(of_reference @ of_reference).item(),
            student_squares=(of_student @ of_student).item(),
            products=(of_reference @ of_student).item(),
            student_ahead=int((student < reference).sum()),
            different=int((student != reference).sum()),
        )

    def merged(self, other: "PairedLosses") -> "PairedLosses":
        """The statistics of both token sets together (Chan, Golub and LeVeque 1983)."""
        tokens = self.tokens + other.tokens
        if tokens == 0:
            return self
        by_reference = other.reference_mean - self.reference_mean
        by_student = other.student_mean - self.student_mean
        share, weight = other.tokens / tokens, self.tokens * other.tokens / tokens
        return PairedLosses(
            tokens=tokens,
            reference_mean=self.reference_mean + by_reference * share,
            student_mean=self.student_mean + by_student * share,
            reference_squares=self.reference_squares + other.reference_squares + by_reference**2 * weight,
            student_squares=self.student_squares + other.student_squares + by_student**2 * weight,
            products=self.products + other.products + by_reference * by_student * weight,
            student_ahead=self.student_ahead + other.student_ahead,
            different=self.different + other.different,
        )

    @property
    def correlation(self) -> float | None:
        """Pearson's, over the tokens; None where one of the models finds every token equally hard."""
        for squares, mean in ((self.reference_squares, self.reference_mean), (self.student_squares, self.student_mean)):
            if squares <= self.tokens * (_FLAT * mean) ** 2:
                return None
        # Rounding must not carry it past 1.
        return max(-1.0, min(1.0, self.products / math.sqrt(self.reference_squares * self.student_squares)))

    def plain(self) -> dict[str, Any]:
        """For JSON: losses in nats a token, `negative_excess` as a share of the tokens."""
        return {
            "tokens": self.tokens,
            "reference_loss": self.reference_mean,
            "student_loss": self.student_mean,
            "negative_excess": self.student_ahead / self.tokens,
            "correlation": self.correlation,
        }


Losses = Sequence[tuple[str, Tensor]]
"""(target, losses) of each batch, in the order of the windows."""


def token_losses(targets: Targets, model: PreTrainedModel, name: str) -> Iterator[tuple[str, Tensor]]:
    """Run a model over the target text.

    Args:
        targets: the evaluation sets; windows, context and document mask are those of training.
        model: on its device; put in eval mode for each batch and back.
        name: what progress and messages call it.

    Yields:
        A target's name and the losses of one batch's labelled tokens: [N] in nats, float32, on the host.

    Raises:
        UserError: a head whose loss cannot be reproduced, or a loss that is not finite.
    """
    opened = {
        target: Windows(store, targets.length, document_mask=targets.document_mask)
        for target, store in targets.stores.items()
    }
    try:
        handle = make_selective(model, SelectionPolicy(ratio=1))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: its loss on the target text cannot be measured: {error}") from error
    bar = (TextColumn(f"{name} on the target text"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*bar, transient=True, disable=not is_main_process()) as progress:
            task = progress.add_task("", total=sum(len(windows) for windows in opened.values()))
            for target, windows in opened.items():
                for start in range(0, len(windows), targets.batch_size):
                    stop = min(start + targets.batch_size, len(windows))
                    batch = windows.__getitems__(list(range(start, stop)))
                    inputs: dict[str, Any] = {key: batch[key].to(model.device) for key in ("input_ids", "position_ids")}
                    losses, _ = handle.token_losses(batch["labels"].to(model.device), **inputs)
                    found = losses.cpu()[batch["labels"] != IGNORED].float()
                    if not found.isfinite().all():
                        raise UserError(f"{name}: its loss on the target {target} is not finite; check the model")
                    progress.advance(task, stop - start)
                    yield target, found
    finally:
        handle.remove()


def compare_losses(student: Losses, reference: Iterator[tuple[str, Tensor]]) -> dict[str, PairedLosses]:
    """Pair the losses of two models, batch by batch.

    Args:
        student: all batches.
        reference: the same batches, computed as they are asked for.

    Returns:
        target -> statistics over its tokens.
    """
    found: dict[str, PairedLosses] = {}
    for (target, student_N), (_, reference_N) in zip(student, reference, strict=True):
        found[target] = found.get(target, PairedLosses()).merged(PairedLosses.of(reference_N, student_N))
    for target, pair in found.items():
        if pair.tokens == 0:
            raise UserError(f"target {target}: no token to measure, every document is one token long; give more text")
    return found


def pool(found: Mapping[str, PairedLosses]) -> PairedLosses:
    """All targets as one text."""
    whole = PairedLosses()
    for pair in found.values():
        whole = whole.merged(pair)
    return whole


def gate_of(found: Mapping[str, PairedLosses]) -> dict[str, Any]:
    """What reference.json keeps: `targets` (name -> numbers), `pooled` (numbers), `unknown` (None: it was measured)."""
    return {
        "targets": {target: pair.plain() for target, pair in found.items()},
        "pooled": pool(found).plain(),
        "unknown": None,
    }


def unknown_gate(reason: str) -> dict[str, Any]:
    """The gate of a reference that could not be measured, and why."""
    return {"targets": {}, "pooled": None, "unknown": reason}


def is_better(numbers: Mapping[str, Any]) -> bool:
    """Whether the reference is better than the student: below, not level."""
    return numbers["reference_loss"] < numbers["student_loss"]


def gate_lines(gate: Mapping[str, Any]) -> list[str]:
    """What is printed before training: one line a target, and one for all of them if there are several."""
    if gate["pooled"] is None:
        return [f"not compared with the student: {gate['unknown']}"]
    rows = list(gate["targets"].items())
    if len(rows) > 1:
        rows.append(("all targets", gate["pooled"]))
    return [f"{name}: {_sentence(numbers)}" for name, numbers in rows]


def _sentence(numbers: Mapping[str, Any]) -> str:
    gain = numbers["student_loss"] - numbers["reference_loss"]
    verdict = f"{gain:.4f} better" if is_better(numbers) else f"NO BETTER, {-gain:.4f} worse"
    correlation = numbers["correlation"]
    return (
        f"{numbers['reference_loss']:.4f} nats a token, the untrained student {numbers['student_loss']:.4f}: "
        f"{verdict}; the student is ahead on {numbers['negative_excess']:.1%} of {numbers['tokens']:,} tokens; "
        f"correlation {'undefined' if correlation is None else format(correlation, '.2f')}"
    )


def gate_warnings(gate: Mapping[str, Any]) -> list[str]:
    """What must not be overlooked: a reference that is no better than the student, on all targets or on some."""
    if gate["pooled"] is None:
        cure = "compare bits a byte of both models on that text"
        if gate["unknown"] == NO_TARGETS:
            cure = "name some under evaluation.targets"
        return [
            f"it is not known whether the reference is better than the untrained student: {gate['unknown']}; "
            f"if it is not, its scores point nowhere; {cure}"
        ]
    cure = "train it longer, or on text nearer to the target"
    worse = {name: numbers for name, numbers in gate["targets"].items() if not is_better(numbers)}
    listed = ", ".join(f"{name} ({_against(numbers)})" for name, numbers in worse.items())
    if not is_better(gate["pooled"]):
        some = "" if len(worse) == len(gate["targets"]) else f"; it is on some, not on {listed}"
        return [
            f"the reference is no better than the untrained student on the target text "
            f"({_against(gate['pooled'])} nats a token{some}): its scores will not point at what you want; {cure}"
        ]
    if worse:
        return [
            f"the reference is better than the untrained student over all targets, but no better on {listed} nats a "
            f"token: its scores will not point at that text; {cure}"
        ]
    return []


def _against(numbers: Mapping[str, Any]) -> str:
    return f"{numbers['reference_loss']:.3f} against {numbers['student_loss']:.3f}"
