"""Reference and student see the same inputs, the reference is at rest, and it is another model."""

import pytest
import torch

from tokensieve import SelectionPolicy


def packed(inputs):
    positions = torch.cat([torch.arange(5), torch.arange(7)]).expand(3, 12)
    return {**inputs, "position_ids": positions, "labels": inputs["labels"].masked_fill(positions == 0, -100)}


# 23
def test_scoring_and_training_hand_the_backbone_the_same_inputs(tiny, batch, selective):
    model, inputs = tiny(), packed(batch())
    handle = selective(model)
    model(**inputs)  # the first call also looks whether the model keeps documents apart
    seen = []
    model.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    model(**inputs, use_cache=True, num_items_in_batch=7)
    handle.token_losses(**inputs, use_cache=True)
    (live_args, live), (scored_args, scored) = seen
    assert live_args == scored_args == ()
    assert live.keys() == scored.keys() == {"input_ids", "position_ids", "use_cache"}
    assert live["use_cache"] is scored["use_cache"] is False
    assert torch.equal(live["position_ids"], scored["position_ids"])
    assert torch.equal(live["input_ids"], scored["input_ids"])


# 23
def test_scored_losses_are_the_live_ones_bit_for_bit(tiny, batch, selective):
    model, inputs = tiny(), packed(batch())
    handle = selective(model)
    losses, _ = handle.token_losses(**inputs)
    model(**inputs)
    assert handle.stats.read()["loss"] == losses.sum(dtype=torch.float64).item()
    _, _, selected = handle.last_selection
    assert handle.stats.read()["loss_selected"] == losses[:, 1:][selected].sum(dtype=torch.float64).item()


# 24
def test_a_reference_in_train_mode_with_dropout_is_scored_at_rest_and_without_gradient(tiny, batch, selective):
    reference, inputs = tiny(attention_dropout=0.5), batch()
    given = {name: inputs[name] for name in ("input_ids", "labels")}
    at_rest, _ = selective(tiny().eval()).token_losses(**given)
    handle = selective(reference)
    assert reference.training
    for _ in range(2):
        losses, entropies = handle.token_losses(**given, entropy=True)
        assert torch.equal(losses, at_rest)
        assert losses.grad_fn is None and entropies.grad_fn is None
    assert reference.training


# 24
def test_reference_columns_get_no_gradient(tiny, batch, selective):
    inputs = batch()
    inputs["reference_loss"].requires_grad_()
    selective(tiny(), SelectionPolicy(alpha=0.5, temperature=0.5)).model(**inputs).loss.backward()
    assert inputs["reference_loss"].grad is None


# 25
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("scope", ["microbatch", "sequence", "document"])
def test_a_model_that_is_its_own_reference_is_refused(tiny, batch, selective, stored, scope):
    model, inputs = tiny(), batch(6)
    handle = selective(model, SelectionPolicy(scope=scope))
    losses, _ = handle.token_losses(**inputs)
    inputs |= {"reference_loss": losses.to(stored), "document_ids": torch.arange(72).view(6, 12) // 4}
    with pytest.raises(ValueError, match="reference_loss equals the model's own losses.* must be another model"):
        model(**inputs)


# 25
def test_a_reference_that_differs_a_little_is_another_model(tiny, batch, selective):
    model, inputs = tiny(), batch(6)
    other = tiny()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.003 * torch.randn(parameter.shape))
    inputs["reference_loss"] = selective(other).token_losses(**inputs)[0].half()
    handle = selective(model)
    model(**inputs)
    assert handle.reference_checked
    assert handle.stats.read()["selected"] == 40
