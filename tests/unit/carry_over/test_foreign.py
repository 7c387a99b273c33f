"""The corpus in the reference's tokens: same documents and shards, resumable, and losses carried back by shard."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokensieve.carry_over import foreign as foreign_part
from tokensieve.carry_over import foreign_tokens
from tokensieve.carry_over.foreign import carry_over, carry_shard
from tokensieve.carry_over.foreign_tokens import foreign_store
from tokensieve.carry_over.token_pair import Pair, open_pair
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.tokenizers import open_tokenizer, train_bpe
from tokensieve.corpus.tokenizing import tokenize_sources
from tokensieve.corpus.windows import Windows
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection, ScoreSection, Source
from tokensieve.reference.store import ScoreStore

TEXTS = [
    "The cat sat on the mat, and the dog sat by the cat.\n",
    "naïve café, 日本語 text 🙂 with <|endoftext|> in it",
    "   leading and trailing   ",
    "",
    "def add(a, b):\n    return a + b\n",
    "x",
] * 3


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Tokenizers of 290 (student) and 335 ids (reference)."""
    made = {}
    for name, size in (("student", 290), ("reference", 335)):
        made[name] = tmp_path_factory.mktemp(name)
        train_bpe(TEXTS * 2, size).save_pretrained(made[name])
    return made


@pytest.fixture
def pair(folders):
    return open_pair(folders["student"], folders["reference"])


def tokenize(folder, tokenizer, texts=TEXTS, shard_tokens=100):
    path = folder.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return tokenize_sources(
        [Source(path=str(path))], folder, tokenizer, shard_tokens=shard_tokens, workers=1, max_document_mb=1
    )


@pytest.fixture
def corpus(tmp_path, folders):
    return tokenize(tmp_path / "corpus", folders["student"])


def documents(store):
    return [
        part
        for i in range(len(store.shards))
        for part in np.split(store.shard_tokens(i)[:], store.document_ends(i)[:-1])
    ]


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "corpus.json"}


def test_the_foreign_store_is_what_the_reference_tokenizer_makes_of_the_text(corpus, pair, folders, tmp_path):
    foreign = foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    native = tokenize(tmp_path / "native", folders["reference"], shard_tokens=10**6)
    assert len(corpus.shards) > 2
    assert [shard.documents for shard in foreign.shards] == [shard.documents for shard in corpus.shards]
    assert [shard.name for shard in foreign.shards] == [shard.name for shard in corpus.shards]
    assert [part.tolist() for part in documents(foreign)] == [part.tolist() for part in documents(native)]
    assert (foreign.bytes, foreign.tokenizer, foreign.vocab_size) == (native.bytes, native.tokenizer, native.vocab_size)
    assert not list(foreign.verify())


def test_each_shard_keeps_the_total_of_each_document(corpus, pair, tmp_path):
    foreign = foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    draw = np.random.default_rng(0)
    for i in range(len(corpus.shards)):
        losses = draw.gamma(1, 2, foreign.shards[i].tokens).astype(np.float16)
        ends = foreign.document_ends(i)
        losses[np.concatenate([[0], ends[:-1]])] = np.nan
        carried = carry_shard(corpus, i, foreign, losses, pair)
        assert carried.dtype == np.float16 and carried.shape == (corpus.shards[i].tokens,)
        assert (carried.view(np.uint16)[np.isnan(carried)] == 0x7E00).all()
        theirs = [np.nansum(part.astype(np.float64)) for part in np.split(losses, ends[:-1])]
        ours = [np.nansum(part.astype(np.float64)) for part in np.split(carried, corpus.document_ends(i)[:-1])]
        np.testing.assert_allclose(ours, theirs, rtol=5e-4)
        # Documents of one token have a first token only; everything else here is scored.
        np.testing.assert_array_equal(np.isnan(carried[corpus.document_ends(i) - 1]), np.diff(ends, prepend=0) == 1)


