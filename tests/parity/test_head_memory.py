"""Peak memory of the head grows with its chunk and never with rows x vocabulary."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokensieve.head import HeadTransform, first_pass, summed_loss

ROWS, WIDTH, VOCABULARY, CHUNK = 1024, 64, 4096, 128


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still live."""

    def __init__(self, *given: torch.Tensor) -> None:
        super().__init__()
        self.outside = {tensor.untyped_storage()._cdata for tensor in given}
        self.living: dict[int, tuple[StorageWeakRef, int]] = {}
        self.largest = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.living = {key: entry for key, entry in self.living.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.outside:
                    self.living[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                    self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.living.values()))
        return result


def make(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, WIDTH, generator=generator).to(dtype).requires_grad_() for n in (ROWS, VOCABULARY))
    return [hidden, weight, torch.randint(0, VOCABULARY, (ROWS,), generator=generator)]


CHUNK_BYTES = 4 * CHUNK * VOCABULARY
WEIGHT_BYTES = 4 * WIDTH * VOCABULARY
STATES_BYTES = 4 * WIDTH * ROWS


def test_the_counter_sees_full_logits():
    hidden, weight, labels = make()
    with Memory(hidden, weight, labels) as memory:
        torch.nn.functional.cross_entropy(hidden @ weight.T, labels).backward()
    assert memory.largest == 4 * ROWS * VOCABULARY and memory.peak >= 2 * memory.largest


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("transform", [HeadTransform(), HeadTransform(0.5, 30.0)], ids=["plain", "soft cap"])
def test_the_first_pass_holds_one_chunk(transform, entropy):
    given = make()
    with Memory(*given) as memory:
        first_pass(*given, transform=transform, entropy=entropy, chunk_rows=CHUNK, keep=True)
    assert memory.largest == CHUNK_BYTES
    # Entropies are computed in pieces, each with a copy.
    assert memory.peak <= 1.05 * CHUNK_BYTES * (2 if entropy else 1)


@pytest.mark.parametrize("chunk_rows", [CHUNK, CHUNK // 4], ids=["chunk above", "chunk below the weight"])
@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
@pytest.mark.parametrize("transform", [HeadTransform(), HeadTransform(0.5, 30.0)], ids=["plain", "soft cap"])
def test_both_passes_hold_the_weights_gradient_and_one_chunk(transform, kept, chunk_rows):
    given = make()
    selected = torch.rand(ROWS, generator=torch.Generator().manual_seed(1)) < 0.6
    options = {"transform": transform, "chunk_rows": chunk_rows}
    with Memory(*given, selected) as memory:
        found = first_pass(*given, keep=kept, **options)
        total = summed_loss(*given, selected, kept=found.kept, **options)
        (total / 7).backward()
    chunk_bytes = 4 * chunk_rows * VOCABULARY
    assert memory.largest == max(chunk_bytes, WEIGHT_BYTES)
    # The gradient of the hidden states comes on top: it is the backbone's input, whatever the head does.
    assert memory.peak <= 1.1 * (WEIGHT_BYTES + chunk_bytes) + STATES_BYTES
