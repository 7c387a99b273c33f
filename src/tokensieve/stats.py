"""What was selected, and at which losses: sums that training steps add to and logs read."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class SelectionStats:
    """Sums since the last reset, of this process.

    Losses are known only for forwards that ran the first pass ("measured"): always for scores that read the
    live loss and for ratio 1, else while `handle.measure` is set.
    """

    sums: Tensor | None = None

    NAMES: ClassVar = ("valid", "selected", "measured_valid", "measured_selected", "loss", "loss_selected")

    def add(self, *values: Tensor) -> None:
        """Add the six sums, in the order of `NAMES`; stays on the device, no synchronisation."""
        new = torch.stack([value.detach().double() for value in values])
        self.sums = new if self.sums is None else self.sums + new

    def read(self) -> dict[str, float]:
        """The sums by name: counts of tokens, and losses summed in nats."""
        values = [0.0] * len(self.NAMES) if self.sums is None else self.sums.tolist()
        return dict(zip(self.NAMES, values, strict=True))

    def reset(self) -> None:
        """Start again from zero."""
        self.sums = None

    def take(self, device: torch.device) -> dict[str, float]:
        """The sums of all ranks by name; starts anew. Every rank must call it.

        Args:
            device: where the process group communicates.
        """
        if dist.is_initialized() and dist.get_world_size() > 1:
            # A rank that has seen no batch takes part with zeros, or the others would wait for ever.
            own = torch.zeros(len(self.NAMES), dtype=torch.float64) if self.sums is None else self.sums
            self.sums = own.to(device, copy=True)
            dist.all_reduce(self.sums)
        sums = self.read()
        self.reset()
        return sums


def log_entries(sums: dict[str, float]) -> dict[str, float]:
    """What to log of `SelectionStats.take`: `ratio_kept`, and mean losses in nats of what was measured.

    A mean over no token is left out.
    """
    unselected = sums["measured_valid"] - sums["measured_selected"]
    entries = {"ratio_kept": sums["selected"] / max(sums["valid"], 1)}
    if sums["measured_valid"]:
        entries["loss_all"] = sums["loss"] / sums["measured_valid"]
    if sums["measured_selected"]:
        entries["loss_selected"] = sums["loss_selected"] / sums["measured_selected"]
    if unselected:
        entries["loss_unselected"] = (sums["loss"] - sums["loss_selected"]) / unselected
    return entries
