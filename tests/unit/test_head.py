"""Token losses and their gradients against the naive computation through full logits, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.head import HeadTransform, default_chunk_rows, summed_loss, token_losses


def naive_logits(hidden, weight, bias, transform):
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    logits = logits * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return logits


def make(rows=23, width=7, vocabulary=31, bias=True, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make_one = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    hidden, weight = make_one(rows, width), make_one(vocabulary, width)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    return hidden, weight, make_one(vocabulary) if bias else None, labels


TRANSFORMS = [HeadTransform(), HeadTransform(scale=0.25), HeadTransform(softcap=3.0), HeadTransform(2.0, 5.0)]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_rows", [1, 5, 100])
def test_float64_losses_and_gradients_agree_with_full_logits(transform, bias, chunk_rows):
    hidden, weight, offset, labels = make(bias=bias)
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, offset) if tensor is not None]
    expected = F.cross_entropy(naive_logits(hidden, weight, offset, transform), labels, reduction="none")
    losses = token_losses(hidden, weight, labels, bias=offset, transform=transform, chunk_rows=chunk_rows)
    assert losses.dtype == torch.float64
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-12, atol=1e-12)
    total = summed_loss(hidden, weight, labels, bias=offset, transform=transform, chunk_rows=chunk_rows)
    torch.testing.assert_close(total, expected.sum(), rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(total * 0.7, inputs)
    theirs = torch.autograd.grad(expected.sum() * 0.7, inputs)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


def test_entropy_is_that_of_the_predicted_distribution():
    hidden, weight, offset, labels = make()
    _, entropy = token_losses(hidden, weight, labels, bias=offset, entropy=True, chunk_rows=4)
    expected = torch.distributions.Categorical(logits=naive_logits(hidden, weight, offset, HeadTransform())).entropy()
    torch.testing.assert_close(entropy, expected, rtol=1e-10, atol=1e-10)


@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 2**31))
def test_chunking_changes_nothing(rows, chunk_rows, seed):
    hidden, weight, offset, labels = make(rows=rows, seed=seed)
    whole = token_losses(hidden, weight, labels, bias=offset, chunk_rows=1000)
    torch.testing.assert_close(token_losses(hidden, weight, labels, bias=offset, chunk_rows=chunk_rows), whole)


def test_ignored_labels_lose_nothing():
    hidden, weight, offset, labels = make()
    labels[::2] = -100
    losses = token_losses(hidden, weight, labels, bias=offset)
    assert (losses[::2] == 0).all() and (losses[1::2] > 0).all()


def test_a_logit_offset_changes_no_loss():
    hidden, weight, offset, labels = make()
    torch.testing.assert_close(
        token_losses(hidden, weight, labels, bias=offset),
        token_losses(hidden, weight, labels, bias=offset + 50),
    )


def test_no_rows_give_zero_and_zero_gradients():
    hidden, weight, _, _ = make(bias=False)
    hidden.requires_grad_()
    weight.requires_grad_()
    total = summed_loss(hidden[:0], weight, torch.zeros(0, dtype=torch.long))
    total.backward()
    assert total == 0
    assert hidden.grad is not None and not hidden.grad.any()
    assert weight.grad is not None and not weight.grad.any()


def test_frozen_weight_gets_no_gradient():
    hidden, weight, _, labels = make(bias=False)
    hidden.requires_grad_()
    summed_loss(hidden, weight, labels).backward()
    assert weight.grad is None and hidden.grad is not None


def test_bfloat16_losses_are_float32_and_not_rounded_to_bfloat16():
    hidden, weight, _, labels = make(rows=512, width=64, vocabulary=1000, bias=False, dtype=torch.bfloat16)
    losses = token_losses(hidden, weight, labels)
    exact = F.cross_entropy(hidden.double() @ weight.double().T, labels, reduction="none")
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-4)
    assert losses.unique().numel() > 500


def test_bfloat16_weight_gradient_is_accumulated_in_float32():
    hidden, weight, _, labels = make(rows=512, width=32, vocabulary=200, bias=False, dtype=torch.bfloat16)
    wide = weight.double().requires_grad_()
    F.cross_entropy(hidden.double() @ wide.T, labels, reduction="sum").backward()
    weight.requires_grad_()
    summed_loss(hidden, weight, labels, chunk_rows=16).backward()
    error = (weight.grad.double() - wide.grad).norm() / wide.grad.norm()
    assert error < 3e-3  # one rounding to bfloat16; accumulating 32 chunks in bfloat16 gives about 6e-3


@pytest.mark.parametrize(
    "vocabulary, rows", [(512, 4096), (32_000, 4096), (49_152, 4096), (151_936, 2048), (10**7, 256)]
)
def test_default_chunks_hold_a_gibibyte_of_logits_at_most_above_the_floor(vocabulary, rows):
    found = default_chunk_rows(vocabulary)
    assert 256 <= found <= 4096
    assert found & (found - 1) == 0
    assert found == 256 or found * vocabulary <= 2**28 * 1.5


def test_under_autocast_losses_are_not_rounded_and_gradients_match_the_plain_heads():
    hidden, weight, _, labels = make(rows=256, width=32, vocabulary=300, bias=False, dtype=torch.float32)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    exact = F.cross_entropy(hidden.bfloat16().double() @ weight.bfloat16().double().T, labels, reduction="none")
    wanted = torch.autograd.grad(exact.sum(), (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        losses = token_losses(hidden, weight, labels)
        total = summed_loss(hidden, weight, labels, chunk_rows=64)
        plain = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
    torch.testing.assert_close(losses.double(), exact.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(total.double(), exact.sum().detach(), rtol=1e-5, atol=1e-3)
    ours, theirs = (torch.autograd.grad(loss, (hidden, weight)) for loss in (total, plain))
    for our, their, true in zip(ours, theirs, wanted, strict=True):
        assert our.dtype == torch.float32
        assert (our.double() - true).norm() <= 1.1 * (their.double() - true).norm()
