"""Filtered backward: tokens that were not selected are left out of the backward of every linear map of the backbone.

A masked loss alone makes the backward no cheaper: through attention and residuals, gradients reach the hidden states
of all tokens, and every matrix product runs over all of them. Dropping the rows of unselected tokens makes the
products smaller (the idea of Collider, arXiv 2502.00340, which published no code). It is an **approximation**:

    Position i of a row is selected if predicting token i+1 is. In the backward of every linear map of the backbone
    whose input is [B, T, ...], the rows of positions that are not selected are dropped: the gradient of such a row's
    input is zero, and the row adds nothing to the gradients of weight and bias. Everything else (attention, norms,
    activations, residuals, embeddings) is differentiated as usual.

That is: the gradient at the output of each of these maps is set to zero in the rows not selected. Lost is what
selected tokens teach through the keys and values of unselected ones. Linear maps whose input is not [B, T, ...] (the
experts of a mixture, which see the rows routed to them) and weights outside linear maps stay exact.

Shapes: B rows, T positions, N = B·T, n selected positions, I and O widths of a linear map's input and output.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_LINEAR_FORWARDS = (nn.Linear.forward, Conv1D.forward)


class FilteredBackward:
    """Patches the linear maps of a backbone, in place, so that their backward runs on selected rows only.

    One training micro-step is `begin`, the backbone's forward, `choose`, backward. A backward without `choose` is
    exact, and so is that of a forward outside `begin` ... `choose`. In eval mode and without gradients nothing changes.
    Backwards may come in any order, after any number of forwards, with activation checkpointing or without. Re-entrant
    checkpointing is refused in its first backward: what it recomputes does not know which micro-step it belongs to.

    Attributes:
        left_exact: names of modules whose weight matrices are not in a linear map that this class knows (embeddings
            excluded); their backward stays exact.

    Args:
        backbone: the model without its head. Maps are torch.nn.Linear, and transformers' Conv1D (GPT-2).

    Raises:
        TypeError: the backbone holds no such map.
        ValueError: the forward of one is patched already.
    """

    left_exact: tuple[str, ...]

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        maps = {}
        left = []
        for name, module in backbone.named_modules():
            if type(module).forward in _LINEAR_FORWARDS:
                maps[name] = module
            elif not isinstance(module, nn.Embedding) and any(p.dim() > 1 for p in module.parameters(recurse=False)):
                left.append(name)
        if not maps:
            raise TypeError(
                f"{type(backbone).__name__} has no torch.nn.Linear, so there is nothing to filter; its weights are in "
                f"{', '.join(sorted({type(backbone.get_submodule(name)).__name__ for name in left})) or 'no matrices'}"
            )
        for name, module in maps.items():
            if "forward" in vars(module):
                raise ValueError(f"the forward of {name} is patched already; filtered backward cannot patch it again")
        self.left_exact = tuple(left)
        self._maps = tuple(maps.values())
        for module in self._maps:
            module.forward = _LinearForward(self, module)
        self._open: _Choice | None = None

    def begin(self, rows: int, length: int) -> None:
        """Start a micro-step: the linear maps of the coming forward refer to a choice that is made later.

        Args:
            rows: B of the forward.
            length: T of the forward.
        """
        self._open = _Choice(rows, length) if torch.is_grad_enabled() else None

    def choose(self, selected: Tensor) -> None:
        """Say which positions were selected; after the forward, before the backward.

        Args:
            selected: [B, T] bool; entry i is true if predicting token i+1 is selected (the last one predicts nothing).

        Raises:
            RuntimeError: there was no `begin`, or its choice is made already.
            ValueError: not a boolean tensor of the shape that `begin` was told.
        """
        if not torch.is_grad_enabled():
            return  # no backward will come
        choice = self._open
        if choice is None:
            raise RuntimeError("call begin(rows, length) before the forward whose rows are chosen")
        if selected.dtype != torch.bool or selected.shape != (choice.rows, choice.length):
            raise ValueError(
                f"selected is {selected.dtype} {tuple(selected.shape)}; it must be torch.bool "
                f"{(choice.rows, choice.length)}, as begin() was told"
            )
        index = selected.flatten().nonzero().squeeze(1)
        # All rows: the exact backward is the same and copies nothing.
        choice.index = None if len(index) == selected.numel() else index
        self._open = None

    def remove(self) -> None:
        """Undo the patch."""
        for module in self._maps:
            vars(module).pop("forward", None)
        self._open = None

    @property
    def open_choice(self) -> "_Choice | None":
        """Of the micro-step whose forward runs now."""
        return self._open


@dataclass(eq=False)
class _Choice:
    """Which rows of one micro-step are selected. Its linear maps hold it; the answer arrives after their forward."""

    rows: int
    length: int
    index: Tensor | None = None
    """[n] positions in the flattened [N] that are selected; None: all."""


class _LinearForward:
    """A linear map's forward. An object, not a closure, so that deepcopy follows the model."""

    def __init__(self, filtered: FilteredBackward, module: nn.Linear | Conv1D) -> None:
        self.filtered = filtered
        self.module = module
        self.original = module.forward
        self.ran_without_gradients = False
        """In the last forward of a micro-step."""

    # Compiled, the function below would have its choice fixed at compile time; so the graph breaks here.
    @torch.compiler.disable
    def __call__(self, x: Tensor) -> Tensor:
        filtered, module = self.filtered, self.module
        if not filtered.backbone.training:
            return self.original(x)
        choice = filtered.open_choice
        # A forward inside a backward is one that activation checkpointing repeats.
        repeated = torch._C._current_graph_task_id() != -1
        if not torch.is_grad_enabled():
            self.ran_without_gradients |= choice is not None and not repeated
            return self.original(x)
        if not repeated:
            self.ran_without_gradients = False
        elif self.ran_without_gradients:
            raise RuntimeError(
                "filtered backward does not work with re-entrant activation checkpointing; set use_reentrant to False"
            )
        # Otherwise the nodes of the first forward, which hold their choice, do the backward, and the repetition only
        # refills their tensors. So it has to save what they saved, and the same function runs outside micro-steps too.
        weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
        return _FilteredLinear.apply(choice, *_as_autocast(x, weight, module.bias))


