"""A run on several machines that share nothing but a URL: each folder here plays a machine.

The commands are the user's. Whatever is split up, killed, cut off or damaged, the stores and models are those of a
run on one machine, or one line says what is wrong.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokensieve import cli
from tokensieve.corpus import run_stores

s3fs = pytest.importorskip("s3fs", reason="s3:// needs s3fs: pip install 'tokensieve[s3]'")

WORDS = ["sum", "prove", "let", "angle", "def", "return", "mail", "menu", "home", "click", "seven", "line", "point"]
STORES = ("corpus", "clean", "targets/held-out")
SHARDS = 9
"""Of the corpus."""

Command = Callable[..., tuple[int, str, str]]
Environment = Callable[[], contextlib.AbstractContextManager[None]]


def _text(seed: int, count: int) -> str:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [word for word in draw.choices(WORDS, k=20) for _ in range(2)]
        rows.append(json.dumps({"text": " ".join(words)}) + "\n")
    return "".join(rows)


def _recipe(text: str, out: Path, storage: str | None, **more: Any) -> dict[str, Any]:
    trainer = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "save_steps": 4, "use_cpu": True}
    model = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
    return {
        "out": str(out),
        **({} if storage is None else {"storage": storage}),
        "corpus": {"sources": [{"path": f"{text}/noisy.jsonl"}], "shard_tokens": 600},
        "tokenizer": {"train_vocab": 300},
        "context": {"length": 32},
        "model": {"fresh": {**model, **heads}},
        "reference": {"sources": [{"path": f"{text}/clean.jsonl"}], "epochs": 1, "trainer": dict(trainer)},
        "score": {"entropy": True},
        "train": {"tokens": 3 * 2 * 32, "trainer": dict(trainer), "selection": {"ratio": 0.5}, "arms": ["slm"]},
        "evaluation": {"targets": [{"path": f"{text}/target.jsonl", "name": "held-out"}], "count": 2},
        **more,
    }


def _command(name: str, recipe: dict[str, Any] | None, *more: str) -> int:
    """Run a command in this process."""
    arguments = [name]
    if recipe is not None:
        out = Path(recipe["out"])
        path = out.parent / f"{out.name}.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        arguments.append(str(path))
    before, sys.argv = sys.argv, ["tokensieve", *arguments, *more]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command: (command, recipe, *more) -> (exit code, stdout, stderr)."""

    def call(name: str, recipe: dict[str, Any] | None, *more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = _command(name, recipe, *more)
        output = capfd.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture(scope="module")
def environment(server: Any, aws_settings: dict[str, str]) -> Environment:
    """The environment of an S3 user, for fixtures that live longer than a test."""

    @contextlib.contextmanager
    def use() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (aws_settings | {"AWS_ENDPOINT_URL": server.url}).items():
                patch.setenv(name, value)
            yield

    return use


@pytest.fixture(scope="module")
def world(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`alone`: a run without storage; `A`: a machine that has tokenized and trained the reference, with storage."""
    folder = tmp_path_factory.mktemp("world")
    text = folder / "text"
    text.mkdir()
    for seed, (name, count) in enumerate((("noisy", 80), ("clean", 20), ("target", 8))):
        (text / f"{name}.jsonl").write_text(_text(seed, count))
    with environment():
        s3fs.S3FileSystem().mkdir("template")
        alone = _recipe(str(text), folder / "alone", None)
        for stage in ("tokenize", "reference", "score", "train"):
            assert _command(stage, alone) == 0
        first = _recipe(str(text), folder / "A", "s3://template/run")
        for stage in ("tokenize", "reference"):
            assert _command(stage, first) == 0
        text.rename(folder / "text-of-A")  # no other machine has the text
    return folder


@pytest.fixture
def storage(world: Path, s3: Any, bucket: str) -> str:
    """A copy of what A has stored, of this test's own."""
    s3.copy("template/run", f"{bucket}/run", recursive=True)
    return f"s3://{bucket}/run"


@pytest.fixture(scope="module")
def scored(world: Path, environment: Environment) -> Path:
    """The machine `B`, which has nothing but the storage, has scored; what is stored then is in the bucket `scored`."""
    with environment():
        s3 = s3fs.S3FileSystem()
        s3.mkdir("scored")
        s3.copy("template/run", "scored/run", recursive=True)
        recipe = _recipe(str(world / "text"), world / "B", "s3://scored/run")
        assert _command("score", recipe) == 0
        assert _command("score", recipe) == 0  # again: nothing to do
    return world / "B"


@pytest.fixture
def scored_storage(scored: Path, s3: Any, bucket: str) -> str:
    """A copy of what is stored after scoring, of this test's own."""
    s3.copy("scored/run", f"{bucket}/run", recursive=True)
    return f"s3://{bucket}/run"


@pytest.fixture
def machine(world: Path, bucket: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A new, empty machine's recipe: (name, more) -> recipe. It has no text."""

    def make(name: str, **more: Any) -> dict[str, Any]:
        return _recipe(str(world / "text"), tmp_path / name, f"s3://{bucket}/run", **more)

    return make


def _files(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a folder holds; manifests without their times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ("corpus.json", "scores.json"):
            manifest = json.loads(path.read_text())
            found[path.name] = {key: value for key, value in manifest.items() if key not in ("seconds", "checksum")}
        elif path.is_file() and path.suffix not in but:
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def _stored(s3: Any, storage: str, name: str) -> dict[str, Any]:
    """What a store behind the URL holds, with the names that its files have on a disk."""
    place = f"{storage.removeprefix('s3://')}/{name}"
    found: dict[str, Any] = {}
    for path in s3.find(place):
        parts = path.rsplit("/", 1)[-1].split(".")
        if parts[-1] == "json":
            manifest = json.loads(s3.cat_file(path))
            found[parts[0] + ".json"] = {key: manifest[key] for key in manifest if key not in ("seconds", "checksum")}
        else:
            file = ".".join(part for part in parts if len(part) != 32)
            assert file not in found, f"two of {file}"
            found[file] = s3.cat_file(path)
    return found


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    different = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    assert not different and found, different


def _one_line(output: tuple[int, str, str], *parts: str) -> None:
    code, _, errors = output
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in errors, errors
    for part in parts:
        assert part in lines[0], lines[0]


def _fork(name: str, recipe: dict[str, Any], before: Callable[[], None] = lambda: None) -> int:
    """Run a command in a process of its own, whose output goes to OUT.log."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path(f"{recipe['out']}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout, sys.stderr = log, log
            try:
                before()
                code = _command(name, recipe)
            except BaseException:
                traceback.print_exc(file=log)
    finally:
        os._exit(code)  # nothing of pytest's own may run here


def _end(child: int, seconds: float = 60) -> int:
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _die_before_storing(shard: int) -> Callable[[], None]:
    """SIGKILL this process when it has finished so many shards and is about to store one more."""

    def arm() -> None:
        store, left = run_stores.StoreMirror.push_shard, [shard]

        def push(*arguments: Any, **more: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return store(*arguments, **more)

        run_stores.StoreMirror.push_shard = push  # type: ignore[method-assign]

    return arm


def test_what_one_machine_stores_is_what_it_holds(world: Path, storage: str, s3: Any) -> None:
    for name in STORES:
        _same(_stored(s3, storage, name), _files(world / "alone" / name))
    assert not [path for path in s3.find(storage) if "checkpoint-" in path]


def test_another_machine_scores_without_the_text(world: Path, scored: Path, s3: Any) -> None:
    _same(_files(scored / "scores/reference"), _files(world / "alone/scores/reference"))
    _same(_stored(s3, "s3://scored/run", "scores/reference"), _files(world / "alone/scores/reference"))
    _same(_files(scored / "corpus"), _files(world / "alone/corpus"))
    assert not (scored / "clean").exists() and not (scored / "targets").exists()  # nobody asked for them


def test_two_machines_share_the_work(world: Path, storage: str, machine: Any, s3: Any) -> None:
    recipes = [machine("B 1"), machine("B2 ä")]
    ended = [_end(child) for child in [_fork("score", recipe) for recipe in recipes]]
    assert ended == [0, 0], [_log(recipe) for recipe in recipes]
    wanted = _files(world / "alone/scores/reference")
    _same(_stored(s3, storage, "scores/reference"), wanted)
    own = [_files(Path(recipe["out"]) / "scores/reference") for recipe in recipes]
    # Each did a part; what it holds of the other's is what the sample needed.
    assert all(files[name] == wanted[name] for files in own for name in files)
    entropies = [{name for name in files if name.endswith(".entropy.f16")} for files in own]
    assert all(entropies) and entropies[0] | entropies[1] == {name for name in wanted if name.endswith(".entropy.f16")}
    assert all({name for name in wanted if name.endswith(".xxh3")} <= set(files) for files in own)


def test_two_processes_of_a_machine_share_its_folder(world: Path, storage: str, machine: Any, s3: Any) -> None:
    recipe = machine("B")
    assert [_end(child) for child in [_fork("score", recipe) for _ in range(2)]] == [0, 0], _log(recipe)
    wanted = _files(world / "alone/scores/reference")
    _same(_stored(s3, storage, "scores/reference"), wanted)
    _same(_files(Path(recipe["out"]) / "scores/reference"), wanted)
    assert not list((Path(recipe["out"]) / "scores/reference").glob(".*"))


def _log(recipe: dict[str, Any]) -> str:
    return Path(f"{recipe['out']}.log").read_text()


def test_another_machine_finishes_what_a_killed_one_began(
    world: Path, storage: str, machine: Any, command: Command, s3: Any
) -> None:
    killed, other = machine("killed"), machine("other")
    assert _end(_fork("score", killed, _die_before_storing(3))) == -signal.SIGKILL
    stored = [path for path in s3.find(f"{storage}/scores/reference") if path.endswith(".xxh3")]
    assert len(stored) == 3
    assert len(list((Path(killed["out"]) / "scores/reference").glob("*.xxh3"))) == 4  # each was stored when it was done
    assert not json.loads(s3.cat_file(f"{storage}/scores/reference/scores.json"))["finished"]
    assert command("score", other)[0] == 0
    wanted = _files(world / "alone/scores/reference")
    _same(_stored(s3, storage, "scores/reference"), wanted)
    # The killed one holds a shard that it never stored; it sees that all is done.
    assert command("score", killed)[0] == 0
    assert not list((Path(killed["out"]) / "scores/reference").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("finished", [False, True])
def test_a_shard_that_was_not_stored_gives_way_to_the_one_that_is(
    storage: str, machine: Any, command: Command, s3: Any, finished: bool
) -> None:
    """A machine dies with a shard that it has not stored, and another of other hardware does it with other bits."""
    killed, other = machine("killed"), machine("other")
    scores = Path(killed["out"]) / "scores/reference"
    assert _end(_fork("score", killed, _die_before_storing(0))) == -signal.SIGKILL
    mine = (scores / "00000.loss.f16").read_bytes()

    def other_hardware() -> None:
        _other_bits()
        if not finished:
            _die_before_storing(1)()

    assert _end(_fork("score", other, other_hardware)) == (0 if finished else -signal.SIGKILL)
    code, _, errors = command("score", killed)
    assert code == 0, errors
    assert command("inspect", None, str(scores))[0] == 0  # reads every byte
    assert command("verify", None, str(scores))[0] == 0
    assert (scores / "00000.loss.f16").read_bytes() != mine
    third = machine("third")
    assert command("score", third)[0] == 0
    code, output, _ = command("inspect", None, str(Path(third["out"]) / "scores/reference"), "--json")
    assert code == 0 and json.loads(output)["shards_elsewhere"] == 0


def _other_bits() -> None:
    """Losses of this process differ in their last bits, as those of other hardware may."""
    from tokensieve.reference import scoring

    commit = scoring.commit_shard

    def other(folder: Path, name: str, files: dict[str, Any]) -> None:
        losses = files[".loss.f16"].copy()
        bits = losses[::16].view("u2")
        bits[bits < 0x7C00] ^= 1
        commit(folder, name, {**files, ".loss.f16": losses})

    scoring.commit_shard = other  # type: ignore[assignment]


def test_training_fetches_the_shards_that_it_touches(
    world: Path, scored_storage: str, machine: Any, command: Command
) -> None:
    recipe = machine("C")
    out = Path(recipe["out"])
    code, _, errors = command("train", recipe)
    assert code == 0, errors
    for name in ("model.safetensors", "config.json"):
        assert (out / "models/slm" / name).read_bytes() == (world / "alone/models/slm" / name).read_bytes()
    touched = {path.stem for path in (out / "corpus").glob("*.ds")}
    assert 0 < len(touched) <= 6 < SHARDS  # six windows in all
    assert {path.name.split(".")[0] for path in (out / "scores/reference").glob("*.f16")} == touched
    assert not list((out / "scores/reference").glob("*.entropy.f16"))  # the policy reads losses alone

    # What verify and inspect say of such a machine.
    tokens, scores = str(out / "corpus"), str(out / "scores/reference")
    code, output, _ = command("verify", None, tokens, scores)
    assert code == 0
    for store, count in ((tokens, SHARDS - len(touched)), (scores, SHARDS)):  # of the scores no entropy is here
        assert f"{store}: sound; {count} of {SHARDS} shards are not all here but in the run's `storage`" in output
    assert {path.stem for path in (out / "corpus").glob("*.ds")} == touched  # verify fetches nothing
    code, output, _ = command("inspect", None, tokens)
    assert code == 0 and f"{SHARDS - len(touched)} of {SHARDS} shards are not all" in " ".join(output.split())
    data = out / "corpus" / f"{min(touched)}.ds"
    data.write_bytes(b"\x01\x01" + data.read_bytes()[2:])
    code, output, _ = command("verify", None, tokens)
    assert code == 2 and str(data) in output and "damaged" in output
    data.unlink()
    code, output, errors = command("inspect", None, scores, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["shards_elsewhere"] == 0 and found["scored"] > 4000  # it read all of them
    assert command("verify", None, scores)[1].strip() == f"{scores}: sound"


SUFFIXES = {"corpus": ".ds", "scores": ".loss.f16", "reference": "/model.safetensors", "tokenizer": "/tokenizer.json"}


@pytest.mark.parametrize("name", ["corpus/00003.", "scores/reference/00003.", "reference/", "tokenizer/"])
def test_a_damaged_object_is_refused_by_name(
    scored_storage: str, machine: Any, command: Command, s3: Any, name: str
) -> None:
    kind = name.split("/")[0]
    stored = s3.find(scored_storage)
    place = next(path for path in stored if f"/run/{name}" in path and path.endswith(SUFFIXES[kind]))
    data = bytearray(s3.cat_file(place))
    data[len(data) // 2] ^= 1
    s3.pipe_file(place, bytes(data))
    recipe = machine("D")
    if kind in ("corpus", "scores"):
        assert command("score", recipe)[0] == 0  # finished: nothing of it is read
        output = command("inspect", None, str(Path(recipe["out"]) / "scores/reference"))
        if kind == "corpus":
            (Path(recipe["out"]) / "corpus/00003.ds").unlink(missing_ok=True)
            output = command("score", {**recipe, "score": {"name": "again"}})
    else:
        output = command("score", recipe)
    _one_line(output, f"s3://{place}", "damaged")
    files = [path.name for path in Path(recipe["out"]).rglob("*")]
    assert f"{name.split('/')[-1]}{SUFFIXES[kind].strip('./')}" not in files
    assert not [file for file in files if file.endswith((".part", ".tmp"))]


def test_a_storage_of_another_recipe_is_never_touched(
    world: Path, scored_storage: str, machine: Any, command: Command, s3: Any
) -> None:
    text = world / "text-of-A"
    before = {path: s3.cat_file(path) for path in s3.find(scored_storage)}
    # Scores of another context, on a machine that has nothing.
    _one_line(command("score", machine("E", context={"length": 16})), "context.length", "32", "16", "score.name")
    # Another tokenizer, made before the storage was named; and one that is made now.
    other = _recipe(str(text), Path(machine("F")["out"]), None, tokenizer={"train_vocab": 280})
    assert command("tokenize", other)[0] == 0
    _one_line(command("tokenize", {**other, "storage": scored_storage}), scored_storage, "another recipe", "280", "300")
    new = {**other, "storage": scored_storage, "out": machine("G")["out"]}
    _one_line(command("tokenize", new), "another recipe", "280", "300")
    # The same tokenizer, another corpus.
    smaller = {**_recipe(str(world / "text"), Path(machine("H")["out"]), scored_storage)}
    smaller["corpus"] = {**smaller["corpus"], "shard_tokens": 500}
    text.rename(world / "text")
    try:
        _one_line(command("tokenize", smaller), "another recipe", "shard_tokens", "500", "600")
    finally:
        (world / "text").rename(text)
    assert {path: s3.cat_file(path) for path in s3.find(scored_storage)} == before


def test_text_behind_a_url(world: Path, machine: Any, bucket: str, command: Command, s3: Any) -> None:
    s3.put(f"{world}/text-of-A/", f"{bucket}/text/", recursive=True)
    recipe = _recipe(f"s3://{bucket}/text", Path(machine("T")["out"]), f"s3://{bucket}/text/run")
    folder = {**recipe, "corpus": {"sources": [{"path": f"s3://{bucket}/text"}]}}
    _one_line(command("tokenize", folder), f"s3://{bucket}/text/run", "inside the source")
    assert not Path(recipe["out"]).exists() and not s3.exists(f"{bucket}/text/run")
    code, _, errors = command("tokenize", recipe)
    assert code == 0, errors
    for name in STORES:
        for found in (_files(Path(recipe["out"]) / name), _stored(s3, f"s3://{bucket}/text/run", name)):
            wanted = _files(world / "alone" / name)
            for files in (found, wanted):
                files.pop("corpus.json")  # names the sources
            _same(found, wanted)


def test_a_server_that_is_down(
    world: Path,
    machine: Any,
    command: Command,
    aws: Callable[[str], None],
    server: Any,
    wire: Any,
    s3: Any,
    bucket: str,
) -> None:
    """The server goes away before and in the middle of a stage; the same command continues when it is back."""
    s3.copy("template/run", f"{bucket}/run", recursive=True)
    recipe = machine("B")
    aws("http://127.0.0.1:9")
    _one_line(command("score", recipe), f"s3://{bucket}/run/", "run again")
    assert not _files(Path(recipe["out"]))
    aws(wire.url)
    gone: list[int] = []

    def count(*arguments: Any, **more: Any) -> Any:
        gone.append(1)
        if len(gone) == 3:
            wire.cut(10**6, 0)
        return push(*arguments, **more)

    push = run_stores.StoreMirror.push_shard
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_stores.StoreMirror, "push_shard", count)
        _one_line(command("score", recipe), f"s3://{bucket}/run/scores/reference/", "run again")
    assert not [path for path in Path(recipe["out"]).rglob("*") if path.name.endswith((".part", ".tmp"))]
    assert len(list((Path(recipe["out"]) / "scores/reference").glob("*.xxh3"))) == 3
    wire.cut(0, 0)
    aws(server.url)
    assert command("score", recipe)[0] == 0
    _same(_stored(s3, f"s3://{bucket}/run", "scores/reference"), _files(world / "alone/scores/reference"))


def test_a_manifest_that_is_replaced_while_it_is_read_comes_whole(
    bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine looks at the manifest at the moment in which another one finishes the store."""
    mirror = run_stores.Mirror(f"s3://{bucket}/run")
    s3.pipe_file(f"{bucket}/run/scores.json", b"old")
    look = run_stores.Mirror.size

    def then_replace(*arguments: Any) -> Any:
        found = look(*arguments)
        s3.pipe_file(f"{bucket}/run/scores.json", b"new and longer")
        return found

    monkeypatch.setattr(run_stores.Mirror, "size", then_replace)
    assert mirror.read("scores.json") == b"new and longer"
