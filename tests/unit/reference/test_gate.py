"""The parity gate: what it must let through, and each kind of wrong scores that it must not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.reference.gate import check_sample
from tokensieve.reference.scorer import Scorer
from tokensieve.storage.checksums import CheckedArray, seal_shard

CONTEXT = ContextSection(length=16)
EVERY = 1_000
"""More windows than the store has: the sample is all of it."""

Losses = list[np.ndarray]


@pytest.fixture
def sharp(tiny_model: Callable[[int], PreTrainedModel]) -> Callable[[int], PreTrainedModel]:
    """Tiny models whose losses differ from token to token, and from context to context."""

    def make(seed: int = 0) -> PreTrainedModel:
        model = tiny_model(seed).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.mul_(20)
        return model

    return make


@pytest.fixture
def losses(store: TokenStore, sharp: Callable[[int], PreTrainedModel]) -> Losses:
    scorer = Scorer(sharp(0), ("loss",), CONTEXT, 3, "float32")
    return [scorer.score_shard(store, i)["loss"] for i in range(len(store.shards))]


@pytest.fixture
def written(tmp_path: Path, store: TokenStore) -> Callable[[Losses], list[CheckedArray]]:
    """Losses on the disk, where the gate reads them."""

    def write(losses: Losses) -> list[CheckedArray]:
        folder = tmp_path / "written"
        folder.mkdir(exist_ok=True)
        arrays = []
        for shard, values in zip(store.shards, losses, strict=True):
            values.tofile(folder / f"{shard.name}.loss.f16")
            digest = seal_shard(folder, shard.name, [".loss.f16"])
            arrays.append(CheckedArray(folder, shard.name, ".loss.f16", values.dtype, len(values), digest))
        return arrays

    return write


def test_right_scores_pass_and_the_result_says_how_well(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    found = check_sample(written(losses), store, CONTEXT, sharp(0), "float32", windows=EVERY)
    live = sum(int(np.isfinite(values).sum()) for values in losses)
    assert (found["windows"], found["tokens"]) == (sum(shard.tokens // 16 for shard in store.shards), live)
    assert 0 <= found["mean_difference"] < 1e-4 < found["largest_difference"] < 5e-3
    assert found["tolerance"] == {"absolute": 2e-3, "relative": 2e-3, "mean": 1e-3}
    few = check_sample(written(losses), store, CONTEXT, sharp(0), "float32", windows=4)
    assert few["windows"] == 4 and few["tokens"] < live


def test_the_sample_is_spread_over_the_corpus_and_another_seed_takes_other_windows(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    """Wrong scores in the last quarter alone are found by four windows."""
    arrays = written(losses)
    tokens = {check_sample(arrays, store, CONTEXT, sharp(0), "float32", 1, seed)["tokens"] for seed in range(4)}
    assert len(tokens) > 1
    losses[1][len(losses[1]) // 2 :] += 1
    with pytest.raises(UserError, match="do not agree"):
        check_sample(written(losses), store, CONTEXT, sharp(0), "float32", windows=4)


def shifted(losses: Losses) -> None:
    for values in losses:
        live = np.flatnonzero(np.isfinite(values))
        values[live] = np.roll(values[live], 1)


def swapped(losses: Losses) -> None:
    live = [np.flatnonzero(np.isfinite(values)) for values in losses]
    count = min(map(len, live))
    first = losses[0][live[0][:count]].copy()
    losses[0][live[0][:count]] = losses[1][live[1][:count]]
    losses[1][live[1][:count]] = first


def one_token(losses: Losses) -> None:
    live = np.flatnonzero(np.isfinite(losses[1]))
    losses[1][live[7]] += losses[1][live[7]] * np.float16(0.01) + np.float16(0.01)


def one_unscored(losses: Losses) -> None:
    losses[0][np.flatnonzero(np.isfinite(losses[0]))[3]] = np.nan


def last_bit(losses: Losses) -> None:
    """Within the limit of a token, not within that of the mean."""
    for values in losses:
        values[:] = np.nextafter(values, np.float16(np.inf))


@pytest.mark.parametrize("spoil", [shifted, swapped, one_token, one_unscored, last_bit])
def test_wrong_scores_are_refused(
    store: TokenStore,
    sharp: Callable[[int], PreTrainedModel],
    losses: Losses,
    written: Callable,
    spoil: Callable[[Losses], None],
) -> None:
    spoil(losses)
    with pytest.raises(UserError, match="the scores do not agree .* the store is not usable: remove it") as caught:
        check_sample(written(losses), store, CONTEXT, sharp(0), "float32", windows=EVERY)
    assert "\n" not in str(caught.value)
    assert ("worst nan stored" in str(caught.value)) == (spoil is one_unscored)


def test_the_worst_token_is_named_with_both_values(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    position = int(np.flatnonzero(np.isfinite(losses[1]))[7])
    right = float(losses[1][position])
    losses[1][position] = right + 8
    place = store.locate(store.shards[1].start + position)
    with pytest.raises(UserError) as caught:
        check_sample(written(losses), store, CONTEXT, sharp(0), "float32", windows=EVERY)
    assert f"(token {place.offset} of document {place.document}, shard 00001)" in str(caught.value)
    assert f"worst {right + 8:.4g}"[:8] in str(caught.value)


def test_scores_of_another_model_are_refused(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    with pytest.raises(UserError, match="do not agree"):
        check_sample(written(losses), store, CONTEXT, sharp(1), "float32")


@pytest.mark.parametrize("mask", [True, False])
def test_scores_whose_attention_crossed_documents_are_refused_and_the_other_way_round(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable, mask: bool
) -> None:
    other = ContextSection(length=16, document_mask=not mask)
    scorer = Scorer(sharp(0), ("loss",), other, 3, "float32")
    crossed = [scorer.score_shard(store, i)["loss"] for i in range(len(store.shards))]
    check_sample(written(crossed), store, other, sharp(0), "float32")
    with pytest.raises(UserError, match="do not agree"):
        check_sample(written(crossed), store, ContextSection(length=16, document_mask=mask), sharp(0), "float32")


def test_scores_of_other_windows_are_refused(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    with pytest.raises(UserError, match="do not agree"):
        check_sample(written(losses), store, ContextSection(length=12), sharp(0), "float32")


def test_bfloat16_scores_pass_with_their_tolerance_and_not_with_that_of_float32(
    store: TokenStore, tiny_model: Callable[[int], PreTrainedModel], written: Callable
) -> None:
    model = tiny_model(0)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    scorer = Scorer(model, ("loss",), CONTEXT, 3, "bfloat16")
    rough = written([scorer.score_shard(store, i)["loss"] for i in range(len(store.shards))])
    assert check_sample(rough, store, CONTEXT, model, "bfloat16", windows=EVERY)["tokens"] > 100
    with pytest.raises(UserError, match="do not agree"):
        check_sample(rough, store, CONTEXT, model, "float32", windows=EVERY)


def test_damaged_scores_and_a_store_without_a_window_are_refused(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    arrays = written(losses)
    data = bytearray(arrays[0].path.read_bytes())
    data[50] ^= 4
    arrays[0].path.write_bytes(data)
    with pytest.raises(UserError, match="00000.loss.f16: damaged"):
        check_sample(arrays, store, CONTEXT, sharp(0), "float32", windows=EVERY)
    with pytest.raises(UserError, match="no shard holds a window"):
        check_sample(written(losses), store, ContextSection(length=100_000), sharp(0), "float32")


def test_the_model_is_as_it_was(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], losses: Losses, written: Callable
) -> None:
    model = sharp(0)
    check_sample(written(losses), store, CONTEXT, model, "float32")
    shifted(losses)
    with pytest.raises(UserError):
        check_sample(written(losses), store, CONTEXT, model, "float32")
    assert "forward" not in vars(model)


def test_high_losses_pass_though_float16_rounds_them_by_thousandths(
    store: TokenStore, sharp: Callable[[int], PreTrainedModel], written: Callable
) -> None:
    """Losses of 8 to 16 nats are multiples of 1/128: the rounding alone has a mean of 0.002."""
    model = sharp(0)
    with torch.no_grad():
        model.lm_head.weight.mul_(4)
    scorer = Scorer(model, ("loss",), CONTEXT, 3, "float32")
    losses = [scorer.score_shard(store, i)["loss"] for i in range(len(store.shards))]
    assert np.nanmean(np.concatenate(losses).astype(float)) > 8
    found = check_sample(written(losses), store, CONTEXT, model, "float32", windows=EVERY)
    assert found["largest_difference"] > 3e-3
    losses[0][:] += np.float16(1 / 128)
    losses[1][:] += np.float16(1 / 128)
    with pytest.raises(UserError, match="do not agree"):
        check_sample(written(losses), store, CONTEXT, model, "float32", windows=EVERY)


def test_windows_without_a_candidate_are_passed_over_and_a_sample_of_nothing_proves_nothing(
    make_store: Callable[..., TokenStore], sharp: Callable[[int], PreTrainedModel], tmp_path: Path
) -> None:
    def check(name: str, documents: list[list[int]]) -> dict[str, Any]:
        corpus = make_store(tmp_path / name, [documents], vocab_size=61)
        values = Scorer(sharp(0), ("loss",), CONTEXT, 3, "float32").score_shard(corpus, 0)["loss"]
        folder = tmp_path / f"{name}-scores"
        folder.mkdir()
        values.tofile(folder / "00000.loss.f16")
        digest = seal_shard(folder, "00000", [".loss.f16"])
        column = CheckedArray(folder, "00000", ".loss.f16", values.dtype, len(values), digest)
        return check_sample([column], corpus, CONTEXT, sharp(0), "float32", EVERY)

    found = check("mixed", [[0]] * 32 + [[5, 6, 7, 0]] * 4)
    assert (found["windows"], found["tokens"]) == (3, 12)
    with pytest.raises(UserError, match="none of 2 windows of 16 tokens holds a token with anything before it"):
        check("alone", [[0]] * 32)
