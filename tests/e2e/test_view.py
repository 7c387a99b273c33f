"""`tokensieve view` of a finished run: the numbers are the stores' and the models', the text is the text."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from tokensieve import pipeline
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.dynamics.categories import UNKNOWN
from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, load_recipe
from tokensieve.reference.store import ScoreStore
from tokensieve.selection import TokenColumns, apply_policy
from tokensieve.training.arms import training_windows
from tokensieve.viewer import from_run
from tokensieve.viewer.choosing import Wish
from tokensieve.viewer.from_run import view_run
from tokensieve.viewer.from_store import view_store
from tokensieve.viewer.notebook import view
from tokensieve.viewer.opening import open_view
from tokensieve.viewer.passages import Passage, View
from tokensieve.viewer.terminal import select

from .conftest import sentences, write_jsonl

LENGTH = 32


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run of two sources with regions."""
    folder = tmp_path_factory.mktemp("view")
    noisy = []
    for text in sentences(1, 24):
        noise = "".join(random.Random(text).choices("0123456789,", k=60))
        regions = [[0, len(text), "prose"], [len(text), len(text) + 61, "dump"]]
        noisy.append({"text": f"{text} {noise}", "regions": regions})
    write_jsonl(folder / "noisy.jsonl", noisy)
    write_jsonl(folder / "rare.jsonl", [{"text": f"naïve 日本語 🙂 <b>{text}</b>\r\n"} for text in sentences(4, 4)])
    write_jsonl(folder / "clean.jsonl", [{"text": text} for text in sentences(2, 20)])
    write_jsonl(folder / "target.jsonl", [{"text": text} for text in sentences(3, 8)])
    trainer = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True}
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    fresh = {"model_type": "llama", **shape, "num_key_value_heads": 2, "max_position_embeddings": LENGTH}
    data = {
        "out": str(folder / "run"),
        "corpus": {
            "sources": [
                {"path": str(folder / "noisy.jsonl"), "name": "noisy", "regions_field": "regions"},
                {"path": str(folder / "rare.jsonl"), "name": "rare"},
            ]
        },
        "tokenizer": {"train_vocab": 300},
        "context": {"length": LENGTH},
        "model": {"fresh": fresh},
        "reference": {"sources": [{"path": str(folder / "clean.jsonl")}], "epochs": 1, "trainer": dict(trainer)},
        "score": {"entropy": True},
        "train": {
            "tokens": 6 * 4 * LENGTH,
            "trainer": dict(trainer),
            "selection": {"ratio": 0.4, "scope": "microbatch"},
            "arms": ["clm", "slm"],
            "save_at": [2 * 4 * LENGTH],
        },
        "evaluation": {"targets": [{"path": str(folder / "target.jsonl"), "name": "held-out"}], "count": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    pipeline.run(load_recipe(path))
    return path


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


@pytest.fixture(scope="module")
def whole(recipe: Recipe) -> View:
    """Every window of the corpus, slm against the stored reference."""
    return view_run(recipe, wish=Wish(passages=100_000))


def all_windows(recipe: Recipe, **options: Any) -> Windows:
    return Windows(pipeline.open_tokens(recipe), LENGTH, **options)


def joined(view: View, column: Any) -> np.ndarray:
    return np.concatenate([column(passage) for passage in view.passages])


def test_reference_numbers_are_the_bits_of_the_score_store(recipe, whole):
    corpus = pipeline.open_tokens(recipe)
    scores = ScoreStore(recipe.folder / "scores" / "reference", corpus, recipe.context)
    assert whole.passages and len(whole.passages) == all_windows(recipe).n_windows
    (reference,) = [model.key for model in whole.models if model.kind == "reference"]
    for name, column in (("loss", "losses"), ("entropy", "entropies")):
        wanted = np.concatenate(
            [
                scores.column(name)[i][: shard.tokens // LENGTH * LENGTH].view(np.uint16)
                for i, shard in enumerate(corpus.shards)
            ]
        )
        found = joined(whole, lambda passage, column=column: getattr(passage, column)[reference].view(np.uint16))
        assert np.array_equal(found, wanted)
    assert "score store" in " ".join(whole.notes)


def test_candidates_are_those_of_training(recipe, whole):
    windows = training_windows(recipe)
    batch = windows.__getitems__(list(range(len(windows))))
    live = dict(
        zip(
            (batch["token_index"] % windows.store.tokens).flatten().tolist(),
            (batch["labels"] != IGNORED).flatten().tolist(),
            strict=True,
        )
    )
    found = joined(whole, lambda passage: passage.candidates)
    place = all_windows(recipe).__getitems__(list(range(len(whole.passages))))["token_index"].flatten().tolist()
    seen = [(found[i], live[at]) for i, at in enumerate(place) if at in live]
    assert len(seen) > 500
    assert all(here == there for here, there in seen)


def naive(folder: Path, passage: Passage) -> np.ndarray:
    """Losses through logits, each piece of a document by itself; NaN where a piece begins."""
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    found = np.full(len(passage.ids), np.nan)
    starts = np.flatnonzero(np.diff(passage.documents, prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(found)], strict=True):
        ids = torch.from_numpy(passage.ids[begin:end])[None]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        found[begin + 1 : end] = losses.numpy()
    return found


def test_students_losses_are_the_models(recipe):
    saved = f"slm/saved/{2 * 4 * LENGTH}"
    view = view_run(recipe, wish=Wish(passages=6), students=["clm", saved, recipe.folder / "models" / "slm"])
    labels = [model.label for model in view.models]
    assert labels[:2] == ["models/clm", f"models/{saved}"]
    for model, name in zip(view.models, ("clm", saved, "slm"), strict=False):
        for passage in view.passages:
            wanted = naive(recipe.folder / "models" / name, passage)
            np.testing.assert_allclose(passage.losses[model.key].astype(np.float64), wanted, rtol=1e-3, atol=1e-3)
            assert np.array_equal(np.isnan(passage.entropies[model.key]), np.isnan(wanted))
    assert not np.array_equal(view.passages[0].losses["student0"], view.passages[0].losses["student1"])


def test_the_recipes_policy_is_where_the_page_starts(recipe, whole):
    assert (whole.ratio, whole.score, whole.scope) == (0.4, "excess_loss", "global")
    assert whole.sources == ("noisy", "rare") and whole.regions is not None
    assert set(whole.regions) >= {"prose", "dump"}
    notes = " ".join(whole.notes)
    assert "stand for the batch" in notes
    kept = np.concatenate(select(whole, whole.ratio, whole.score))
    columns = {m.kind: joined(whole, lambda passage, m=m: passage.losses[m.key]) for m in whole.models}
    policy = replace(recipe.train.selection, scope="global")
    valid = ~np.isnan(columns["student"]) & ~np.isnan(columns["reference"])
    floats = {
        kind: torch.from_numpy(np.nan_to_num(column.astype(np.float32)))[None] for kind, column in columns.items()
    }
    wanted = apply_policy(
        policy,
        TokenColumns(loss=floats["student"], reference_loss=floats["reference"]),
        torch.from_numpy(valid)[None],
    )
    assert np.array_equal(kept, wanted.selected.numpy()[0])


def test_other_scores_and_what_is_left_out_are_told(recipe):
    policy = replace(recipe.train.selection, score="random", scope="sequence", alpha=0.5, warmup_steps=1)
    view = view_run(replace(recipe, train=replace(recipe.train, selection=policy)), wish=Wish(passages=2))
    notes = " ".join(view.notes)
    assert (view.score, view.scope) == ("excess_loss", "sequence")
    assert "random" in notes and "alpha=0.5, warmup_steps=1" in notes
    policy = replace(recipe.train.selection, score="reference_entropy")
    view = view_run(replace(recipe, train=replace(recipe.train, selection=policy)), wish=Wish(passages=2))
    assert view.score == "reference_entropy"


def test_the_text_is_the_documents(recipe, whole):
    corpus = pipeline.open_tokens(recipe)
    tokenizer = from_run.run_tokenizer(recipe)
    text, row = [], 0
    for shard in corpus.shards:
        rows = shard.tokens // LENGTH
        passages = whole.passages[row : row + rows]
        row += rows
        ids = np.concatenate([passage.ids for passage in passages])
        text.append(tokenizer.decode(ids.tolist(), skip_special_tokens=False))
        # Characters that lie across windows are broken in both; all others are there.
        pieces = "".join("".join(passage.pieces) for passage in passages)
        assert pieces.replace("\ufffd", "").startswith(text[-1][:40])
        for passage in passages:
            assert "".join(passage.pieces) == tokenizer.decode(passage.ids.tolist(), skip_special_tokens=False)
    assert "naïve 日本語 🙂 <b>" in text[-1]


def test_find_source_and_document(recipe):
    found = view_run(recipe, wish=Wish(find="🙂", length=12))
    assert all("🙂" in "".join(passage.pieces) for passage in found.passages)
    assert {found.sources[passage.source] for passage in found.passages} == {"rare"}
    assert all(len(passage.ids) == 12 for passage in found.passages)
    assert all(np.isnan(passage.losses["student0"]).sum() <= 2 for passage in found.passages)
    with pytest.raises(UserError, match="in none of"):
        view_run(recipe, wish=Wish(find="nowhere to be found"))
    only = view_run(recipe, wish=Wish(source="rare"))
    assert {only.sources[passage.source] for passage in only.passages} == {"rare"}
    with pytest.raises(UserError, match="did you mean 'rare'"):
        view_run(recipe, wish=Wish(source="rar"))
    one = view_run(recipe, wish=Wish(document=3))
    assert all((passage.documents == 3).any() for passage in one.passages)
    assert sum((passage.documents == 3).sum() for passage in one.passages) > LENGTH
    with pytest.raises(UserError, match="no document 999"):
        view_run(recipe, wish=Wish(document=999))


def test_other_texts_run_the_reference(recipe, whole):
    view = view_run(recipe, on="targets/held-out", wish=Wish(passages=3))
    reference = AutoModelForCausalLM.from_pretrained(recipe.reference_folder)
    assert reference.config.vocab_size == 300
    for passage in view.passages:
        wanted = naive(recipe.reference_folder, passage)
        np.testing.assert_allclose(passage.losses["reference0"].astype(np.float64), wanted, rtol=1e-3, atol=1e-3)
    assert "score store" not in " ".join(view.notes)
    assert view_run(recipe, on="clean", wish=Wish(passages=2)).passages
    with pytest.raises(UserError, match="no text 'target/held'"):
        view_run(recipe, on="target/held")
    # Run over the corpus, the reference comes to what is stored.
    live = view_run(recipe, wish=Wish(passages=4), references=["reference", "scores/reference"])
    for passage in live.passages:
        stored, here = passage.losses["reference1"].astype(float), passage.losses["reference0"].astype(float)
        np.testing.assert_allclose(here, stored, rtol=2e-3, atol=1e-3)


def test_models_that_are_not_there_are_named(recipe):
    with pytest.raises(UserError, match="no such model.*clm, slm"):
        view_run(recipe, students=["slmm"])
    with pytest.raises(UserError, match="another text"):
        view_run(recipe, on="clean", references=["scores/reference"])


def test_a_run_without_arms_shows_the_reference(recipe, monkeypatch):
    monkeypatch.setattr(from_run, "ARM_MANIFEST", "no such file")
    view = view_run(recipe, wish=Wish(passages=2))
    assert [model.kind for model in view.models] == ["reference"]
    assert view.score == "reference_loss" and "No arm" in " ".join(view.notes)


def test_categories_come_along(recipe, monkeypatch):
    windows = all_windows(recipe, order=np.array([5, 2, 9]))
    kinds = (np.arange(3 * LENGTH, dtype=np.uint8) % 4).reshape(3, LENGTH)
    kinds[:, 0] = UNKNOWN
    folder = recipe.folder / "dynamics"
    folder.mkdir()
    try:
        (folder / from_run.CATEGORIES_FILE).write_bytes(b"")
        monkeypatch.setattr(from_run, "classified_windows", lambda given: (windows, kinds))
        view = view_run(recipe, on="dynamics")
        assert len(view.passages) == 3
        for passage, row in zip(view.passages, (1, 0, 2), strict=True):
            assert np.array_equal(passage.categories, kinds[row])
        mixed = view_run(recipe, wish=Wish(passages=100_000))
        assert [i for i, passage in enumerate(mixed.passages) if passage.categories is not None] == [2, 5, 9]
        assert "held-out text only" in " ".join(view_run(recipe, wish=Wish(source="rare")).notes)
    finally:
        (folder / from_run.CATEGORIES_FILE).unlink()
        folder.rmdir()


def test_a_score_store_alone(recipe, whole):
    folder = recipe.folder / "scores" / "reference"
    view = view_store(folder, wish=Wish(passages=100_000))
    assert view.score == "reference_loss" and [model.kind for model in view.models] == ["reference"]
    for here, there in zip(view.passages, whole.passages, strict=True):
        assert np.array_equal(here.losses["reference0"].view(np.uint16), there.losses["reference0"].view(np.uint16))
        assert here.pieces == there.pieces
    both = view_store(folder, students=[recipe.folder / "models" / "slm"], wish=Wish(passages=3))
    assert both.score == "excess_loss"
    with pytest.raises(UserError, match="has no losses"):
        view_store(recipe.folder / "corpus")
    tokens = view_store(recipe.folder / "corpus", students=[str(recipe.folder / "models" / "clm")])
    assert tokens.score == "current_loss" and len(tokens.passages[0].ids) == LENGTH


def test_what_is_given_is_recognised(recipe, recipe_file, whole, tmp_path):
    for what in (recipe_file, recipe.folder, str(recipe_file), recipe):
        view = open_view(what, wish=Wish(passages=2))
        assert view.ratio == 0.4 and len(view.passages) == 2
    assert open_view(recipe_file, ["train.selection.ratio=0.9"], wish=Wish(passages=2)).ratio == 0.9
    assert open_view(recipe.folder, ratio=0.1, wish=Wish(passages=2)).ratio == 0.1
    assert open_view(recipe.folder / "scores" / "reference", wish=Wish(passages=2)).score == "reference_loss"
    wrong = [
        (recipe.folder / "models" / "slm", (), "is a model"),
        (recipe.folder / "nothing", (), "no such file or folder"),
        ("The cat sat on the mat", (), "no such file or folder; to look at a text itself"),
        (tmp_path, (), "this folder is no recipe"),
        (recipe.folder / "summary.json", (), "this file is no recipe"),
        (recipe.folder / "corpus", ("seed=1",), "is a store, not a recipe"),
        (None, (), "nothing to look at"),
    ]
    for what, overrides, message in wrong:
        with pytest.raises(UserError, match=message):
            open_view(what, overrides)


def test_a_text_under_the_models_of_a_run(recipe):
    text = "sum sum prove prove\r\n日本語 <script>alert(1)</script> " * 3
    view = open_view(recipe, texts=[text], names=["my.txt"])
    assert "".join("".join(passage.pieces) for passage in view.passages) == text
    assert [model.kind for model in view.models] == ["student", "reference"]
    assert len(view.passages) > 1 and "tokens 32 to 63" in view.passages[1].place
    assert (view.ratio, view.scope, view.title) == (0.4, "global", "my.txt")


def test_a_notebook_shows_the_page(recipe, tmp_path):
    shown = view(recipe, passages=2)
    frame = shown._repr_html_()
    assert frame.startswith("<iframe") and 'sandbox="allow-scripts"' in frame
    assert "allow-same-origin" not in frame and "<script" not in frame
    path = shown.save(tmp_path / "view.html")
    assert path.read_text(encoding="utf-8") == shown.html
    assert "2 passages" in repr(shown)
    with pytest.raises(UserError, match="cannot be written"):
        shown.save(tmp_path / "no" / "view.html")
    given = AutoModelForCausalLM.from_pretrained(recipe.folder / "models" / "slm")
    tokenizer = from_run.run_tokenizer(recipe)
    texts = view(text="prove prove", student=given, reference=recipe.reference_folder, tokenizer=tokenizer)
    assert texts.view.score == "excess_loss" and "forward" not in vars(given)
