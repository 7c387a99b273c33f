"""Online mode: the reference runs beside the student and scores each batch as it comes; nothing is stored.

`attach_reference(handle, reference_model)` is all a loop needs. On every training micro-step whose policy reads
`reference_loss` or `reference_entropy`, the patched forward hands the reference the very inputs that it then hands
the student's backbone. The reference runs in eval mode, without gradient, through `SelectiveHandle.token_losses`: the
code that scores corpora, so that online and stored losses differ by the store's float16 rounding alone.

The reference hangs on the handle and never in the student: no parameter, state dict, optimizer or checkpoint of the
student knows it. At its first use it follows the student: to its device, and over its mesh if FSDP2 has sharded it.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DeviceMesh, DTensor
from transformers import PreTrainedModel

from tokensieve.causal_head import linear_head, without_adapter
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import SelectiveHandle, make_selective

if TYPE_CHECKING:
    from peft import PeftModel

_OUTPUTS = ("output_hidden_states", "output_attentions", "output_router_logits", "use_cache", "past_key_values")
"""Arguments that say what the student's forward returns, not what it computes on."""


@dataclass(eq=False)
class OnlineReference:
    """A frozen reference model on a student's handle. Made by `attach_reference`."""

    handle: SelectiveHandle
    """Of the reference itself."""
    autocast: torch.dtype | None
    """Autocast type of its forward; None for none."""
    trainable: frozenset[str]
    """Names of the parameters that wanted a gradient before."""
    borrowed: bool = False
    """Whether this is a deep copy's view of a model that another handle holds."""
    placed: bool = False
    """Whether it has followed its student."""

    @property
    def model(self) -> PreTrainedModel:
        """The reference model."""
        return self.handle.model

    # FSDP2's hooks, and a number of columns that follows the step: nothing to compile into a training step.
    @torch.compiler.disable
    def columns(
        self, student: PreTrainedModel, names: list[str], labels: Tensor, inputs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """What the policy reads of the reference, on the inputs of the student.

        Every rank must call it, since a sharded reference gathers its weights.

        Args:
            student: whose device and sharding the reference follows.
            names: `reference_loss`, `reference_entropy`, both or none.
            labels: [B, T], -100 is left out.
            inputs: the keyword arguments of the student's backbone.

        Returns:
            name -> [B, T], nats, float32 (float64 of a float64 model); 0 where the label is -100, NaN where the
            reference's loss is not finite.

        Raises:
            ValueError: inputs that only the student understands, or the reference was released.
        """
        if self.handle.removed:
            raise ValueError(
                "the reference was released with the handle that it was attached to: detach_reference(handle), then "
                "attach_reference(handle, reference_model) for this copy of the student"
            )
        for name in ("inputs_embeds", "past_key_values"):
            if inputs.get(name) is not None:
                raise ValueError(f"{name} is the student's own, and a reference is attached: give input_ids alone")
        if not names:
            return {}
        if not self.placed:
            self._follow(student)
        shared = {name: value for name, value in inputs.items() if name not in _OUTPUTS}
        # Its own type, whatever the student's autocast: then the losses are those that scoring would have stored.
        with torch.autocast(labels.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            found = self.handle.token_losses(labels, entropy="reference_entropy" in names, **shared)
        columns = dict(zip(("reference_loss", "reference_entropy"), found, strict=True))
        # Rounding can bring a sure token just below zero; a loss and an entropy cannot be. As NaN a loss that is not
        # finite goes into the ranking, where all ranks meet it.
        return {
            name: column.clamp(min=0).masked_fill(~torch.isfinite(column), torch.nan)
            for name, column in columns.items()
            if column is not None and name in names
        }

    def release(self) -> None:
        """Undo the patch of the reference, and give its parameters back their gradients."""
        if self.borrowed:
            return
        self.handle.remove()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.trainable)

    def _follow(self, student: PreTrainedModel) -> None:
        """To the student's device, and sharded over its mesh if it is and the reference is not yet."""
        mesh = _fsdp_mesh(student)
        # A model that was spread by device_map, or sharded by the user, is where they want it.
        if not hasattr(self.model, "hf_device_map") and not _is_sharded(self.model):
            if mesh is None:
                self.model.to(student.device)  # type: ignore[arg-type]
            else:
                shard_reference(self.model, mesh)
        self.placed = True

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnlineReference":
        """A deep copy of the student shares the reference, which never changes."""
        view = copy.copy(self)
        view.borrowed = True
        return view


def attach_reference(
    handle: SelectiveHandle,
    reference_model: "PreTrainedModel | PeftModel",
    *,
    autocast: torch.dtype | None = None,
    vocabulary: int | None = None,
) -> OnlineReference:
    """Let a reference model compute the columns `reference_loss` and `reference_entropy` in the training forward.

    It is frozen. It computes in the type of its own weights, whatever autocast the student runs under, unless
    `autocast` names a type; its losses are float32 either way. `handle.remove()` and `detach_reference` undo it all
    but the move to the student's device and mesh.

    Args:
        handle: of the student; its policy reads a reference.
        reference_model: a causal LM over the same token ids, whole or sharded, another model than the student.
        autocast: for example torch.bfloat16.
        vocabulary: number of ids of the tokenizer, `len(tokenizer)`. Needed only if the two models pad their
            vocabularies to different sizes: equal sizes are asked for without it.

    Raises:
        TypeError: a model that `make_selective` does not take.
        ValueError: the policy reads no reference, one is attached already, the weights are the student's, or the
            vocabularies differ.
    """
    if handle.removed:
        raise ValueError("the handle was removed: call make_selective again, and attach the reference to the new one")
    if handle.reference is not None:
        raise ValueError("a reference is attached already: detach_reference(handle) first")
    if not reference_columns(handle.policy):
        raise ValueError(f"score {handle.policy.score!r} reads nothing of a reference: leave the reference out")
    base = without_adapter(reference_model)
    _refuse_same_weights(handle.model, base)
    reference = make_selective(base, SelectionPolicy(ratio=1))
    try:
        _refuse_other_vocabulary(handle.model, reference.model, vocabulary)
    except ValueError:
        reference.remove()
        raise
    trainable = frozenset(name for name, weight in base.named_parameters() if weight.requires_grad)
    base.requires_grad_(False)
    handle.reference = OnlineReference(reference, autocast, trainable)
    handle.reference_checked = False
    return handle.reference


def detach_reference(handle: SelectiveHandle) -> None:
    """Take the reference off again; from now on batches must bring the columns.

    Raises:
        ValueError: none is attached.
    """
    if handle.reference is None:
        raise ValueError("no reference is attached to this handle")
    handle.reference.release()
    handle.reference = None


def reference_columns(policy: SelectionPolicy) -> list[str]:
    """The policy's columns that a reference computes."""
    return [name for name in policy.columns if name.startswith("reference_")]


def shard_reference(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Shard a frozen model with FSDP2, in place: each layer by itself, then what is left.

    Everything is given back after its use. (FSDP2 keeps the root gathered for a backward, which never comes here.)
    All ranks get rank 0's weights: engines that save host memory load them there alone. Layer by layer, so that a
    device never holds it whole. No mixed precision: it computes in its own type.

    Args:
        model: whole on every rank (weights of ranks other than 0 may be uninitialised, not on "meta").
        mesh: one dimension to shard over, or two: to replicate and to shard.

    Raises:
        ValueError: weights on "meta".
    """
    if any(weight.is_meta for weight in model.parameters()):
        raise ValueError("the reference's weights are on the meta device: load them before training")
    device, layers = _device(mesh), set(model._no_split_modules or ())
    embedding: Any = model.get_input_embeddings()
    head = model.get_output_embeddings()
    # Tied weights may be seen by one group only: they stay with the root.
    ends = [] if not isinstance(head, nn.Linear) or head.weight is embedding.weight else [embedding, head]
    for module in (*(module for module in model.modules() if type(module).__name__ in layers), *ends, model):
        for tensor in (*module.parameters(), *module.buffers()):
            if not isinstance(tensor, DTensor):  # or it is a layer's inside the root, sharded just now
                tensor.data = tensor.data.to(device)
                dist.broadcast(tensor.data, 0)
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def _device(mesh: DeviceMesh) -> torch.device:
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())


def _fsdp_mesh(model: nn.Module) -> DeviceMesh | None:
    """The mesh that FSDP2 shards the model over; None without FSDP2."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Not from the weights: in a forward they may be gathered, and then they are plain tensors.
            for group in module._get_fsdp_state()._fsdp_param_groups:
                return group.mesh_info.mesh
    return None


def _is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        isinstance(weight, DTensor) for weight in model.parameters()
    )


def _storages(model: nn.Module, *, trainable: bool = False) -> set[int]:
    """Addresses of the weights' memory (a copy that was assigned shares it under another name)."""
    weights = (weight for weight in model.parameters() if weight.requires_grad or not trainable)
    local = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights)
    return {tensor.untyped_storage().data_ptr() for tensor in local} - {0}  # 0: on "meta", or an empty shard


