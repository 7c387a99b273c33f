"""Traps 26 to 34: scores of other tokens, other windows, another model or another column, without a word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.faults.world import CONTEXT, VOCABULARY, difference, make_corpus, make_reference, snapshot
from transformers import PreTrainedModel

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.scorer import Scorer
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import ScoreStore
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

ALL = ScoreSection(entropy=True, correct=True, batch_size=2)


@pytest.fixture
def corpus(tmp_path: Path) -> TokenStore:
    return make_corpus(tmp_path / "corpus", shards=5)


@pytest.fixture
def scores(corpus: TokenStore, tmp_path: Path) -> ScoreStore:
    return score_corpus(ALL, CONTEXT, corpus, make_reference(), tmp_path / "scores")


def test_equal_rows_have_their_own_losses_and_keep_them_in_any_order(corpus: TokenStore, scores: ScoreStore) -> None:
    """Trap 26: a key by storage gives every row of a batch one entry. Ours are found by the place in the corpus."""
    columns = {"reference_loss": scores.column("loss")}
    plain = Windows(corpus, 16, columns=columns)
    order = np.random.default_rng(0).permutation(len(plain))
    mixed = Windows(corpus, 16, columns=columns, order=np.concatenate([order, order]))
    first, second = plain.__getitems__(range(len(plain))), mixed.__getitems__(range(2 * len(plain)))
    assert len(torch.unique(first["reference_loss"], dim=0)) == len(plain)
    for name in ("input_ids", "reference_loss", "labels"):
        assert torch.equal(second[name], first[name][torch.from_numpy(np.concatenate([order, order]))])


def retokenised(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == 0, 0, VOCABULARY - ids)


def one_token(ids: np.ndarray) -> np.ndarray:
    changed = ids.copy()
    changed[3] = changed[3] % (VOCABULARY - 1) + 1
    return changed


@pytest.mark.parametrize("change", [retokenised, one_token])
def test_another_corpus_of_equal_length_is_refused(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Trap 27: length and names agree, the tokens do not."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(1, VOCABULARY, 50) for _ in range(3)]
    corpus = make_corpus(tmp_path / "one", ids=ids)
    other = make_corpus(tmp_path / "other", ids=[ids[0], change(ids[1]), ids[2]])
    score_corpus(ALL, CONTEXT, corpus, make_reference(), tmp_path / "scores")
    assert (corpus.tokens, corpus.tokenizer) == (other.tokens, other.tokenizer)
    with pytest.raises(UserError, match=r"another corpus .*shards.1.2 is '[0-9a-f]{32}' there, '[0-9a-f]{32}'"):
        ScoreStore(tmp_path / "scores", other, CONTEXT)
    with pytest.raises(UserError, match=r"corpus.shards.1.2 is .* score.name=ANOTHER"):
        score_corpus(ALL, CONTEXT, other, make_reference(), tmp_path / "scores")


def test_a_corpus_in_another_order_is_refused(tmp_path: Path) -> None:
    """Trap 27."""
    ids = [np.random.default_rng(i).integers(1, VOCABULARY, 50) for i in range(3)]
    score_corpus(ALL, CONTEXT, make_corpus(tmp_path / "one", ids=ids), make_reference(), tmp_path / "scores")
    with pytest.raises(UserError, match="made for another corpus .*shards.0.2"):
        ScoreStore(tmp_path / "scores", make_corpus(tmp_path / "other", ids=ids[::-1]))


@pytest.mark.parametrize("other", [ContextSection(length=8), ContextSection(length=16, document_mask=False)])
def test_scores_of_other_windows_are_refused(corpus: TokenStore, scores: ScoreStore, other: ContextSection) -> None:
    """Trap 28."""
    with pytest.raises(UserError, match="scored under the context .* training uses .*holds for its context only"):
        ScoreStore(scores.folder, corpus, other)
    with pytest.raises(UserError, match="context..* there, .* here.; score under another name"):
        score_corpus(ALL, other, corpus, make_reference(), scores.folder)


def test_every_label_of_the_scored_context_has_a_score(corpus: TokenStore, scores: ScoreStore) -> None:
    """Trap 28: with other windows, each window's first label would have none, or the loss 0."""
    windows = Windows(corpus, 16, columns={"reference_loss": scores.column("loss")})
    batch, bare = (data.__getitems__(range(len(windows))) for data in (windows, Windows(corpus, 16)))
    assert torch.equal(batch["labels"], bare["labels"])
    losses = batch["reference_loss"].view(torch.float16)[batch["labels"] != IGNORED]
    assert torch.isfinite(losses).all() and (losses > 0).all()


def test_what_is_chosen_follows_the_rows_and_is_never_that_of_other_data(
    corpus: TokenStore, scores: ScoreStore
) -> None:
    """Trap 29: a choice that was made for one batch and used for the next."""
    model = make_reference(1).train()
    handle = make_selective(model, SelectionPolicy(ratio=0.5, scope="sequence"))
    handle.keep_selection = True
    windows = Windows(corpus, 16, columns={"reference_loss": scores.column("loss")})
    rows = windows.__getitems__(range(12))
    chosen = []
    for part in (torch.arange(12), torch.arange(11, -1, -1)):
        model(**{name: value[part] for name, value in rows.items()})
        assert handle.last_selection is not None
        chosen.append(handle.last_selection[2][part])
    assert torch.equal(*chosen)
    assert not torch.equal(chosen[0], chosen[0].flip(0))


