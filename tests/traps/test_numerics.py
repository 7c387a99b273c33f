"""Half precision enters neither a loss, nor a count, nor a divisor; the store's float16 costs almost nothing."""

import pytest
import torch
import torch.nn.functional as F

from tokensieve import SelectionPolicy
from tokensieve.selection import select_tokens
from tokensieve.selective_loss import decode_column


@pytest.fixture(params=["bfloat16 weights", "autocast"])
def half(request, tiny):
    """(model, autocast context) of both ways to train in bfloat16."""
    if request.param == "autocast":
        return tiny(), torch.autocast("cpu", torch.bfloat16)
    return tiny(torch.bfloat16), torch.autocast("cpu", enabled=False)


# 7, 8
def test_losses_counts_and_divisor_are_exact_in_bfloat16(half, batch, selective):
    model, context = half
    inputs = batch(3, 300)
    states = []
    model.model.register_forward_hook(lambda module, args, output: states.append(output.last_hidden_state))
    handle = selective(model, SelectionPolicy(ratio=0.6))
    with context:
        loss = model(**inputs).loss
    # From the same hidden states, in float64: what the loss must be.
    hidden, weight = states[-1][:, :-1].bfloat16().double(), model.lm_head.weight.bfloat16().double()
    exact = F.cross_entropy((hidden @ weight.T).flatten(0, 1), inputs["labels"][:, 1:].flatten(), reduction="none")
    exact = exact.view(3, 299).detach()
    valid = torch.ones(3, 299, dtype=torch.bool)
    wanted = select_tokens(exact - inputs["reference_loss"][:, 1:], valid, 0.6)
    selected = handle.last_selection[2]
    # bfloat16 counts 538 as 536 and 897 as 896.
    assert selected.sum() == 538 and handle.stats.read()["selected"] == 538 and handle.stats.read()["valid"] == 897
    assert (selected == wanted).float().mean() >= 0.995
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact[selected].sum() / (0.6 * 897), rtol=1e-6, atol=1e-6)


# 7
def test_a_bfloat16_backbone_changes_few_choices(tiny, batch, selective):
    """Measured, not promised: these states differ from the float32 ones by what the backbone rounds."""
    inputs = batch(8, 60)
    choices = []
    for dtype in (torch.float32, torch.bfloat16):
        handle = selective(tiny(dtype), SelectionPolicy(ratio=0.6))
        handle.model(**inputs)
        choices.append(handle.last_selection[2])
    agreement = (choices[0] == choices[1]).float().mean().item()
    print(f"a bfloat16 backbone agrees on {agreement:.2%} of the choices")
    # Excess spreads over nats here and rounding over hundredths: a few per cent at the most.
    assert agreement >= 0.97


# 13
@pytest.mark.parametrize("mean_loss", [1.0, 2.5])
def test_a_float16_store_keeps_999_of_1000_choices(mean_loss):
    generator = torch.Generator().manual_seed(0)
    shape = (64, 1024)
    reference = torch.distributions.Exponential(1 / mean_loss).icdf(torch.rand(shape, generator=generator))
    live = (reference + 0.3 * torch.randn(shape, generator=generator)).clamp(min=0)
    valid = torch.ones(shape, dtype=torch.bool)
    exact = select_tokens(live - reference, valid, 0.6)
    stored = decode_column("reference_loss", reference.half().view(torch.int16))
    agreement = (select_tokens(live - stored, valid, 0.6) == exact).float().mean().item()
    print(f"float16 store, mean loss {mean_loss}: {agreement:.3%} of the choices")
    assert agreement >= 0.999
    # The test can fail, and bfloat16 is refused for a reason.
    rounded = (select_tokens(live - reference.bfloat16().float(), valid, 0.6) == exact).float().mean()
    assert rounded < 0.999
    with pytest.raises(TypeError, match="reference_loss is torch.bfloat16"):
        decode_column("reference_loss", reference.bfloat16())
