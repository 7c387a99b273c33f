"""Documents in a packed row do not see each other, in training and in scoring, or the batch is refused."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from tokensieve import SelectionPolicy, make_selective

POSITIONS = torch.cat([torch.arange(5), torch.arange(7)]).expand(3, 12)


@pytest.fixture
def packed(batch):
    inputs = batch()
    return {**inputs, "position_ids": POSITIONS, "labels": inputs["labels"].masked_fill(POSITIONS == 0, -100)}


def second_documents(handle, inputs, **more):
    """Losses of the second document of each row, as scored and as trained on, while the first one changes."""
    found = []
    for shift in (0, 7):
        ids = inputs["input_ids"].clone()
        ids[:, :5] = (ids[:, :5] + shift) % 60 + 1
        given = {**inputs, "input_ids": ids, **{name: make() for name, make in more.items()}}
        labels = given["labels"].clone()
        labels[:, :5] = -100
        scored, _ = handle.token_losses(**{**given, "labels": labels})
        handle.stats.reset()
        handle.model(**{**given, **{name: make() for name, make in more.items()}, "labels": labels})
        found.append((scored, handle.stats.read()["loss"]))
    return found


# 37, 47
def test_a_document_does_not_see_the_one_before_it(tiny, packed, selective):
    (scored, trained), (scored_2, trained_2) = second_documents(selective(tiny()), packed)
    assert torch.equal(scored, scored_2) and trained == trained_2
    # The test can fail: without restarting positions they see each other.
    del packed["position_ids"]
    (scored, trained), (scored_2, trained_2) = second_documents(selective(tiny()), packed)
    assert not torch.equal(scored, scored_2) and trained != trained_2


# 47
@pytest.mark.parametrize("by_place", [False, True], ids=["by name", "by place"])
@pytest.mark.parametrize("kind", [torch.long, torch.bool, torch.float32])
def test_a_mask_with_packed_rows_is_refused(tiny, packed, selective, kind, by_place):
    handle = selective(tiny())
    mask = torch.ones(3, 12, dtype=kind)
    ids, positions = packed.pop("input_ids"), packed.pop("position_ids")
    args = (ids, mask, positions) if by_place else ()
    named = {} if by_place else {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    with pytest.raises(ValueError, match="attention would cross documents without a word; leave attention_mask"):
        handle.model(*args, **named, **packed)
    if not by_place:
        with pytest.raises(ValueError, match="leave attention_mask"):
            handle.token_losses(**named, **packed)


# 47
def test_a_cache_with_packed_rows_is_refused(tiny, packed, selective):
    handle = selective(tiny())
    given = {**packed, "past_key_values": DynamicCache(config=handle.model.config)}
    with pytest.raises(ValueError, match="attention would cross documents without a word; leave .*past_key_values out"):
        handle.model(**given)
    with pytest.raises(ValueError, match="past_key_values out"):
        handle.token_losses(**given)


# 47
def test_use_cache_is_off_whatever_the_caller_and_the_configuration_say(tiny, packed, selective):
    model = tiny(use_cache=True)
    (scored, trained), (scored_2, trained_2) = second_documents(selective(model), packed, use_cache=lambda: True)
    assert torch.equal(scored, scored_2) and trained == trained_2


# 47
def test_masks_that_say_something_else_are_taken(tiny, batch, selective):
    """Padding on either side, also with the positions that generation gives to it."""
    model, inputs = tiny(), batch()
    selective(model)
    for mask in ((torch.arange(12) < 9).long().expand(3, 12), (torch.arange(12) >= 3).long().expand(3, 12)):
        labels = inputs["labels"].masked_fill(mask == 0, -100)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        for more in ({}, {"position_ids": positions}, {"position_ids": positions.masked_fill(mask == 0, 1)}):
            assert model(**{**inputs, "labels": labels, "attention_mask": mask, **more}).loss > 0
    block = torch.ones(12, 12, dtype=torch.bool).tril() & (torch.arange(12) // 6 == torch.arange(12)[:, None] // 6)
    given = {**inputs, "attention_mask": block.expand(3, 1, 12, 12), "position_ids": torch.arange(12).expand(3, 12) % 6}
    assert model(**given).loss > 0


# 47
def test_a_model_that_cannot_keep_packed_documents_apart_is_refused_when_it_meets_them(packed, batch, selective):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 24}
    config = AutoConfig.for_model("opt", vocab_size=61, word_embed_proj_dim=16, **sizes)
    model = AutoModelForCausalLM.from_config(config).train()
    handle = selective(model, SelectionPolicy())
    model(**batch())
    with pytest.raises(ValueError, match="attention of OPTForCausalLM crosses documents in a packed row"):
        model(**packed)
    with pytest.raises(ValueError, match="crosses documents"):
        handle.token_losses(**packed)


def test_documents_are_checked_in_batches_of_the_size_that_is_trained_on(tiny):
    """Some attention kernels see where documents end in a batch of one row alone."""

    def forget_documents_in_several_rows(module, args, options):
        ids = options["input_ids"]
        if len(ids) > 1 and options.get("position_ids") is not None:
            options["position_ids"] = torch.arange(ids.shape[1]).expand_as(ids)
        return args, options

    model = tiny()
    model.model.register_forward_pre_hook(forget_documents_in_several_rows, with_kwargs=True)
    handle = make_selective(model, SelectionPolicy(ratio=1))
    ids = torch.arange(24).view(2, 12) + 3
    positions = (torch.arange(12) % 6).expand(2, 12)
    handle.token_losses(input_ids=ids[:1], labels=ids[:1], position_ids=positions[:1])
    with pytest.raises(ValueError, match="crosses documents in a packed row"):
        model(input_ids=ids, labels=ids, position_ids=positions)