def test_small_batches_change_nothing(corpus, pair, tmp_path, monkeypatch):
    foreign = foreign_store(corpus, pair, tmp_path / "one" / "corpus")
    losses = [np.linspace(0, 5, shard.tokens).astype(np.float16) for shard in foreign.shards]
    carried = [carry_shard(corpus, i, foreign, losses[i], pair) for i in range(len(losses))]
    monkeypatch.setattr(foreign_tokens, "_BATCH_TOKENS", 7)
    again = foreign_store(corpus, pair, tmp_path / "two" / "corpus")
    assert content(again.folder) == content(foreign.folder)
    for i, expected in enumerate(carried):
        np.testing.assert_array_equal(carry_shard(corpus, i, foreign, losses[i], pair), expected)


def test_an_interrupted_run_resumes_and_a_finished_one_does_nothing(corpus, pair, tmp_path, monkeypatch):
    whole = foreign_store(corpus, pair, tmp_path / "whole" / "corpus")
    align, calls = Pair.align, []

    def dies(self, rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return align(self, rows)

    monkeypatch.setattr(Pair, "align", dies)
    with pytest.raises(KeyboardInterrupt):
        foreign_store(corpus, pair, tmp_path / "broken" / "corpus")
    assert not (tmp_path / "broken" / "corpus" / "00002.ds").exists()
    foreign_store(corpus, pair, tmp_path / "broken" / "corpus")
    assert len(calls) == len(corpus.shards) + 1
    assert content(tmp_path / "broken" / "corpus") == content(whole.folder)
    foreign_store(corpus, pair, tmp_path / "broken" / "corpus")
    assert len(calls) == len(corpus.shards) + 1


def word_tokenizer(folder):
    """Knows some words; one that it lacks becomes `<un k>`, whose text is two of them."""
    words = {word: i for i, word in enumerate(["<eos>", "<un k>", "cat", "dog", "a", "b", "."])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<un k>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<un k>").save_pretrained(folder)
    return folder


def test_a_document_whose_text_gives_other_ids_is_left_out_and_counted(folders, tmp_path):
    # In this store's second document stands EOS as a token, which as text is no EOS.
    corpus = tokenize(tmp_path / "corpus", folders["student"], ["the cat and the dog " * 20, "the mat", "sat"], 10**6)
    tokens, ends = corpus.shard_tokens(0)[:].copy(), corpus.document_ends(0)
    tokens[ends[0] + 1] = corpus.eos_token_id
    tampered = rewritten(corpus, tokens)
    pair = open_pair(folders["student"], folders["reference"])
    foreign = foreign_store(tampered, pair, tmp_path / "f" / "corpus")
    manifest = json.loads((foreign.folder / "corpus.json").read_text())["outputs"]
    assert manifest["documents_not_carried"] == 1
    assert manifest["tokens_not_carried"] == ends[1] - ends[0]
    assert [len(part) for part in documents(foreign)][1] == 1
    carried = carry_shard(tampered, 0, foreign, np.ones(foreign.tokens, dtype=np.float16), pair)
    assert np.isnan(carried[ends[0] : ends[1]]).all()
    assert np.isfinite(carried[: ends[0]]).all() and np.isfinite(carried[ends[1] :]).all()


def rewritten(corpus, tokens):
    """The store with other tokens, sound again."""
    from tokensieve.stage import read_manifest, write_manifest
    from tokensieve.storage.checksums import seal_shard

    tokens.tofile(corpus.folder / "00000.ds")
    manifest = read_manifest(corpus.folder / "corpus.json")
    manifest["outputs"]["shards"][0]["digest"] = seal_shard(corpus.folder, "00000", [".ds", ".ds.index"])
    write_manifest(corpus.folder / "corpus.json", {k: manifest[k] for k in ("inputs", "finished", "outputs")})
    return TokenStore(corpus.folder)


def test_too_much_that_cannot_be_carried_is_refused_and_nothing_stays(folders, tmp_path):
    words = word_tokenizer(tmp_path / "words")
    corpus = tokenize(tmp_path / "corpus", words, ["cat dog unknown words here . a b"] * 4)
    with pytest.raises(UserError, match="does not turn into the same tokens again"):
        foreign_store(corpus, open_pair(words, folders["reference"]), tmp_path / "f" / "corpus")
    assert not (tmp_path / "f" / "corpus").exists()


def test_equal_tokenizers_and_tokenizers_without_offsets_are_refused(folders):
    with pytest.raises(UserError, match="nothing to carry over; remove score.carry_over"):
        open_pair(folders["student"], folders["student"])
    slow = open_tokenizer(folders["student"])
    type(slow).is_fast, fast = False, type(slow).is_fast
    try:
        with pytest.raises(UserError, match="student: score.carry_over needs a fast tokenizer"):
            Pair(slow, open_tokenizer(folders["reference"]), "student", "reference")
    finally:
        type(slow).is_fast = fast


def test_another_corpus_tokenizer_or_a_changed_reference_tokenizer_is_refused(corpus, pair, folders, tmp_path):
    other = tmp_path / "other"
    train_bpe(["quite other words: zebra quagga zebra quagga " * 9, *TEXTS], 330).save_pretrained(other)
    with pytest.raises(UserError, match="made with another tokenizer than the run's"):
        foreign_store(corpus, open_pair(other, folders["reference"]), tmp_path / "f" / "corpus")
    foreign = foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    with pytest.raises(UserError, match="belongs to another recipe .tokenizer"):
        foreign_store(corpus, open_pair(folders["student"], other), tmp_path / "f" / "corpus")
    losses = np.zeros(foreign.shards[0].tokens, dtype=np.float16)
    with pytest.raises(UserError, match="no longer gives these tokens"):
        carry_shard(corpus, 0, foreign, losses, open_pair(folders["student"], other))
    corpus.tokenizer = "another"
    with pytest.raises(UserError, match="made with another tokenizer"):
        foreign_store(corpus, pair, tmp_path / "g" / "corpus")


def test_a_sum_above_float16_is_an_error(folders, tmp_path):
    # The other way round, so that a token of the corpus is several of the reference's.
    corpus = tokenize(tmp_path / "corpus", folders["reference"])
    pair = open_pair(folders["reference"], folders["student"])
    foreign = foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    with pytest.raises(UserError, match="more than float16 holds"):
        carry_shard(corpus, 0, foreign, np.full(foreign.shards[0].tokens, 60_000, dtype=np.float16), pair)


def test_a_full_disk_is_a_clear_error(corpus, pair, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(foreign_tokens.os, "fsync", full)
    with pytest.raises(UserError, match="cannot write .No space left on device."):
        foreign_store(corpus, pair, tmp_path / "f" / "corpus")


CONTEXT = ContextSection(length=16)
SECTION = ScoreSection(carry_over=True, batch_size=3)


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    made = tiny_model()
    made.resize_token_embeddings(340, mean_resizing=False)
    return made.eval()


def test_a_carried_store_is_a_score_store(corpus, pair, model, tmp_path):
    folder = tmp_path / "scores"
    store = carry_over(SECTION, CONTEXT, corpus, model, pair, folder)
    assert not list(store.verify())
    assert store.inputs["carried_over"]["tokenizer"] == pair.reference_digest
    foreign = TokenStore(folder / "foreign" / "corpus")
    native = ScoreStore(folder / "foreign" / "scores", foreign, CONTEXT).column("loss")
    for i, column in enumerate(store.column("loss")):
        np.testing.assert_array_equal(column[:], carry_shard(corpus, i, foreign, native[i], pair))
    assert 0.5 * corpus.tokens < store.scored_tokens < corpus.tokens
    assert store.outputs["documents_not_carried"] == 0 and store.outputs["foreign_tokens"] == foreign.tokens
    batch = Windows(corpus, 16, columns={"reference_loss": store.column("loss")}).__getitems__([0, 1, 2])
    live = batch["labels"] != -100
    assert live.any() and torch.isfinite(batch["reference_loss"].view(torch.float16)[live]).all()


def test_carrying_over_resumes_and_gives_the_same_bytes(corpus, pair, model, tmp_path, monkeypatch):
    whole = carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "whole")
    commit, calls = foreign_part.commit_shard, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        commit(*arguments)

    monkeypatch.setattr(foreign_part, "commit_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "broken")
    again = carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "broken")
    assert len(calls) == len(corpus.shards) + 1
    for ours, theirs in zip(again.column("loss"), whole.column("loss"), strict=True):
        assert ours.path.read_bytes() == theirs.path.read_bytes()
    carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "broken")
    assert len(calls) == len(corpus.shards) + 1


def test_losses_that_do_not_add_up_are_refused(corpus, pair, model, tmp_path, monkeypatch):
    honest = foreign_part.carry_shard

    def wrong(corpus, i, *rest):
        return np.roll(honest(corpus, i, *rest), 40)

    monkeypatch.setattr(foreign_part, "carry_shard", wrong)
    with pytest.raises(UserError, match="its foreign tokens have"):
        carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "scores")


