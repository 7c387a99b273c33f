"""Task accuracies: what lm-eval says of an item is what the model's own logits say, and nothing else is touched."""

import importlib.util
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tokensieve import SelectionPolicy, make_selective
from tokensieve.errors import UserError
from tokensieve.evaluation import harness
from tokensieve.evaluation.task_items import extract, same_answer
from tokensieve.evaluation.tasks import check_tasks, evaluate_tasks
from tokensieve.recipe import TaskSection

WORDS = ["the cat", "a dog", "noise", "tokens that are worth learning", "mat", "return a + b"]
Write = Callable[[str, Sequence[Any]], Path]


@pytest.fixture
def tokenizer(bpe_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(bpe_folder)


@pytest.fixture(scope="module")
def make_model() -> Callable[..., PreTrainedModel]:
    def make(seed: int = 0, context: int = 512) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = AutoConfig.for_model(
                "llama",
                vocab_size=330,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=context,
                attention_dropout=0.1,
                initializer_range=0.5,
                tie_word_embeddings=True,
                use_cache=False,
                bos_token_id=None,
                eos_token_id=0,
            )
            return AutoModelForCausalLM.from_config(config).train()

    return make


@pytest.fixture
def model(make_model: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return make_model()


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {"question": f"What is number {i}?", "choices": draw.sample(WORDS, 4), "answer": draw.randrange(4)}
        for i in range(count)
    ]


def likelihoods(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, choices: Sequence[str]
) -> np.ndarray:
    """Log-likelihood of each choice, one forward each and no library between."""
    model.eval()
    sums = []
    for choice in choices:
        start = len(tokenizer.encode(prompt))
        ids = torch.tensor([tokenizer.encode(f"{prompt} {choice}")])
        with torch.no_grad():
            logs = model(ids).logits[0].double().log_softmax(-1)
        sums.append(sum(float(logs[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
    return np.array(sums)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_a_choice_counts_if_the_model_finds_it_likeliest(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, write_jsonl: Write, metric: str
) -> None:
    items = questions(12)
    for i, item in enumerate(items):
        sums = likelihoods(model, tokenizer, f"Question: {item['question']}\nAnswer:", item["choices"])
        lengths = [len(choice) if metric == "acc_norm" else 1 for choice in item["choices"]]
        best = int(np.argmax(sums / lengths))
        item["answer"] = best if i % 3 else (best + 1) % 4
    section = TaskSection(path=str(write_jsonl("quiz.jsonl", items)), kind="multiple_choice", metric=metric)
    result = evaluate_tasks([section], model, tokenizer, batch_size=5)["quiz"]
    assert result["items"] == [int(i % 3 > 0) for i in range(12)]
    assert result["ids"] == [str(i) for i in range(12)]
    assert (result["value"], result["metric"], result["kind"]) == (8 / 12, metric, "multiple_choice")


def test_a_generated_line_must_equal_the_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, write_jsonl: Write
) -> None:
    items = []
    model.eval()
    for i in range(6):
        ids = torch.tensor([tokenizer.encode(f"Say {i}:")])
        generated = model.generate(ids, max_new_tokens=7, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        line = tokenizer.decode(generated, skip_special_tokens=True).split("\n")[0].strip()
        items.append({"n": i, "said": line if i % 2 and line else "something else"})
    assert sum(item["said"] != "something else" for item in items) >= 2
    section = TaskSection(
        path=str(write_jsonl("say.jsonl", items)),
        kind="exact",
        question="n",
        answer="said",
        prompt="Say {{n}}:",
        max_new_tokens=7,
    )
    result = evaluate_tasks([section], model, tokenizer, batch_size=1)["say"]
    assert result["items"] == [int(item["said"] != "something else") for item in items]
    assert (result["metric"], result["kind"]) == ("exact_match", "exact")


@pytest.mark.parametrize(
    ("given", "gold", "same"),
    [
        (" Paris\n", "Paris", True),
        ("paris", "Paris", False),
        ("1,000", "1000", True),
        ("1000.0", "1,000", True),
        ("+7.", "7", True),
        ("-0", "0", True),
        (".5", "0.50", True),
        ("1,00", "100", False),
        ("1000", "100", False),
        ("3 4", "34", False),
        ("", "0", False),
        (".", "0", False),
        ("100000000000000000000000000000000001", "100000000000000000000000000000000000", False),
        (None, "7", False),
    ],
)
def test_answers_are_compared_as_texts_or_as_numbers(given: str | None, gold: str, same: bool) -> None:
    assert same_answer(given, gold) is same


def test_a_pattern_reads_the_last_answer() -> None:
    assert extract("#### (.*)", "#### 3\nno, wait\n#### 4") == "4"
    assert extract("[0-9]+", "from 3 to 12 apples") == "12"
    assert extract("#### (.*)", "nothing") is None
    assert extract(None, " as it is ") == " as it is "


def test_examples_are_solved_never_the_item_itself_and_always_the_same(write_jsonl: Write) -> None:
    path = write_jsonl("quiz.jsonl", questions(9))
    section = TaskSection(path=str(path), kind="multiple_choice", fewshot=3)

    def prompts() -> list[str]:
        samples = harness.run(harness.load_tasks(section), harness.NoModel(None), None)["quiz"]
        return [sample["arguments"][0][0] for sample in samples]

    first = prompts()
    assert first == prompts()
    records = questions(9)
    for record, prompt in zip(records, first, strict=True):
        *shots, last = prompt.split("\n\n")
        assert last == f"Question: {record['question']}\nAnswer:"
        assert len(set(shots)) == 3
        solved = {f"Question: {r['question']}\nAnswer: {r['choices'][r['answer']]}" for r in records if r != record}
        assert set(shots) <= solved
    assert len({tuple(prompt.split("\n\n")[:3]) for prompt in first}) > 1


def test_examples_may_come_from_a_file_of_their_own(write_jsonl: Write) -> None:
    shots = write_jsonl("train.jsonl", [{"question": "one?", "answer": "1 + 1\n#### 1,002"}])
    path = write_jsonl("test.jsonl", [{"question": "two?", "answer": "#### 5"}])
    section = TaskSection(path=str(path), kind="exact", fewshot=1, fewshot_path=str(shots), pattern="#### (.*)")
    sample = harness.run(harness.load_tasks(section), harness.NoModel(None), None)["test"][0]
    prompt, options = sample["arguments"][0]
    assert prompt == "Question: one?\nAnswer: 1 + 1\n#### 1,002\n\nQuestion: two?\nAnswer:"
    assert (options["max_gen_toks"], options["do_sample"], options["until"]) == (256, False, ["\n\n"])


@pytest.mark.parametrize(
    ("answer", "index"),
    [("tea", 1), (" water ", 2), ("A", 0), ("C", 2), (2, 2), ("1", 1), ("7", 3)],
)
def test_the_right_choice_is_named_by_text_letter_or_number(write_jsonl: Write, answer: Any, index: int) -> None:
    record = {"question": "?", "options": {"text": ["milk", "tea", "water", "7"]}, "key": answer}
    section = TaskSection(
        path=str(write_jsonl("drinks.jsonl", [record])),
        kind="multiple_choice",
        choices="{{options.text | tojson}}",
        answer="key",
        prompt="{{question}} {{choices | join('/')}}\n",
    )
    sample = harness.run(harness.load_tasks(section), harness.NoModel(None), None)["drinks"][0]
    assert sample["target"] == index
    assert sample["arguments"][0] == ("? milk/tea/water/7\n", "milk")


def test_the_same_model_gives_the_same_plain_json(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase, write_jsonl: Write
) -> None:
    path = write_jsonl("quiz.jsonl.jsonl", questions(10))
    sections = [
        TaskSection(path=str(path), kind="multiple_choice", fewshot=2, name="shots"),
        TaskSection(path=str(path), kind="multiple_choice", limit=4, name="few"),
    ]
    first = evaluate_tasks(sections, make_model(), tokenizer, batch_size=4)
    torch.manual_seed(77)
    random.seed(77)
    assert evaluate_tasks(sections, make_model(), tokenizer, batch_size=4) == first
    assert json.loads(json.dumps(first)) == first
    assert len(first["few"]["items"]) == 4

    other = evaluate_tasks(sections, make_model(seed=5), tokenizer, batch_size=4)
    assert other["shots"]["items"] != first["shots"]["items"]
    assert [other[name]["digest"] for name in other] == [first[name]["digest"] for name in first]

    changed = questions(10)
    changed[9]["choices"][0] += "!"
    write_jsonl("quiz.jsonl.jsonl", changed)
    again = evaluate_tasks(sections, make_model(), tokenizer, batch_size=4)
    assert again["shots"]["digest"] != first["shots"]["digest"]
    assert again["few"]["digest"] == first["few"]["digest"], "the first four are the same"


def test_everything_is_left_as_it_was(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    write_jsonl: Write,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = make_selective(model, SelectionPolicy(ratio=0.5))
    model.train()
    model.model.layers[1].eval()
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(False)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(99)  # a state that lm-eval would not leave by chance
    own = logging.getLogger("lm_eval")
    monkeypatch.setattr(own, "level", logging.INFO)
    monkeypatch.delenv("HF_XET_HIGH_PERFORMANCE", raising=False)

    def state() -> list[Any]:
        return [
            [module.training for module in model.modules()],
            [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters(remove_duplicate=False)],
            [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(m.__dict__)) for m in model.modules()],
            model.config.to_dict(),
            model.generation_config.to_dict(),
            (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer), tokenizer.init_kwargs.copy()),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            dict(os.environ),
            (
                own.level,
                list(own.handlers),
                own.propagate,
                logging.getLogger().level,
                list(logging.getLogger().handlers),
            ),
        ]

    path = write_jsonl("quiz.jsonl", questions(4))
    sections = [
        TaskSection(path=str(path), kind="multiple_choice", name="choose", fewshot=1),
        TaskSection(path=str(path), kind="exact", name="write", max_new_tokens=3),
    ]
    before = state()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    check_tasks(sections)
    selective = evaluate_tasks(sections, model, tokenizer, batch_size=3)
    for old, new in zip(before, state(), strict=True):
        assert old == new
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())

    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split()[0] for line in err.splitlines() if line.strip()] == ["checking"] * 2 + ["task"] * 2

    ids = torch.arange(1, 13)[None]
    model(input_ids=ids, labels=ids, reference_loss=torch.zeros(1, 12)).loss.backward()
    handle.remove()
    plain = evaluate_tasks(sections, model, tokenizer, batch_size=3)
    assert plain == selective


def test_what_keeps_a_silenced_stream_is_heard_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    from tokensieve.evaluation.undisturbed import undisturbed

    with undisturbed():
        kept = logging.StreamHandler()
        print("hidden")
        kept.stream.write("hidden")
    kept.stream.write("heard")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "heard")


def test_an_error_leaves_everything_as_it_was_too(model: PreTrainedModel) -> None:
    from tokensieve.evaluation.undisturbed import undisturbed

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError), undisturbed(model):
        model.eval()
        torch.rand(3)
        os.environ["LEFT_BEHIND"] = "1"
        raise RuntimeError
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert "LEFT_BEHIND" not in os.environ


