"""The command line: one line for each mistake, exit codes, names printed as they are."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokensieve
from tokensieve import cli, pipeline
from tokensieve.errors import UserError
from tokensieve.recipe import load_recipe

SUMMARY = {"arms": {}, "reference": None, "seconds": 1.0, "tokens_to_clm": None}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    data = {
        "out": str(tmp_path / "out"),
        "model": {"name": "some/model"},
        "corpus": {"sources": [{"path": str(tmp_path / "text")}]},
        "reference": {"sources": [{"path": str(tmp_path / "clean.jsonl")}], "epochs": 1},
        "train": {"tokens": 1000},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*words: str | Path) -> int:
        monkeypatch.setattr("sys.argv", ["tokensieve", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any) -> None:
        raise error

    return fail


def test_version(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out == f"{tokensieve.__version__}\n"


@pytest.mark.parametrize("stage", ["tokenize", "reference", "score", "train", "run"])
def test_an_interruption_is_said_and_ends_with_130(
    stage: str,
    recipe: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, stage, raising(KeyboardInterrupt()))
    assert command(stage, recipe) == 130
    assert capsys.readouterr().err == "interrupted; the same command continues where it stopped\n"


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG]
)
def test_errors_of_the_file_system_are_one_line(
    code: int,
    recipe: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "tokenize", raising(OSError(code, "what", "place")))
    assert command("tokenize", recipe) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: place: what; ") and error.count("\n") == 1


def test_other_errors_keep_their_traceback(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "tokenize", raising(OSError(errno.EIO, "what")))
    monkeypatch.setattr("sys.argv", ["tokensieve", "tokenize", str(recipe)])
    with pytest.raises(OSError, match="what"):
        cli.main()


@pytest.mark.parametrize("below", ["", "a", "x" * 300])
def test_an_out_that_cannot_be_a_folder(
    below: str, tmp_path: Path, recipe: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / ("file" if len(below) < 2 else "") / below
    assert command("tokenize", recipe, f"out={out}") == 2
    assert capsys.readouterr().err.startswith(f"error: {out}: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_names_with_brackets_are_printed_as_they_are(
    recipe: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "run", lambda recipe, started: SUMMARY)
    assert command("run", recipe, "out=x[/b]y") == 0
    assert "x[/b]y/summary.json and x[/b]y/report.html" in capsys.readouterr().out
    pipeline._say("target [/b]: 5 tokens", style="bold")
    assert "target [/b]: 5 tokens" in capsys.readouterr().out


def test_seconds_begin_with_the_program(
    recipe: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    monkeypatch.setattr(pipeline, "run", lambda recipe, started: begun.append(started) or SUMMARY)
    monkeypatch.setattr(
        "tokensieve.quickstart.quickstart", lambda out, given, started: begun.append(started) or SUMMARY
    )
    before = time.monotonic()
    assert command("run", recipe) == 0 and command("quickstart") == 0
    assert len(begun) == 2 and max(begun) < before


def test_quickstart_takes_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokensieve import quickstart

    monkeypatch.setattr(quickstart, "run", lambda recipe, started: {"out": recipe.out, "started": started})
    for name in ("[a] x[/b]", "5", "a: b", "ünï # c", "yes"):
        assert quickstart.quickstart(Path(name), (), 7.0) == {"out": name, "started": 7.0}


@pytest.mark.parametrize("out", ["text", "text/run", "text/../text/.run", "linked/run"])
@pytest.mark.parametrize("key", ["corpus.sources", "reference.sources", "evaluation.targets"])
def test_out_must_not_be_inside_a_source(tmp_path: Path, recipe: Path, out: str, key: str) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "text")
    changes = [f"out={tmp_path / out}", "corpus.sources=[{path: a.jsonl}]", f"{key}=[{{path: {tmp_path / 'text'}}}]"]
    with pytest.raises(UserError, match="is inside the source .*; choose an `out` elsewhere"):
        pipeline.tokenize(load_recipe(recipe, changes))
    assert not list((tmp_path / "text").iterdir())
