"""The sections of a recipe: frozen dataclasses that check their own values.

`trainer:` mappings go to `transformers.TrainingArguments` as they are: we neither mirror nor hide its
options. A wrong value raises ValueError here; `reading.py` adds the file and the place.
"""

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokensieve.recipe.checks import require, require_booleans, require_folder_name, require_tokens
from tokensieve.recipe.comparison import CompareSection
from tokensieve.recipe.dynamics import DynamicsSection
from tokensieve.recipe.task import TaskSection
from tokensieve.recipe.texts import CorpusSection, Source, TokenizerSection
from tokensieve.selection.policy import SelectionPolicy

ARMS = ("clm", "random", "slm")
EMBEDDED = "embedded"
"""The `data_dir` of a recipe that runs on text which is on every machine: sympy's own sources."""
EMBEDDED_FOLDER = "data"
"""Where that text is written, below `out`."""

_MOST_EVALUATIONS = 10_000


@dataclass(frozen=True)
class ModelSection:
    """A model to start from: pretrained weights or a fresh, randomly initialised configuration."""

    name: str | None = None
    """Local folder or Hub id."""
    fresh: Mapping[str, Any] | None = None
    """Arguments of a transformers configuration, `model_type` included; the tokenizer gives `vocab_size`."""
    revision: str = "main"
    """The Hub revision."""
    dtype: typing.Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the master weights. Anything below float32 loses small updates and is warned about."""
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Off unless you trust its author."""

    def __post_init__(self) -> None:
        require((self.name is None) != (self.fresh is None), "give exactly one of name and fresh")
        require_booleans(self.fresh or {})


@dataclass(frozen=True)
class ContextSection:
    """The context every loss is computed under: student, reference and evaluation alike."""

    length: int = 1024
    """Window length T in tokens; a window has T-1 targets."""
    document_mask: bool = True
    """Attention stays inside a document. `false` packs plainly, as the paper most likely did."""

    def __post_init__(self) -> None:
        require(self.length >= 2, f"length must be at least 2, not {self.length}")


@dataclass(frozen=True)
class ReferenceSection:
    """The reference model: trained here on clean text, or a folder that already holds one."""

    sources: tuple[Source, ...] = ()
    """The clean text."""
    existing: str | None = None
    """A finished reference model (folder or Hub id); nothing is trained."""
    on_corpus: bool = False
    """Self-reference: train it on the corpus itself, where there is no clean text (the paper's appendix H)."""
    name: str = "reference"
    """Folder under `out`; several references of one corpus live side by side, like several scores."""
    model: ModelSection | None = None
    """Where the reference starts. Default: the recipe's `model`."""
    epochs: float | None = None
    """Passes over the clean text."""
    tokens: int | None = None
    """Or a budget in tokens seen."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """transformers.TrainingArguments."""

    def __post_init__(self) -> None:
        require_booleans(self.trainer)
        require_folder_name(self.name)
        if self.existing is not None:
            require(not self.sources and not self.on_corpus, "existing excludes sources and on_corpus")
            return
        require(not (self.sources and self.on_corpus), "sources and on_corpus exclude each other")
        require(
            len(self.sources) > 0 or self.on_corpus,
            "name the clean text under sources, or an existing reference model (or set on_corpus: true)",
        )
        require((self.epochs is None) != (self.tokens is None), "give exactly one of epochs and tokens")
        if self.tokens is not None:
            require_tokens(self.tokens)
        require(
            self.epochs is None or (self.epochs > 0 and math.isfinite(self.epochs)),
            f"epochs must be above 0 and finite, not {self.epochs}",
        )


@dataclass(frozen=True)
class ScoreSection:
    """The pass of the reference over the corpus."""

    name: str = "reference"
    """Folder under scores/; several scores of one corpus live side by side."""
    entropy: bool = False
    """Also store the entropy of the reference's next-token distribution."""
    correct: bool = False
    """Also store whether the reference's likeliest token is the right one (1 or 0)."""
    online: bool = False
    """No store: the reference runs beside the student and scores each batch as it comes."""
    carry_over: bool = False
    """The reference has a tokenizer of its own: its losses are carried over to the corpus's tokens by the characters
    they stand for."""
    batch_size: int = 8
    """Windows per forward pass, in tokens: documents of like length share a batch of batch_size * context.length."""
    dtype: typing.Literal["float32", "bfloat16"] = "float32"
    """Autocast type of the forward pass; losses are float32 either way."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size must be at least 1")
        require(not (self.online and self.carry_over), "online and carry_over exclude each other: store the scores")
        require(
            not (self.carry_over and (self.entropy or self.correct)),
            "carry_over carries losses only: remove entropy and correct",
        )
        require_folder_name(self.name)


@dataclass(frozen=True)
class TrainSection:
    """The arms: one model each, at equal tokens, initialisation, data order and evaluation."""

    tokens: int
    """Tokens seen by each arm."""
    selection: SelectionPolicy = field(default_factory=SelectionPolicy)
    """What `slm` selects; `random` shares its ratio, scope, alpha, warm-up and schedule, `clm` trains on everything."""
    arms: tuple[str, ...] = ARMS
    """Which of clm, random, slm to train."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """transformers.TrainingArguments."""
    save_at: tuple[int, ...] = ()
    """Tokens seen at which each arm's model is saved as it is then, in `models/ARM/saved/TOKENS`; 0 is the start."""

    def __post_init__(self) -> None:
        require_tokens(self.tokens)
        require(list(self.save_at) == sorted(set(self.save_at)), f"save_at must increase: {list(self.save_at)}")
        for tokens in self.save_at:
            require(0 <= tokens <= self.tokens, f"save_at: {tokens} is not between 0 and tokens ({self.tokens})")
        require_booleans(self.trainer)
        require(len(self.arms) > 0, "arms is empty: name at least one")
        require(len(set(self.arms)) == len(self.arms), f"arms names one twice: {', '.join(self.arms)}; keep one")
        require(self.selection.seed == 0, "selection.seed is decided by the recipe's seed: remove it")
        for score in self.selection.scores:
            require(
                score not in ("history_loss", "mask"),
                f"selection.score {score!r} reads a column that no stage writes; use make_selective in your own loop",
            )
        for arm in self.arms:
            require(arm in ARMS, f"unknown arm {arm!r}; the arms are {', '.join(ARMS)}")