# lm-eval's own tasks


@pytest.fixture
def task_folder(tmp_path: Path, write_jsonl: Write) -> Iterator[Path]:
    """lm-eval task files over local data: two of choices and their group, one generated, one that does not work."""
    folder = tmp_path / "yaml"
    folder.mkdir()

    def write(name: str, **config: Any) -> None:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))

    for leaf, count in (("animals", 5), ("plants", 3)):
        data = write_jsonl(f"{leaf}.jsonl", questions(count, seed=count))
        write(
            leaf,
            task=leaf,
            dataset_path="json",
            dataset_kwargs={"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
            test_split="test",
            output_type="multiple_choice",
            doc_to_text="{{question}}",
            doc_to_choice="choices",
            doc_to_target="answer",
        )
    write("living", group="living", task=["animals", "plants"])
    sums = write_jsonl("sums.jsonl", [{"q": "1 + 1 =", "a": "2"}, {"q": "2 + 2 =", "a": "4"}])
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(sums)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "doc_to_text": "q",
        "doc_to_target": "a",
    }
    filters = [
        {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
        for name, pattern in (("strict", "#([0-9]+)"), ("loose", "([0-9]+)"))
    ]
    write("sums", task="sums", output_type="generate_until", num_fewshot=0, filter_list=filters, **common)
    write("text", task="text", output_type="loglikelihood_rolling", **common)
    write("typo", task="typo", output_type="multiple_choice", **{**common, "doc_to_choice": "{{chioces}}"})
    yield folder
    harness._manager.cache_clear()


def test_a_task_of_lm_eval_over_local_data(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task_folder: Path
) -> None:
    expected = []
    for item in questions(5, seed=5):
        sums = likelihoods(model, tokenizer, item["question"], item["choices"])
        expected.append(int(np.argmax(sums) == item["answer"]))
    section = TaskSection(task="animals", include_path=str(task_folder))
    check_tasks([section])
    result = evaluate_tasks([section], model, tokenizer, batch_size=2)["animals"]
    assert result["items"] == expected
    assert (result["metric"], result["kind"], result["ids"]) == ("acc", "multiple_choice", list("01234"))


def test_a_group_counts_item_by_item_and_names_the_task_of_each(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task_folder: Path
) -> None:
    sections = [
        TaskSection(task=name, include_path=str(task_folder), limit=4, fewshot=1)
        for name in ("living", "animals", "plants")
    ]
    check_tasks(sections)
    group, animals, plants = evaluate_tasks(sections, model, tokenizer, batch_size=2).values()
    assert group["ids"] == [f"animals/{i}" for i in range(4)] + [f"plants/{i}" for i in range(3)]
    assert group["items"] == animals["items"] + plants["items"]
    assert group["value"] == sum(group["items"]) / 7


def test_the_metric_may_be_chosen_as_lm_eval_writes_it(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.HFLM, "generate_until", lambda self, requests: ["it is 2", "#4"])
    sections = [
        TaskSection(task="sums", include_path=str(task_folder), name=name, metric=metric, max_new_tokens=5)
        for name, metric in (("default", None), ("loose", "exact_match,loose"), ("plain", "exact_match"))
    ]
    check_tasks(sections, context=6)
    results = evaluate_tasks(sections, model, tokenizer, batch_size=2)
    assert [result["metric"] for result in results.values()] == [
        "exact_match,strict",
        "exact_match,loose",
        "exact_match,strict",
    ]
    assert [result["items"] for result in results.values()] == [[0, 1], [1, 1], [0, 1]]
    assert results["plain"]["kind"] == "generate_until"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "animal"}, "has no task 'animal'; its tasks: animals, living, plants, sums, text, typo"),
        ({"task": "sums", "fewshot": 2}, "sums: is defined with 0 examples .* remove fewshot"),
        ({"task": "animals", "max_new_tokens": 9}, "animals: generates no text; remove max_new_tokens"),
        ({"task": "animals", "metric": "bleu"}, "has no metric 'bleu'; set metric to one of: acc"),
        ({"task": "animals", "fewshot": 40}, "animals: cannot be prepared .*Sample larger than population"),
        ({"task": "text"}, "text: has no accuracy; it gives no number for each item"),
        ({"task": "typo"}, "typo: cannot be prepared .*chioces"),
        ({"task": "sums"}, "sums: generating 256 tokens leaves no room .* context of 100; set max_new_tokens"),
    ],
)
def test_a_task_that_cannot_be_measured_is_found_first(
    task_folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_tasks([TaskSection(include_path=str(task_folder), **settings)], context=100)
    assert "\n" not in str(caught.value)


def test_code_that_a_model_writes_is_not_run_nor_what_would_run_it(task_folder: Path) -> None:
    config = yaml.safe_load((task_folder / "sums.yaml").read_text())
    text = yaml.safe_dump({**config, "task": "coding", "unsafe_code": True})
    (task_folder / "coding.yaml").write_text(text + "process_results: !function sandbox.grade\n")
    (task_folder / "sandbox.py").write_text("raise SystemExit('loaded')\n")
    with pytest.raises(UserError, match="coding: runs code that the model writes"):
        check_tasks([TaskSection(task="coding", include_path=str(task_folder))])
    # A group does not say it of its members: they are loaded before it is seen.
    (task_folder / "sandbox.py").write_text("def grade(doc, results): ...\n")
    (task_folder / "all.yaml").write_text("group: all\ntask: [coding]\n")
    harness._manager.cache_clear()
    with pytest.raises(UserError, match="all: coding: runs code that the model writes"):
        check_tasks([TaskSection(task="all", include_path=str(task_folder))])


def test_data_that_cannot_be_downloaded(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = {**yaml.safe_load((task_folder / "animals.yaml").read_text()), "task": "far", "dataset_path": "no/where"}
    (task_folder / "far.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="far: cannot be prepared .*no/where.* must be downloaded once"):
        check_tasks([TaskSection(task="far", include_path=str(task_folder))])


def test_an_unknown_name_is_answered_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    # A part of lm-eval's own tasks: to read them all takes seconds.
    monkeypatch.setattr(
        "lm_eval.tasks._index.TaskIndex._iter_yaml_files", lambda root: sorted((root / "gsm8k").glob("*.yaml"))
    )
    harness._manager.cache_clear()
    try:
        with pytest.raises(UserError, match="lm-eval has no task 'gsm8kk'; did you mean gsm8k, "):
            check_tasks([TaskSection(task="gsm8kk")])
    finally:
        harness._manager.cache_clear()


# what can be wrong before any model is there


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        ("multiple_choice", '{"question": "?", "choices": ["a", "b"]', "line 2: not valid JSON"),
        ("multiple_choice", "[1]", "line 2: a JSON list, not an object"),
        ("multiple_choice", '{"qestion": "?"}', "line 2: no field 'question'; did you mean 'qestion'"),
        ("multiple_choice", '{"question": "?", "options": ["a", "b"]}', "line 2: no field 'choices'.*`choices`"),
        ("multiple_choice", '{"question": "?", "choices": "a b", "answer": 0}', "line 2: .*'a b', not a list"),
        ("multiple_choice", '{"question": "?", "choices": ["a"], "answer": 0}', "line 2: .* not a list of two"),
        ("multiple_choice", '{"question": "?", "choices": ["a", ""], "answer": 0}', "line 2: .* the choice ''"),
        ("multiple_choice", '{"question": "?", "choices": ["a", "b"], "answer": 2}', "line 2: the answer 2 is none"),
        ("multiple_choice", '{"question": "?", "choices": ["a", "b"], "answer": true}', "answer True is none"),
        ("multiple_choice", '{"question": "?", "choices": ["a", "b"], "answer": -1}', "answer -1 is none of the 2"),
        ("multiple_choice", '{"question": "?", "choices": ["a", "a"], "answer": "a"}', "the text of several choices"),
        ("multiple_choice", '{"question": 7.5, "choices": ["a", "b"], "answer": null}', "answer None is none"),
        ("multiple_choice", '{"question": ["?"], "choices": ["a", "b"], "answer": 0}', r"question is \['\?'\], not a"),
        ("exact", '{"question": " ", "answer": "a"}', "line 2: the question is empty"),
        ("exact", '{"question": "?", "answer": ""}', "line 2: the answer '' is empty"),
    ],
)
def test_a_malformed_item_is_named_by_file_and_line(tmp_path: Path, kind: Any, line: str, message: str) -> None:
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"question": "?", "choices": ["a", "b"], "answer": "B"}\n' + line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        check_tasks([TaskSection(path=str(path), kind=kind)])
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "{{question}} {{hint}}"}, "line 1: the task's `prompt` .*'hint' is undefined.*question, choices"),
        ({"answer": "{{answer.upper(1)}}"}, "line 1: the task's `answer`"),
        ({"answer": "{{answer.__class__.__mro__}}"}, "line 1: the task's `answer` .*unsafe"),
        ({"choices": "{{choices}}", "kind": "multiple_choice"}, "not a JSON list; end the template with `| tojson`"),
        ({"pattern": "#### (.*)"}, "the answer 'B' has no match of pattern"),
        ({"fewshot": 1}, "fewshot is 1, but .* has 0 items to draw from"),
        ({"fewshot": 3, "fewshot_path": "{self}"}, "has 1 items to draw from"),
    ],
)
def test_a_template_that_does_not_fit(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"question": "?", "choices": ["a", "b"], "answer": "B"}\n')
    settings = {key: str(path) if value == "{self}" else value for key, value in settings.items()}
    with pytest.raises(UserError, match=message):
        check_tasks([TaskSection(**{"path": str(path), "kind": "exact", **settings})])


