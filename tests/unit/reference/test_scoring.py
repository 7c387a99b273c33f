"""Scores: the loss of each token under the training context, bound to corpus, reference and context."""

import json

import numpy as np
import pytest
import torch

from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.scoring import score_corpus, weights_digest
from tokensieve.reference.store import ScoreStore
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective

CONTEXT = ContextSection(length=16)


@pytest.fixture
def scored(store, tiny_model, tmp_path):
    section = ScoreSection(entropy=True, batch_size=3)
    return score_corpus(section, CONTEXT, store, tiny_model(), tmp_path / "scores")


def test_each_candidate_has_its_loss_and_everything_else_is_nan(scored, store, tiny_model):
    model = tiny_model().eval()
    handle = make_selective(model, SelectionPolicy())
    windows = Windows(store, 16)
    losses, entropies = scored.column("loss"), scored.column("entropy")
    seen = [np.zeros(shard.tokens, dtype=bool) for shard in store.shards]
    for i in range(len(windows)):
        batch = windows.__getitems__([i])
        index = batch.pop("token_index")[0]
        live, live_entropy = handle.token_losses(**batch, entropy=True)
        shard = 0 if index[0] < store.shards[1].start else 1
        position = (index - store.shards[shard].start).numpy()
        candidates = (batch["labels"][0] != -100).numpy()
        seen[shard][position[candidates]] = True
        for stored, expected in ((losses, live), (entropies, live_entropy)):
            values = stored[shard][position]
            np.testing.assert_allclose(values[candidates], expected[0].numpy()[candidates], rtol=1e-3)
    for shard, mask in enumerate(seen):
        bits = np.asarray(losses[shard]).view(np.uint16)
        assert (bits[~mask] == 0x7E00).all()
        assert np.isfinite(losses[shard][mask]).all() and (losses[shard][mask] >= 0).all()


def test_training_windows_read_the_scores_bit_for_bit(scored, store):
    windows = Windows(store, 16, columns={"reference_loss": scored.column("loss")})
    batch = windows.__getitems__(list(range(len(windows))))
    candidates = batch["labels"] != -100
    assert torch.isfinite(batch["reference_loss"].view(torch.float16)[candidates]).all()
    assert torch.isnan(batch["reference_loss"].view(torch.float16)[~candidates]).all()


def test_scoring_again_does_nothing_and_an_interrupted_one_keeps_finished_shards(scored, store, tiny_model, tmp_path):
    folder = tmp_path / "scores"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.f16")}
    section = ScoreSection(entropy=True, batch_size=3)
    score_corpus(section, CONTEXT, store, tiny_model(), folder)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.f16")} == before
    manifest = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps({**manifest, "finished": False}))
    (folder / "00001.loss.f16").unlink()
    score_corpus(section, CONTEXT, store, tiny_model(), folder)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.f16")}
    assert after["00000.loss.f16"] == before["00000.loss.f16"]
    assert after["00001.loss.f16"][0] == before["00001.loss.f16"][0]


def test_scores_of_another_context_corpus_or_size_are_refused(scored, store, tmp_path):
    folder = tmp_path / "scores"
    with pytest.raises(UserError, match="scored under the context"):
        ScoreStore(folder, store, ContextSection(length=8))
    with pytest.raises(UserError, match="scored under the context"):
        ScoreStore(folder, store, ContextSection(length=16, document_mask=False))
    path = folder / "00000.loss.f16"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="00000.loss.f16: has"):
        ScoreStore(folder, store, CONTEXT)
    store.tokenizer = "another"
    with pytest.raises(UserError, match="made for another corpus"):
        ScoreStore(folder, store, CONTEXT)


def test_another_reference_under_the_same_name_is_refused(scored, store, tiny_model, tmp_path):
    assert weights_digest(tiny_model(0)) == weights_digest(tiny_model(0)) != weights_digest(tiny_model(1))
    with pytest.raises(UserError, match="belongs to another recipe .reference"):
        score_corpus(ScoreSection(entropy=True, batch_size=3), CONTEXT, store, tiny_model(1), tmp_path / "scores")


def test_a_reference_with_infinite_losses_is_refused_and_nothing_stays(store, tiny_model, tmp_path):
    model = tiny_model()
    handle_free_row = 5
    with torch.no_grad():
        model.lm_head.weight[handle_free_row] = 1e30
    with pytest.raises(UserError, match="not finite at token .* of document"):
        score_corpus(ScoreSection(), CONTEXT, store, model, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