def _refuse_same_weights(student: PreTrainedModel, reference: nn.Module) -> None:
    of_reference = _storages(reference)
    if reference is student or (of_reference and of_reference <= _storages(student)):
        raise ValueError(
            "the reference is the model that is trained, so every excess would be 0: load the reference as a model of "
            "its own"
        )
    if of_reference & _storages(student, trainable=True):
        raise ValueError(
            "the reference shares weights with the student, which training would change in both: load the reference "
            "as a model of its own"
        )


def _refuse_other_vocabulary(student: PreTrainedModel, reference: PreTrainedModel, vocabulary: int | None) -> None:
    sizes = [_vocabulary(model) for model in (student, reference)]
    if vocabulary is None and sizes[0] != sizes[1]:
        raise ValueError(
            f"the student has {sizes[0]} token ids and the reference {sizes[1]}: they need the same tokenizer; if they "
            f"have it and only pad differently, give vocabulary=len(tokenizer)"
        )
    if vocabulary is not None and vocabulary > min(sizes):
        raise ValueError(
            f"vocabulary={vocabulary} is above the {sizes[0]} token ids of the student or the {sizes[1]} of the "
            f"reference: they need the same tokenizer"
        )


def _vocabulary(model: PreTrainedModel) -> int:
    embedding: Any = model.get_input_embeddings()
    return min(int(embedding.num_embeddings), linear_head(model).out_features)
