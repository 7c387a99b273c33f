"""`tokensieve view` as it is typed: pages of runs, stores and texts, the terminal, and mistakes that are one line."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run(recipe: dict[str, Any], tokensieve) -> Path:
    recipe["train"] |= {"save_at": [0], "arms": ["clm", "slm"]}
    code, _, error = tokensieve("run", recipe)
    assert code == 0, error
    return Path(recipe["out"])


def data(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def test_pages_of_everything_that_can_be_opened(run, tokensieve, tmp_path):
    page, text = tmp_path / "page.html", tmp_path / "text.txt"
    text.write_text("sum sum prove prove\nlet let <b>line</b>\n", encoding="utf-8")
    model, reference = str(run / "models" / "slm"), str(run / "reference")
    for arguments, passages, students in (
        ([str(tmp_path / "recipe.yaml"), "--passages", "7"], 7, 1),
        ([str(run), "--on", "targets/held-out", "--student", "clm", "--student", "slm/saved/0"], None, 2),
        ([str(run / "scores" / "reference"), "--passages", "5"], 5, 0),
        ([str(run / "scores" / "reference"), "--student", model], None, 1),
        (["--text", str(text), "--student", model, "--reference", reference], 1, 1),
        ([str(run), "--text", str(text)], 1, 1),
    ):
        code, printed, error = tokensieve("view", None, *arguments, "--out", str(page))
        assert code == 0, error
        found = data(page)
        assert sum(item["kind"] == "student" for item in found["models"]) == students
        assert passages is None or len(found["passages"]) == passages
        assert str(page) in printed and f"{len(found['passages']):,} passage" in printed
    assert "".join(passage["text"] for passage in found["passages"]) == text.read_text()
    # Two students are compared at once; one is not.
    assert tokensieve("view", None, str(run), "--student", "clm", "--student", "slm", "--out", str(page))[0] == 0
    assert data(page)["compare"] is True
    assert tokensieve("view", None, str(run), "--student", "clm", "--out", str(page))[0] == 0
    assert data(page)["compare"] is False and data(page)["colour"] is None
    # A long text is cut to what was asked for, and the page says so.
    text.write_text("sum prove let " * 200, encoding="utf-8")
    assert tokensieve("view", None, str(run), "--text", str(text), "--passages", "4", "--out", str(page))[0] == 0
    assert len(data(page)["passages"]) == 4 and any("first 4 windows" in note for note in data(page)["notes"])
    # The name of a file may be no text.
    odd = tmp_path / os.fsdecode(b"odd\xff.txt")
    odd.write_text("sum prove let", encoding="utf-8")
    assert tokensieve("view", None, str(run), "--text", str(odd), "--out", str(page))[0] == 0
    assert data(page)["sources"] == [odd.name]
    # A short passage of a document begins where the document does.
    assert tokensieve("view", None, str(run), "--document", "3", "--length", "4", "--out", str(page))[0] == 0
    assert "document 3," in data(page)["passages"][0]["place"]
    code, _, error = tokensieve(
        "view", None, str(run), "--ratio", "0.25", "--score", "current_loss", "--out", str(page)
    )
    assert code == 0, error
    assert (data(page)["ratio"], data(page)["score"]) == (0.25, "current_loss")


def test_the_terminal_writes_no_page(run, tokensieve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, error = tokensieve("view", None, str(run), "--terminal", "--passages", "2")
    assert code == 0, error
    assert "kept" in printed and not (tmp_path / "view.html").exists()


MISTAKES: list[tuple[list[str], str]] = [
    ([], "nothing to look at"),
    (["nowhere"], "no such file or folder"),
    (["train.seed=1", "--text", "x"], "before its changes"),
    (["RUN", "--on", "nothing"], "no text 'nothing'"),
    (["RUN", "--score", "history_loss"], "history_loss"),
    (["RUN", "--ratio", "2"], "ratio must be"),
    (["RUN", "--find", "qqqq"], "qqqq"),
    (["RUN", "--student", "nobody"], "nobody"),
    (["--text", "nowhere.txt"], "nowhere.txt"),
    (["RUN", "--out", "no/such/folder/page.html"], "no/such/folder"),
    (["RUN", "--out", "."], "is a folder"),
    (["RUN", "--student", "clm", "slm"], "repeat --student"),
    (["RUN", "--student", "slmm"], "did you mean 'slm'"),
    (["RUN/models/slm"], "is a model"),
]


def test_mistakes_are_one_line(run, tokensieve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, expected in MISTAKES:
        code, _, error = tokensieve("view", None, *(argument.replace("RUN", str(run)) for argument in arguments))
        assert code == 2, arguments
        last = error.strip().splitlines()[-1]
        assert last.startswith("error: ") and expected in last and "Traceback" not in error
