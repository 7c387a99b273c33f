"""Scores: the loss of each token under the training context, bound to corpus, reference and context."""

import re

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.scorer import Scorer
from tokensieve.reference.scoring import score_corpus
from tokensieve.reference.store import ScoreStore
from tokensieve.selection import SelectionPolicy
from tokensieve.selective import make_selective
from tokensieve.stage import read_manifest, write_manifest

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
            values = stored[shard][:][position]
            np.testing.assert_allclose(values[candidates], expected[0].numpy()[candidates], rtol=1e-3)
    for shard, mask in enumerate(seen):
        bits = np.asarray(losses[shard]).view(np.uint16)
        assert (bits[~mask] == 0x7E00).all()
        assert np.isfinite(losses[shard][:][mask]).all() and (losses[shard][:][mask] >= 0).all()


def test_training_windows_read_the_scores_bit_for_bit(scored, store):
    windows = Windows(store, 16, columns={"reference_loss": scored.column("loss")})
    batch = windows.__getitems__(list(range(len(windows))))
    candidates = batch["labels"] != -100
    assert torch.isfinite(batch["reference_loss"].view(torch.float16)[candidates]).all()
    assert torch.isnan(batch["reference_loss"].view(torch.float16)[~candidates]).all()


def test_scoring_again_does_nothing_and_an_interrupted_one_keeps_finished_shards(scored, store, tiny_model, tmp_path):
    folder = tmp_path / "scores"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("0*")}
    section = ScoreSection(entropy=True, batch_size=3)
    score_corpus(section, CONTEXT, store, tiny_model(), folder)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("0*")} == before
    manifest = read_manifest(folder / "scores.json")
    write_manifest(folder / "scores.json", {**manifest, "finished": False, "outputs": {}})
    for path in folder.glob("00001.*"):
        path.unlink()
    score_corpus(section, CONTEXT, store, tiny_model(), folder)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("0*")}
    assert after["00000.loss.f16"] == before["00000.loss.f16"]
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    again = read_manifest(folder / "scores.json")
    assert again["seconds"] >= manifest["seconds"]
    unequal = ("seconds", "checksum")
    assert [{k: v for k, v in m.items() if k not in unequal} for m in (manifest, again)] == [
        {k: v for k, v in manifest.items() if k not in unequal}
    ] * 2


def test_the_manifest_binds_the_scores_to_everything_they_depend_on(scored, store, tiny_model):
    manifest = read_manifest(scored.folder / "scores.json")
    making = manifest["inputs"].pop("making")
    assert manifest["inputs"] == {
        "corpus": {
            "tokenizer": store.tokenizer,
            "tokens": store.tokens,
            "shards": [[shard.name, shard.tokens, shard.digest] for shard in store.shards],
        },
        "context": {"length": 16, "document_mask": True},
        "reference": weights_digest(tiny_model()),
        "dtype": "float32",
        "columns": ["loss", "entropy"],
    }
    assert making["batch_size"] == 3 and making["software"]["torch"] == torch.__version__
    assert manifest["outputs"]["gate"]["tokens"] > 100
    candidates = Windows(store, 16).__getitems__(range(len(Windows(store, 16))))["labels"] != -100
    assert manifest["outputs"]["scored_tokens"] == scored.scored_tokens == int(candidates.sum())


def test_columns_that_are_asked_for_and_no_others(store, tiny_model, tmp_path):
    section = ScoreSection(correct=True)
    scores = score_corpus(section, CONTEXT, store, tiny_model(), tmp_path / "scores")
    assert scores.columns == ("loss", "correct")
    with pytest.raises(UserError, match=r"columns is \['loss', 'correct'\] there, \['loss'\] here"):
        score_corpus(ScoreSection(), CONTEXT, store, tiny_model(), tmp_path / "scores")


def test_a_store_that_does_not_pass_the_gate_is_not_finished(store, tiny_model, tmp_path, monkeypatch):
    def shifted(self, store, i, advance):
        values = score_shard(self, store, i, advance)
        live = np.isfinite(values["loss"])
        values["loss"][live] = np.roll(values["loss"][live], 1)
        return values

    score_shard = Scorer.score_shard
    monkeypatch.setattr(Scorer, "score_shard", shifted)
    with pytest.raises(UserError, match="do not agree with the reference"):
        score_corpus(ScoreSection(), CONTEXT, store, tiny_model(), tmp_path / "scores")
    with pytest.raises(UserError, match="not finished"):
        ScoreStore(tmp_path / "scores", store)


def test_the_reference_is_bound_by_weights_types_and_what_it_computes(tiny_model):
    model = tiny_model()
    digest = weights_digest(model)
    assert re.fullmatch("[0-9a-f]{32}", digest)
    model.config._name_or_path, model.config.use_cache = "elsewhere", False
    assert weights_digest(model) == digest
    model.config.rope_theta = 77.0
    assert weights_digest(model) != digest
    assert weights_digest(tiny_model().double()) != digest
    changed = tiny_model()
    with torch.no_grad():
        changed.lm_head.weight.view(torch.int32)[3, 3] ^= 1
    assert weights_digest(changed) != digest


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


def test_a_window_longer_than_every_shard_is_refused_before_anything_is_bound_to_it(store, tiny_model, tmp_path):
    with pytest.raises(UserError, match="no shard holds a window of 4096 tokens"):
        score_corpus(ScoreSection(), ContextSection(length=4096), store, tiny_model(), tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_model_whose_attention_crosses_documents_is_refused_before_anything_is_scored(store, tmp_path):
    opt = {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", vocab_size=61, **opt)).eval()
    with pytest.raises(UserError, match="attention of OPTForCausalLM crosses documents.*document_mask=false"):
        score_corpus(ScoreSection(), CONTEXT, store, model, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
    plain = ContextSection(length=16, document_mask=False)
    assert score_corpus(ScoreSection(), plain, store, model, tmp_path / "scores").scored_tokens > 0
