"""The loss is that of the right token, it is a loss, and selection hides nothing from the context."""

import torch
import torch.nn.functional as F

from tokensieve import SelectionPolicy


# 1
def test_a_model_that_memorised_a_sequence_has_no_loss_on_it(tiny, batch, selective):
    """Logits at t against token t would leave the loss near that of guessing."""
    model = tiny(initializer_range=0.02)
    ids = batch(1)["input_ids"]
    handle = selective(model, SelectionPolicy(ratio=1))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    losses, _ = handle.token_losses(input_ids=ids, labels=ids)
    assert loss < 0.1 and losses.max() < 0.1
    # What it has learned is what it generates.
    assert torch.equal(model.eval().generate(ids[:, :4], max_new_tokens=8, do_sample=False, pad_token_id=0), ids)


# 3
def test_entry_i_of_a_mask_selects_the_prediction_of_token_i(tiny, batch, selective):
    model, inputs = tiny(torch.float64), batch()
    logits = model(input_ids=inputs["input_ids"]).logits.detach()
    selective(model, SelectionPolicy("mask", 0.5))
    for row, t in ((0, 1), (1, 5), (2, 11)):
        mask = torch.zeros(3, 12, dtype=torch.bool)
        mask[row, t] = True
        loss = model(**inputs, selection_mask=mask, num_items_in_batch=1).loss
        expected = F.cross_entropy(logits[row, t - 1], inputs["input_ids"][row, t])
        torch.testing.assert_close(0.5 * loss.detach(), expected, rtol=1e-9, atol=1e-9)


# 3
def test_entry_i_of_a_loss_column_is_compared_with_the_loss_of_predicting_token_i(tiny, batch, selective):
    model, inputs = tiny(), batch()
    handle = selective(model, SelectionPolicy(ratio=1 / 33))
    losses, _ = handle.token_losses(**{name: inputs[name] for name in ("input_ids", "labels")})
    # The reference beats the model at one place by more than anywhere else.
    for row, t in ((0, 1), (1, 5), (2, 11)):
        inputs["reference_loss"] = losses.clone()
        inputs["reference_loss"][row, t] -= 1
        model(**inputs)
        assert handle.last_selection[2].nonzero().tolist() == [[row, t - 1]]


# 4
def test_unselected_tokens_stay_in_the_context(tiny, batch, selective):
    model, inputs = tiny(), batch()
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[:, -1] = True
    selective(model, SelectionPolicy("mask", 0.5))
    before = model(**inputs, selection_mask=mask).loss
    assert not mask[:, 4].any()
    inputs["input_ids"][:, 4] = inputs["input_ids"][:, 4] % 60 + 1
    assert (model(**inputs, selection_mask=mask).loss - before).abs() > 1e-3


# 4
def test_the_backbone_sees_the_same_whatever_is_selected(tiny, batch, selective):
    model, inputs = tiny(), batch()
    seen = []

    def look(_module, _args, kwargs, output):
        seen.append((kwargs, output.last_hidden_state))

    model.model.register_forward_hook(look, with_kwargs=True)
    for policy in (SelectionPolicy(ratio=1), SelectionPolicy(ratio=0.1), SelectionPolicy("reference_loss", 0.5)):
        handle = selective(model, policy)
        seen.append(None)  # what the self-check saw ends here
        model(**inputs)
        handle.remove()
    forwards = [seen[i + 1] for i, entry in enumerate(seen) if entry is None]
    assert len(forwards) == 3
    for kwargs, states in forwards:
        assert kwargs.keys() == {"input_ids", "use_cache"}
        assert torch.equal(states, forwards[0][1])
