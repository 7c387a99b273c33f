"""The head on a GPU in bfloat16: as exact as it says, and no larger.

Run with `pytest -m gpu tests/gpu/test_head_gpu.py`. The truth is float64 on the same bfloat16 numbers.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokensieve import select_tokens
from tokensieve.head import default_chunk_rows, first_pass, summed_loss, token_losses

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROWS, WIDTH, VOCABULARY = 2048, 512, 16_384
# Several chunks, so that what is summed over chunks is seen.
CHUNK = 512


def case(rows: int = ROWS, width: int = WIDTH, vocabulary: int = VOCABULARY) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states and weight in bfloat16, logits of unit variance times 3, and labels."""
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(rows, width, device="cuda", generator=generator).bfloat16()
    weight = (3 * width**-0.5 * torch.randn(vocabulary, width, device="cuda", generator=generator)).bfloat16()
    labels = torch.randint(0, vocabulary, (rows,), device="cuda", generator=generator)
    labels[::7] = -100
    return hidden, weight, labels


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return tuple(gradient.double() for gradient in torch.autograd.grad(loss, leaves))


def leaves(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight, labels = case()
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels


def test_token_losses_are_those_of_float64() -> None:
    hidden, weight, labels = case()
    ours = token_losses(hidden, weight, labels, chunk_rows=CHUNK)
    truth = F.cross_entropy(hidden.double() @ weight.double().T, labels, reduction="none")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-4)


def test_gradients_err_at_most_a_tenth_more_than_the_plain_heads() -> None:
    labels = case()[2]
    chosen = (labels != -100) & (torch.arange(ROWS, device="cuda") % 5 < 3)
    masked = labels.masked_fill(~chosen, -100)
    errors = {}
    hidden, weight, _ = leaves(torch.float64)
    truth = gradients(F.cross_entropy(F.linear(hidden, weight), masked, reduction="sum"), hidden, weight)
    hidden, weight, _ = leaves(torch.bfloat16)
    plain = gradients(F.cross_entropy(F.linear(hidden, weight).float(), masked, reduction="sum"), hidden, weight)
    kept = first_pass(hidden, weight, labels, chunk_rows=CHUNK, keep=True).kept
    for name, chunk in (("all chunks", None), ("last chunk kept", kept)):
        loss = summed_loss(hidden, weight, labels, chosen, chunk_rows=CHUNK, kept=chunk)
        errors[name] = gradients(loss, hidden, weight)
    for name, ours in errors.items():
        for mine, other, exact in zip(ours, plain, truth, strict=True):
            assert (mine - exact).norm() <= 1.1 * (other - exact).norm(), name


def test_the_choice_agrees_with_float32() -> None:
    hidden, weight, labels = case()
    reference = token_losses(hidden, weight, labels) + 0.3 * torch.randn(ROWS, device="cuda")
    valid = (labels != -100)[None]
    choices = []
    for dtype in (torch.bfloat16, torch.float32):
        losses = token_losses(hidden.to(dtype), weight.to(dtype), labels, chunk_rows=CHUNK)
        choices.append(select_tokens((losses - reference)[None], valid, 0.6))
    assert (choices[0] == choices[1])[valid].float().mean() >= 0.995


@pytest.mark.parametrize("keep", [False, True])
def test_peak_memory_is_the_weights_gradient_and_one_chunk(keep: bool) -> None:
    """Four chunks of rows: the logits of all tokens are nowhere."""
    rows, width, vocabulary = 8192, 1024, 128_256
    hidden, weight, labels = case(rows, width, vocabulary)
    hidden.requires_grad_()
    weight.requires_grad_()

    def step(count: int) -> None:
        inputs = hidden[:count], weight, labels[:count]
        kept = first_pass(*inputs, keep=True).kept if keep else None
        chosen = torch.rand(count, device="cuda") < 0.6
        summed_loss(*inputs, chosen, kept=kept).backward()
        hidden.grad = weight.grad = None

    step(rows)  # the workspaces of the libraries are made now
    chunk = default_chunk_rows(vocabulary) * vocabulary * (4 + 2)  # logits in float32, their gradient in bfloat16
    assert rows >= 4 * default_chunk_rows(vocabulary)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step(rows)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 1.1 * (4 * weight.numel() + chunk)
