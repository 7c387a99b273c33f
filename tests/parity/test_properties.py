"""What must hold whatever the numbers: counts, batch layout, packing, warm-up, and what is not trained on."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.parity.conftest import ARCHITECTURES, assert_same, batch, gradients, only, tiny
from torch import Tensor, nn

from tokensieve import SelectionPolicy
from tokensieve.causal_head import check_document_mask

WHOLE = SelectionPolicy(ratio=1)
MASK = SelectionPolicy("mask", 0.5)


def train(model: nn.Module, inputs: dict[str, Tensor], **more: object) -> tuple[Tensor, dict[str, Tensor]]:
    loss = model(**inputs, **more).loss
    loss.backward()
    return loss.detach(), gradients(model)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 4),
    length=st.integers(2, 9),
    ratio=st.floats(0.01, 1),
    kept=st.floats(0, 1),
    ties=st.booleans(),
    scope=st.sampled_from(["global", "microbatch", "sequence"]),
    seed=st.integers(0, 2**16),
)
def test_exactly_the_rounded_share_of_each_unit_is_trained_on(
    model, selective, rows, length, ratio, kept, ties, scope, seed
):
    generator = torch.Generator().manual_seed(seed)
    inputs = batch(rows, length, seed)
    inputs["labels"] = inputs["input_ids"].masked_fill(torch.rand(rows, length, generator=generator) > kept, -100)
    if ties:
        inputs["reference_loss"] = torch.zeros(rows, length)
    handle = selective(model, SelectionPolicy("reference_loss" if ties else "excess_loss", ratio, scope))
    model(**inputs)
    candidates = (inputs["labels"][:, 1:] != -100).sum(dim=1)
    units = candidates.tolist() if scope == "sequence" else [int(candidates.sum())]
    found = handle.stats.read()
    assert found["valid"] == sum(units)
    assert found["selected"] == sum(int(ratio * n + 0.5) for n in units)
    handle.remove()


@pytest.fixture(scope="module")
def model():
    return tiny(dtype=torch.float32)


@pytest.mark.parametrize(
    "policy", [SelectionPolicy(ratio=0.6, scope="sequence"), MASK, WHOLE, SelectionPolicy(threshold=0.5)]
)
def test_accumulated_micro_batches_equal_one_batch(policy, selective):
    inputs, results = batch(rows=4), []
    count = (inputs["labels"][:, 1:] != -100).sum()
    for parts in (1, 2, 4):
        model = tiny()
        handle = selective(model, policy)
        total = 0.0
        for rows in torch.arange(4).chunk(parts):
            loss = model(**{name: value[rows] for name, value in inputs.items()}, num_items_in_batch=count).loss
            loss.backward()
            total += loss.item()
        results.append((total, gradients(model), handle.stats.read()["selected"]))
    for total, found, selected in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-12) and selected == results[0][2]
        assert_same(found, results[0][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "mistral, sliding window", "gemma2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("policy", [MASK, WHOLE], ids=["mask", "everything"])
def test_packed_documents_equal_padded_ones(name, policy, selective):
    # Shorter than that, and padding would see nothing but padding through the sliding window: NaN.
    lengths = (5, 3, 4, 6, 3, 3)
    inputs = only(batch(rows=6), "input_ids", "selection_mask")
    documents = [{key: value[row, :n] for key, value in inputs.items()} for row, n in enumerate(lengths)]
    for document in documents:
        document["labels"] = document["input_ids"].clone()
        document["labels"][0] = -100
        document["position_ids"] = torch.arange(len(document["labels"]))
    packed = {key: torch.cat([document[key] for document in documents]).view(2, 12) for key in documents[0]}
    padded = {
        key: nn.utils.rnn.pad_sequence([document[key] for document in documents], True, -100 if key == "labels" else 0)
        for key in ("input_ids", "labels", "selection_mask")
    }
    padded["attention_mask"] = (torch.arange(6) < torch.tensor(lengths)[:, None]).long()

    model = tiny(name)
    handle = selective(model, policy)
    loss, found = train(model, packed)
    selected = handle.stats.read()["selected"]
    expected, wanted = train(model, padded)
    assert handle.stats.read()["selected"] == 2 * selected > 0
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    # Gemma's norm works in float32; attention across documents would change the gradients in the first digit.
    assert_same(found, wanted, rtol=1e-5, atol=1e-6)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), ratio=st.floats(0.1, 1), share=st.floats(0, 1), measure=st.booleans())
def test_targets_of_unselected_tokens_change_no_gradient(selective, seed, ratio, share, measure):
    model, inputs = tiny(), batch(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    inputs["selection_mask"] = mask = torch.rand(3, 12, generator=generator) < share
    handle = selective(model, SelectionPolicy("mask", ratio))
    handle.measure = measure
    loss, wanted = train(model, inputs)
    other = torch.randint(0, 61, (3, 12), generator=generator)
    inputs["labels"] = torch.where(mask | (inputs["labels"] == -100), inputs["labels"], other)
    again, found = train(model, inputs)
    assert torch.equal(loss, again)
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


@pytest.mark.parametrize("more", [{"warmup_steps": 3}, {"warmup_steps": 3, "ratio_schedule": ((0, 0.9), (8, 0.6))}])
def test_warm_up_is_plain_training_bit_for_bit_and_the_schedule_follows(more, selective):
    model, inputs = tiny(dtype=torch.float32), batch()
    plain = selective(model, WHOLE)
    expected, wanted = train(model, inputs)
    plain.remove()
    handle = selective(model, SelectionPolicy(ratio=0.6, **more))
    for step in range(3):
        handle.step = step
        loss, found = train(model, inputs)
        assert torch.equal(loss, expected)
        assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    for step in (3, 4, 8, 100):
        handle.step = step
        handle.stats.reset()
        loss, _ = train(model, inputs)
        ratio = 0.6 if len(more) == 1 or step > 8 else 0.9 - 0.3 * step / 8
        assert handle.stats.read()["selected"] == int(ratio * 30 + 0.5)
        follows, handle.policy = handle.policy, SelectionPolicy(ratio=ratio)
        torch.testing.assert_close(train(model, inputs)[0], loss, rtol=1e-6, atol=1e-6)
        handle.policy = follows


def test_a_policy_that_follows_steps_says_what_to_set(selective):
    model = tiny()
    selective(model, SelectionPolicy(warmup_steps=1))
    with pytest.raises(ValueError, match="set handle.step to the optimizer step that is running"):
        model(**batch())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whether_a_model_keeps_packed_documents_apart_is_known(name):
    model = tiny(name)
    if name in ("opt", "falcon"):
        with pytest.raises(ValueError, match="crosses documents|takes no position_ids"):
            check_document_mask(model, 12)
    else:
        check_document_mask(model, 12)
