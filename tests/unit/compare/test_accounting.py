"""FLOPs against PyTorch's own counter and by hand, and the way to a loss.

How formula and counter differ, and what the tests do about it: the eager attention counted here multiplies all T
keys of a row and the formula its causal half, so the test adds the other half; a window has T - 1 targets, and the
formula counts T (0.8 % of the head at T = 128); rotary positions are a small product that the formula leaves out. The
counter does not know `addmm_`, which the head's weight gradient is summed with: it is told.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from tokensieve import SelectionPolicy, head, make_selective
from tokensieve.compare import accounting
from tokensieve.compare.accounting import reference_flops, run_flops, scoring_flops
from tokensieve.head import default_chunk_rows
from tokensieve.planning.costs import head_units
from tokensieve.planning.shape import ModelShape, model_shape
from tokensieve.recipe import Recipe, build

ROWS, LENGTH, VOCABULARY = 4, 128, 600
MODELS = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": LENGTH,
        "resid_pdrop": 0,
        "embd_pdrop": 0,
        "attn_pdrop": 0,
    },
}
SHAPE = ModelShape("made up", 0, 1_000, 100, 2, 8, 8, 0, 0, 10, 64, (None, None))


def measured_shape(name: str) -> ModelShape:
    data: dict[str, Any] = {
        "out": "nowhere",
        "model": {"fresh": MODELS[name]},
        "tokenizer": {"train_vocab": VOCABULARY},
        "corpus": {"sources": [{"path": "corpus.jsonl"}]},
        "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 1},
        "train": {"tokens": 1_000},
    }
    recipe = build(Recipe, data, "recipe.yaml")
    return model_shape(recipe.model, recipe)


def fresh(name: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**MODELS[name], "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()


def batch() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=draw)
    return {"input_ids": ids, "labels": ids.clone(), "reference_loss": 6 * torch.rand(ROWS, LENGTH, generator=draw)}


def counter() -> FlopCounterMode:
    def addmm(total: Any, a: Any, b: Any, **_: Any) -> int:
        return 2 * a[0] * a[1] * b[1]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm})


def acausal(shape: ModelShape, passes: int) -> float:
    """FLOPs of the keys after each token, which eager attention multiplies as well: T instead of (T + 1) / 2."""
    return passes * ROWS * LENGTH * 4 * shape.attention_width * shape.layers * (LENGTH - 1) / 2


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("score", ["excess_loss", "reference_loss"])
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_training_step_costs_what_the_formula_says(
    name: str, ratio: float, score: str, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, model, tokens = measured_shape(name), fresh(name), ROWS * LENGTH
    rows = tokens // chunks
    for module in (accounting, head):
        monkeypatch.setattr(module, "default_chunk_rows", lambda vocabulary: rows)
    policy = SelectionPolicy(score=score, ratio=ratio, scope="microbatch")
    make_selective(model, policy)
    inputs = {key: value for key, value in batch().items() if key in ("input_ids", "labels", *policy.columns)}
    model(**inputs).loss.backward()  # the first forward also compares the head with the model's own
    model.zero_grad()
    with counter() as found:
        model(**inputs, use_cache=False).loss.backward()
    formula = run_flops(shape, policy, LENGTH, tokens, 1, micro_tokens=tokens)[-1]
    assert found.get_total_flops() == pytest.approx(formula + acausal(shape, 3), rel=0.005)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_scoring_costs_what_the_formula_says(name: str) -> None:
    shape, model = measured_shape(name), fresh(name)
    handle = make_selective(model, SelectionPolicy(ratio=1))
    ids = batch()["input_ids"]
    handle.token_losses(ids, input_ids=ids)
    with counter() as found:
        handle.token_losses(ids, input_ids=ids, use_cache=False)
    formula = scoring_flops(shape, LENGTH, ROWS * LENGTH)
    assert found.get_total_flops() == pytest.approx(formula + acausal(shape, 1), rel=0.005)


@pytest.mark.parametrize(
    ("policy", "units"),
    [
        (SelectionPolicy(ratio=1), 6.0),
        (SelectionPolicy(ratio=0.5), 5.0),
        (SelectionPolicy(score="random", ratio=0.5), 3.0),
        (SelectionPolicy(ratio=0.5, alpha=0.9), 8.0),
        (SelectionPolicy(ratio=0.5, temperature=1.0), 8.0),
        (SelectionPolicy(score="random", ratio=0.5, alpha=0.9), 6.0),
    ],
)
def test_units_of_the_head(policy: SelectionPolicy, units: float) -> None:
    assert head_units(policy) == units
    # Rows that the first pass leaves are cheaper, and there is a first pass only where a live loss is needed.
    saved = 2.0 * (0.5 if policy.alpha == 1 and policy.temperature is None else 1.0) * policy.needs_live_loss
    assert head_units(policy, kept=1.0) == units - saved
    assert head_units(policy, kept=0.25) == units - saved / 4


def test_a_run_grows_by_a_step_at_a_time_and_knows_warm_up_and_schedule() -> None:
    # 3 x (2 x 1000 + attention) a token; keys: (4 + 1) / 2; the head has 100 weights.
    backbone = 3 * (2_000 + 2 * 4 * 8 * 2.5)
    plain = run_flops(SHAPE, SelectionPolicy(ratio=1), 4, 10, 3)
    assert plain.dtype == np.float64
    np.testing.assert_allclose(plain, np.arange(4) * 10 * (backbone + 600))
    warm = SelectionPolicy(ratio=0.5, warmup_steps=2)
    np.testing.assert_allclose(
        np.diff(run_flops(SHAPE, warm, 4, 10, 4)), 10 * (backbone + 100 * np.array([6, 6, 5, 5]))
    )
    falling = SelectionPolicy(ratio=0.5, ratio_schedule=((0, 1.0), (2, 0.5)))
    units = [6, 6.5, 5, 5]  # ratio 1 is ordinary training
    np.testing.assert_allclose(np.diff(run_flops(SHAPE, falling, 4, 10, 4)), 10 * (backbone + 100 * np.array(units)))
    # A schedule longer than the run.
    np.testing.assert_allclose(run_flops(SHAPE, falling, 4, 10, 1)[-1], 10 * (backbone + 600))
    again = run_flops(SHAPE, SelectionPolicy(ratio=1), 4, 10, 3, recompute=True)
    np.testing.assert_allclose(again, np.arange(4) * 10 * (backbone * 4 / 3 + 600))
    assert run_flops(SHAPE, warm, 4, 10, 0).tolist() == [0.0]
    assert reference_flops(SHAPE, 4, 10) == pytest.approx(plain[1])
    assert scoring_flops(SHAPE, 4, 10) == pytest.approx(10 * (backbone / 3 + 200))


def test_a_long_run_is_counted_at_once() -> None:
    spent = run_flops(SHAPE, SelectionPolicy(ratio=0.5, warmup_steps=10), 4, 10, 5_000_000)
    assert len(spent) == 5_000_001 and math.isfinite(spent[-1])


def test_only_the_last_chunk_of_a_micro_step_is_kept() -> None:
    size = default_chunk_rows(SHAPE.vocabulary)
    policy = SelectionPolicy(ratio=0.5)

    def a_step(micro_tokens: int | None) -> float:
        return run_flops(SHAPE, policy, 4, 1, 1, micro_tokens=micro_tokens)[-1]

    many = a_step(None)
    assert many - a_step(size) == pytest.approx(100)
    assert many - a_step(size // 2) == pytest.approx(100)
    assert many - a_step(4 * size) == pytest.approx(25)
    assert many - a_step(size + size // 4) == pytest.approx(20)