@dataclass(frozen=True)
class EvaluationSection:
    """Held-out target text."""

    targets: tuple[Source, ...] = ()
    """One or more sets of text; each gets its own loss."""
    general: tuple[Source, ...] = ()
    """Held-out text of other kinds, measured apart: what training on the targets' kind may make a model forget."""
    count: int = 10
    """Evaluations along a training run, the one before the first step not counted."""
    batch_size: int = 8
    """Windows per forward pass."""

    def __post_init__(self) -> None:
        require(1 <= self.count <= _MOST_EVALUATIONS, f"count must be from 1 to {_MOST_EVALUATIONS}, not {self.count}")
        require(self.batch_size >= 1, "batch_size must be at least 1")
        require(not self.general or len(self.targets) > 0, "general text is measured beside targets: name those too")
        names = [target.label for target in self.targets + self.general]
        require(len(set(names)) == len(names), f"two targets share a name: {names}; give each a name")


@dataclass(frozen=True)
class PlanSection:
    """Sizes that only `tokensieve plan` reads, before any text is tokenized; no stage depends on them."""

    corpus_tokens: int | None = None
    """Tokens of the noisy corpus. Tokenizing finds the truth, and `plan` prefers it once it is there."""
    clean_tokens: int | None = None
    """Tokens of the clean text."""

    def __post_init__(self) -> None:
        require(self.corpus_tokens is None or self.corpus_tokens >= 1, "corpus_tokens must be at least 1")
        require(self.clean_tokens is None or self.clean_tokens >= 1, "clean_tokens must be at least 1")


@dataclass(frozen=True)
class Recipe:
    """Everything a run is made of."""

    out: str
    """Folder for everything the run writes."""
    model: ModelSection
    """The student."""
    corpus: CorpusSection
    reference: ReferenceSection
    train: TrainSection
    data_dir: str | None = None
    """What `{data_dir}` stands for in paths. `embedded`: a small corpus that every installation has (sympy's sources),
    written to `out`/data."""
    storage: str | None = None
    """A folder that fsspec can reach (s3://bucket/run): token and score shards are also written there, and fetched from
    there when `out` does not have them."""
    seed: int = 0
    """Seeds initialisation, data order and random selection; from 0 to 2**32 - 1."""
    tokenizer: TokenizerSection = field(default_factory=TokenizerSection)
    context: ContextSection = field(default_factory=ContextSection)
    score: ScoreSection = field(default_factory=ScoreSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    tasks: tuple[TaskSection, ...] = ()
    """What `compare` measures besides losses: accuracies."""
    compare: CompareSection = field(default_factory=CompareSection)
    """What `tokensieve compare` trains; no other command reads it."""
    dynamics: DynamicsSection = field(default_factory=DynamicsSection)
    """What `tokensieve dynamics` measures; training reads `hold_out` alone."""
    plan: PlanSection = field(default_factory=PlanSection)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed must be from 0 to 2**32 - 1, not {self.seed}")
        require(
            self.score.entropy or "reference_entropy" not in self.train.selection.scores,
            "train.selection reads reference_entropy, which is stored only with score.entropy: true; set it",
        )
        require(
            self.dynamics.name != self.reference.name, f"dynamics.name and reference.name are both {self.dynamics.name}"
        )
        for arm in self.dynamics.arms or ():
            require(
                arm in self.train.arms, f"dynamics.arms: {arm} is not among train.arms: {', '.join(self.train.arms)}"
            )
        labels = [task.label for task in self.tasks]
        require(len(set(labels)) == len(labels), f"two tasks share a name: {labels}; give each a name")
        require(
            self.corpus.existing is None or self.tokenizer.train_vocab is None,
            "corpus.existing has its tokenizer: give tokenizer.name, not train_vocab",
        )
        require(
            self.model.name is not None or self.tokenizer.name is not None or self.tokenizer.train_vocab is not None,
            "a fresh model has no tokenizer: give tokenizer.name"
            + (" or tokenizer.train_vocab" if self.corpus.existing is None else ", the one that made corpus.existing"),
        )

    @property
    def tokenizer_code_trusted(self) -> bool:
        """Whether the tokenizer may run Python code of its own; the model's may, if it is the model's."""
        own = self.tokenizer.name is None and self.model.trust_remote_code
        return self.tokenizer.trust_remote_code or own

    @property
    def folder(self) -> Path:
        """`out` as a path."""
        return Path(self.out)

    @property
    def reference_folder(self) -> Path:
        """Where the reference and its manifest lie."""
        return self.folder / self.reference.name

    @property
    def clean_store(self) -> str:
        """The token store that the reference is trained on."""
        return "corpus" if self.reference.on_corpus else "clean"

    @property
    def corpus_folder(self) -> Path:
        """Where the corpus's token store lies."""
        return self.folder / "corpus" if self.corpus.existing is None else Path(self.corpus.existing).expanduser()
