"""Reading a recipe: every mistake is one line that names file and place; what is written is read back."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.errors import UserError
from tokensieve.recipe import Recipe, Source, build, dump, load_recipe, save_recipe, suggest

MINIMAL: dict[str, Any] = {
    "out": "run",
    "model": {"name": "some/model"},
    "corpus": {"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}]},
    "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 1},
    "train": {"tokens": 1000, "trainer": {"learning_rate": 1e-4}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(path, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_minimal_recipe_gets_defaults(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.train.selection.ratio == 0.6
    assert recipe.train.arms == ("clm", "random", "slm")
    assert recipe.corpus.sources[1].path == "b.jsonl"
    assert recipe.context.length == 1024


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sede=1", "{file}: unknown key 'sede'; did you mean 'seed'?"),
        ("train.token=5", "{file}: train: unknown key 'token'; did you mean 'tokens'?"),
        (
            "train.selection.ration=0.5",
            "{file}: train: selection: unknown key 'ration'; did you mean 'ratio'?",
        ),
        ("corpus.sources.1.feild=x", "{file}: corpus: sources.1: unknown key 'feild'; did you mean 'field'?"),
        ("context.zzzz=1", "{file}: context: unknown key 'zzzz'; known: length, document_mask"),
        ("train.selection.ratio=0", "{file}: train: selection: ratio must be in (0, 1], not 0.0"),
        ("train.selection.ratio=-0.1", "{file}: train: selection: ratio must be in (0, 1], not -0.1"),
        ("train.selection.ratio=1.0001", "{file}: train: selection: ratio must be in (0, 1], not 1.0001"),
        ("train.selection.ratio=.nan", "{file}: train: selection: ratio must be in (0, 1], not nan"),
        ("train.selection.ratio=half", "{file}: train: selection: ratio: expected float, found 'half'"),
        ("seed=1.5", "{file}: seed: expected int, found 1.5"),
        ("seed=true", "{file}: seed: expected int, found True"),
        ("seed=-1", "{file}: seed must be from 0 to 2**32 - 1, not -1"),
        ("seed=4294967296", "{file}: seed must be from 0 to 2**32 - 1, not 4294967296"),
        ("out=", "{file}: out is missing"),
        ("corpus=", "{file}: corpus is missing"),
        ("corpus.sources=", "{file}: corpus: sources is empty: name at least one"),
        ("context.document_mask=1", "{file}: context: document_mask: expected bool, found 1; write true or false"),
        ("score.entropy=yes", "{file}: score: entropy: expected bool, found 'yes'; write true or false"),
        ("train.trainer.use_cpu=no", "{file}: train: use_cpu is the text 'no'; write true or false"),
        ("reference.trainer.bf16=On", "{file}: reference: bf16 is the text 'On'; write true or false"),
        (
            "model={fresh: {tie_word_embeddings: yes}}",
            "{file}: model: tie_word_embeddings is the text 'yes'; write true or false",
        ),
        ("out=3", "{file}: out: expected str, found 3"),
        ("train.arms=slm", "{file}: train: arms: expected a list, found 'slm'"),
        ("train.arms=[slm, sml]", "{file}: train: unknown arm 'sml'; the arms are clm, random, slm"),
        ("train.arms=[]", "{file}: train: arms is empty: name at least one"),
        ("train.trainer=5", "{file}: train: trainer: expected a mapping, found 5"),
        ("train=5", "{file}: train: expected a mapping, found 5"),
        ("model.dtype=float8", "{file}: model: dtype: 'float8' is not one of float32, bfloat16, float16"),
        ("model.fresh={}", "{file}: model: give exactly one of name and fresh"),
        ("corpus.sources=[]", "{file}: corpus: sources is empty: name at least one"),
        ("corpus.sources.0.weight=3", "{file}: corpus: give weight to every source or to none"),
        ("corpus.sources.0.hub=a/b", "{file}: corpus: sources.0: give exactly one of path and hub"),
        ("reference.tokens=5", "{file}: reference: give exactly one of epochs and tokens"),
        ("plan.corpus_tokens=0", "{file}: plan: corpus_tokens must be at least 1"),
        ("reference.epochs=.inf", "{file}: reference: epochs must be above 0 and finite, not inf"),
        ("reference.epochs=.nan", "{file}: reference: epochs must be above 0 and finite, not nan"),
        (
            "reference.epochs=1" + 400 * "0",
            "{file}: reference: epochs: expected float, found a whole number above 1.8e+308",
        ),
        (
            "reference={sources: [{path: a}], tokens: 2e15}",
            "{file}: reference: tokens must be from 1 to 1e+15, not 2" + 15 * "0",
        ),
        ("train.tokens=2e15", "{file}: train: tokens must be from 1 to 1e+15, not 2" + 15 * "0"),
        ("evaluation.count=10001", "{file}: evaluation: count must be from 1 to 10000, not 10001"),
        ("train.arms=[slm, clm, slm]", "{file}: train: arms names one twice: slm, clm, slm; keep one"),
        (
            "corpus.sources.0.weight=.inf",
            "{file}: corpus: sources.0: weight must be above 0 and finite, not inf",
        ),
        (
            "train.selection.score=reference_entropy",
            "{file}: train.selection reads reference_entropy, which is stored only with score.entropy: true; set it",
        ),
        (
            "train.selection={score: union, parts: [{score: reference_entropy, ratio: 1}, {score: random, ratio: 1}]}",
            "{file}: train.selection reads reference_entropy, which is stored only with score.entropy: true; set it",
        ),
    ],
)
def test_mistakes_name_file_place_and_cure(file: Path, override: str, expected: str) -> None:
    assert message(file, override) == expected.format(file=file)


@pytest.mark.parametrize("missing", ["out", "model", "corpus", "reference", "train"])
def test_missing_sections_are_named(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != missing}))
    assert message(path) == f"{path}: {missing} is missing"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "override 'seed': write key.sub=value"),
        ("=1", "override '=1': write key.sub=value"),
        ("seed=[1", "override 'seed=[1': not valid YAML: while parsing"),
        ("train.trainer={a: 1, a: 2}", "line 1: key 'a' is there already in line 1; keep one"),
        (
            "corpus.sources.².path=x",
            "override 'corpus.sources.².path=x': '²' is not an item number from 0 to 1",
        ),
        (
            "corpus.sources.2.path=x",
            "override 'corpus.sources.2.path=x': '2' is not an item number from 0 to 1",
        ),
        ("corpus.sources.x=1", "override 'corpus.sources.x=1': 'x' is not an item number from 0 to 1"),
        ("out.a=1", "override 'out.a=1': out holds 'run', which has no a"),
    ],
)
def test_wrong_overrides_are_named(file: Path, override: str, expected: str) -> None:
    assert message(file, override).startswith("override ") and expected in message(file, override)


@pytest.mark.parametrize("name", ["..", "a/b", "a[1]", ".hidden", "-x", "a b", "''"])
@pytest.mark.parametrize(("key", "place"), [("score.name", "score"), ("corpus.sources.0.name", "corpus: sources.0")])
def test_names_that_become_folders_are_plain(file: Path, key: str, place: str, name: str) -> None:
    expected = f"{file}: {place}: name {name if name[0] == chr(39) else repr(name)} is not a folder name: use letters"
    assert message(file, f"{key}={name}").startswith(expected)


def test_plain_names_are_accepted(file: Path) -> None:
    recipe = load_recipe(file, ["score.name=_ünï-1.5", "corpus.sources.0.name=7b"])
    assert (recipe.score.name, recipe.corpus.sources[0].name) == ("_ünï-1.5", "7b")


def test_a_strategy_may_be_no(file: Path) -> None:
    assert load_recipe(file, ["train.trainer.save_strategy=no"]).train.trainer["save_strategy"] == "no"


def test_what_is_left_empty_gets_its_default(file: Path) -> None:
    recipe = load_recipe(
        file, ["seed=", "evaluation=", "train.trainer=null", "train.selection.ratio=~", "model.fresh="]
    )
    assert recipe.seed == 0 and recipe.evaluation.count == 10
    assert recipe.train.trainer == {} and recipe.train.selection.ratio == 0.6
    assert recipe.model.fresh is None


def test_overrides_reach_lists_mappings_and_new_sections(file: Path) -> None:
    recipe = load_recipe(
        file,
        [
            "corpus.sources.1.path=c.jsonl",
            "train.trainer.weight_decay=0.1",
            "train.selection.score=intersection",
            "train.selection.parts=[{score: reference_loss, ratio: 0.7}, {score: random, ratio: 1}]",
            "tokenizer.name=other",
            "train.tokens=2e3",
            "out=a=b",
        ],
    )
    assert recipe.corpus.sources[1].path == "c.jsonl"
    assert recipe.train.trainer == {"learning_rate": 1e-4, "weight_decay": 0.1}
    assert [part.ratio for part in recipe.train.selection.parts] == [0.7, 1.0]
    assert recipe.tokenizer.name == "other"
    assert recipe.train.tokens == 2000 and isinstance(recipe.train.tokens, int)
    assert recipe.out == "a=b"


def test_an_override_changes_one_use_of_an_alias_only(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    shared = yaml.safe_dump({key: value for key, value in MINIMAL.items() if key not in ("reference", "train")})
    path.write_text(
        f"{shared}reference:\n  sources: [path: c.jsonl]\n  epochs: 1\n  trainer: &t {{learning_rate: 1e-4}}\n"
        "train:\n  tokens: 5\n  trainer: *t\n"
    )
    recipe = load_recipe(path, ["train.trainer.learning_rate=5"])
    assert recipe.train.trainer == {"learning_rate": 5} and recipe.reference.trainer == {"learning_rate": 1e-4}


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "1_0e-5", "+1e-4"])
def test_scientific_notation_is_a_number(file: Path, text: str) -> None:
    rate = load_recipe(file, [f"train.trainer.learning_rate={text}"]).train.trainer["learning_rate"]
    assert rate == pytest.approx(1e-4) and isinstance(rate, float)


@pytest.mark.parametrize("text", ["1e", "e5", "1e-4x", "v1e-4", "2024-01-01a"])
def test_what_only_looks_like_a_number_stays_text(file: Path, text: str) -> None:
    assert load_recipe(file, [f"out={text}"]).out == text


def test_data_dir_is_filled_in_everywhere_but_templates(file: Path) -> None:
    recipe = load_recipe(
        file,
        [
            "data_dir=/data",
            "out={data_dir}/run".replace("{", "'{").replace("run", "run'"),
            "corpus.sources.0.path='{data_dir}/a/*.jsonl'",
            "model.name='{data_dir}/model'",
            "corpus.sources.1.template='{data_dir} {text}'",
        ],
    )
    assert recipe.out == "/data/run"
    assert recipe.corpus.sources[0].path == "/data/a/*.jsonl"
    assert recipe.model.name == "/data/model"
    assert recipe.corpus.sources[1].template == "{data_dir} {text}"


def test_data_dir_that_nobody_gave_is_an_error(file: Path) -> None:
    text = message(file, "corpus.sources.0.path='{data_dir}/a.jsonl'")
    assert text == f"{file}: '{{data_dir}}/a.jsonl' needs data_dir; add data_dir=FOLDER to the command"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"out: [", "not valid YAML"),
        (b"- a\n- b\n", "a recipe is a mapping of sections, found list"),
        (b"", "a recipe is a mapping of sections, found NoneType"),
        (b"out: \xff", "the recipe is not UTF-8 (byte 5)"),
        (b"out: \x00", "not valid YAML"),
        (b"out: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_unreadable_recipes_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    text = message(path)
    assert text.startswith(f"{path}: ") and expected in text


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert (
        message(tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: cannot read the recipe (No such file or directory)"
    )
    assert "cannot read the recipe" in message(tmp_path)


def test_suggest() -> None:
    assert suggest("lenght", ["length", "document_mask"]) == "; did you mean 'length'?"
    assert suggest("q", ["length", "document_mask"]) == "; known: length, document_mask"


def test_a_failed_save_leaves_the_old_recipe(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(file)
    target = tmp_path / "saved.yaml"
    target.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_recipe(recipe, target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "saved.yaml"]


# Texts that YAML might read as something else: numbers, booleans, dates, nulls, comments.
texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
        lambda text: "{data_dir}" not in text
    ),
    st.sampled_from(
        [
            "1e-4",
            "1E5",
            "yes",
            "no",
            "Off",
            "on",
            "true",
            "FALSE",
            "null",
            "~",
            "2024-01-01",
            "0x10",
            "1_000",
            "# no",
            "a: b",
            "'",
            ".5",
        ]
    ),
    st.from_regex(r"[-+]?[0-9]{1,3}[eE][-+]?[0-9]{1,2}", fullmatch=True),
)
positive = st.floats(min_value=1e-6, max_value=1e6)
counts = st.integers(min_value=1, max_value=10**12)
sources = st.builds(
    lambda place, text, kind, field, template, split: (
        {place: text, "format": kind, "field": field, "split": split}
        | ({"template": template} if template is not None else {})
    ),
    st.sampled_from(["path", "hub"]),
    texts,
    st.sampled_from(["auto", "jsonl", "parquet", "text"]),
    texts,
    st.none() | texts,
    texts,
)
values = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts, st.none())
options = st.dictionaries(texts, values, max_size=3).filter(
    lambda found: not {str(value).lower() for value in found.values()} & {"yes", "no", "on", "off"}
)
recipes = st.fixed_dictionaries(
    {
        "out": texts,
        "model": st.builds(lambda name: {"name": name}, texts) | st.builds(lambda fresh: {"fresh": fresh}, options),
        "tokenizer": st.builds(lambda name: {"name": name}, texts)
        | st.builds(lambda size: {"train_vocab": size}, st.integers(257, 10**6)),
        "corpus": st.builds(lambda items: {"sources": items}, st.lists(sources, min_size=1, max_size=3)),
        "reference": st.builds(
            lambda items, amount: {"sources": items, **amount},
            st.lists(sources, min_size=1, max_size=2),
            st.builds(lambda epochs: {"epochs": epochs}, positive) | st.builds(lambda n: {"tokens": n}, counts),
        ),
        "train": st.fixed_dictionaries(
            {
                "tokens": counts,
                "selection": st.fixed_dictionaries(
                    {
                        "ratio": st.floats(0, 1, exclude_min=True),
                        "scope": st.sampled_from(["global", "microbatch", "sequence"]),
                        "seed": st.just(0),
                    }
                ),
                "arms": st.lists(st.sampled_from(["clm", "random", "slm"]), min_size=1, max_size=3, unique=True),
                "trainer": options,
            }
        ),
        "context": st.fixed_dictionaries({"length": st.integers(2, 10**6), "document_mask": st.booleans()}),
    }
)


@given(recipes)
def test_a_recipe_survives_dump_and_build(data: dict[str, Any]) -> None:
    recipe = build(Recipe, data, "recipe.yaml")
    assert build(Recipe, dump(recipe), "recipe.yaml") == recipe


@given(recipes)
def test_a_recipe_survives_its_file(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    recipe = build(Recipe, data, "recipe.yaml")
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    save_recipe(recipe, path)
    assert load_recipe(path) == recipe


def test_sections_cannot_be_changed() -> None:
    source = Source(path="a.jsonl")
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.path = "b.jsonl"  # type: ignore[misc]


def test_workers_that_end_at_the_same_moment_save_their_recipe_each(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, target, sync = load_recipe(file), tmp_path / "saved.yaml", os.fsync

    def other_first(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        save_recipe(recipe, target)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", other_first)
    save_recipe(recipe, target)
    assert load_recipe(target) == recipe
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "saved.yaml"]


def test_a_recipe_that_is_there_already_is_not_written_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, target = load_recipe(file), tmp_path / "saved.yaml"
    save_recipe(recipe, target)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    save_recipe(recipe, target)