def test_files_that_are_not_there_or_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.jsonl: no such file"):
        check_tasks([TaskSection(path=str(tmp_path / "absent.jsonl"), kind="exact")])
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="empty.jsonl: holds no items"):
        check_tasks([TaskSection(path=str(tmp_path / "empty.jsonl"), kind="exact")])
    with pytest.raises(UserError, match="include_path .*absent: no such folder"):
        check_tasks([TaskSection(task="a", include_path=str(tmp_path / "absent"))])


def test_two_tasks_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two are called 'arc_easy'"):
        check_tasks([TaskSection(task="arc_easy"), TaskSection(task="arc_easy", fewshot=5)])


def test_without_lm_eval_the_cure_is_named(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (check_tasks, lambda tasks: evaluate_tasks(tasks, model, tokenizer, batch_size=1)):
        with pytest.raises(UserError, match=r'pip install "tokensieve\[eval\]"'):
            call([TaskSection(task="arc_easy")])
        call([])


def test_prompts_that_do_not_fit_are_counted_and_answers_that_do_not_are_refused(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase, write_jsonl: Write
) -> None:
    small = make_model(context=24)
    items = [{"question": q, "choices": ["a", "b"], "answer": 0} for q in ("short?", "long and longer " * 9, "so?")]
    path = str(write_jsonl("quiz.jsonl", items))
    choose = TaskSection(path=path, kind="multiple_choice", prompt="{{question}}", name="choose")
    write = TaskSection(path=path, kind="exact", prompt="{{question}}", max_new_tokens=4, name="write")
    result = evaluate_tasks([choose, write], small, tokenizer, batch_size=2)
    assert [result[name]["truncated"] for name in ("choose", "write")] == [1, 1]

    with pytest.raises(UserError, match="generating 24 tokens leaves no room .* context of 24; set max_new_tokens"):
        evaluate_tasks([TaskSection(path=path, kind="exact", max_new_tokens=24)], small, tokenizer, batch_size=2)
    items[1]["choices"] = ["a", "ünlikely wörds " * 9]
    write_jsonl("quiz.jsonl", items)
    with pytest.raises(UserError, match="the answer ' ünlikely .* tokens, which the model with its context of 24"):
        evaluate_tasks([choose], small, tokenizer, batch_size=2)
    assert small.training