def test_one_worker_three_workers_and_any_order_of_shards_give_the_same_bytes(
    corpus: TokenStore, scores: ScoreStore, tmp_path: Path
) -> None:
    """Trap 30: nothing depends on order, step or rank."""
    wanted = snapshot(scores.folder)
    for worker in ((1, 2), (2, 3), (4, 5)):
        folder = tmp_path / f"{worker}"
        score_corpus(ALL, CONTEXT, corpus, make_reference(), folder, worker)
        assert difference(snapshot(folder), wanted) == []
    for seed in range(3):
        order = sample_order(corpus, 16, 20, seed=seed)
        batch = Windows(corpus, 16, columns={"loss": scores.column("loss")}, order=order).__getitems__(range(20))
        by_place = np.concatenate([array[:] for array in scores.column("loss")]).view(np.int16)
        assert (batch["loss"].numpy() == by_place[batch["token_index"].numpy() % corpus.tokens]).all()


def changed_weight(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 3] += 1e-6


def changed_configuration(model: PreTrainedModel) -> None:
    model.config.rms_norm_eps = 1e-3


@pytest.mark.parametrize("change", [changed_weight, changed_configuration])
def test_scores_of_another_reference_under_the_same_name_are_never_taken(
    corpus: TokenStore, scores: ScoreStore, change: Callable[[PreTrainedModel], None]
) -> None:
    """Trap 31."""
    model = make_reference()
    change(model)
    assert scores.inputs["reference"] == weights_digest(make_reference()) != weights_digest(model)
    with pytest.raises(UserError, match=r"reference is '[0-9a-f]{32}' there, '[0-9a-f]{32}' here"):
        score_corpus(ALL, CONTEXT, corpus, model, scores.folder)


def test_columns_hold_what_their_names_say_and_cannot_change_places(corpus: TokenStore, scores: ScoreStore) -> None:
    """Trap 32: losses under another column's name make a plausible choice."""
    handle = make_selective(make_reference(), SelectionPolicy(ratio=1))
    windows = Windows(corpus, 16, columns={name: scores.column(name) for name in ("loss", "entropy")})
    batch = windows.__getitems__(range(len(windows)))
    inputs = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
    live = batch["labels"] != IGNORED
    for name, expected in zip(("loss", "entropy"), handle.token_losses(**inputs, entropy=True), strict=True):
        assert expected is not None
        torch.testing.assert_close(batch[name].view(torch.float16)[live].float(), expected[live], rtol=1e-3, atol=1e-4)
    loss, entropy = scores.folder / "00001.loss.f16", scores.folder / "00001.entropy.f16"
    kept = loss.read_bytes()
    loss.write_bytes(entropy.read_bytes())
    entropy.write_bytes(kept)
    fresh = ScoreStore(scores.folder, corpus, CONTEXT)
    for name in ("loss", "entropy"):
        with pytest.raises(UserError, match="damaged"):
            fresh.column(name)[1][:]


def test_ids_beyond_65535_and_zeros_at_the_end_are_scored(tmp_path: Path) -> None:
    """Trap 33: uint32 ids, and documents that end with several zeros, which are tokens like others."""
    vocabulary = 70_000
    ids = np.array([65_535, 65_536, 69_999, 4, 65_537, 5, 69_000, 7, 0, 0, 66_000, 0, 0, 0, 0, 0])
    corpus = make_corpus(tmp_path / "wide", ids=[ids], dtype="<u4", vocabulary=vocabulary)
    assert corpus.shard_tokens(0)[:].tolist() == ids.tolist()
    model = make_reference(vocabulary=vocabulary, scale=20)
    scores = score_corpus(ALL, CONTEXT, corpus, model, tmp_path / "scores")
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0, :-1].double()
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids)[1:], reduction="none").numpy()
    stored = scores.column("loss")[0][:].astype(float)
    assert np.isnan(stored[0])
    np.testing.assert_allclose(stored[1:], expected, rtol=1e-3)
    assert scores.scored_tokens == 15
    assert scores.column("correct")[0][:].tolist()[1:] == (logits.argmax(-1).numpy() == ids[1:]).tolist()


def test_an_error_on_the_way_is_never_a_store_with_holes(
    corpus: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 34: whatever goes wrong with a shard, nobody can open the store, and the next run makes it whole."""
    score = Scorer.score_shard

    def fails_in_the_third(self: Scorer, store: TokenStore, i: int, *more: Any) -> dict[str, np.ndarray]:
        if i == 2:
            raise RuntimeError("out of memory")
        return score(self, store, i, *more)

    folder = tmp_path / "scores"
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_shard", fails_in_the_third)
        with pytest.raises(RuntimeError, match="out of memory"):
            score_corpus(ALL, CONTEXT, corpus, make_reference(), folder)
    with pytest.raises(UserError, match="not finished"):
        ScoreStore(folder, corpus)
    assert {path.name[:5] for path in folder.glob("0*")} == {"00000", "00001"}
    score_corpus(ALL, CONTEXT, corpus, make_reference(), folder)
    score_corpus(ALL, CONTEXT, corpus, make_reference(), tmp_path / "undisturbed")
    assert difference(snapshot(folder), snapshot(tmp_path / "undisturbed")) == []


def test_an_error_while_a_result_is_stored_is_not_lost_in_its_thread(
    corpus: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 34: of the last pass too, whose result nobody waits for otherwise."""
    keep = Scorer._keep
    seen: list[Any] = []
    failing = [0]

    def fails(self: Scorer, found: Any, rows: Any, *more: Any) -> None:
        seen.append(rows)
        if len(seen) == failing[0]:
            raise RuntimeError("the writer failed")
        keep(self, found, rows, *more)

    scorer = Scorer(make_reference(), ("loss",), CONTEXT, 2, "float32")
    monkeypatch.setattr(Scorer, "_keep", fails)
    scorer.score_shard(corpus, 0)
    for failing[0] in (1, len(seen)):
        seen.clear()
        with pytest.raises(RuntimeError, match="the writer failed"):
            scorer.score_shard(corpus, 0)