def _as_autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inputs in the type that F.linear would compute in; gradients come back through the casts, as under autocast.

    Autocast looks into no custom function's saved tensors: without this the backward would run in float32.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)

    return cast(x), cast(weight), None if bias is None else cast(bias)


class _FilteredLinear(torch.autograd.Function):
    """x [B, T, ..., I], weight [O, I], bias [O] or None -> [B, T, ..., O]; backward on the rows of a choice."""

    @staticmethod
    def forward(ctx: Any, choice: _Choice | None, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        _, needs_x, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        ctx.choice = choice if choice is not None and _is_laid_out(x, choice) else None
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        _, needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        shape = grad.shape[:-1]
        index = None if ctx.choice is None else ctx.choice.index
        if index is not None:
            index = index.to(grad.device)
            grad = grad.flatten(0, 1).index_select(0, index)
            x = x.flatten(0, 1).index_select(0, index) if needs_weight else None
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = grad_weight = grad_bias = None
        if needs_x:
            grad_x = rows @ weight
            if index is not None:
                kept = grad_x.view(*grad.shape[:-1], weight.shape[1])
                grad_x = kept.new_zeros(shape[0] * shape[1], *kept.shape[1:]).index_copy_(0, index, kept)
            grad_x = grad_x.view(*shape, weight.shape[1])
        if needs_weight:
            grad_weight = rows.t() @ x.reshape(-1, x.shape[-1])
        if needs_bias:
            grad_bias = rows.sum(0)
        return None, grad_x, grad_weight, grad_bias


def _is_laid_out(x: Tensor, choice: _Choice) -> bool:
    return x.dim() >= 3 and x.shape[:2] == (choice.rows, choice.length)