def test_every_batch_of_documents_counts_in_what_the_manifest_says(corpus, pair, model, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_tokens, "_BATCH_TOKENS", 7)
    store = carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "scores")
    foreign = TokenStore(tmp_path / "scores" / "foreign" / "corpus")
    native = ScoreStore(tmp_path / "scores" / "foreign" / "scores", foreign, CONTEXT).column("loss")
    columns = [column[:].astype(np.float64) for column in store.column("loss")]
    assert store.scored_tokens == sum(int(np.isfinite(column).sum()) for column in columns)
    changes = []
    for i, column in enumerate(columns):
        losses = native[i][:].astype(np.float64)
        ours, theirs = (
            np.array([np.nansum(part) for part in np.split(values, side.document_ends(i)[:-1])])
            for values, side in ((column, corpus), (losses, foreign))
        )
        changes.append(np.abs(ours - theirs)[theirs > 0] / theirs[theirs > 0])
    assert 0 < store.outputs["gate"]["largest_change_of_a_total"] <= np.concatenate(changes).max()
    assert store.outputs["gate"]["largest_change_of_a_total"] > 0.5 * np.concatenate(changes).max()


def test_losses_that_float16_rounds_away_are_no_change_of_a_total(corpus, pair, tmp_path):
    foreign = foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    losses = np.full(foreign.shards[0].tokens, 2.0**-24, dtype=np.float16)
    assert foreign.shards[0].tokens < corpus.shards[0].tokens
    carried = carry_shard(corpus, 0, foreign, losses, pair)
    assert foreign_part._check_totals(corpus, foreign, 0, carried, losses)[0] == corpus.shards[0].tokens


