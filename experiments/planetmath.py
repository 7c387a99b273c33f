"""Data for two experiments with a small model: PlanetMath and StackMathQA toward GSM8K and MATH.

    python experiments/planetmath.py DATA OUT
    tokensieve run     experiments/planetmath-general.yaml   data_dir=OUT    # the start of the continual experiment
    tokensieve compare experiments/planetmath-continual.yaml data_dir=OUT
    tokensieve compare experiments/planetmath-scratch.yaml   data_dir=OUT

DATA holds gzipped JSON lines: `corpora/` (planetmath_tex, stackmathqa), `clean/` (gsm8k_train, math_train), `eval/`
(gsm8k, math: their test splits) and `eval/general/` (boolq, tydiqa_goldp; hellaswag_val_full.txt.bz2). Written are
samples that two cores can train on, and one tokenizer for all of it.

General English, for the model that is then trained on, is what BoolQ, HellaSwag and TyDi QA (English) are asked about:
passages of Wikipedia, captions of videos and how-to articles, without the questions. So none of the three may be a
task for these models. A twenty-fifth of it is held out, to measure what mathematics makes the model forget.

A test document is dropped if it, its problem, or any of its paragraphs of eight words or more also stands in text that
something is trained on; the same holds for the general text held out.
"""

import argparse
import bz2
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from json_lines import read_json_lines, write_json_lines
from rich.console import Console

from tokensieve.corpus.embedded import repeated_in
from tokensieve.corpus.tokenizers import train_bpe
from tokensieve.errors import UserError
from tokensieve.stage import Stage

VOCABULARY = 4096
PLANETMATH_EVERY = 16
"""Entries are 3.7 kB on average: this leaves 2 MB of TeX."""
STACKMATHQA_EVERY = 3
GSM8K_EVERY = 8
MATH_EVERY = 40
HELD_OUT_EVERY = 25
_HELLASWAG_LINES = 6  # context, number of the right ending, four endings

Record = dict[str, Any]
console = Console(highlight=False)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    try:
        counts = write_experiment(given.data, given.out)
    except UserError as error:
        sys.exit(f"error: {error}")
    for name, size in counts.items():
        dropped = f", {size['dropped']} dropped" if "dropped" in size else ""
        console.print(f"{name}: {size['documents']:,} documents, {size['characters']:,} characters{dropped}")


def write_experiment(data: Path, out: Path) -> dict[str, Any]:
    """Write the sets, the tokenizer and `planetmath.json` into `out`.

    Returns:
        What `planetmath.json` holds: for each set `documents`, `characters` and, where it is held out, `dropped`.

    Raises:
        UserError: a file of `data` is missing or damaged, or `out` holds something else.
    """
    stage = Stage(out, "planetmath.json", {"data": str(data.resolve())})
    if not stage.finished:
        with stage.running():
            stage.finish(**_make(data, out))
    return stage.outputs


def _make(data: Path, out: Path) -> dict[str, Any]:
    with console.status("reading"):
        general = list(_general(data / "eval" / "general"))
        sets = {
            "planetmath": [
                {"text": record["text"], "regions": [[*record["body"], "body"]]}
                for record in _every(data / "corpora" / "planetmath_tex.jsonl.gz", PLANETMATH_EVERY)
            ],
            "stackmathqa": [
                {"text": record["text"]}
                for record in _every(data / "corpora" / "stackmathqa.jsonl.gz", STACKMATHQA_EVERY)
            ],
            "gsm8k-train": _problems(data / "clean" / "gsm8k_train.jsonl.gz", "question", "answer"),
            "math-train": _problems(data / "clean" / "math_train.jsonl.gz", "problem", "solution"),
            "general": [record for i, record in enumerate(general) if i % HELD_OUT_EVERY],
        }
    held_out = {
        "gsm8k": _problems(data / "eval" / "gsm8k.jsonl.gz", "question", "answer", GSM8K_EVERY),
        "math": _problems(data / "eval" / "math.jsonl.gz", "problem", "solution", MATH_EVERY),
        "general-held-out": general[::HELD_OUT_EVERY],
    }
    counts: dict[str, Any] = {}
    with console.status("looking for held-out text among the training text"):
        trained_on = [record["text"] for records in sets.values() for record in records]
        for name, records in held_out.items():
            # The problem by itself is a paragraph too: another solution does not make it another problem.
            found = repeated_in([record.pop("apart", record["text"]) for record in records], trained_on)
            sets[name] = [record for i, record in enumerate(records) if i not in found]
            counts[name] = {"dropped": len(found)}
    with console.status("training the tokenizer"):
        tokenizer = train_bpe(trained_on, VOCABULARY)
        tokenizer.save_pretrained(out / "tokenizer")
    for name, records in sets.items():
        for record in records:
            record.pop("apart", None)
        write_json_lines(out / f"{name}.jsonl", records)
        size = {"documents": len(records), "characters": sum(len(record["text"]) for record in records)}
        counts[name] = size | counts.get(name, {})
    return counts


def _every(path: Path, step: int) -> Iterator[Record]:
    return (record for i, record in enumerate(read_json_lines(path)) if i % step == 0)


def _problems(path: Path, problem: str, solution: str, step: int = 1) -> list[Record]:
    """Text of problem and solution; `apart` has them as two paragraphs."""
    return [
        {"text": f"{record[problem]}\n{record[solution]}", "apart": f"{record[problem]}\n\n{record[solution]}"}
        for record in _every(path, step)
    ]


def _general(folder: Path) -> Iterator[Record]:
    """Passages, each once, with the name of the set they come from."""
    readers: dict[str, Callable[[Path], Iterable[str]]] = {
        "boolq.jsonl.gz": _boolq,
        "tydiqa_goldp.jsonl.gz": _tydiqa,
        "hellaswag_val_full.txt.bz2": _hellaswag,
    }
    seen: set[str] = set()
    for name, read in readers.items():
        for text in read(folder / name):
            if text and text not in seen:
                seen.add(text)
                yield {"text": text, "source": name.partition(".")[0]}


def _boolq(path: Path) -> Iterator[str]:
    for record in read_json_lines(path):
        yield record["query"].removeprefix("Passage: ").partition("\nQuestion:")[0].strip()


def _tydiqa(path: Path) -> Iterator[str]:
    return (record["context"].strip() for record in read_json_lines(path) if record["language"] == "english")


def _hellaswag(path: Path) -> Iterator[str]:
    try:
        with bz2.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot read ({error}); see its folder's README") from error
    for start in range(0, len(lines) - _HELLASWAG_LINES + 1, _HELLASWAG_LINES):
        context, right, *endings = lines[start : start + _HELLASWAG_LINES]
        yield f"{context} {endings[int(right)]}".strip()


if __name__ == "__main__":
    main()
