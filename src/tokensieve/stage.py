"""A stage's folder: a manifest that says what made it, and the rules for finishing and resuming.

Every command writes one folder with one JSON manifest in it. The manifest's `inputs` are the recipe
values the stage depends on; a folder whose inputs differ belongs to another recipe and is never touched.
`finished` turns true in the last, atomic write: running a finished stage again does nothing, running an
interrupted one resumes. After a failure nothing half-written stays, unless it can be resumed.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokensieve.errors import UserError


def is_main_process() -> bool:
    """Whether this process writes: the first rank under torchrun, the only one otherwise."""
    return int(os.environ.get("RANK", "0")) == 0


class Stage:
    """One folder made by one command. Under torchrun every rank opens it and the first one writes.

    Args:
        folder: where the stage writes.
        manifest: the manifest's file name, for example `corpus.json`.
        inputs: plain JSON data that decides the stage's output.

    Raises:
        UserError: the folder belongs to another recipe, or holds files of something else.
    """

    def __init__(self, folder: Path, manifest: str, inputs: Mapping[str, Any]) -> None:
        self.folder = folder
        self.path = folder / manifest
        self.inputs = json.loads(json.dumps(inputs))
        self.outputs: dict[str, Any] = {}
        self.finished = False
        self._earlier_seconds = 0.0
        if self.path.exists():
            found = read_manifest(self.path)
            _refuse_other_recipe(self.path, found["inputs"], self.inputs)
            self.finished = found["finished"]
            self.outputs = found["outputs"]
            self._earlier_seconds = found.get("seconds", 0.0)
        elif is_main_process() and folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder}: holds files but no {manifest}; choose another `out` or remove the folder")

    @contextlib.contextmanager
    def running(self, resumable: str | None = None) -> Iterator[None]:
        """Hold the folder while the stage writes; call `finish` inside.

        If the block raises, the folder is removed, unless `resumable` (a glob in the folder) matches
        something that a second run continues from. If the folder stays, also after an interruption, its
        manifest keeps the seconds spent so far.
        """
        if self.finished:
            raise ValueError(f"{self.path} is finished already")
        self._started = time.monotonic()
        try:
            self._write()
            yield
        except BaseException as error:
            if is_main_process():
                failed = isinstance(error, Exception)
                if failed and (resumable is None or not any(self.folder.glob(resumable))):
                    shutil.rmtree(self.folder, ignore_errors=True)
                elif not self.finished and self.path.exists():
                    # A disk that is full now must not hide what went wrong first.
                    with contextlib.suppress(OSError):
                        self._write()
            raise

    def finish(self, **outputs: Any) -> None:
        """Write the manifest for the last time, with the wall seconds spent inside `running`, in all runs."""
        self.outputs = outputs
        self.finished = True
        self._write()

    def _write(self) -> None:
        if is_main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
            seconds = round(self._earlier_seconds + time.monotonic() - self._started, 3)
            manifest = {"inputs": self.inputs, "finished": self.finished, "seconds": seconds, "outputs": self.outputs}
            write_json(self.path, manifest)


def read_json(path: Path) -> Any:
    """Parse a JSON file of ours.

    Raises:
        UserError: unreadable or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); remove its folder and run the stage again") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Parse a stage's manifest: `inputs`, `finished`, `outputs` and perhaps `seconds`.

    Raises:
        UserError: unreadable or damaged.
    """
    found = read_json(path)
    match found:
        case {"inputs": dict(), "finished": bool(), "outputs": dict()} if isinstance(
            found.get("seconds", 0.0), int | float
        ):
            return found
    raise UserError(
        f"{path}: damaged (not a mapping with inputs, finished and outputs); remove its folder and run the stage again"
    )


def write_json(path: Path, data: Any) -> None:
    """Write a whole JSON file or none: temporary name, fsync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _refuse_other_recipe(path: Path, found: Any, wanted: Any) -> None:
    difference = _first_difference(found, wanted)
    if difference is not None:
        key, there, here = difference
        raise UserError(
            f"{path}: belongs to another recipe ({key} is {there!r} there, {here!r} here); "
            f"choose another `out` or remove {path.parent}"
        )


def _first_difference(found: Any, wanted: Any, key: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys([*wanted, *found]):
            inner = _first_difference(found.get(name), wanted.get(name), f"{key}.{name}".lstrip("."))
            if inner is not None:
                return inner
        return None
    return None if found == wanted else (key or "inputs", found, wanted)
