"""What half precision costs: the head in bfloat16 against float64 truth, beside the model's own bfloat16 head."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokensieve.head import first_pass, summed_loss, token_losses
from tokensieve.selection import select_tokens

ROWS, WIDTH, VOCABULARY = 2048, 64, 1000


@pytest.fixture(scope="module")
def head() -> dict[str, Tensor]:
    """Bfloat16 tensors of a head whose losses spread like a trained model's (0 to 12 nats)."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, WIDTH, generator=generator) for n in (ROWS, VOCABULARY))
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    # Half of the targets are what the hidden state points to.
    hidden += (
        torch.rand(ROWS, 1, generator=generator) * (torch.rand(ROWS, 1, generator=generator) < 0.5) * weight[labels]
    )
    bias = torch.randn(VOCABULARY, generator=generator)
    tensors = {"hidden": hidden, "weight": weight * 0.3, "bias": bias}
    return {**{name: tensor.bfloat16() for name, tensor in tensors.items()}, "labels": labels}


def exact_losses(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden.double(), weight.double(), bias.double()), labels, reduction="none")


def test_losses_are_float32_and_never_rounded_to_bfloat16(head):
    exact = exact_losses(**head)
    losses, entropies = token_losses(head["hidden"], head["weight"], head["labels"], bias=head["bias"], entropy=True)
    assert losses.dtype == entropies.dtype == torch.float32
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=2e-5)
    assert losses.unique().numel() > 0.95 * ROWS
    # What a bfloat16 loss would do: 2048 tokens fall on a few hundred values.
    assert losses.bfloat16().unique().numel() < 0.5 * ROWS


@pytest.mark.parametrize("scope", ["microbatch", "sequence"])
@pytest.mark.parametrize("ratio", [0.2, 0.6, 0.9])
def test_from_the_same_bfloat16_states_the_choice_is_that_of_float64(head, ratio, scope):
    exact = exact_losses(**head)
    reference = exact + 0.1 * torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    losses = token_losses(head["hidden"], head["weight"], head["labels"], bias=head["bias"])
    valid = torch.ones(4, ROWS // 4, dtype=torch.bool)
    ours, wanted = (select_tokens((one - reference).view(valid.shape), valid, ratio, scope) for one in (losses, exact))
    assert (ours == wanted).float().mean() >= 0.995
    # The test can fail: a loss rounded to bfloat16 chooses otherwise.
    rounded = F.cross_entropy(F.linear(head["hidden"], head["weight"], head["bias"]), head["labels"], reduction="none")
    theirs = select_tokens((rounded.double() - reference).view(valid.shape), valid, ratio, scope)
    assert (theirs == wanted).float().mean() < 0.99


@pytest.mark.parametrize("chunks", [1, 4, 16])
@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
def test_gradients_are_as_exact_as_those_of_the_plain_bfloat16_head(head, chunks, kept):
    labels, weights = head["labels"], torch.rand(ROWS, generator=torch.Generator().manual_seed(2)) < 0.6
    inputs = [head[name].clone().requires_grad_() for name in ("hidden", "weight", "bias")]
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    true = torch.autograd.grad((exact_losses(*wide, labels) * weights).sum(), wide)
    losses = F.cross_entropy(F.linear(*inputs).float(), labels, reduction="none")
    plain = torch.autograd.grad((losses * weights).sum(), inputs)
    hidden, weight, bias = inputs
    options = {"bias": bias, "chunk_rows": ROWS // chunks}
    found = first_pass(hidden, weight, labels, keep=True, **options)
    total = summed_loss(hidden, weight, labels, weights, kept=found.kept if kept else None, **options)
    ours = torch.autograd.grad(total, inputs)
    for name, our, their, exact in zip(("hidden", "weight", "bias"), ours, plain, true, strict=True):
        assert our.dtype == torch.bfloat16
        error, allowed = ((one.double() - exact).norm() / exact.norm() for one in (our, their))
        print(f"{name}: {error:.2e}, plain head {allowed:.2e}")
        assert error <= 1.1 * allowed, name
