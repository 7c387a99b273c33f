"""Token losses and their gradients against the naive computation through full logits, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.head import HeadTransform, default_chunk_rows, first_pass, summed_loss, token_losses


def naive_losses(hidden, weight, bias, transform, labels):
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    logits = logits * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return F.cross_entropy(logits, labels, reduction="none")


def make(rows=23, width=7, vocabulary=31, bias=True, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make_one = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    hidden, weight = make_one(rows, width), make_one(vocabulary, width)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    return hidden, weight, make_one(vocabulary) if bias else None, labels


def gradients(total, tensors):
    wanted = [tensor for tensor in tensors if tensor is not None]
    return torch.autograd.grad(total * 0.7, wanted)


def assert_gradients_agree(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


TRANSFORMS = [HeadTransform(), HeadTransform(scale=0.25), HeadTransform(softcap=3.0), HeadTransform(2.0, 5.0)]
WEIGHTS = ["none", "bool", "float", "zeros", "negative"]


def weights_of(kind, rows, seed=0):
    draw = torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {
        "none": None,
        "bool": draw < 0.5,
        "float": draw * (draw > 0.3),
        "zeros": torch.zeros(rows),
        "negative": draw - 0.5,
    }[kind]


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_rows", [1, 5, 100])
def test_float64_losses_and_gradients_agree_with_full_logits(transform, bias, chunk_rows, kind):
    hidden, weight, offset, labels = make(bias=bias)
    labels[::4] = -100
    inputs = [None if tensor is None else tensor.requires_grad_() for tensor in (hidden, weight, offset)]
    options = {"bias": offset, "transform": transform, "chunk_rows": chunk_rows}
    expected = naive_losses(*inputs, transform, labels)
    losses = token_losses(hidden, weight, labels, **options)
    assert losses.dtype == torch.float64 and not losses.requires_grad
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-12, atol=1e-12)
    assert (losses[::4] == 0).all()
    weights = weights_of(kind, len(labels))
    wanted = (expected * (1.0 if weights is None else weights)).sum()
    total = summed_loss(hidden, weight, labels, weights, **options)
    torch.testing.assert_close(total, wanted, rtol=1e-12, atol=1e-12)
    assert_gradients_agree(gradients(total, inputs), gradients(wanted, inputs))


@given(
    rows=st.integers(0, 40),
    chunk_rows=st.integers(1, 50),
    second_chunk_rows=st.integers(1, 50),
    kind=st.sampled_from(WEIGHTS),
    ignored=st.floats(0, 1),
    transform=st.sampled_from(TRANSFORMS),
    seed=st.integers(0, 2**31),
)
def test_neither_chunks_nor_a_kept_chunk_change_anything(
    rows, chunk_rows, second_chunk_rows, kind, ignored, transform, seed
):
    hidden, weight, offset, labels = make(rows=rows, seed=seed)
    labels[torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < ignored] = -100
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, offset)]
    options = {"bias": offset, "transform": transform}
    weights = weights_of(kind, rows, seed)
    whole = token_losses(hidden, weight, labels, chunk_rows=1000, **options)
    found = first_pass(hidden, weight, labels, chunk_rows=chunk_rows, keep=True, **options)
    torch.testing.assert_close(found.losses, whole, rtol=1e-12, atol=1e-12)
    # A soft cap needs the logits themselves, which a kept chunk no longer holds.
    assert (found.kept is None) == (transform.softcap is not None or not (labels != -100).any())
    plain = summed_loss(hidden, weight, labels, weights, chunk_rows=1000, **options)
    total = summed_loss(hidden, weight, labels, weights, chunk_rows=second_chunk_rows, kept=found.kept, **options)
    torch.testing.assert_close(total, plain, rtol=1e-12, atol=1e-12)
    assert_gradients_agree(gradients(total, inputs), gradients(plain, inputs))


@pytest.mark.parametrize("chosen", [slice(0, 0), slice(0, 12), slice(20, 23), slice(0, 23)])
def test_a_kept_chunk_is_used_up_whichever_rows_are_selected(chosen):
    hidden, weight, offset, labels = make()
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, offset)]
    selected = torch.zeros(23, dtype=torch.bool)
    selected[chosen] = True
    found = first_pass(hidden, weight, labels, bias=offset, chunk_rows=9, keep=True)
    assert found.kept.rows.tolist() == [18, 19, 20, 21, 22]
    total = summed_loss(hidden, weight, labels, selected, bias=offset, kept=found.kept, chunk_rows=9)
    assert found.kept.exponentials is None
    expected = naive_losses(*inputs, HeadTransform(), labels)[selected].sum()
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    assert_gradients_agree(gradients(total, inputs), gradients(expected, inputs))


def test_entropy_is_that_of_the_predicted_distribution():
    hidden, weight, offset, labels = make(rows=300)
    _, entropy = token_losses(hidden, weight, labels, bias=offset, entropy=True, chunk_rows=200)
    expected = torch.distributions.Categorical(logits=hidden @ weight.T + offset).entropy()
    torch.testing.assert_close(entropy, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("offset", [-1000.0, 50.0, 1e4])
def test_a_logit_offset_changes_no_loss(offset):
    hidden, weight, bias, labels = make()
    torch.testing.assert_close(
        token_losses(hidden, weight, labels, bias=bias), token_losses(hidden, weight, labels, bias=bias + offset)
    )


def test_a_sure_token_has_a_loss_of_zero_and_a_hopeless_one_a_finite_loss():
    hidden, weight = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [2000.0], [-2000.0]])
    losses = token_losses(hidden, weight, torch.tensor([1, 2]))
    assert losses.tolist() == [0, 4000]


def test_no_rows_give_zero_and_zero_gradients():
    hidden, weight, _, _ = make(bias=False)
    hidden.requires_grad_()
    weight.requires_grad_()
    total = summed_loss(hidden[:0], weight, torch.zeros(0, dtype=torch.long))
    total.backward()
    assert total == 0
    assert hidden.grad is not None and not hidden.grad.any()
    assert weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    hidden, weight, offset, labels = make()
    inputs = {"hidden": hidden, "weight": weight, "bias": offset}
    for name, tensor in inputs.items():
        tensor.requires_grad_(name != frozen)
    summed_loss(hidden, weight, labels, bias=offset).backward()
    wanted = [tensor for name, tensor in inputs.items() if name != frozen]
    expected = torch.autograd.grad(naive_losses(hidden, weight, offset, HeadTransform(), labels).sum(), wanted)
    assert inputs[frozen].grad is None
    assert_gradients_agree([tensor.grad for tensor in wanted], expected)


def test_no_gradient_is_computed_where_none_is_wanted():
    hidden, weight, offset, labels = make()
    weight.requires_grad_()
    with torch.no_grad():
        total = summed_loss(hidden, weight, labels, bias=offset)
    assert not total.requires_grad
    torch.testing.assert_close(total, naive_losses(hidden, weight, offset, HeadTransform(), labels).sum().detach())


def test_token_weights_are_constants():
    hidden, weight, _, labels = make(bias=False)
    weights = torch.rand(len(labels), dtype=torch.float64).requires_grad_()
    summed_loss(hidden.requires_grad_(), weight, labels, weights).backward()
    assert weights.grad is None


@pytest.mark.parametrize("function", [token_losses, summed_loss])
@pytest.mark.parametrize("label", [31, 10**6, -1, -99])
def test_a_label_outside_the_vocabulary_is_named(function, label):
    hidden, weight, offset, labels = make()
    labels[3] = label
    with pytest.raises(ValueError, match=rf"label {label} is not in the vocabulary of 31 .*another tokenizer"):
        function(hidden, weight, labels, bias=offset)


@pytest.mark.parametrize("function", [token_losses, summed_loss])
def test_shapes_that_do_not_fit_are_named(function):
    hidden, weight, _, labels = make()
    for wrong in ((hidden[None], weight, labels), (hidden, weight[0], labels), (hidden, weight, labels[1:])):
        with pytest.raises(ValueError, match=r"hidden_states \[N, D\], weight \[V, D\] and labels \[N\] are needed"):
            function(*wrong)


@pytest.mark.parametrize("shape", [(23, 1), (1, 23), (1,), (22,)])
def test_token_weights_are_not_broadcast(shape):
    hidden, weight, _, labels = make()
    with pytest.raises(ValueError, match="token_weights has shape"):
        summed_loss(hidden, weight, labels, torch.ones(shape))


@pytest.mark.parametrize(
    "vocabulary, rows", [(512, 4096), (32_000, 4096), (49_152, 4096), (151_936, 2048), (10**7, 256)]
)
def test_default_chunks_hold_a_gibibyte_of_logits_at_most_above_the_floor(vocabulary, rows):
    found = default_chunk_rows(vocabulary)
    assert found == rows
    assert found == 256 or found * vocabulary <= 2**28 * 1.5


@pytest.mark.parametrize("chunk_rows", [64, 256])
def test_under_autocast_losses_are_not_rounded_and_gradients_match_the_plain_heads(chunk_rows):
    hidden, weight, _, labels = make(rows=256, width=32, vocabulary=300, bias=False, dtype=torch.float32)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    exact = F.cross_entropy(hidden.bfloat16().double() @ weight.bfloat16().double().T, labels, reduction="none")
    wanted = torch.autograd.grad(exact.sum(), (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        losses = token_losses(hidden, weight, labels)
        total = summed_loss(hidden, weight, labels, chunk_rows=chunk_rows)
        plain = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
    torch.testing.assert_close(losses.double(), exact.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(total.double(), exact.sum().detach(), rtol=1e-5, atol=1e-3)
    ours, theirs = (torch.autograd.grad(loss, (hidden, weight)) for loss in (total, plain))
    for our, their, true in zip(ours, theirs, wanted, strict=True):
        assert our.dtype == torch.float32
        assert (our.double() - true).norm() <= 1.1 * (their.double() - true).norm()