def test_a_store_is_bound_to_its_reference_and_to_the_way_of_sharing(corpus, pair, model, tmp_path, monkeypatch):
    carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "scores")
    with monkeypatch.context() as patch:
        patch.setattr(foreign_part, "FRONT", 1.0)
        with pytest.raises(UserError, match="belongs to another recipe .carried_over"):
            carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "scores")
    with torch.no_grad():
        model.lm_head.weight[5, 5] += 1
    with pytest.raises(UserError, match="belongs to another recipe .reference is"):
        carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "scores")


def test_another_corpus_in_the_same_folder_is_refused(corpus, pair, folders, tmp_path):
    foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    other = tokenize(tmp_path / "other", folders["student"], TEXTS[1:])
    with pytest.raises(UserError, match="belongs to another recipe .corpus"):
        foreign_store(other, pair, tmp_path / "f" / "corpus")


def test_what_cannot_be_carried_is_counted_over_all_shards(folders, tmp_path):
    words = word_tokenizer(tmp_path / "words")
    rows = ["cat dog " * 15 + "unknown", *["cat dog " * 140] * 3]  # 32 tokens and three times 281
    corpus = tokenize(tmp_path / "corpus", words, rows * 12, shard_tokens=300)
    assert len(corpus.shards) >= 24
    foreign = foreign_store(corpus, open_pair(words, folders["reference"]), tmp_path / "f" / "corpus")
    assert json.loads((foreign.folder / "corpus.json").read_text())["outputs"]["documents_not_carried"] == 12
    corpus = tokenize(tmp_path / "more", words, rows[:3] * 12, shard_tokens=300)
    assert max(shard.tokens for shard in corpus.shards) < 0.05 * corpus.tokens < 12 * 32
    with pytest.raises(UserError, match="does not turn into the same tokens again"):
        foreign_store(corpus, open_pair(words, folders["reference"]), tmp_path / "g" / "corpus")


