"""The scorer against the definition: logits of each fragment alone, cross entropy in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.reference import scorer as module
from tokensieve.reference.fragments import plan_groups
from tokensieve.reference.scorer import Scorer
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

ALL = ("loss", "entropy", "correct")
CONTEXT = ContextSection(length=16)
PACKED = ContextSection(length=16, document_mask=False)


def build(name: str, seed: int = 0, **more: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.5}
    if name not in ("gpt2", "bloom"):
        sizes |= {"intermediate_size": 24, "num_key_value_heads": 1, "max_position_embeddings": 16}
    elif name == "gpt2":
        sizes |= {"n_positions": 16}
    if name == "gemma2":
        sizes |= {"head_dim": 8}
    config = AutoConfig.for_model(
        name, **{**sizes, "vocab_size": 61, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None, **more}
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model


def naive(model: PreTrainedModel, store: TokenStore, i: int, context: ContextSection) -> dict[str, np.ndarray]:
    """Each fragment on its own through `model(input_ids).logits`, in float64; NaN or 255 where nothing is scored."""
    model = model.eval().double()
    tokens = store.shard_tokens(i)[:].astype(np.int64)
    found = {"loss": np.full(len(tokens), np.nan), "entropy": np.full(len(tokens), np.nan)}
    found["correct"] = np.full(len(tokens), 255.0)
    ends = store.document_ends(i).tolist()
    T = context.length
    for window in range(0, len(tokens) // T * T, T):
        cuts = [window, *(end for end in ends if window < end < window + T and context.document_mask), window + T]
        for begin, end in zip(cuts, cuts[1:], strict=False):
            if end - begin < 2:
                continue
            ids = torch.from_numpy(tokens[begin:end])
            with torch.no_grad():
                logs = model(input_ids=ids[None], use_cache=False).logits[0, :-1].log_softmax(-1)
            at = slice(begin + 1, end)
            found["loss"][at] = -logs.gather(1, ids[1:, None])[:, 0].numpy()
            found["entropy"][at] = -(logs.exp() * logs).sum(-1).numpy()
            found["correct"][at] = (logs.argmax(-1) == ids[1:]).numpy()
    model.float()
    return found


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: build("llama", attention_dropout=0.3),
    "learned-positions": lambda: build("gpt2", seed=1, resid_pdrop=0.3, tie_word_embeddings=False),
    "alibi": lambda: build("bloom"),
    "bias": lambda: build("phi", partial_rotary_factor=0.5, num_key_value_heads=2),
    "soft-cap": lambda: build("gemma2", final_logit_softcapping=3.0),
    "scale": lambda: build("granite", logits_scaling=4.0),
}


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("context", [CONTEXT, PACKED], ids=["documents", "packed"])
def test_every_column_is_that_of_each_fragment_alone(store: TokenStore, name: str, context: ContextSection) -> None:
    model = MODELS[name]()
    scorer = Scorer(model, ALL, context, 3, "float32")
    seen: set[int] = set()
    for i in range(len(store.shards)):
        values = scorer.score_shard(store, i)
        expected = naive(model, store, i, context)
        live = np.isfinite(expected["loss"])
        for column in ("loss", "entropy"):
            assert values[column].dtype == np.float16
            assert (values[column].view(np.uint16)[~live] == 0x7E00).all()
            np.testing.assert_allclose(values[column][live], expected[column][live], rtol=1e-3, atol=1e-4)
        assert values["correct"].dtype == np.uint8
        assert (values["correct"] == expected["correct"]).all()
        seen |= set(np.unique(values["correct"]).tolist())
    assert seen == {0, 1, 255}  # all three occur
    assert np.nanstd(values["loss"].astype(float)) > 0.2


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-3), ("bfloat16", 0.25)])
def test_it_agrees_with_packed_windows_as_training_reads_them(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], dtype: str, tolerance: float
) -> None:
    model = tiny_model(0).eval()
    handle = make_selective(model, SelectionPolicy(ratio=1))
    windows = Windows(store, 16)
    batch = windows.__getitems__(list(range(len(windows))))
    index = batch.pop("token_index")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        live, _ = handle.token_losses(**batch)
    handle.remove()
    scorer = Scorer(model, ("loss",), CONTEXT, 2, dtype)
    scored = np.concatenate([scorer.score_shard(store, i)["loss"] for i in range(len(store.shards))]).astype(float)
    candidates = batch["labels"] != -100
    difference = np.abs(scored[index[candidates].numpy()] - live[candidates].numpy())
    assert difference.max() < tolerance
    exact = Scorer(model, ("loss",), CONTEXT, 2, "float32").score_shard(store, 0)["loss"].view(np.uint16)
    same = (scored[: len(exact)].astype(np.float16).view(np.uint16) == exact).all()
    assert same == (dtype == "float32")  # bfloat16 does something


def test_the_batch_size_changes_no_more_than_the_last_bits(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]
) -> None:
    one, many = (
        Scorer(tiny_model(0), ALL, CONTEXT, size, "float32").score_shard(store, 0)["loss"].astype(float)
        for size in (1, 50)
    )
    np.testing.assert_allclose(one, many, rtol=1e-3)


def test_the_same_bytes_each_time(store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]) -> None:
    scorer = Scorer(tiny_model(0), ALL, CONTEXT, 3, "float32")
    first, again = scorer.score_shard(store, 1), scorer.score_shard(store, 1)
    assert all(first[column].tobytes() == again[column].tobytes() for column in ALL)


def test_dropout_is_off_and_no_gradient_is_kept(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]
) -> None:
    model = tiny_model(0)
    assert model.training
    scorer = Scorer(model, ("loss",), CONTEXT, 3, "float32")
    forward, seen = model.base_model.forward, []

    def spy(*arguments: Any, **more: Any) -> Any:
        result = forward(*arguments, **more)
        seen.append((torch.is_inference_mode_enabled(), result.last_hidden_state.requires_grad, more))
        return result

    model.base_model.forward = spy
    scorer.score_shard(store, 0)
    assert not model.training
    assert all(inference and not grad for inference, grad, _ in seen)
    # Short rows attend to themselves alone: no mask, no cache, positions from 0.
    assert all(set(more) == {"input_ids", "use_cache"} and not more["use_cache"] for _, _, more in seen)
    passes = sum(len(group.passes) for group in plan_groups(store.document_ends(0), store.shards[0].tokens, CONTEXT, 3))
    assert len(seen) == passes > 1


def test_every_token_is_reported_as_done(store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]) -> None:
    told: list[int] = []
    Scorer(tiny_model(0), ("loss",), CONTEXT, 1, "float32").score_shard(store, 0, told.append)
    assert sum(told) == store.shards[0].tokens and len(told) > 2


@pytest.mark.parametrize("column, weight", [("loss", 1e30), ("loss", 3e5), ("entropy", float("nan"))])
def test_a_value_that_float16_cannot_hold_is_one_line_with_its_place(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], column: str, weight: float
) -> None:
    model = tiny_model(0)
    scorer = Scorer(model, ALL[:2], CONTEXT, 3, "float32")
    with torch.no_grad():
        model.lm_head.weight[5] = weight
    with pytest.raises(UserError, match=r"is not finite at token \d+ of document \d+ .shard 00000, s0.; check") as e:
        scorer.score_shard(store, 0)
    assert "\n" not in str(e.value) and str(store.folder) in str(e.value)


def test_the_first_bad_token_of_a_pass_is_named(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are sorted by length: the first in the shard is not the first in the pass."""
    scorer = Scorer(tiny_model(0), ("loss",), CONTEXT, 1_000, "float32")
    (group,) = plan_groups(store.document_ends(0), store.shards[0].tokens, CONTEXT, 1_000)
    positions = group.passes[0].positions
    ids = store.shard_tokens(0)[:][positions]
    places = {bad: positions[ids == bad] for bad in set(ids.tolist())}
    bad = next(bad for bad, found in places.items() if found[0] != found.min())
    inner = module.first_pass

    def spoiled(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, **more: Any) -> Any:
        found = inner(hidden, weight, labels, **more)
        found.losses[labels == bad] = float("inf")
        return found

    monkeypatch.setattr(module, "first_pass", spoiled)
    place = store.locate(int(places[bad].min()))
    with pytest.raises(UserError, match=f"at token {place.offset} of document {place.document} "):
        scorer.score_shard(store, 0)


def test_ids_outside_the_references_vocabulary_are_refused_and_never_clamped(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]
) -> None:
    model = build("llama", vocab_size=60)
    scorer = Scorer(model, ("loss",), CONTEXT, 3, "float32")
    with pytest.raises(UserError, match="holds id 60, and the reference's vocabulary has 60; score with"):
        scorer.score_shard(store, 0)


def test_a_model_whose_loss_is_not_ours_is_refused(tiny_model: Callable[[int], PreTrainedModel]) -> None:
    model = tiny_model(0)

    class Doubled(torch.nn.Linear):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden) * 2

    model.lm_head.__class__ = Doubled
    with pytest.raises(UserError, match="cannot score with this model"):
        Scorer(model, ("loss",), CONTEXT, 3, "float32")


def test_a_damaged_store_is_refused(store: TokenStore, tiny_model: Callable[[int], PreTrainedModel]) -> None:
    path: Path = store.folder / "00001.ds"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    scorer = Scorer(tiny_model(0), ("loss",), CONTEXT, 3, "float32")
    scorer.score_shard(store, 0)
    with pytest.raises(UserError, match=r"00001.ds: damaged .bytes 0 to"):
        scorer.score_shard(store, 1)
