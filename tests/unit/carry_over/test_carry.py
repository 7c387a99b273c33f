"""Carrying losses over: the tiling of a line by every kind of tokenizer, and what sharing must keep."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tokensieve.carry_over.carry import Line, carry, tile

TEXTS = [
    "The naïve café, über alles.\n\tTabs  and   spaces \n\n",
    "日本語のテキスト、漢字かな交じり。",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flags 🇨🇭!",
    "e\u0301 combining a\u0308\u0323 marks",
    "שלום עולם العربية نص",
    "ﬁne ½ ﷺ ① ™",
    "   ",
    "",
    "x",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u200b\u00a0\u2028 zero width",
]


def byte_level(size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As SentencePiece makes it: a metaspace in front, and bytes for what the vocabulary lacks."""
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abcdefghilmnorstTx", "th", "▁s", "▁a", "re"]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [("t", "h"), ("▁", "s"), ("▁", "a"), ("r", "e")])
    )
    tokenizer.model.byte_fallback = True
    tokenizer.model.unk_token = "<unk>"
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(
        TEXTS * 3,
        trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """Lower case, accents and white space gone."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXTS * 3, trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]"], show_progress=False)
    )
    return tokenizer


TOKENIZERS = {
    "bytes": byte_level(256),
    "byte-level BPE": byte_level(400),
    "byte fallback": byte_fallback(),
    "unigram, NFKC, metaspace": unigram(),
    "WordPiece": word_piece(),
}


def tiling(name, texts):
    line = Line.of(texts)
    return tile(line, [TOKENIZERS[name].encode(text).offsets for text in texts])


def losses_of(target, seed=0):
    """Random float16 losses; nothing scored at the documents' beginnings, as in a store."""
    draw = np.random.default_rng(seed)
    losses = draw.gamma(0.8, 2.0, len(target.edges) - 1).astype(np.float16)
    losses[np.concatenate([[0], target.ends[:-1]])] = np.nan
    return losses


def sums(values, ends):
    return np.array([np.nansum(part) for part in np.split(np.asarray(values, dtype=np.float64), ends[:-1])])


@pytest.fixture(params=[(a, b) for a in TOKENIZERS for b in TOKENIZERS], ids=lambda pair: f"{pair[0]} to {pair[1]}")
def pair(request):
    return tuple(tiling(name, TEXTS) for name in request.param)


def test_every_document_keeps_its_total(pair):
    source, target = pair
    losses = losses_of(source)
    carried = carry(losses, source, target)
    np.testing.assert_allclose(sums(carried, target.ends), sums(losses, source.ends), rtol=1e-12)
    assert (carried[~np.isnan(carried)] >= 0).all()


def test_what_is_scored_throughout_is_never_lost(pair):
    source, target = pair
    losses = np.ones(len(source.edges) - 1)
    assert np.isfinite(carry(losses, source, target)).all()


def test_nothing_scored_gives_nothing(pair):
    source, target = pair
    assert np.isnan(carry(np.full(len(source.edges) - 1, np.nan), source, target)).all()


def test_the_intervals_tile_the_line_and_eos_stands_alone(pair):
    for side in pair:
        assert (np.diff(side.edges) > 0).all()
        sizes = np.array([len(text.encode()) + 1 for text in TEXTS])
        assert side.edges[0] == 0
        np.testing.assert_array_equal(side.edges[side.ends], np.cumsum(sizes))
        with_tokens = np.diff(side.ends, prepend=0) > 1
        np.testing.assert_array_equal(np.diff(side.edges)[side.ends - 1][with_tokens], 1)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_equal_tokenizers_carry_every_bit(name):
    source = tiling(name, TEXTS)
    losses = losses_of(source)
    np.testing.assert_array_equal(carry(losses, source, source), losses)
    np.testing.assert_array_equal(carry(losses, source, source, front=0.3), losses)


def test_eos_goes_to_eos(pair):
    source, target = pair
    losses = losses_of(source)
    both = (np.diff(source.ends, prepend=0) > 1) & (np.diff(target.ends, prepend=0) > 1)
    np.testing.assert_array_equal(
        carry(losses, source, target)[target.ends - 1][both], losses[source.ends - 1][both].astype(np.float64)
    )


def test_a_coarser_token_receives_the_exact_sum_and_a_finer_one_its_bytes():
    line = Line.of(["abcdef"])
    fine, coarse = tile(line, [[(i, i + 1) for i in range(6)]]), tile(line, [[(0, 2), (2, 6)]])
    np.testing.assert_array_equal(carry(np.array([1, 2, 3, 4, 5, 6, 7.0]), fine, coarse), [3, 18, 7])
    np.testing.assert_array_equal(carry(np.array([3.0, 8, 7]), coarse, fine, front=1), [1.5, 1.5, 2, 2, 2, 2, 7])
    front = carry(np.array([3.0, 8, 7]), coarse, fine, front=0.5)
    np.testing.assert_allclose(front[2:6], 8 * np.diff(np.sqrt(np.arange(5) / 4)))


def test_bytes_count_not_characters():
    line = Line.of(["a日"])
    source, target = tile(line, [[(0, 2)]]), tile(line, [[(0, 1), (1, 2)]])
    np.testing.assert_allclose(carry(np.array([4.0, 0]), source, target, front=1), [1, 3, 0])


def test_tokens_of_one_character_have_equal_parts_in_order():
    line = Line.of(["x日y"])
    # The last token of the character holds the next one too.
    split = tile(line, [[(0, 1), (1, 2), (1, 2), (1, 3)]])
    np.testing.assert_array_equal(split.edges, [0, 1, 2, 3, 5, 6])
    # A token that ends inside the character, and one that goes on.
    split = tile(line, [[(0, 2), (1, 3)]])
    np.testing.assert_array_equal(split.edges, [0, 2.5, 5, 6])


def test_tokens_without_characters_share_their_neighbours_interval():
    line = Line.of(["abcd", ""])
    middle = tile(line, [[(0, 0), (0, 2), (2, 2), (2, 4)], []])
    np.testing.assert_array_equal(middle.edges, [0, 1, 2, 3, 4, 5, 6])
    end = tile(line, [[(0, 4), (4, 4)], [(0, 0)]])
    np.testing.assert_array_equal(end.edges, [0, 2, 4, 5, 5.5, 6])


def test_dropped_white_space_belongs_to_the_next_token_and_at_the_end_to_the_last():
    line = Line.of([" ab  cd \n"])
    stripped = tile(line, [[(1, 3), (5, 7)]])
    np.testing.assert_array_equal(stripped.edges, [0, 3, 9, 10])


def test_a_partly_scored_token_passes_its_part_to_the_nearest_one_that_is_scored():
    line = Line.of(["abcdefghij"])
    source = tile(line, [[(i, i + 1) for i in range(10)]])
    target = tile(line, [[(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]])
    losses = np.array([np.nan, 1, 1, 1, 1, np.nan, 1, 1, 1, 1, 2])
    # [0, 2) is the document's first token and keeps its part; [4, 6) has neighbours at equal distance.
    np.testing.assert_array_equal(carry(losses, source, target), [1, 2, np.nan, 3, 2, 2])
    losses[6] = np.nan  # now [6, 8) is partly scored too: each goes to its nearer side
    np.testing.assert_array_equal(carry(losses, source, target), [1, 3, np.nan, np.nan, 3, 2])


def test_nothing_is_passed_to_another_document_or_to_eos():
    line = Line.of(["abcd", "ef"])
    source = tile(line, [[(i, i + 1) for i in range(4)], [(0, 1), (1, 2)]])
    target = tile(line, [[(0, 2), (2, 4)], [(0, 2)]])
    losses = np.array([np.nan, np.nan, 1, np.nan, 5, 1, 1, 1])
    np.testing.assert_array_equal(carry(losses, source, target), [np.nan, 1, 5, 2, 1])


def test_sides_of_different_documents_are_refused():
    a, b = tiling("bytes", ["abc"]), tiling("bytes", ["abcd"])
    with pytest.raises(ValueError, match="not of the same documents"):
        carry(np.zeros(4), a, b)
    with pytest.raises(ValueError, match="not of the same documents"):
        carry(np.zeros(5), a, a)


texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=5)


@given(texts, st.sampled_from(list(TOKENIZERS)), st.sampled_from(list(TOKENIZERS)), st.integers(0, 2**16), st.data())
def test_any_text_and_any_holes_keep_the_total(documents, first, second, seed, data):
    source, target = tiling(first, documents), tiling(second, documents)
    assert (np.diff(source.edges) > 0).all() and (np.diff(target.edges) > 0).all()
    losses = losses_of(source, seed)
    holes = data.draw(st.lists(st.integers(0, len(losses) - 1), max_size=8))
    losses[holes] = np.nan
    front = data.draw(st.sampled_from([1.0, 0.5, 0.1]))
    carried = carry(losses, source, target, front)
    np.testing.assert_allclose(sums(carried, target.ends), sums(losses, source.ends), rtol=1e-9, atol=1e-12)
    assert (carried[~np.isnan(carried)] >= 0).all()


@st.composite
def cuts_of(draw, size):
    """Offsets that cut `size` characters, sometimes with gaps and empty tokens."""
    edges = sorted(draw(st.lists(st.integers(0, size), max_size=2 * size)))
    spans = list(zip(edges, edges[1:], strict=False))
    keep = draw(st.lists(st.booleans(), min_size=len(spans), max_size=len(spans)))
    return [span for span, kept in zip(spans, keep, strict=True) if kept]


@given(st.data())
def test_even_sharing_is_the_overlap_of_the_intervals(data):
    """Against the definition in exact fractions, token by token."""
    text = data.draw(st.text("aé日🙂 ", min_size=1, max_size=12))
    line = Line.of([text])
    sides = [tile(line, [data.draw(cuts_of(len(text)))]) for _ in range(2)]
    source, target = ([Fraction(edge) for edge in side.edges.tolist()] for side in sides)
    losses = np.arange(1.0, len(source))
    expected = [
        sum(
            Fraction(loss) * max(min(e, s_end) - max(b, s), 0) / (s_end - s)
            for loss, s, s_end in zip(losses.tolist(), source, source[1:], strict=False)
        )
        for b, e in zip(target, target[1:], strict=False)
    ]
    np.testing.assert_allclose(carry(losses, *sides, front=1), [float(x) for x in expected], rtol=1e-9, atol=1e-12)
    assert math.isclose(sum(expected), losses.sum())