def test_a_corpus_without_text_that_can_be_carried_is_refused(folders, tmp_path):
    corpus = tokenize(tmp_path / "corpus", folders["student"], [*[""] * 60, "x"], 10**6)
    tokens = corpus.shard_tokens(0)[:].copy()
    tokens[-2] = corpus.eos_token_id
    pair = open_pair(folders["student"], folders["reference"])
    with pytest.raises(UserError, match="holds no text that could be carried over"):
        foreign_store(rewritten(corpus, tokens), pair, tmp_path / "f" / "corpus")
    assert not (tmp_path / "f").exists()


def test_no_lock_stays_beside_a_finished_or_a_refused_store(corpus, pair, model, folders, tmp_path):
    carry_over(SECTION, CONTEXT, corpus, model, pair, tmp_path / "scores")
    assert sorted(path.name for path in (tmp_path / "scores" / "foreign").iterdir()) == ["corpus", "scores"]
    assert not list((tmp_path / "scores").rglob(".workers"))
    words = word_tokenizer(tmp_path / "words")
    unknown = tokenize(tmp_path / "unknown", words, ["cat dog unknown words here . a b"] * 4)
    with pytest.raises(UserError, match="does not turn into the same tokens again"):
        carry_over(SECTION, CONTEXT, unknown, model, open_pair(words, folders["reference"]), tmp_path / "refused")
    # Or else another reference would find a folder of another recipe.
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_any_rank_of_torchrun_may_come_first(corpus, pair, tmp_path, monkeypatch, rank):
    alone = foreign_store(corpus, pair, tmp_path / "alone" / "corpus")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    foreign = foreign_store(corpus, pair, tmp_path / "f" / "corpus")
    assert content(foreign.folder) == content(alone.folder) and foreign.tokens == alone.tokens


def test_processes_that_share_a_folder_take_turns(corpus, pair, folders, tmp_path, monkeypatch):
    align, calls = Pair.align, []
    monkeypatch.setattr(Pair, "align", lambda self, rows: calls.append(1) or align(self, rows))
    pairs = [pair, open_pair(folders["student"], folders["reference"])]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda own: foreign_store(corpus, own, tmp_path / "f" / "corpus"), pairs))
    assert len(calls) == len(corpus.shards) and made[0].tokens == made[1].tokens
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["corpus"]


def test_each_source_keeps_its_own_counts(pair, folders, tmp_path):
    sources = []
    for name, texts in (("one", TEXTS[:2]), ("two", TEXTS[1:5])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        sources.append(Source(path=str(path), weight=1))
    store = tokenize_sources(
        sources, tmp_path / "corpus", folders["student"], shard_tokens=10**6, workers=1, max_document_mb=1
    )
    foreign = foreign_store(store, pair, tmp_path / "f" / "corpus")
    assert [(source.name, source.documents, source.bytes) for source in foreign.sources] == [
        (source.name, source.documents, source.bytes) for source in store.sources
    ]
    assert [source.tokens for source in foreign.sources] == [shard.tokens for shard in foreign.shards]
