"""A view by hand, and models on disk with a tokenizer beside them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tokensieve.corpus.tokenizers import open_tokenizer
from tokensieve.viewer.passages import Model, Passage, View

NAN = float("nan")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, bpe_folder: Path) -> Callable[[int], Path]:
    """Makes a tiny Llama of 330 ids and 24 positions with its tokenizer, the same for the same seed."""
    made: dict[int, Path] = {}

    def make(seed: int) -> Path:
        if seed not in made:
            torch.manual_seed(seed)
            shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = AutoConfig.for_model("llama", vocab_size=330, max_position_embeddings=24, **shape)
            made[seed] = tmp_path_factory.mktemp(f"model{seed}")
            AutoModelForCausalLM.from_config(config).save_pretrained(made[seed])
            open_tokenizer(bpe_folder).save_pretrained(made[seed])
        return made[seed]

    return make


@pytest.fixture
def make_view() -> Callable[..., View]:
    """A view of passages given as (pieces, student losses, reference losses)."""

    def make(*rows: tuple[list[str], list[float], list[float]], **options: object) -> View:
        passages = tuple(
            Passage(
                source=i % 2,
                place=f"document {i}",
                ids=np.arange(len(pieces), dtype=np.int64) + 300 * i,
                pieces=tuple(pieces),
                losses={"s": np.array(student, dtype=np.float16), "r": np.array(reference, dtype=np.float16)},
                regions=np.arange(len(pieces), dtype=np.uint8) % 2,
            )
            for i, (pieces, student, reference) in enumerate(rows)
        )
        values = {"title": "by hand", "sources": ("web", "books"), "regions": ("other", "code"), **options}
        models = (Model("s", "student", "my/student"), Model("r", "reference", "my/reference"))
        return View(models=models, passages=passages, **values)

    return make
