"""Window losses: those of plain logits, NaN where there is no label, and float16 as the score store has it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.evaluation.window_losses import as_stored, window_losses
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

LENGTH = 16


def test_they_are_the_losses_of_plain_logits(store, tiny_model):
    windows = Windows(store, LENGTH, order=np.array([3, 0, 2]))
    model = tiny_model().eval()
    wanted, entropies = [], []
    batch = windows.__getitems__([0, 1, 2])
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    logprobs = F.log_softmax(logits[:, :-1].double(), dim=-1)
    wanted = F.nll_loss(logprobs.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none").numpy()
    entropies = -(logprobs.exp() * logprobs).sum(-1).numpy()
    live = (batch["labels"] != IGNORED).numpy()
    done = []
    model.train()
    handle = make_selective(model, SelectionPolicy(ratio=1))
    found, entropy = window_losses(handle, windows, 2, entropy=True, advance=done.append)
    assert model.training and done == [2, 1]
    assert entropy is not None
    np.testing.assert_array_equal(np.isnan(found), ~live)
    np.testing.assert_array_equal(np.isnan(entropy), ~live)
    np.testing.assert_allclose(found[:, 1:][live[:, 1:]], wanted[live[:, 1:]], atol=1e-5)
    np.testing.assert_allclose(entropy[:, 1:][live[:, 1:]], entropies[live[:, 1:]], atol=1e-5)
    assert window_losses(handle, windows, 3)[1] is None


def test_stored_losses_are_finite_and_not_negative():
    stored = as_stored(np.array([1.5, -1e-7, -0.0, np.nan, 0.1], dtype=np.float32))
    assert stored.dtype == np.dtype("<f2")
    assert stored.view("<u2").tolist() == [0x3E00, 0, 0, 0x7E00, np.float16(0.1).view(np.uint16)]
    with pytest.raises(ValueError, match="infinite"):
        as_stored(np.array([1e6], dtype=np.float32))
