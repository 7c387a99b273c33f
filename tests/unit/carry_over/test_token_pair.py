"""Two tokenizers over one text: what they do besides tokenizing must not reach ids or offsets."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tokensieve.carry_over.token_pair import Pair

TEXTS = [
    "The cat sat on the mat, and the dog sat by the cat.\n",
    "naïve café, 日本語 text 🙂 with <|endoftext|> in it",
    "   leading and trailing   ",
    "",
    "def add(a, b):\n    return a + b\n",
    "x",
] * 3


def test_what_a_tokenizer_does_besides_tokenizing_is_switched_off():
    """Truncation, padding, a post-processor that trims white space off the offsets, and an EOS that is not id 0."""

    def busy(size):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<pad>", "<eos>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(TEXTS * 2, trainer)
        plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=64)
        return plain, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")

    (student_ids, student), (reference_ids, reference) = busy(290), busy(335)
    aligned = Pair(student, reference, "student", "reference").align([np.array([*ids, 1]) for ids in student_ids])
    assert aligned.carried.all() and aligned.texts == TEXTS
    ids, lengths = aligned.foreign_ids(np.dtype("<u2"))
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == [[*row, 1] for row in reference_ids]
    of_reference = [encoding.offsets for encoding in aligned.foreign]
    for text, *rows in zip(TEXTS, aligned.student_offsets, of_reference, strict=True):
        for row in rows:
            covered = {at for begin, end in row for at in range(begin, end)}
            assert covered == set(range(len(text)))
